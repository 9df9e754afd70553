//! A cgroup for each task, in the v2 hierarchy that systemd delegates to our unit or that root may write to.
//!
//! The v2 tree is where the mount table says: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` of hybrid hosts.
//! No controller is enabled: a group only tells whose process is whose.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Attempts to remove a group whose processes are on their way out, and the pause between them: 2 s in all.
const REMOVALS: u32 = 200;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// The same where nothing else waits meanwhile, for one process that was killed: 50 ms in all.
const QUICK_REMOVALS: u32 = 50;
const QUICK_PAUSE: Duration = Duration::from_millis(1);

/// Sweeps of a kernel older than 5.14, which has no `cgroup.kill`: a process may fork while we read the list.
const SWEEPS: u32 = 16;

/// Why no cgroup can be had.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup v2 hierarchy is mounted")]
    NotMounted,
    #[error("the agent's own cgroup cannot be read: {0}")]
    Own(std::io::Error),
    #[error("the cgroup {path} cannot be made: {source}")]
    Create { path: PathBuf, source: std::io::Error },
}

/// Where this agent's groups lie.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    path: PathBuf,
}

impl Hierarchy {
    /// Makes the agent's own branch and empties it of what an earlier life left.
    pub(super) fn open(owner: &str) -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Own)?;
        let mount = mount_point(&mounts).ok_or(CgroupError::NotMounted)?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(CgroupError::Own)?;
        let inside = own_group(&own).ok_or(CgroupError::NotMounted)?;
        let path = mount.join(inside.trim_start_matches('/')).join(format!("muster-{owner}"));
        create(&path)?;
        let hierarchy = Self { path };
        hierarchy.clear();
        // A trial shows what permissions do not.
        hierarchy.create("trial")?.remove_now();
        Ok(hierarchy)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn create(&self, name: &str) -> Result<Group, CgroupError> {
        let path = self.path.join(name);
        create(&path)?;
        Ok(Group { path })
    }

    pub(super) fn remove(&self) {
        // While something runs in it, it stays, and the next life clears it.
        let _ = fs::remove_dir(&self.path);
    }

    fn clear(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            tracing::info!(group = %path.display(), "what an earlier task left running is killed");
            let group = Group { path };
            group.kill();
            group.remove_now();
        }
    }
}

fn create(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(CgroupError::Create { path: path.to_owned(), source }),
    }
}

/// The mount point of the cgroup2 file system in mountinfo (proc(5): fields after ` - ` begin with the type).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        (file_system.split(' ').next() == Some("cgroup2"))
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The path inside the v2 hierarchy in /proc/self/cgroup (cgroups(7): hierarchy 0).
fn own_group(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The cgroup of one task.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    pub(super) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Kills every process in it, atomically where the kernel can (5.14).
    pub(super) fn kill(&self) {
        if fs::write(self.path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for _ in 0..SWEEPS {
            let listed = fs::read_to_string(self.procs()).unwrap_or_default();
            let pids: Vec<_> = listed.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Removes it once its processes are gone.
    pub(super) async fn remove(self) {
        for _ in 0..REMOVALS {
            if fs::remove_dir(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            tokio::time::sleep(REMOVAL_PAUSE).await;
        }
        tracing::warn!(group = %self.path.display(), "a task's cgroup could not be removed");
    }

    /// Waits a moment for processes that are on their way out.
    pub(super) fn remove_soon(&self) {
        for _ in 0..QUICK_REMOVALS {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(QUICK_PAUSE);
        }
    }

    fn remove_now(self) {
        // What stays is tried again at the next start.
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_tree_is_found_on_pure_and_on_hybrid_hosts() {
        let pure = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let hybrid = "30 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      31 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(mount_point(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("1 2 0:1 / / rw - ext4 /dev/sda1 rw"), None);
    }

    #[test]
    fn the_own_group_is_that_of_hierarchy_zero() {
        assert_eq!(own_group("4:memory:/a\n0::/system.slice/x.service\n"), Some("/system.slice/x.service"));
        assert_eq!(own_group("4:memory:/a\n"), None);
    }
}
