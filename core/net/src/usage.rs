//! What this node sent and received, by traffic class and message type: plain counters, no names of anybody.

use std::sync::atomic::{AtomicU64, Ordering};

use muster_wire::Kind;

use crate::class::TrafficClass;

/// What is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    Message(Kind),
    Datagram,
    Discovery,
    /// The hash table's, mostly.
    Sealed,
    /// "How do you see me?"
    Stun,
    /// Between nodes that are about to meet.
    Probe,
    /// By UDP to and from relays; what is in it is counted by itself too.
    Relayed,
    Stream(TrafficClass),
}

const KINDS: usize = Kind::ALL.len();
const CELLS: usize = KINDS + 6 + TrafficClass::ALL.len();

#[derive(Debug, Default)]
pub struct Usage {
    cells: [Cell; CELLS],
}

#[derive(Debug, Default)]
struct Cell {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    sent_messages: AtomicU64,
    received_messages: AtomicU64,
}

/// One line of the account, since the endpoint was bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub class: TrafficClass,
    pub kind: &'static str,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub sent_messages: u64,
    pub received_messages: u64,
}

impl Traffic {
    fn all() -> impl Iterator<Item = Self> {
        let messages = Kind::ALL.into_iter().map(Self::Message);
        messages
            .chain([Self::Datagram, Self::Discovery, Self::Sealed, Self::Stun, Self::Probe, Self::Relayed])
            .chain(TrafficClass::ALL.into_iter().map(Self::Stream))
    }

    fn index(self) -> usize {
        match self {
            Self::Message(kind) => kind as usize,
            Self::Datagram => KINDS,
            Self::Discovery => KINDS + 1,
            Self::Sealed => KINDS + 2,
            Self::Stun => KINDS + 3,
            Self::Probe => KINDS + 4,
            Self::Relayed => KINDS + 5,
            Self::Stream(class) => KINDS + 6 + class.index(),
        }
    }

    pub(crate) fn class(self) -> TrafficClass {
        match self {
            Self::Message(Kind::Upstream | Kind::Downstream) => TrafficClass::Task,
            Self::Message(_) | Self::Datagram | Self::Discovery | Self::Sealed | Self::Stun | Self::Probe => {
                TrafficClass::Control
            }
            Self::Relayed => TrafficClass::Interactive,
            Self::Stream(class) => class,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Message(kind) => kind.as_str(),
            Self::Datagram => "beat",
            Self::Discovery => "discovery",
            Self::Sealed => "sealed",
            Self::Stun => "stun",
            Self::Probe => "probe",
            Self::Relayed => "relayed",
            Self::Stream(_) => "stream",
        }
    }
}

impl Usage {
    pub(crate) fn sent(&self, traffic: Traffic, bytes: usize) {
        let cell = &self.cells[traffic.index()];
        cell.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        cell.sent_messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, traffic: Traffic, bytes: usize) {
        let cell = &self.cells[traffic.index()];
        cell.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        cell.received_messages.fetch_add(1, Ordering::Relaxed);
    }

    /// Every line that is not empty.
    pub fn lines(&self) -> Vec<Line> {
        let lines = Traffic::all().map(|traffic| {
            let cell = &self.cells[traffic.index()];
            Line {
                class: traffic.class(),
                kind: traffic.as_str(),
                sent_bytes: cell.sent_bytes.load(Ordering::Relaxed),
                received_bytes: cell.received_bytes.load(Ordering::Relaxed),
                sent_messages: cell.sent_messages.load(Ordering::Relaxed),
                received_messages: cell.received_messages.load(Ordering::Relaxed),
            }
        });
        lines.filter(|line| line.sent_messages + line.received_messages > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_traffic_has_a_cell_of_its_own() {
        let mut indexes: Vec<_> = Traffic::all().map(Traffic::index).collect();
        indexes.dedup();
        assert_eq!(indexes, (0..CELLS).collect::<Vec<_>>());
    }

    #[test]
    fn lines_tell_what_was_counted_and_nothing_else() {
        let usage = Usage::default();
        usage.sent(Traffic::Message(Kind::Ping), 9);
        usage.sent(Traffic::Message(Kind::Ping), 9);
        usage.received(Traffic::Stream(TrafficClass::Bulk), 1_000);
        let lines = usage.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].kind, lines[0].sent_bytes, lines[0].sent_messages), ("ping", 18, 2));
        assert_eq!((lines[1].class, lines[1].received_bytes), (TrafficClass::Bulk, 1_000));
    }
}
