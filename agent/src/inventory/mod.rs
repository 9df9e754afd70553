//! What this host is: read from the system itself, section by section. Nothing here waits for a network.

mod hardware;
mod host;
mod keys;
mod packages;

use std::str::FromStr;

use muster_kit::clock;
use muster_proto::task::v1::Inventory;
use muster_wire::time::to_wire;

/// A part of the inventory that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Host,
    Hardware,
    Packages,
}

impl Section {
    pub const ALL: [Self; 3] = [Self::Host, Self::Hardware, Self::Packages];
}

impl FromStr for Section {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "host" => Ok(Self::Host),
            "hardware" => Ok(Self::Hardware),
            "packages" => Ok(Self::Packages),
            other => Err(format!("{other:?} is none of the sections host, hardware, packages")),
        }
    }
}

/// Reads the sections. What the system does not tell stays empty.
pub fn collect(sections: &[Section]) -> Inventory {
    let wanted = |section| sections.contains(&section);
    Inventory {
        collect_time: Some(to_wire(clock::wall())),
        host: wanted(Section::Host).then(host::collect),
        hardware: wanted(Section::Hardware).then(hardware::collect),
        packages: wanted(Section::Packages).then(packages::collect).flatten(),
    }
}

pub use hardware::hardware_serial;
pub use host::{architecture, host_name, os};

/// A small file of the system's, without the line's end; empty if it cannot be read.
fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_name_a_kernel_memory_and_a_processor() {
        let inventory = collect(&[Section::Host, Section::Hardware]);
        let (host, hardware) = (inventory.host.unwrap(), inventory.hardware.unwrap());
        assert!(!host.host_name.is_empty() && !host.kernel.is_empty() && !host.os_name.is_empty());
        assert!(hardware.memory_bytes > 1 << 20 && hardware.cpu_cores > 0);
        assert!(hardware.interfaces.iter().any(|interface| !interface.addresses.is_empty()));
        assert!(inventory.packages.is_none());
    }

    #[test]
    fn a_section_that_does_not_exist_is_named() {
        assert!("soul".parse::<Section>().unwrap_err().contains("soul"));
    }
}
