//! Named failpoints: with `MUSTER_CRASH=name` in the environment the process kills itself where it reaches that name.
//!
//! `MUSTER_CRASH=name:3` waits for the third time. They are compiled in always, so that what is tested is what is shipped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that arms one failpoint.
pub const VARIABLE: &str = "MUSTER_CRASH";

/// Ends the process as by `kill -9` if this name is armed. Otherwise it costs one atomic load.
#[inline]
pub fn point(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| Armed::parse(&text)));
    if let Some(armed) = armed
        && armed.fires(name)
    {
        die(name);
    }
}

#[derive(Debug)]
struct Armed {
    name: String,
    /// Times that the name must still be reached.
    left: AtomicU32,
}

impl Armed {
    fn parse(text: &str) -> Self {
        let (name, count) = text
            .rsplit_once(':')
            .and_then(|(name, count)| Some((name, count.parse::<u32>().ok()?)))
            .unwrap_or((text, 1));
        Self { name: name.to_owned(), left: AtomicU32::new(count.max(1)) }
    }

    fn fires(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

fn die(name: &str) {
    // Straight to the file descriptor, for a test that must know that the step was hit.
    eprintln!("muster: crash point {name} hit");
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_fires_at_its_count_and_only_under_its_name() {
        let armed = Armed::parse("journal.started:2");
        assert!(!armed.fires("journal.started"));
        assert!(!armed.fires("journal.finished"));
        assert!(armed.fires("journal.started"));
        assert!(!armed.fires("journal.started"));
    }

    #[test]
    fn a_name_alone_fires_at_once() {
        assert!(Armed::parse("enroll.keys").fires("enroll.keys"));
        assert!(Armed::parse("a:b").fires("a:b"));
    }
}
