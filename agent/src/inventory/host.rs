//! Names and versions of the host and its system.

use std::path::Path;

use muster_proto::task::v1::HostSection;
use muster_types::Timestamp;
use muster_wire::time::to_wire;
use sysinfo::System;

use super::line;

pub(super) fn collect() -> HostSection {
    let (os_name, os_version) = os();
    let booted = i64::try_from(System::boot_time().unwrap_or_default()).unwrap_or_default();
    HostSection {
        host_name: host_name(),
        os_name,
        os_version,
        kernel: System::kernel_version().unwrap_or_default(),
        architecture: architecture().to_owned(),
        boot_time: Some(to_wire(Timestamp::from_micros(booted.saturating_mul(1_000_000)))),
        time_zone: time_zone(),
        machine_id: line("/etc/machine-id"),
    }
}

pub fn host_name() -> String {
    System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// The system's name and version, as in "Debian GNU/Linux", "12".
pub fn os() -> (String, String) {
    (
        System::name().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        System::os_version().unwrap_or_default(),
    )
}

pub fn architecture() -> &'static str {
    std::env::consts::ARCH
}

/// The zone's name: Debian writes it down, others only link to its file.
fn time_zone() -> String {
    let written = line("/etc/timezone");
    if !written.is_empty() {
        return written;
    }
    let target = std::fs::read_link("/etc/localtime").unwrap_or_default();
    let after =
        |folder: &str| target.strip_prefix(Path::new(folder)).ok().map(|zone| zone.display().to_string());
    after("/usr/share/zoneinfo")
        .or_else(|| after("../usr/share/zoneinfo"))
        .unwrap_or_else(|| "UTC".to_owned())
}
