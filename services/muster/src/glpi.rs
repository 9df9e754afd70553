//! An inventory in the format of GLPI (<https://github.com/glpi-project/inventory_format>, JSON schema draft-07), which other
//! CMDBs read, too. The host's own id is the device's; hardware keys that nobody should believe are left out.

use std::net::IpAddr;

use muster_proto::task::v1::{
    Confidence, Disk, HardwareKey, HardwareKeyKind, HardwareSection, HostSection, Inventory,
    NetworkInterface, Package, PackagesSection,
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

/// The format counts memory and disks in these.
const MEGABYTE: u64 = 1 << 20;

/// What the format calls processors.
const ARCHITECTURES: [(&str, &str); 5] = [
    ("x86_64", "x86_64"),
    ("aarch64", "aarch64"),
    ("x86", "i386"),
    ("arm", "arm"),
    ("powerpc64", "powerpc64"),
];

/// The whole document. `node`: its resource name.
pub fn document(node: &str, inventory: &Inventory) -> Value {
    let host = inventory.host.clone().unwrap_or_default();
    let mut content = Map::new();
    content.insert("versionclient".to_owned(), concat!("Muster_v", env!("CARGO_PKG_VERSION")).into());
    content.insert("operatingsystem".to_owned(), operating_system(&host));
    if let Some(machine) = &inventory.hardware {
        content.insert("hardware".to_owned(), hardware(&host, machine));
        content.insert("bios".to_owned(), bios(machine));
        content.insert("cpus".to_owned(), json!([processor(&host, machine)]));
        content.insert("drives".to_owned(), drives(machine));
        content.insert("networks".to_owned(), machine.interfaces.iter().flat_map(networks).collect());
    }
    if let Some(packages) = &inventory.packages {
        content.insert("softwares".to_owned(), softwares(packages));
    }
    let partial = [inventory.host.is_none(), inventory.hardware.is_none(), inventory.packages.is_none()];
    json!({
        "action": "inventory",
        "itemtype": "Computer",
        "deviceid": node.trim_start_matches("nodes/"),
        "partial": partial.contains(&true),
        "content": content,
    })
}

/// An object of what is known: the format has no null, and an empty text overwrites what a CMDB knows.
fn known<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_known = |value: &Value| !(value.is_null() || value.as_str() == Some(""));
    fields
        .into_iter()
        .filter(|(_, value)| is_known(value))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn operating_system(host: &HostSection) -> Value {
    known([
        ("name", host.os_name.clone().into()),
        ("version", host.os_version.clone().into()),
        ("full_name", format!("{} {}", host.os_name, host.os_version).trim().into()),
        ("kernel_version", host.kernel.clone().into()),
        ("arch", host.architecture.clone().into()),
        ("boot_time", host.boot_time.map_or(Value::Null, |at| date_time(at.seconds))),
    ])
}

fn hardware(host: &HostSection, machine: &HardwareSection) -> Value {
    known([
        ("name", host.host_name.clone().into()),
        ("memory", (machine.memory_bytes / MEGABYTE).into()),
        ("uuid", believed(machine, HardwareKeyKind::Uuid)),
    ])
}

fn bios(machine: &HardwareSection) -> Value {
    known([
        ("smanufacturer", machine.vendor.clone().into()),
        ("smodel", machine.model.clone().into()),
        ("ssn", believed(machine, HardwareKeyKind::Serial)),
        ("msn", believed(machine, HardwareKeyKind::BoardSerial)),
    ])
}

/// The first key of that kind which is worth something.
fn believed(machine: &HardwareSection, kind: HardwareKeyKind) -> Value {
    let credible = |key: &&HardwareKey| {
        key.kind() == kind && matches!(key.confidence(), Confidence::Low | Confidence::High)
    };
    machine.keys.iter().find(credible).map_or(Value::Null, |key| key.value.clone().into())
}

fn processor(host: &HostSection, machine: &HardwareSection) -> Value {
    let named = ARCHITECTURES.iter().find(|(ours, _)| *ours == host.architecture);
    known([
        ("name", machine.cpu_model.clone().into()),
        ("core", machine.cpu_cores.into()),
        ("arch", named.map_or(Value::Null, |(_, theirs)| (*theirs).into())),
    ])
}

fn drives(machine: &HardwareSection) -> Value {
    let drive = |disk: &Disk| {
        known([
            ("volumn", disk.name.clone().into()),
            ("type", disk.mount_point.clone().into()),
            ("filesystem", disk.file_system.clone().into()),
            ("total", (disk.total_bytes / MEGABYTE).into()),
            ("free", (disk.available_bytes / MEGABYTE).into()),
        ])
    };
    machine.disks.iter().map(drive).collect()
}

/// One entry an address, as the format has it; without an address, one.
fn networks(interface: &NetworkInterface) -> Vec<Value> {
    let bare = [
        ("description", Value::from(interface.name.clone())),
        ("mac", interface.mac.to_lowercase().into()),
        ("status", if interface.up { "up" } else { "down" }.into()),
    ];
    let addressed = interface.addresses.iter().filter_map(|prefix| {
        let address: IpAddr = prefix.split('/').next()?.parse().ok()?;
        let of = if address.is_ipv4() { "ipaddress" } else { "ipaddress6" };
        let kind = if address.is_loopback() { "loopback".into() } else { Value::Null };
        let [name, mac, status] = bare.clone();
        Some(known([name, mac, status, (of, address.to_string().into()), ("type", kind)]))
    });
    let entries: Vec<_> = addressed.collect();
    if entries.is_empty() { vec![known(bare)] } else { entries }
}

fn softwares(section: &PackagesSection) -> Value {
    let software = |package: &Package| {
        known([
            ("name", package.name.clone().into()),
            ("version", package.version.clone().into()),
            ("arch", package.architecture.clone().into()),
            ("from", section.source.clone().into()),
        ])
    };
    section.packages.iter().map(software).collect()
}

/// In UTC; the format has no zones.
fn date_time(seconds: i64) -> Value {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|at| at.format(format).ok());
    at.map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: HardwareKeyKind, value: &str, confidence: Confidence) -> HardwareKey {
        HardwareKey {
            kind: kind.into(),
            value: value.to_owned(),
            confidence: confidence.into(),
            ..HardwareKey::default()
        }
    }

    fn inventory() -> Inventory {
        let host = HostSection {
            host_name: "till-3".to_owned(),
            os_name: "Debian GNU/Linux".to_owned(),
            architecture: "x86_64".to_owned(),
            boot_time: Some(prost_types::Timestamp { seconds: 1_496_905_607, nanos: 0 }),
            ..HostSection::default()
        };
        let interface = NetworkInterface {
            name: "eth0".to_owned(),
            mac: "3C:EC:EF:12:34:56".to_owned(),
            addresses: vec!["192.0.2.7/24".to_owned(), "2001:db8::7/64".to_owned()],
            up: true,
        };
        let hardware = HardwareSection {
            memory_bytes: 8 << 30,
            cpu_cores: 4,
            disks: vec![Disk { mount_point: "/".to_owned(), total_bytes: 5 << 20, ..Disk::default() }],
            interfaces: vec![interface],
            keys: vec![
                key(HardwareKeyKind::Serial, "Default string", Confidence::None),
                key(HardwareKeyKind::Uuid, "4c4c4544-0034-3010-8048-b6c04f503732", Confidence::High),
            ],
            ..HardwareSection::default()
        };
        let package = Package { name: "bash".to_owned(), version: "5.2".to_owned(), ..Package::default() };
        let packages = PackagesSection { source: "dpkg".to_owned(), packages: vec![package] };
        Inventory { host: Some(host), hardware: Some(hardware), packages: Some(packages), collect_time: None }
    }

    #[test]
    fn a_document_has_what_the_format_asks_for_and_nothing_that_is_not_known() {
        let document = document("nodes/01ff", &inventory());
        assert_eq!((&document["deviceid"], &document["itemtype"]), (&json!("01ff"), &json!("Computer")));
        assert_eq!(document["partial"], json!(false));
        let content = &document["content"];
        assert!(content["versionclient"].as_str().unwrap().starts_with("Muster_v"));
        assert_eq!(content["hardware"]["memory"], json!(8_192));
        assert_eq!(content["operatingsystem"]["boot_time"], json!("2017-06-08 07:06:47"));
        assert_eq!(content["cpus"], json!([{ "core": 4, "arch": "x86_64" }]));
        assert_eq!(content["drives"], json!([{ "type": "/", "total": 5, "free": 0 }]));
        assert_eq!(content["softwares"], json!([{ "name": "bash", "version": "5.2", "from": "dpkg" }]));
        let networks = content["networks"].as_array().unwrap();
        assert_eq!(networks.len(), 2);
        assert_eq!(networks[0]["ipaddress"], json!("192.0.2.7"));
        assert_eq!(networks[1]["ipaddress6"], json!("2001:db8::7"));
        assert!(networks.iter().all(|it| it["status"] == "up" && it["mac"] == "3c:ec:ef:12:34:56"));
    }

    #[test]
    fn a_junk_serial_is_left_out_and_a_section_that_was_not_asked_for_makes_it_partial() {
        let whole = document("nodes/01ff", &inventory());
        assert!(whole["content"]["bios"].get("ssn").is_none());
        assert_eq!(whole["content"]["hardware"]["uuid"], json!("4c4c4544-0034-3010-8048-b6c04f503732"));
        let part = document("nodes/01ff", &Inventory { packages: None, ..inventory() });
        assert_eq!(part["partial"], json!(true));
        assert!(part["content"].get("softwares").is_none());
    }
}
