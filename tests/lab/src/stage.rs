//! The way in: the calling program starts itself again as root of its own user, PID, mount and network namespaces.
//! The copy holds a leash, a pipe from the original: when that closes, however the original died, everything ends.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Names the stage's directory to the copy that runs inside.
const STAGE: &str = "MUSTER_LAB_STAGE";

/// Directories of running labs are called so, under the system's temporary directory.
pub(crate) const DIRECTORY_PREFIX: &str = "muster-lab-";

/// Holds the process id of `unshare`, whose only child is the lab.
pub(crate) const PARENT_FILE: &str = "parent.pid";

/// util-linux's unshare: own namespaces, the copy as PID 1, so that the kernel ends every process with it.
const UNSHARE: [&str; 11] = [
    "--user",
    "--map-root-user",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount",
    "--mount-proc",
    "--uts",
    "--ipc",
    "--propagation=private",
];

/// Exit code of a lab whose leash was cut.
const LEASH_CUT: i32 = 137;

/// The directory of the stage we stand on, if this process is the copy inside.
pub fn entered() -> Option<PathBuf> {
    let directory = std::env::var_os(STAGE)?;
    (std::process::id() == 1).then(|| PathBuf::from(directory))
}

/// A lab of our own, seen from outside. Dropping it ends the lab.
pub struct Stage {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Stage {
    /// Starts this program again inside, with `arguments`.
    pub fn enter(arguments: &[OsString]) -> Result<Self> {
        check_allowed()?;
        let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir()?;
        let child = Command::new("unshare")
            .args(UNSHARE)
            .arg("--")
            .arg(std::env::current_exe()?)
            .args(arguments)
            .env(STAGE, directory.path())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start unshare (util-linux)")?;
        std::fs::write(directory.path().join(PARENT_FILE), child.id().to_string())?;
        Ok(Self { child, _directory: directory })
    }

    /// The process id of `unshare`, whose only child is the lab.
    pub fn parent_pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the lab has ended by itself. The leash stays taut meanwhile.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let leash = self.child.stdin.take();
        let status = self.child.wait();
        drop(leash);
        Ok(status?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // An error means that it has ended already.
        let _ = self.child.wait();
    }
}

/// Runs `body` inside, in a runtime of its own, on a leash.
pub fn perform<F: Future<Output = Result<()>>>(body: F) -> Result<()> {
    let directory = entered().context("this process does not stand on a stage")?;
    hold_leash(directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(body)
}

/// Ends this process when the original does.
fn hold_leash(directory: PathBuf) {
    std::thread::spawn(move || {
        // Nothing is ever written to the leash; an error is as good as its end.
        let _ = std::io::stdin().read(&mut [0]);
        let _ = std::fs::remove_dir_all(directory);
        std::process::exit(LEASH_CUT);
    });
}

/// Tries the namespaces and the TUN device, and names what stands in the way.
fn check_allowed() -> Result<()> {
    let trial =
        Command::new("unshare").args(UNSHARE).arg("true").output().context("start unshare (util-linux)")?;
    if !trial.status.success() {
        let said = String::from_utf8_lossy(&trial.stderr);
        bail!(
            "the lab needs namespaces of its own, and this system forbids them: {}{}",
            said.trim(),
            forbidding_settings()
        );
    }
    let tun = Path::new("/dev/net/tun");
    ensure!(tun.exists(), "the lab's routers need /dev/net/tun, which is missing: modprobe tun");
    std::fs::File::options().read(true).write(true).open(tun).context(
        "the lab's routers need /dev/net/tun; its usual mode is 0666, here it is closed to this user: chmod 0666 /dev/net/tun",
    )?;
    Ok(())
}

/// The settings that are known to forbid user namespaces, where they do.
fn forbidding_settings() -> String {
    let known = [
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=1",
        ),
    ];
    let is_set =
        |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let found: Vec<_> =
        known.iter().filter(|(path, value, _)| is_set(path, value)).map(|known| known.2).collect();
    match found.is_empty() {
        true => "; no sysctl explains it, so look at the container's seccomp and mount policy".to_owned(),
        false => format!("; the setting is {}", found.join(", ")),
    }
}
