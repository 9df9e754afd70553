//! Who had how much to do, minute by minute; and the master, second by second.

use std::collections::BTreeMap;

use muster_types::Instant;

use crate::world::HostId;

/// What one host sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    minute: u32,
    within: u64,
    /// Of its busiest minute.
    pub peak: u64,
    pub total: u64,
    pub messages: u64,
}

/// What the master had to do within one second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// Connections that were let in.
    pub admitted: u32,
    /// Connections that were told when to come back.
    pub sent_away: u32,
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub struct Loads {
    hosts: Vec<Load>,
    master: BTreeMap<u64, Second>,
}

impl Loads {
    pub(super) fn new(hosts: usize) -> Self {
        Self { hosts: vec![Load::default(); hosts], master: BTreeMap::new() }
    }

    pub(super) fn sent(&mut self, host: HostId, bytes: u64, now: Instant) {
        let (load, minute) = (&mut self.hosts[host], (now.elapsed().as_secs() / 60) as u32);
        if load.minute != minute {
            (load.minute, load.within) = (minute, 0);
        }
        load.within += bytes;
        load.peak = load.peak.max(load.within);
        load.total += bytes;
        load.messages += 1;
    }

    /// Spread evenly over a rest; its minutes are the quietest.
    pub(super) fn rested(&mut self, host: HostId, bytes: u64, _now: Instant) {
        self.hosts[host].total += bytes;
    }

    pub(super) fn at_master(&mut self, bytes: u64, now: Instant) {
        self.second(now).bytes += bytes;
    }

    pub(crate) fn admitted(&mut self, now: Instant) {
        self.second(now).admitted += 1;
    }

    pub(crate) fn sent_away(&mut self, now: Instant) {
        self.second(now).sent_away += 1;
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        self.master.entry(now.elapsed().as_secs()).or_default()
    }

    /// From now on peaks count anew; what was sent before is the measure of a mean minute.
    pub fn begin_peaks(&mut self) {
        self.hosts.iter_mut().for_each(|load| (load.peak, load.within) = (0, 0));
    }

    pub fn hosts(&self) -> &[Load] {
        &self.hosts
    }

    /// The master's busiest second of each kind.
    pub fn busiest_second(&self) -> Second {
        let mut busiest = Second::default();
        for second in self.master.values() {
            busiest.admitted = busiest.admitted.max(second.admitted);
            busiest.sent_away = busiest.sent_away.max(second.sent_away);
            busiest.bytes = busiest.bytes.max(second.bytes);
        }
        busiest
    }

    pub fn master_total(&self) -> Second {
        let mut total = Second::default();
        for second in self.master.values() {
            total.admitted += second.admitted;
            total.sent_away += second.sent_away;
            total.bytes += second.bytes;
        }
        total
    }
}
