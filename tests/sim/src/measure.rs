//! The figures of a run: how long it took to be attached again, and what went over the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_overlay::intent::Disconnection;
use muster_types::Instant;

use crate::world::HostId;

mod load;

pub use self::load::{Load, Loads};

/// Durations, to be summed up when all are known.
#[derive(Debug, Clone, Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn add(&mut self, span: Duration) {
        self.0.push(span);
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn mean(&self) -> Duration {
        self.0.iter().sum::<Duration>().checked_div(self.0.len() as u32).unwrap_or_default()
    }

    /// The smallest value that so many of a hundred do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(place).copied().unwrap_or_default()
    }

    /// How many do not exceed `limit`.
    pub fn within(&self, limit: Duration) -> usize {
        self.0.iter().filter(|span| **span <= limit).count()
    }

    pub fn worst(&self) -> Duration {
        self.percentile(100)
    }
}

/// Messages and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    /// What has come since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { messages: self.messages - earlier.messages, bytes: self.bytes - earlier.bytes }
    }

    pub fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// An LSN's death, and who waits for the next.
#[derive(Debug)]
struct Crash {
    at: Instant,
    /// Under the new LSN; shown so by the master.
    attached: BTreeMap<HostId, bool>,
}

#[derive(Debug, Default)]
pub struct Measure {
    /// From the LSN's death until a child is under the next one.
    pub attached_after_crash: Sample,
    /// The same for the last child of each cell.
    pub all_after_crash: Sample,
    /// From the LSN's death until the master shows the child under the next one.
    pub shown_after_crash: Sample,
    /// From an LSN's goodbye until a child is under the next one.
    pub attached_after_part: Sample,
    /// From an LSN's goodbye until the master shows the child under the next one.
    pub shown_after_part: Sample,
    /// From a network until an LSN.
    pub network_to_lsn: Sample,
    pub disconnections: Sample,
    pub lan: Traffic,
    pub wan: Traffic,
    pub by_kind: BTreeMap<&'static str, Traffic>,
    /// Claims of deputies whose LSN was alive and within their hearing.
    pub false_detections: u64,
    /// Claims of deputies whose LSN had died.
    pub takeovers: u64,
    /// From the death of its LSN among many until a survivor is under another.
    pub reattached: Sample,
    /// From the master's return until it shows a host again.
    pub shown_again: Sample,
    /// Living hosts within hearing of their LSN that it reported as gone without a word.
    pub false_departures: u64,
    pub loads: Loads,
    /// When its LSN died, and which it was.
    orphans: Vec<Option<(Instant, HostId)>>,
    missed: Vec<Option<Instant>>,
    network_up: Vec<Option<Instant>>,
    crashes: BTreeMap<HostId, (Crash, bool)>,
    claimed: BTreeSet<(u64, u64)>,
    /// Tenures whose LSN named a successor itself.
    pub(crate) handed: BTreeSet<(u64, u64)>,
}

