//! What an LSN holds back for a moment, so that what is not urgent of many nodes goes up packed together. It may vanish
//! at any moment: a node keeps what it said until the master has acknowledged it, and says it again.

use std::time::Duration;

use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::{TrafficClass, Upstream};
use muster_wire::pack::{self, BATCH_BYTES, BATCH_UPSTREAMS};
use prost::Message;
use tokio::time::Instant;

/// How long things wait for company: not so long that somebody who looks at a screen would mind.
const COMPANY: Duration = Duration::from_secs(1);
/// An `Upstream`'s own bytes within a batch: its tag and length.
const ENVELOPE_BYTES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Spool {
    waiting: Vec<Upstream>,
    bytes: usize,
    since: Option<Instant>,
}

impl Spool {
    /// Takes what is not urgent of an upstream, and gives the rest back. What finds no room is dropped; its node says it
    /// again.
    pub(super) fn take_in(&mut self, upstream: Upstream) -> Option<Upstream> {
        let Upstream { node_id, items } = upstream;
        let (patient, urgent): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.class() >= TrafficClass::Telemetry);
        if !patient.is_empty() {
            let patient = Upstream { node_id: node_id.clone(), items: patient };
            let bytes = patient.encoded_len() + ENVELOPE_BYTES;
            if self.bytes + bytes <= BATCH_BYTES && self.waiting.len() < BATCH_UPSTREAMS {
                self.bytes += bytes;
                self.waiting.push(patient);
                self.since.get_or_insert_with(Instant::now);
            } else {
                tracing::debug!(bytes, "the spool is full; the node says it again");
            }
        }
        (!urgent.is_empty()).then_some(Upstream { node_id, items: urgent })
    }

    /// When what waits has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + COMPANY)
    }

    /// Everything that waits, packed. One alone gains nothing by it.
    pub(super) fn pack(&mut self) -> Option<Frame> {
        let Self { mut waiting, .. } = std::mem::take(self);
        if waiting.len() < 2 {
            return waiting.pop().map(Frame::Upstream);
        }
        let packed = pack::pack(waiting);
        packed
            .inspect_err(
                |error| tracing::error!(%error, "what nodes said cannot be packed; they say it again"),
            )
            .ok()
            .map(Frame::Packed)
    }

    /// There is no way to the master: nobody waits for this.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Section, collect};
    use bytes::Bytes;
    use muster_proto::control::v1::{UpstreamItem, upstream_item};
    use muster_proto::trust::v1::Envelope;

    const HOSTS: u8 = 20;

    fn item(class: TrafficClass, payload: Vec<u8>) -> UpstreamItem {
        let envelope = Envelope { payload: payload.into(), ..Envelope::default() };
        let body = Some(upstream_item::Body::TaskReport(envelope));
        UpstreamItem { class: class.into(), body, ..UpstreamItem::default() }
    }

    fn upstream(host: u8, items: Vec<UpstreamItem>) -> Upstream {
        Upstream { node_id: Bytes::from(vec![host; 20]), items }
    }

    #[test]
    fn what_is_urgent_does_not_wait_for_company() {
        let mut spool = Spool::default();
        let both = vec![item(TrafficClass::Task, vec![1]), item(TrafficClass::Telemetry, vec![2])];
        let passed = spool.take_in(upstream(1, both)).expect("the urgent one passes");
        assert_eq!(passed.items, [item(TrafficClass::Task, vec![1])]);
        assert!(spool.due().is_some());
        assert!(matches!(spool.pack(), Some(Frame::Upstream(alone)) if alone.items.len() == 1));
        assert!(spool.due().is_none() && spool.pack().is_none());
    }

    #[test]
    fn a_full_spool_drops_and_never_outgrows_a_batch() {
        let mut spool = Spool::default();
        for host in 0..=255 {
            spool.take_in(upstream(host, vec![item(TrafficClass::Bulk, vec![0; 100_000])]));
        }
        assert!(spool.bytes <= BATCH_BYTES && spool.waiting.len() > 30);
        assert!(matches!(spool.pack(), Some(Frame::Packed(_))));
    }

    /// This host's real inventory, as of hosts of one cell: each has its own name, id and a few packages of its own.
    #[test]
    fn inventories_of_a_cells_hosts_shrink_to_a_fraction_when_they_are_packed_together() {
        let mut spool = Spool::default();
        let (mut plain, mut alone) = (0, 0);
        for host in 0..HOSTS {
            let mut inventory = collect(&Section::ALL);
            if let Some(of) = &mut inventory.host {
                of.host_name = format!("pc-{host:03}.example.org");
            }
            if let Some(section) = &mut inventory.packages {
                section
                    .packages
                    .retain(|package| package.name.len() % usize::from(HOSTS) != usize::from(host));
            }
            let document = inventory.encode_to_vec();
            plain += document.len();
            alone += zstd::bulk::compress(&document, 9).expect("zstd packs").len();
            assert!(spool.take_in(upstream(host, vec![item(TrafficClass::Telemetry, document)])).is_none());
        }
        let Some(Frame::Packed(packed)) = spool.pack() else { panic!("they are packed") };
        let ratio = |bytes: usize| plain as f64 / bytes as f64;
        let (together, each) = (ratio(packed.zstd.len()), ratio(alone));
        println!(
            "{HOSTS} inventories, {plain} bytes: {each:.2} to one each by itself, {together:.2} to one together"
        );
        assert!(together > 3.65, "the document's spooler reached 365 %, this one {:.0} %", together * 100.0);
        assert!(together > 2.0 * each, "{together:.2} to one together, {each:.2} each by itself");
        assert_eq!(pack::unpack(&packed).expect("it unpacks").len(), usize::from(HOSTS));
    }
}
