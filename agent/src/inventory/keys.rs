//! By what other inventories may know this machine, and how far each key is to be believed: firmware is full of placeholders,
//! and copies of a disk or of a virtual machine share what they say of themselves.

use muster_proto::task::v1::{Confidence, HardwareKey, HardwareKeyKind, HardwareSection};

/// What makers left in place of a serial number, in lower case.
const PLACEHOLDERS: [&str; 16] = [
    "to be filled by o.e.m.",
    "to be filled by oem",
    "default string",
    "default",
    "not specified",
    "not applicable",
    "not available",
    "none",
    "n/a",
    "unknown",
    "system serial number",
    "base board serial number",
    "chassis serial number",
    "serial number",
    "o.e.m.",
    "invalid",
];

/// UUIDs that whole series of boards have in common.
const SHARED_UUIDS: [&str; 3] = [
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
];

/// Digits that are counted up or down instead of a number of the machine's own.
const COUNTED: [&str; 2] = ["0123456789", "123456789"];

/// A serial number that is shorter says little.
const SHORTEST: usize = 4;

/// Makers and models of machines that are none, in lower case.
const VIRTUAL: [&str; 9] =
    ["qemu", "kvm", "vmware", "virtualbox", "virtual machine", "xen", "bochs", "firecracker", "amazon ec2"];

/// The second bit of a MAC's first byte: made up by software (IEEE 802-2014, section 8.2.2).
const LOCAL: u8 = 0b10;

/// Everything that tells this machine from others, as far as it does.
pub(super) fn judge(hardware: &HardwareSection, board_serial: &str, machine_id: &str) -> Vec<HardwareKey> {
    let about = format!("{} {}", hardware.vendor, hardware.model).to_lowercase();
    let is_virtual = VIRTUAL.iter().any(|name| about.contains(name));
    let firmware = [
        (HardwareKeyKind::Serial, hardware.serial.as_str(), serial_fault(&hardware.serial)),
        (HardwareKeyKind::Uuid, hardware.uuid.as_str(), uuid_fault(&hardware.uuid)),
        (HardwareKeyKind::BoardSerial, board_serial, serial_fault(board_serial)),
    ];
    let mut keys: Vec<_> = firmware
        .into_iter()
        .filter(|(_, value, _)| !value.is_empty())
        .map(|(kind, value, fault)| match fault {
            Some(reason) => key(kind, value, Confidence::None, reason),
            None if is_virtual => {
                key(kind, value, Confidence::Low, "a virtual machine; its copies may say the same")
            }
            None => key(kind, value, Confidence::High, ""),
        })
        .collect();
    let cards = hardware.interfaces.iter().map(|interface| interface.mac.as_str());
    keys.extend(cards.filter(|mac| is_burnt_in(mac)).map(|mac| {
        key(HardwareKeyKind::Mac, mac, Confidence::Low, "network cards and docks move between machines")
    }));
    if !machine_id.is_empty() {
        let reason = "of the installation; copies of its disk share it";
        keys.push(key(HardwareKeyKind::MachineId, machine_id, Confidence::Low, reason));
    }
    keys
}

fn key(kind: HardwareKeyKind, value: &str, confidence: Confidence, reason: &str) -> HardwareKey {
    let (value, reason) = (value.to_owned(), reason.to_owned());
    HardwareKey { kind: kind.into(), value, confidence: confidence.into(), reason }
}

fn serial_fault(serial: &str) -> Option<&'static str> {
    let plain = serial.trim().to_lowercase();
    if PLACEHOLDERS.contains(&plain.as_str()) {
        return Some("the maker's placeholder");
    }
    if plain.len() < SHORTEST || is_one_character(&plain) {
        return Some("too little to tell machines apart");
    }
    COUNTED.iter().any(|digits| plain == *digits).then_some("counted digits, not a number of its own")
}

fn uuid_fault(uuid: &str) -> Option<&'static str> {
    let plain = uuid.trim().to_lowercase();
    if is_one_character(&plain.replace('-', "")) {
        return Some("never set");
    }
    SHARED_UUIDS.contains(&plain.as_str()).then_some("many boards have this one")
}

fn is_one_character(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| characters.all(|it| it == first))
}

fn is_burnt_in(mac: &str) -> bool {
    let first = mac.split(':').next().and_then(|byte| u8::from_str_radix(byte, 16).ok());
    first.is_some_and(|byte| byte & LOCAL == 0) && mac.chars().any(|digit| !matches!(digit, '0' | ':'))
}

#[cfg(test)]
mod tests {
    use muster_proto::task::v1::NetworkInterface;

    use super::*;

    fn confidence(keys: &[HardwareKey], kind: HardwareKeyKind) -> Vec<Confidence> {
        keys.iter().filter(|key| key.kind() == kind).map(HardwareKey::confidence).collect()
    }

    fn machine(vendor: &str, serial: &str, uuid: &str) -> HardwareSection {
        HardwareSection {
            vendor: vendor.to_owned(),
            serial: serial.to_owned(),
            uuid: uuid.to_owned(),
            ..HardwareSection::default()
        }
    }

    #[test]
    fn a_real_serial_and_uuid_are_believed_and_placeholders_are_not() {
        let real = judge(&machine("Dell Inc.", "640HP72", "4c4c4544-0034-3010-8048-b6c04f503732"), "", "");
        assert_eq!(confidence(&real, HardwareKeyKind::Serial), [Confidence::High]);
        assert_eq!(confidence(&real, HardwareKeyKind::Uuid), [Confidence::High]);
        for junk in ["To Be Filled By O.E.M.", "Default string", "0000000", "123456789", "x1"] {
            let keys = judge(&machine("ASUS", junk, "03000200-0400-0500-0006-000700080009"), junk, "");
            assert_eq!(confidence(&keys, HardwareKeyKind::Serial), [Confidence::None], "{junk}");
            assert_eq!(confidence(&keys, HardwareKeyKind::BoardSerial), [Confidence::None], "{junk}");
            assert_eq!(confidence(&keys, HardwareKeyKind::Uuid), [Confidence::None]);
            assert!(keys.iter().all(|key| !key.reason.is_empty()));
        }
        let unset = judge(&machine("Dell Inc.", "", "00000000-0000-0000-0000-000000000000"), "", "");
        assert_eq!(confidence(&unset, HardwareKeyKind::Uuid), [Confidence::None]);
        assert!(confidence(&unset, HardwareKeyKind::Serial).is_empty());
    }

    #[test]
    fn what_copies_share_or_what_moves_counts_little() {
        let mut hardware = machine("QEMU", "ab12cd34", "4c4c4544-0034-3010-8048-b6c04f503732");
        let card = |mac: &str| NetworkInterface { mac: mac.to_owned(), ..NetworkInterface::default() };
        hardware.interfaces =
            vec![card("3c:ec:ef:12:34:56"), card("02:42:ac:11:00:02"), card("00:00:00:00:00:00")];
        let keys = judge(&hardware, "", "0123456789abcdef0123456789abcdef");
        for kind in [HardwareKeyKind::Serial, HardwareKeyKind::Mac, HardwareKeyKind::MachineId] {
            assert_eq!(confidence(&keys, kind), [Confidence::Low], "{kind:?}");
        }
    }
}
