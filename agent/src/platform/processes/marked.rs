//! Without cgroups: a task's processes are those of its session, and those that carry its mark in their environment.
//!
//! A process that leaves the session *and* clears its environment escapes; `muster-agent status` says so.

use std::fs;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::MARK;

/// Sweeps over the process table: a process may fork while we read it.
const SWEEPS: u32 = 8;

/// Kills the processes of a task.
pub(super) fn kill(mark: &str, leader: Option<u32>) {
    if let Some(group) = leader.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        // Its members may all have ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let mark = format!("{MARK}={mark}");
    for _ in 0..SWEEPS {
        let found: Vec<_> = pids().filter(|pid| belongs(*pid, &mark, leader)).collect();
        if found.is_empty() {
            return;
        }
        for pid in found.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn belongs(pid: u32, mark: &str, session: Option<u32>) -> bool {
    let Some((state, sid)) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|s| parse(&s))
    else {
        return false;
    };
    // A zombie is dead already; its parent has yet to look.
    if state == 'Z' {
        return false;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    session == Some(sid) || environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
}

/// State and session of proc(5)'s stat; the command's name in parentheses may hold anything.
fn parse(stat: &str) -> Option<(char, u32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(2)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_name_cannot_fake_its_session() {
        assert_eq!(parse("42 (a) Z 1 2 3 (b) S 10 42 41 0 -1"), Some(('S', 41)));
        assert_eq!(parse("nonsense"), None);
    }
}
