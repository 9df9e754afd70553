//! What the process takes of its host, under the names that every Prometheus client uses.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const CPU: &str = "process_cpu_seconds_total";
const MEMORY: &str = "process_resident_memory_bytes";
const DESCRIPTORS: &str = "process_open_fds";
const DESCRIPTOR_LIMIT: &str = "process_max_fds";
const START: &str = "process_start_time_seconds";
const BUILD: &str = "muster_build_info";

pub(super) fn describe() {
    describe_counter!(CPU, Unit::Seconds, "Processor time of this process, user and system");
    describe_gauge!(MEMORY, Unit::Bytes, "Resident memory of this process");
    describe_gauge!(DESCRIPTORS, "File descriptors that this process has open");
    describe_gauge!(DESCRIPTOR_LIMIT, "File descriptors that this process may have open");
    describe_gauge!(START, Unit::Seconds, "When this process began, in seconds since 1970");
    describe_gauge!(BUILD, "1, by version");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(START).set(crate::clock::wall().as_micros() as f64 / 1e6);
    measure();
}

/// Elsewhere than on Linux there is nothing to read, and the gauges stay away.
pub(super) fn measure() {
    if let Some(seconds) = cpu_seconds() {
        counter!(CPU).absolute(seconds);
    }
    if let Some(bytes) = resident_bytes() {
        gauge!(MEMORY).set(bytes as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!(DESCRIPTORS).set(open.count() as f64);
    }
    #[cfg(unix)]
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge!(DESCRIPTOR_LIMIT).set(limit as f64);
    }
}

/// The unit of processor time in /proc: USER_HZ, which is 100 on every architecture (proc_pid_stat(5), time(7)).
const TICKS_PER_SECOND: u64 = 100;

/// Fields 14 and 15 of proc_pid_stat(5); the program's name before them may hold blanks.
fn cpu_seconds() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// VmRSS of proc_pid_status(5), which is in kibibytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
