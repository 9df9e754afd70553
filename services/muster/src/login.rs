//! `muster login`: an operator's link becomes a context; and the renewal of its certificate, on the way to other work.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use muster_auth::join::{self, JoinError, Joined, Key};
use muster_kit::{clock, crash, tls};
use muster_types::{EnrollmentLink, Role};

use crate::cli::{Login, Output};
use crate::context;
use crate::credentials::Credentials;
use crate::exit::{Exit, Failure};
use crate::render::json;

/// A link is short; more than this on stdin is something else.
const LINK_BYTES: u64 = 4096;
/// Of the link's hash in the name of the file that keeps its key: tells links of one master apart.
const KEY_FILE_BYTES: usize = 4;
/// Renewal is work on the side: the command that was typed should not wait for it.
const RENEWAL_LIMIT: Duration = Duration::from_secs(5);

pub async fn run(output: Output, login: Login) -> Result<Exit, Failure> {
    let text = if login.link == "-" { read_link()? } else { login.link };
    let link: EnrollmentLink = text.parse().map_err(|error| {
        Failure::usage("this is no enrollment link", error)
            .next("have one made: muster link create --role operator; and put it in quotes")
    })?;
    let name = login.name.unwrap_or_else(|| default_name(&link.address));
    if name.is_empty() || name.contains(['/', '\\']) {
        return Err(Failure::usage(format!("{name:?} cannot be a context's name"), "it names a file"));
    }
    let path = context::context_file(&name)?;
    let key = key_file(&path, &link);
    let (credentials, who) = enroll(&link, &key).await?;
    crash::point("login.answered");
    credentials.save(&path).map_err(|error| {
        Failure::internal("the master let you in, but the answer could not be kept", error)
            .next("mend that, and log in again with the same link")
    })?;
    // Left behind it would be no harm: it is the context's own key.
    let _ = std::fs::remove_file(key);
    match output {
        Output::Table => eprintln!("You are {who} of {}, context {name}. Try: muster nodes", link.address),
        Output::Json => json::print("Login", [("context", name.into()), ("name", who.into())]),
    }
    Ok(Exit::Ok)
}

fn read_link() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(LINK_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::usage("cannot read the link from stdin", error))?;
    Ok(text)
}

fn default_name(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect()
}

/// Where the key waits for the answer, beside the context. A lost answer is repeated to the same key only.
fn key_file(context: &Path, link: &EnrollmentLink) -> PathBuf {
    let token = HEXLOWER.encode(&link.token.hash()[..KEY_FILE_BYTES]);
    context.with_extension(format!("{token}.key"))
}

async fn enroll(link: &EnrollmentLink, key: &Path) -> Result<(Credentials, String), Failure> {
    let key = Key::kept(key).map_err(|error| Failure::internal("cannot keep a key", error))?;
    let Joined { material, name, mut addresses, discovery_domain } =
        join::enroll(link, &key).await.map_err(|error| match error {
            JoinError::Refused(status) => Failure::of_call("cannot log in", &status, &link.address),
            other => Failure::internal("cannot log in", other),
        })?;
    if !Role::READERS.iter().any(|role| name.starts_with(&format!("{}/", role.collection()))) {
        return Err(Failure::usage("this link is for no person and no CMDB", format!("it made you {name}"))
            .next("muster link create --role operator; for a device: muster-agent enroll LINK"));
    }
    // The link's own address worked; what the master calls itself may not resolve here.
    if !addresses.contains(&link.address) {
        addresses.push(link.address.clone());
    }
    Ok((Credentials { addresses, discovery_domain, material }, name))
}

/// Renews a context's certificate from one third of its life on. A failure costs nothing now: there are two thirds left.
pub async fn renew_if_due(path: &Path, credentials: &mut Credentials) {
    let due = credentials
        .material
        .chain
        .first()
        .and_then(|leaf| tls::validity(leaf).ok())
        .is_some_and(|(from, until)| clock::wall() >= from + until.since(from) / 3);
    if !due {
        return;
    }
    let Credentials { addresses, discovery_domain, material } = &*credentials;
    let renewal = join::renew(material, addresses, discovery_domain);
    match tokio::time::timeout(RENEWAL_LIMIT, renewal).await {
        Ok(Ok(renewed)) => {
            credentials.renewed(renewed);
            if let Err(error) = credentials.save(path) {
                eprintln!("warning: the renewed certificate could not be kept: {error}");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "renewal was put off"),
        Err(_) => tracing::debug!("renewal was put off: no answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_called_after_its_masters_host() {
        assert_eq!(default_name("master.example.org:27431"), "master.example.org");
        assert_eq!(default_name("[2001:db8::1]:1"), "-2001-db8--1-");
    }
}
