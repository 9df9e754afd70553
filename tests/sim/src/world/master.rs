//! The master as nodes meet it: control channels with heartbeats, numbered updates, receipts, rivals, and the picture
//! that it keeps of who is where. It knows what it was told, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_overlay::intent::{Presence, Update};
use muster_overlay::{Claim, Input};
use muster_types::{Instant, NodeId};
use rand::Rng;

use super::host::subnet_key;
use super::{Event, HostId, PlaceId, World};

/// Round trips of DNS, TCP, TLS and the first call.
const CONNECT_TRIPS: f64 = 3.5;
/// First pause before a call is tried again; doubles, with full jitter.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// After which a shell finds that its channel is dead: a heartbeat and its answer.
const CHANNEL_PATIENCE: Duration = Duration::from_secs(15);
/// Between two heartbeats of a channel; three missed are the end of it.
const HEARTBEAT: Duration = Duration::from_secs(25);
const HEARTBEATS_MISSED: u32 = 3;
/// How often the master looks after its channels.
const TICK: Duration = Duration::from_secs(1);
/// After which nodes are offline whose LSN has been superseded, or has gone, and who were not seen elsewhere: a lease.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);
/// How often rivals that remain are told of each other again.
const RIVAL_INTERVAL: Duration = Duration::from_secs(30);

/// What the master shows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// `None`: attached to the master itself.
    pub lsn: Option<HostId>,
    pub lineage: u64,
    pub epoch: u64,
    pub online: bool,
    /// By its own date.
    pub attached_at: Instant,
}

#[derive(Debug)]
struct Stream {
    attempt: u64,
    claim: Option<Claim>,
    known: u64,
    last_heard: Instant,
    /// The shell has not heard an answer since then.
    silent_since: Option<Instant>,
    told_rivals: Instant,
}

#[derive(Debug, Default)]
pub struct Master {
    pub(super) up: bool,
    pub shown: BTreeMap<HostId, Shown>,
    streams: BTreeMap<HostId, Stream>,
    /// Newest epoch of each lineage and since when.
    lineages: BTreeMap<u64, (u64, Instant)>,
    /// LSNs whose channel ended, and when.
    orphaned: BTreeMap<HostId, Instant>,
    /// Last update known of each tenure.
    known: BTreeMap<(HostId, u64, u64), u64>,
}

#[derive(Debug)]
pub(super) enum MasterEvent {
    Tick,
    Connect { host: HostId, boot: u32, attempt: u64, tries: u32 },
    Ask { host: HostId, boot: u32 },
    Update { host: HostId, attempt: u64, update: Update, sent: Instant },
    Left { host: HostId, attempt: u64, gone: bool },
}

impl Master {
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    pub(crate) fn has_stream(&self, host: HostId) -> bool {
        self.streams.contains_key(&host)
    }

    fn attach(&mut self, host: HostId, attempt: u64, claim: Option<Claim>, now: Instant) -> u64 {
        let tenure = claim.as_ref().map(|claim| (host, claim.lineage, claim.epoch));
        let known = tenure.and_then(|tenure| self.known.get(&tenure).copied()).unwrap_or(0);
        if let Some(claim) = &claim {
            let newest = self.lineages.entry(claim.lineage).or_insert((claim.epoch, now));
            if newest.0 < claim.epoch {
                *newest = (claim.epoch, now);
            }
            self.orphaned.remove(&host);
        }
        let (lineage, epoch) = claim.as_ref().map_or((0, 0), |claim| (claim.lineage, claim.epoch));
        let lsn = claim.as_ref().map(|_| host);
        self.shown.insert(host, Shown { lsn, lineage, epoch, online: true, attached_at: now });
        let stream =
            Stream { attempt, claim, known, last_heard: now, silent_since: None, told_rivals: Instant::ZERO };
        self.streams.insert(host, stream);
        known
    }

