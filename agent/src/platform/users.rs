//! Accounts of this host, as far as a program's user needs them.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub shell: String,
}

/// Why a user cannot be found or become.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("this host has no user {0:?}")]
    Unknown(String),
    #[error("the agent runs as user {own}, not as root, and cannot start programs as {wanted:?}")]
    NotRoot { own: u32, wanted: String },
}

/// Whether the agent itself runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of this name, from the local files, else from whatever else the system's name service knows.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<User, UserError> {
    let unknown = || UserError::Unknown(name.to_owned());
    // A name is never an option or a path to those who are asked for it.
    if name.is_empty() || name.starts_with('-') || name.contains([':', '\n', '/']) {
        return Err(unknown());
    }
    let local = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut user =
        parse(&local, name).or_else(|| parse(&getent(&["passwd", name])?, name)).ok_or_else(unknown)?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    user.groups = groups_of(&groups, &user);
    Ok(user)
}

/// The user that the agent runs as; without an account it still has a number.
pub fn own() -> User {
    let uid = rustix::process::geteuid().as_raw();
    let local = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    local.lines().filter_map(user_of).find(|user| user.uid == uid).unwrap_or_else(|| User {
        name: uid.to_string(),
        uid,
        gid: rustix::process::getegid().as_raw(),
        groups: Vec::new(),
        home: "/".into(),
        shell: "/bin/sh".to_owned(),
    })
}

/// Asks the name service switch, which knows directories that the local files do not.
fn getent(arguments: &[&str]) -> Option<String> {
    let output = Command::new("getent").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().filter_map(user_of).find(|user| user.name == name)
}

/// One line of passwd(5).
fn user_of(line: &str) -> Option<User> {
    let fields: Vec<_> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let shell = if shell.is_empty() { "/bin/sh" } else { shell };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: Vec::new(),
        home: home.into(),
        shell: shell.to_owned(),
    })
}

/// Every group of group(5) that lists the user, and the user's own.
fn groups_of(groups: &str, user: &User) -> Vec<u32> {
    let listed = groups.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { return None };
        members.split(',').any(|member| member == user.name).then(|| gid.parse().ok())?
    });
    let mut all: Vec<u32> = std::iter::once(user.gid).chain(listed).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000:Ada,,,:/home/ada:\nbroken\n";
    const GROUP: &str = "root:x:0:\nada:x:1000:\nsudo:x:27:ada,bob\nadm:x:4:bob\n";

    #[test]
    fn a_user_comes_with_their_groups_and_a_shell() {
        let mut ada = parse(PASSWD, "ada").unwrap();
        ada.groups = groups_of(GROUP, &ada);
        assert_eq!((ada.uid, ada.gid, ada.shell.as_str()), (1000, 1000, "/bin/sh"));
        assert_eq!(ada.groups, [27, 1000]);
    }

    #[test]
    fn names_that_are_no_names_are_unknown() {
        for name in ["", "-x", "a:b", "../root", "no-such-user-here"] {
            assert_eq!(find(name), Err(UserError::Unknown(name.to_owned())), "{name}");
        }
    }
}
