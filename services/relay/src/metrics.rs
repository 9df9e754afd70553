//! What the relay tells Prometheus. Each name stands here once.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use muster_overlay::relay::Loss;

const SEATS: &str = "muster_relay_sessions";
const PAIRS: &str = "muster_relay_pairs";
const PACKETS: &str = "muster_relay_packets_total";
const BYTES: &str = "muster_relay_bytes_total";
const LOST: &str = "muster_relay_packets_lost_total";
const OVERFLOWED: &str = "muster_relay_packets_overflowed_total";
const STRAYS: &str = "muster_relay_strays_total";
const REFUSED: &str = "muster_relay_tickets_refused_total";

/// How a packet came in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Udp,
    Stream,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Stream => "stream",
        }
    }
}

/// Names all metrics; once, when the service starts.
pub fn describe() {
    describe_gauge!(SEATS, "Nodes that are connected to this relay");
    describe_gauge!(PAIRS, "Pairs of nodes that may send to each other here");
    describe_counter!(PACKETS, "Packets carried, by the way they came");
    describe_counter!(BYTES, "Payload carried, by the way it came");
    describe_counter!(LOST, "Packets that went nowhere, by reason");
    describe_counter!(OVERFLOWED, "Packets that gave way to newer ones in a full queue");
    describe_counter!(STRAYS, "Datagrams from addresses that belong to no session");
    describe_counter!(REFUSED, "Tickets that opened no channel");
}

pub(crate) fn seated(seats: usize, pairs: usize) {
    gauge!(SEATS).set(seats as f64);
    gauge!(PAIRS).set(pairs as f64);
}

pub(crate) fn carried(way: Way, packets: usize, bytes: usize) {
    counter!(PACKETS, "way" => way.as_str()).increment(packets as u64);
    counter!(BYTES, "way" => way.as_str()).increment(bytes as u64);
}

pub(crate) fn lost(loss: Loss, packets: u64) {
    counter!(LOST, "reason" => loss.as_str()).increment(packets);
}

pub(crate) fn overflowed() {
    counter!(OVERFLOWED).increment(1);
}

pub(crate) fn stray() {
    counter!(STRAYS).increment(1);
}

pub(crate) fn ticket_refused() {
    counter!(REFUSED).increment(1);
}