    fn apply(&mut self, lsn: HostId, node: HostId, presence: &Presence) {
        match presence {
            Presence::Attached { attach, .. } => {
                let attached_at = attach.seal.bytes().map_or(Instant::ZERO, date);
                if self.shown.get(&node).is_some_and(|shown| shown.attached_at > attached_at) {
                    return;
                }
                let (lineage, epoch) = (attach.lineage, attach.epoch);
                self.shown.insert(node, Shown { lsn: Some(lsn), lineage, epoch, online: true, attached_at });
            }
            // An LSN, or its successor, may say that a node has gone; nobody else's word counts.
            Presence::Departed(_) => {
                let epoch =
                    self.streams.get(&lsn).and_then(|s| s.claim.as_ref()).map(|c| (c.lineage, c.epoch));
                let Some(shown) = self.shown.get_mut(&node) else { return };
                if shown.lsn == Some(lsn) || epoch.is_some_and(|(l, e)| shown.lineage == l && shown.epoch < e)
                {
                    shown.online = false;
                }
            }
        }
    }

    fn apply_update(
        &mut self,
        lsn: HostId,
        update: &Update,
        host_of: impl Fn(NodeId) -> Option<HostId>,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&lsn) else { return false };
        if update.number != stream.known + 1 && !update.snapshot {
            return update.number <= stream.known;
        }
        stream.known = update.number;
        if let Some(claim) = &stream.claim {
            self.known.insert((lsn, claim.lineage, claim.epoch), update.number);
        }
        let nodes: Vec<_> = update.changes.iter().filter_map(|change| host_of(change.node)).collect();
        if update.snapshot {
            for (node, shown) in &mut self.shown {
                shown.online &= shown.lsn != Some(lsn) || *node == lsn || nodes.contains(node);
            }
        }
        for change in &update.changes {
            if let Some(node) = host_of(change.node) {
                self.apply(lsn, node, &change.presence);
            }
        }
        true
    }

    /// Nodes whose LSN is no more, and who did not turn up elsewhere in time.
    fn drop_orphans(&mut self, now: Instant) {
        let over = |since: Instant| now.since(since) > ORPHAN_PATIENCE;
        for shown in self.shown.values_mut().filter(|shown| shown.online && shown.lsn.is_some()) {
            let superseded = self
                .lineages
                .get(&shown.lineage)
                .is_some_and(|&(epoch, since)| epoch > shown.epoch && over(since));
            let orphaned =
                shown.lsn.and_then(|lsn| self.orphaned.get(&lsn)).is_some_and(|&since| over(since));
            shown.online &= !superseded && !orphaned;
        }
        self.orphaned.retain(|_, since| now.since(*since) <= ORPHAN_PATIENCE * 2);
    }

    fn rivals(&self, host: HostId, place: impl Fn(HostId) -> PlaceId) -> Vec<(HostId, Claim)> {
        self.streams
            .iter()
            .filter(|&(&other, _)| other != host && place(other) == place(host))
            .filter_map(|(&other, stream)| Some((other, stream.claim.clone()?)))
            .collect()
    }
}

