//! Without cgroups: a task's processes are those of its session, and those that carry its mark in their environment.
//!
//! A process that leaves the session *and* clears its environment escapes; `muster-agent status` says so.

use std::fs;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::MARK;

/// Sweeps over the process table: a process may fork while we read it.
const SWEEPS: u32 = 8;

/// The session that a task's program leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    leader: u32,
    /// When that process began: what belongs to it is no older.
    since: u64,
}

impl Session {
    /// Of a leader that nobody has waited for yet.
    pub(super) fn of(leader: u32) -> Self {
        let since = read(leader).map_or(0, |stat| stat.start);
        Self { leader, since }
    }
}

/// Kills the processes of a task.
pub(super) fn kill(mark: &str, session: Option<Session>) {
    if let Some(group) = session.and_then(|it| Pid::from_raw(i32::try_from(it.leader).ok()?)) {
        // Its members may all have ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let mark = format!("{MARK}={mark}");
    for _ in 0..SWEEPS {
        let found: Vec<_> = pids().filter(|pid| belongs(*pid, &mark, session)).collect();
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

fn belongs(pid: u32, mark: &str, session: Option<Session>) -> bool {
    let Some(stat) = read(pid) else { return false };
    // A zombie is dead already; its parent has yet to look.
    if stat.state == 'Z' {
        return false;
    }
    match session {
        Some(session) if session.leader == stat.session => true,
        // Most of a host is older, and its environments are many pages.
        Some(session) if stat.start < session.since => false,
        _ => {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        }
    }
}

/// What proc(5)'s stat says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    session: u32,
    /// Clock ticks since the system's start.
    start: u64,
}

fn read(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3, 6 and 22; the command's name in parentheses may hold anything.
fn parse(stat: &str) -> Option<Stat> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?;
    Some(Stat { state, session, start: fields.nth(15)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

    use super::*;

    #[test]
    fn a_commands_name_cannot_fake_its_session() {
        let stat = "42 (a) Z 1 2 3 (b) S 10 42 41 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 7700 1 2";
        assert_eq!(parse(stat), Some(Stat { state: 'S', session: 41, start: 7_700 }));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn this_process_began_after_the_systems_first() {
        assert!(read(std::process::id()).unwrap().start > read(1).unwrap().start);
    }
}
