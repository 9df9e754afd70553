//! What the kernel counts of this process and of its network namespace, and the silence of the dead.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Ticks a second of times in /proc (proc(5): sysconf(_SC_CLK_TCK), which Linux has fixed at 100).
const TICKS: f64 = 100.0;

/// Packets and bytes that came over loopback since this namespace was made. `/sys` would tell of the namespace that
/// mounted it.
pub(crate) fn wire() -> Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no loopback")?;
    let mut fields = line.split_whitespace().map(str::parse::<f64>);
    let mut next = || fields.next().context("a counter")?.context("a number");
    let (bytes, packets) = (next()?, next()?);
    Ok((packets, bytes))
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("Rss")?;
    let kibibytes: f64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kibibytes * 1024.0)
}

/// Processor time that a process has used in its life.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("a name in brackets")?;
    let fields: Vec<_> = rest.split(' ').collect();
    // proc(5): utime and stime are fields 14 and 15; `rest` begins with field 3.
    let ticks = |field: usize| -> Result<f64> { Ok(fields.get(field).context("a field")?.parse()?) };
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS))
}

/// From now on nothing that is sent to or from these ports arrives, and nobody is told: a host without power.
pub(crate) fn silence(ports: &[u16]) -> Result<()> {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let rules =
        ["udp dport", "udp sport", "tcp dport", "tcp sport"].map(|what| format!("{what} @dead drop\n"));
    nft(&format!(
        "table inet graves {{\nset dead {{ type inet_service; elements = {{ {} }}; }}\n\
         chain input {{ type filter hook input priority filter; {} }}\n}}\n",
        ports.join(", "),
        rules.concat()
    ))
}

fn nft(rules: &str) -> Result<()> {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("start nft")?;
    std::io::Write::write_all(&mut child.stdin.take().context("its input")?, rules.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "nft: {status}; rules:\n{rules}");
    Ok(())
}