impl Measure {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            network_up: vec![None; hosts],
            orphans: vec![None; hosts],
            missed: vec![None; hosts],
            loads: Loads::new(hosts),
            ..Self::default()
        }
    }

    pub(crate) fn message(&mut self, from: HostId, kind: &'static str, bytes: usize, now: Instant) {
        self.lan.add(bytes);
        self.by_kind.entry(kind).or_default().add(bytes);
        self.loads.sent(from, bytes as u64, now);
    }

    /// What a host sent while its place rested.
    pub(crate) fn rested(
        &mut self,
        from: HostId,
        kind: &'static str,
        messages: u64,
        bytes: usize,
        now: Instant,
    ) {
        let traffic = Traffic { messages, bytes: messages * bytes as u64 };
        self.lan.merge(&traffic);
        self.by_kind.entry(kind).or_default().merge(&traffic);
        self.loads.rested(from, traffic.bytes, now);
    }

    pub(crate) fn wan(&mut self, host: HostId, bytes: usize, now: Instant) {
        self.wan.add(bytes);
        self.loads.sent(host, bytes as u64, now);
        self.loads.at_master(bytes as u64, now);
    }

    /// This host's LSN died; it is to find another.
    pub(crate) fn orphaned(&mut self, host: HostId, lsn: HostId, now: Instant) {
        self.orphans[host] = Some((now, lsn));
    }

    /// How many have not found one.
    pub fn still_orphaned(&self) -> usize {
        self.orphans.iter().flatten().count()
    }

    /// From now on the master is there, and does not know of this host's whereabouts.
    pub(crate) fn missed(&mut self, host: HostId, now: Instant) {
        self.missed[host] = Some(now);
    }

    pub fn still_missed(&self) -> usize {
        self.missed.iter().flatten().count()
    }

    /// The master knows again where it is.
    pub(crate) fn is_back(&mut self, host: HostId, now: Instant) {
        if let Some(since) = self.missed[host].take() {
            self.shown_again.add(now.since(since));
        }
    }

    pub(crate) fn disconnected(&mut self, disconnection: Disconnection) {
        self.disconnections.add(disconnection.lasted);
    }

    pub(crate) fn network_up(&mut self, host: HostId, now: Instant) {
        self.network_up[host] = Some(now);
        self.forget(host);
    }

    /// A deputy claims the place of an LSN that is alive and well, or is not. Each tenure counts once.
    pub(crate) fn claimed(&mut self, tenure: (u64, u64), alive: bool) {
        if self.claimed.insert(tenure) {
            self.false_detections += u64::from(alive);
            self.takeovers += u64::from(!alive);
        }
    }

    /// An LSN is gone; `children` were under it and live.
    pub(crate) fn lsn_gone(&mut self, lsn: HostId, children: Vec<HostId>, announced: bool, now: Instant) {
        for host in &children {
            self.forget(*host);
        }
        self.forget(lsn);
        let attached = children.into_iter().map(|child| (child, false)).collect();
        self.crashes.insert(lsn, (Crash { at: now, attached }, announced));
    }

    /// Something else befell this host: it no longer tells how long a crash lasts.
    pub(crate) fn forget(&mut self, host: HostId) {
        self.crashes.values_mut().for_each(|(crash, _)| {
            crash.attached.remove(&host);
        });
        self.crashes.retain(|_, (crash, _)| !crash.attached.is_empty());
    }

    /// The whole cell was shaken again.
    pub(crate) fn forget_cell(&mut self, mut is_of_cell: impl FnMut(HostId) -> bool) {
        self.crashes.retain(|&lsn, _| !is_of_cell(lsn));
    }

    pub(crate) fn has_lsn(&mut self, host: HostId, lsn: Option<HostId>, now: Instant) {
        if let Some(since) = self.network_up[host].take() {
            self.network_to_lsn.add(now.since(since));
        }
        self.attached(host, lsn, now);
    }

    pub(crate) fn is_lsn(&mut self, host: HostId, now: Instant) {
        if let Some(since) = self.network_up[host].take() {
            self.network_to_lsn.add(now.since(since));
        }
        self.attached(host, Some(host), now);
    }

    fn attached(&mut self, host: HostId, lsn: Option<HostId>, now: Instant) {
        if let Some((since, _)) = self.orphans[host].take_if(|(_, gone)| lsn != Some(*gone)) {
            self.reattached.add(now.since(since));
        }
        for (&gone, (crash, announced)) in &mut self.crashes {
            let Some(done) = crash.attached.get_mut(&host).filter(|done| !**done) else { continue };
            if lsn == Some(gone) {
                continue;
            }
            *done = true;
            let after = now.since(crash.at);
            let sample =
                if *announced { &mut self.attached_after_part } else { &mut self.attached_after_crash };
            sample.add(after);
            if !*announced && crash.attached.values().all(|done| *done) {
                self.all_after_crash.add(after);
            }
        }
    }

    /// The master shows a host under this LSN from now on.
    pub(crate) fn shown(&mut self, host: HostId, lsn: Option<HostId>, now: Instant) {
        for (&gone, (crash, announced)) in &mut self.crashes {
            if lsn != Some(gone) && crash.attached.get(&host) == Some(&true) {
                let sample =
                    if *announced { &mut self.shown_after_part } else { &mut self.shown_after_crash };
                sample.add(now.since(crash.at));
                crash.attached.remove(&host);
            }
        }
        self.crashes.retain(|_, (crash, _)| !crash.attached.is_empty());
    }

    pub fn merge(&mut self, other: &Self) {
        self.attached_after_crash.merge(&other.attached_after_crash);
        self.all_after_crash.merge(&other.all_after_crash);
        self.shown_after_crash.merge(&other.shown_after_crash);
        self.attached_after_part.merge(&other.attached_after_part);
        self.shown_after_part.merge(&other.shown_after_part);
        self.network_to_lsn.merge(&other.network_to_lsn);
        self.disconnections.merge(&other.disconnections);
        self.lan.merge(&other.lan);
        self.wan.merge(&other.wan);
        for (kind, traffic) in &other.by_kind {
            self.by_kind.entry(kind).or_default().merge(traffic);
        }
        self.false_detections += other.false_detections;
        self.takeovers += other.takeovers;
    }
}
