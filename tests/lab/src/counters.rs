//! What an interface has carried, as its kernel counts it.

use std::ops::Sub;

use anyhow::{Context, Result};

use crate::machine::Machine;

/// An interface's counters, as its own machine sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
}

impl Counters {
    /// Bytes in both directions.
    pub fn bytes(self) -> u64 {
        self.received_bytes + self.sent_bytes
    }

    /// Packets in both directions.
    pub fn packets(self) -> u64 {
        self.received_packets + self.sent_packets
    }
}

impl Sub for Counters {
    type Output = Self;

    /// What was carried since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            received_packets: self.received_packets.saturating_sub(earlier.received_packets),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            sent_packets: self.sent_packets.saturating_sub(earlier.sent_packets),
        }
    }
}

/// Reads an interface's counters on its machine.
pub async fn read_counters(machine: &Machine, interface: &str) -> Result<Counters> {
    let directory = format!("/sys/class/net/{interface}/statistics");
    let read = move || -> Result<Counters> {
        let count = |name: &str| -> Result<u64> {
            let path = format!("{directory}/{name}");
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            Ok(text.trim().parse()?)
        };
        Ok(Counters {
            received_bytes: count("rx_bytes")?,
            received_packets: count("rx_packets")?,
            sent_bytes: count("tx_bytes")?,
            sent_packets: count("tx_packets")?,
        })
    };
    machine.run(read).await?
}
