//! What a process uses, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second of times in /proc (proc(5): sysconf(_SC_CLK_TCK), which Linux has fixed at 100).
const TICKS: f64 = 100.0;

/// Memory of a process in bytes: what is resident, and its share of that where pages are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) proportional: u64,
}

pub(crate) fn memory(process: u32) -> Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        Ok(line.split_whitespace().next().context("a number")?.parse::<u64>()? * 1024)
    };
    Ok(Memory { resident: field("Rss:")?, proportional: field("Pss:")? })
}

/// Processor time that a process has used in its life.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in brackets may hold anything, brackets too.
    let (_, rest) = text.rsplit_once(") ").context("a name in brackets")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks = |field: usize| -> Result<f64> { Ok(fields.get(field).context("a field")?.parse()?) };
    // proc(5): utime and stime are fields 14 and 15; `rest` begins with field 3.
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_use_can_be_read() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident >= memory.proportional && memory.proportional > 0);
        assert!(processor_time(std::process::id()).unwrap() < Duration::from_secs(3600));
    }
}