fn date(seal: &[u8]) -> Instant {
    let micros = seal.try_into().map(u128::from_be_bytes).unwrap_or(0);
    Instant::from_elapsed(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
}

impl World {
    pub(super) fn tick_master(&mut self) {
        self.master.up = true;
        self.clock.schedule(self.now() + TICK, Event::Master(MasterEvent::Tick));
    }

    /// As the master shows it now.
    pub fn shown(&self, host: HostId) -> Option<Shown> {
        self.master.shown.get(&host).copied()
    }

    pub(super) fn attach_master(&mut self, host: HostId, claim: Option<muster_overlay::Claim>) {
        let trips = if self.master.has_stream(host) { 0.5 } else { CONNECT_TRIPS };
        let known = &mut self.hosts[host];
        known.wants_master = Some(claim);
        known.attempt += 1;
        let (boot, attempt) = (known.boot, known.attempt);
        let after = self.places[known.place].round_trip.mul_f64(trips);
        self.at_master(after, MasterEvent::Connect { host, boot, attempt, tries: 0 });
    }

    pub(super) fn detach_master(&mut self, host: HostId) {
        self.hosts[host].wants_master = None;
        self.end_channel(host, false);
    }

    pub(super) fn part_master(&mut self, host: HostId) {
        self.end_channel(host, true);
    }

    fn end_channel(&mut self, host: HostId, gone: bool) {
        if let Some(stream) = self.master.streams.get(&host) {
            let attempt = stream.attempt;
            let after = self.places[self.hosts[host].place].round_trip / 2;
            self.measure.wan(host, 120);
            self.at_master(after, MasterEvent::Left { host, attempt, gone });
        }
    }

    pub(super) fn ask_master(&mut self, host: HostId) {
        let after = self.places[self.hosts[host].place].round_trip.mul_f64(CONNECT_TRIPS);
        self.measure.wan(host, 6_500);
        let boot = self.hosts[host].boot;
        self.at_master(after, MasterEvent::Ask { host, boot });
    }

    pub(super) fn update_master(&mut self, host: HostId, update: Update) {
        let Some(stream) = self.master.streams.get(&host) else { return };
        let attempt = stream.attempt;
        self.measure.wan(host, 90 + 450 * update.changes.len());
        let (after, sent) = (self.places[self.hosts[host].place].round_trip / 2, self.now());
        self.at_master(after, MasterEvent::Update { host, attempt, update, sent });
    }

    fn at_master(&mut self, after: Duration, event: MasterEvent) {
        self.clock.schedule(self.now() + after, Event::Master(event));
    }

    fn reaches_master(&self, host: HostId) -> bool {
        let known = &self.hosts[host];
        self.master.up && self.places[known.place].wan && known.is_running()
    }

    pub(super) fn on_master_event(&mut self, event: MasterEvent) {
        match event {
            MasterEvent::Tick => self.on_tick(),
            MasterEvent::Connect { host, boot, attempt, tries } => {
                self.on_connect(host, boot, attempt, tries)
            }
            MasterEvent::Ask { host, boot } => self.on_ask(host, boot),
            MasterEvent::Update { host, attempt, update, sent } => {
                self.on_update(host, attempt, update, sent)
            }
            MasterEvent::Left { host, attempt, gone } => {
                if self.master.up && self.master.streams.get(&host).is_some_and(|s| s.attempt == attempt) {
                    self.drop_stream(host);
                    if gone {
                        self.master.shown.entry(host).and_modify(|shown| shown.online = false);
                    }
                }
            }
        }
    }

    fn on_connect(&mut self, host: HostId, boot: u32, attempt: u64, tries: u32) {
        let known = &self.hosts[host];
        if known.boot != boot || known.attempt != attempt || !known.is_running() {
            return;
        }
        let Some(claim) = known.wants_master.clone() else { return };
        if !self.reaches_master(host) {
            let limit = RETRY_FIRST.saturating_mul(1 << tries.min(6)).min(RETRY_MOST);
            let after = limit.mul_f64(self.rng.random::<f64>());
            return self.at_master(after, MasterEvent::Connect { host, boot, attempt, tries: tries + 1 });
        }
        let (now, place) = (self.now(), known.place);
        self.note("attach", host, attempt);
        self.measure.wan(host, 6_500);
        self.measure.claimed(host, claim.as_ref());
        let known_update = self.master.attach(host, attempt, claim, now);
        let back = self.places[place].round_trip / 2;
        self.locally(host, back, Input::SubnetKeys(vec![subnet_key(place)]));
        self.locally(host, back, Input::MasterAttached { known_update, resync: false });
        self.tell_rivals(host);
        self.measure.shown(host, Some(host), now);
    }

    fn tell_rivals(&mut self, host: HostId) {
        let now = self.now();
        let Some(stream) = self.master.streams.get_mut(&host) else { return };
        stream.told_rivals = now;
        let Some(own) = stream.claim.clone() else { return };
        let rivals = self.master.rivals(host, |host| self.hosts[host].place);
        for (rival, claim) in rivals {
            let back = self.places[self.hosts[host].place].round_trip / 2;
            self.locally(host, back, Input::Rival(claim));
            self.locally(rival, back, Input::Rival(own.clone()));
        }
    }

    fn on_ask(&mut self, host: HostId, boot: u32) {
        let place = self.hosts[host].place;
        let back = self.places[place].round_trip / 2;
        if self.hosts[host].boot != boot {
            return;
        }
        if !self.reaches_master(host) {
            return self.locally(host, Duration::from_secs(10), Input::MasterAnswered(None));
        }
        let claims = self.master.rivals(host, |host| self.hosts[host].place);
        let claims = claims.into_iter().map(|(_, claim)| claim).collect();
        self.locally(host, back, Input::SubnetKeys(vec![subnet_key(place)]));
        self.locally(host, back, Input::MasterAnswered(Some(claims)));
    }

    fn on_update(&mut self, host: HostId, attempt: u64, update: Update, sent: Instant) {
        if self.master.streams.get(&host).is_none_or(|stream| stream.attempt != attempt) {
            return;
        }
        let (now, place) = (self.now(), self.hosts[host].place);
        if !self.master.up || !self.places[place].wan {
            // TCP holds it back until the way is free again, or the channel dies.
            let again = MasterEvent::Update { host, attempt, update, sent };
            return self.at_master(Duration::from_millis(500), again);
        }
        self.note("update", host, update.number);
        if !self.master.apply_update(host, &update, |node| self.by_id.get(&node).copied()) {
            // A gap: the channel is cut, and the LSN starts from what is known.
            self.drop_stream(host);
            return self.lose_channel(host, attempt);
        }
        let back = self.places[place].round_trip / 2;
        self.locally(host, back, Input::UpdateAcknowledged { number: update.number });
        let lsn = self.hosts[host].id;
        for change in &update.changes {
            let Some(&node) = self.by_id.get(&change.node) else { continue };
            let Presence::Attached { .. } = change.presence else { continue };
            self.measure.shown(node, Some(host), now);
            if node != host && self.can_hear(host, node) {
                self.locally(node, back + Duration::from_millis(2), Input::Receipt { lsn });
            }
        }
    }

    fn drop_stream(&mut self, host: HostId) {
        let now = self.now();
        if self.master.streams.remove(&host).is_some_and(|stream| stream.claim.is_some()) {
            self.master.orphaned.insert(host, now);
        }
    }

    /// The shell's side: told, and trying anew.
    fn lose_channel(&mut self, host: HostId, attempt: u64) {
        let known = &mut self.hosts[host];
        if known.attempt != attempt || !known.is_running() || known.wants_master.is_none() {
            return;
        }
        known.attempt += 1;
        let (boot, attempt) = (known.boot, known.attempt);
        self.locally(host, Duration::ZERO, Input::MasterDetached { reason: "no heartbeat".to_owned() });
        self.at_master(RETRY_FIRST, MasterEvent::Connect { host, boot, attempt, tries: 1 });
    }

    fn on_tick(&mut self) {
        let now = self.now();
        self.clock.schedule(now + TICK, Event::Master(MasterEvent::Tick));
        let hosts: Vec<_> = self.master.streams.keys().copied().collect();
        for host in hosts {
            self.look_after(host, now);
        }
        if self.master.up {
            self.master.drop_orphans(now);
        }
    }

    fn look_after(&mut self, host: HostId, now: Instant) {
        let reaches = self.reaches_master(host);
        let up = self.master.up;
        let current = self.hosts[host].attempt;
        let Some(stream) = self.master.streams.get_mut(&host) else { return };
        let attempt = stream.attempt;
        // A stream of an earlier process, or one that its shell has given up, is only waiting to be found dead.
        if reaches && attempt == current {
            stream.silent_since = None;
            if now.since(stream.last_heard) >= HEARTBEAT {
                stream.last_heard = now;
                self.measure.wan(host, 2 * 95);
            }
            if now.since(stream.told_rivals) >= RIVAL_INTERVAL {
                self.tell_rivals(host);
            }
            return;
        }
        let silent_since = *stream.silent_since.get_or_insert(now);
        if !up {
            // A master that is down misses nobody.
            stream.last_heard = now;
        }
        let dark = up && now.since(stream.last_heard) > HEARTBEAT * HEARTBEATS_MISSED;
        if now.since(silent_since) > CHANNEL_PATIENCE {
            self.lose_channel(host, attempt);
        }
        if dark {
            self.go_dark(host);
        }
    }

    /// A place gone dark: its nodes are unreachable.
    fn go_dark(&mut self, host: HostId) {
        self.note("dark", host, 0);
        self.master.streams.remove(&host);
        for (node, shown) in &mut self.master.shown {
            if shown.lsn == Some(host) || (*node == host && shown.lsn.is_none()) {
                shown.online = false;
            }
        }
    }
}
