//! The machine: maker, processor, memory, disks, network interfaces.

use muster_proto::task::v1::{Disk, HardwareSection, NetworkInterface};
use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

use super::{keys, line};

/// Where the kernel shows what the firmware says of itself (SMBIOS). Serial and uuid are for root only.
const DMI: &str = "/sys/class/dmi/id";
/// The like on boards with a device tree.
const DEVICE_TREE: &str = "/proc/device-tree";

/// Disks and interfaces listed; a container host has thousands of virtual ones.
const LISTED: usize = 256;

pub(super) fn collect() -> HardwareSection {
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what).ok();
    let system = system.as_ref();
    let mut hardware = HardwareSection {
        vendor: dmi("sys_vendor"),
        model: or_tree(dmi("product_name"), "model"),
        serial: hardware_serial(),
        uuid: dmi("product_uuid"),
        cpu_model: system
            .and_then(|system| system.cpus().first())
            .map_or_else(String::new, |cpu| cpu.brand().to_owned()),
        cpu_cores: system.map_or(0, |system| u32::try_from(system.cpus().len()).unwrap_or(u32::MAX)),
        memory_bytes: system.map_or(0, System::total_memory),
        disks: disks(),
        interfaces: interfaces(),
        keys: Vec::new(),
    };
    hardware.keys = keys::judge(&hardware, &dmi("board_serial"), &line("/etc/machine-id"));
    hardware
}

/// The machine's serial number as its firmware says it; empty where it does not, or not to us.
pub fn hardware_serial() -> String {
    or_tree(dmi("product_serial"), "serial-number")
}

fn dmi(field: &str) -> String {
    line(&format!("{DMI}/{field}"))
}

fn or_tree(value: String, field: &str) -> String {
    if value.is_empty() {
        line(&format!("{DEVICE_TREE}/{field}")).trim_end_matches('\0').to_owned()
    } else {
        value
    }
}

fn disks() -> Vec<Disk> {
    let Ok(disks) = Disks::new_with_refreshed_list() else { return Vec::new() };
    let disk = |disk: &sysinfo::Disk| Disk {
        name: disk.name().to_string_lossy().into_owned(),
        mount_point: disk.mount_point().to_string_lossy().into_owned(),
        file_system: disk.file_system().to_string_lossy().into_owned(),
        total_bytes: disk.total_space(),
        available_bytes: disk.available_space(),
    };
    disks.iter().take(LISTED).map(disk).collect()
}

fn interfaces() -> Vec<NetworkInterface> {
    let interface = |interface: netdev::Interface| {
        let v4 = interface.ipv4.iter().map(ToString::to_string);
        let addresses = v4.chain(interface.ipv6.iter().map(ToString::to_string)).collect();
        let mac = interface.mac_addr.map(|mac| mac.to_string()).unwrap_or_default();
        let up = interface.is_up();
        NetworkInterface { name: interface.name, mac, addresses, up }
    };
    netdev::get_interfaces().into_iter().take(LISTED).map(interface).collect()
}
