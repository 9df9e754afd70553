//! The master as nodes meet it, over a wide area network: control channels with heartbeats, numbered updates,
//! receipts, rivals; and the shell's side of each channel, which tries anew when it breaks.

use std::time::Duration;

use muster_overlay::intent::{Presence, Update};
use muster_overlay::{Claim, Input};
use muster_types::Instant;

use super::host::subnet_key;
use super::master::{Numbered, Shown};
use super::{Event, HostId, World};
/// Round trips of DNS, TCP, TLS and the first call.
const CONNECT_TRIPS: f64 = 3.5;
/// After which a shell finds that its channel is dead: a heartbeat and its answer.
const CHANNEL_PATIENCE: Duration = Duration::from_secs(15);
/// Between two heartbeats of a channel; three missed are the end of it.
const HEARTBEAT: Duration = Duration::from_secs(25);
const HEARTBEATS_MISSED: u32 = 3;
/// How often the master looks after its channels.
const TICK: Duration = Duration::from_secs(1);
/// After which nodes are offline whose LSN has gone, and who did not turn up elsewhere: a lease.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum MasterEvent {
    Tick,
    Connect {
        host: HostId,
        boot: u32,
        attempt: u64,
    },
    Ask {
        host: HostId,
        boot: u32,
    },
    Update {
        host: HostId,
        boot: u32,
        update: Update,
    },
    Left {
        host: HostId,
        attempt: u64,
        gone: bool,
    },
    /// The list of revocations is.
    Longer,
}

impl World {
    pub(super) fn tick_master(&mut self) {
        self.master.up = true;
        self.clock.schedule(self.now() + TICK, Event::Master(Box::new(MasterEvent::Tick)));
    }

    /// As the master shows it now.
    pub fn shown(&self, host: HostId) -> Option<Shown> {
        self.master.shown(host)
    }

    pub(super) fn attach_master(&mut self, host: HostId, claim: Option<muster_overlay::Claim>) {
        self.judge_claim(host, claim.as_ref());
        if claim.is_some() {
            self.stir(self.hosts[host].place);
        }
        let (now, trips) = (self.now(), if self.master.has_stream(host) { 0.5 } else { CONNECT_TRIPS });
        let known = &mut self.hosts[host];
        known.wants_master = Some(claim);
        known.attempt += 1;
        let (boot, attempt) = (known.boot, known.attempt);
        // Who was asked to wait waits, whatever it wants meanwhile.
        let after = self.places[known.place].round_trip.mul_f64(trips).max(known.not_before.since(now));
        self.at_master(after, MasterEvent::Connect { host, boot, attempt });
    }

    /// Was a deputy right to claim? For the figures.
    fn judge_claim(&mut self, host: HostId, claim: Option<&Claim>) {
        let Some(claim) = claim else { return };
        let predecessor = claim.predecessor.and_then(|node| self.by_id.get(&node).copied());
        let handed = self.measure.handed.contains(&(claim.lineage, claim.epoch - 1));
        let (Some(predecessor), false) = (predecessor, handed) else { return };
        let alive = self.ran_well(predecessor) && self.can_hear(host, predecessor);
        self.measure.claimed((claim.lineage, claim.epoch), alive);
    }

    pub(super) fn detach_master(&mut self, host: HostId) {
        self.hosts[host].wants_master = None;
        self.end_channel(host, false);
    }

    pub(super) fn part_master(&mut self, host: HostId) {
        if self.master.has_stream(host) {
            return self.end_channel(host, true);
        }
        let after = self.places[self.hosts[host].place].round_trip.mul_f64(CONNECT_TRIPS);
        self.measure.wan(host, 6_500, self.clock.now());
        self.at_master(after, MasterEvent::Left { host, attempt: 0, gone: true });
    }

    fn end_channel(&mut self, host: HostId, gone: bool) {
        let Some(stream) = self.master.streams.get(&host) else { return };
        let attempt = stream.attempt;
        let after = self.places[self.hosts[host].place].round_trip / 2;
        self.measure.wan(host, 120, self.clock.now());
        self.at_master(after, MasterEvent::Left { host, attempt, gone });
    }

    pub(super) fn ask_master(&mut self, host: HostId) {
        let after = self.places[self.hosts[host].place].round_trip.mul_f64(CONNECT_TRIPS);
        self.measure.wan(host, 6_500, self.clock.now());
        let boot = self.hosts[host].boot;
        self.at_master(after, MasterEvent::Ask { host, boot });
    }

    pub(super) fn update_master(&mut self, host: HostId, update: Update) {
        if !self.master.has_stream(host) {
            return;
        }
        let boot = self.hosts[host].boot;
        let now = self.stir(self.hosts[host].place);
        self.measure.wan(host, 90 + 450 * update.changes.len(), now);
        let after = self.places[self.hosts[host].place].round_trip / 2;
        self.at_master(after, MasterEvent::Update { host, boot, update });
    }

    pub(super) fn at_master(&mut self, after: Duration, event: MasterEvent) {
        self.clock.schedule(self.now() + after, Event::Master(Box::new(event)));
    }

    fn reaches_master(&self, host: HostId) -> bool {
        let known = &self.hosts[host];
        self.master.up && self.places[known.place].wan && known.is_running() && !self.is_expelled(host)
    }

    pub(super) fn on_master_event(&mut self, event: MasterEvent) {
        match event {
            MasterEvent::Tick => self.on_tick(),
            MasterEvent::Connect { host, boot, attempt } => self.on_connect(host, boot, attempt),
            MasterEvent::Ask { host, boot } => self.on_ask(host, boot),
            MasterEvent::Update { host, boot, update } => self.on_update(host, boot, update),
            MasterEvent::Left { host, attempt, gone } => self.on_left(host, attempt, gone),
            MasterEvent::Longer => self.carry_revocations(),
        }
    }

    /// A channel ends, or a node takes its leave.
    fn on_left(&mut self, host: HostId, attempt: u64, gone: bool) {
        if !self.is_visible(self.hosts[host].place) {
            return;
        }
        if self.master.streams.get(&host).is_some_and(|stream| stream.attempt == attempt) {
            self.drop_stream(host);
        }
        if gone {
            self.master.remove(host);
        }
    }

    fn on_connect(&mut self, host: HostId, boot: u32, attempt: u64) {
        let known = &self.hosts[host];
        if known.boot != boot || known.attempt != attempt || !known.is_running() {
            return;
        }
        let Some(claim) = known.wants_master.clone() else { return };
        let (now, place) = (self.now(), known.place);
        // Another Hello over the stream that stands is no new connection.
        let stands = self.reaches_master(host) && self.master.is_heard(host);
        let admitted = if stands { Ok(()) } else { self.admit(host, now) };
        if let Err(asked) = admitted {
            let known = &mut self.hosts[host];
            let after = known.backoff.delay_after(asked, &mut self.rng);
            if asked.is_some() {
                known.not_before = now + after;
            }
            return self.at_master(after, MasterEvent::Connect { host, boot, attempt });
        }
        self.hosts[host].backoff.reset();
        self.note("attach", host, attempt);
        self.measure.wan(host, 6_500, now);
        let known_update = self.master.attach(host, attempt, claim, now);
        let back = self.places[place].round_trip / 2;
        self.locally(host, back, Input::SubnetKeys(vec![subnet_key(place)]));
        self.locally(host, back, Input::MasterAttached { known_update, resync: known_update == 0 });
        self.tell_by_channel(host, attempt);
        self.tell_rivals(host);
        self.measure.shown(host, Some(host), now);
        self.measure.is_back(host, now);
        for child in self.master.table(host) {
            self.measure.is_back(child, now);
        }
    }

    /// May it connect? If not, after which time, if the master said so.
    fn admit(&mut self, host: HostId, now: Instant) -> Result<(), Option<Duration>> {
        if !self.reaches_master(host) {
            return Err(None);
        }
        let admitted = self.master.admission.admit(now);
        match admitted {
            Ok(()) => self.measure.loads.admitted(now),
            Err(_) => self.measure.loads.sent_away(now),
        }
        // As the listener says it, in whole seconds.
        admitted.map_err(|asked| Some(Duration::from_secs(asked.as_millis().div_ceil(1_000) as u64)))
    }

    /// Once; who does not reach the other tries again by itself.
    fn tell_rivals(&mut self, host: HostId) {
        let Some(stream) = self.master.streams.get(&host) else { return };
        let own = stream.claim.clone();
        let place = self.hosts[host].place;
        let rivals = self.master.rivals(host, &self.places[place].members);
        for (rival, claim) in rivals {
            let back = self.places[self.hosts[host].place].round_trip / 2;
            self.locally(host, back, Input::Rival(claim));
            if let Some(own) = &own {
                self.locally(rival, back, Input::Rival(own.clone()));
            }
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
        if self.admit(host, self.clock.now()).is_err() {
            return self.locally(host, back, Input::MasterAnswered(None));
        }
        let claims = self.master.rivals(host, &self.places[place].members);
        let claims = claims.into_iter().map(|(_, claim)| claim).collect();
        self.locally(host, back, Input::SubnetKeys(vec![subnet_key(place)]));
        self.locally(host, back, Input::MasterAnswered(Some(claims)));
    }

    fn on_update(&mut self, host: HostId, boot: u32, update: Update) {
        if !self.master.has_stream(host) || self.hosts[host].boot != boot {
            return;
        }
        let place = self.hosts[host].place;
        if !self.master.up || !self.places[place].wan {
            // TCP holds it back until the way is free again, or the channel dies.
            let again = MasterEvent::Update { host, boot, update };
            return self.at_master(Duration::from_millis(500), again);
        }
        self.note("update", host, update.number);
        let before = if update.snapshot { self.master.table(host) } else { Vec::new() };
        let numbered = self.master.number(host, &update);
        if numbered == Numbered::Gap {
            // The channel is cut, and the LSN starts from what is known.
            let attempt = self.hosts[host].attempt;
            self.drop_stream(host);
            return self.lose_channel(host, attempt);
        }
        let back = self.places[place].round_trip / 2;
        self.locally(host, back, Input::UpdateAcknowledged { number: update.number });
        if numbered == Numbered::Known {
            return;
        }
        self.take_changes(host, &update, back);
        for node in before {
            if self.master.shown(node).is_none() {
                self.tell_missed(host, node, back);
            }
        }
    }

    /// By way of the LSN that missed it. Who is gone indeed hears nothing.
    fn tell_missed(&mut self, lsn: HostId, node: HostId, back: Duration) {
        if self.can_hear(lsn, node) && self.hosts[lsn].sessions.contains_key(&node) {
            self.locally(node, back + Duration::from_millis(2), Input::Missed);
        }
    }

    fn take_changes(&mut self, host: HostId, update: &Update, back: Duration) {
        let now = self.now();
        let lsn = self.hosts[host].id;
        for change in &update.changes {
            let Some(&node) = self.by_id.get(&change.node) else { continue };
            match &change.presence {
                Presence::Attached { attach, .. } => {
                    if !self.master.arrived(host, change.node, node, attach) {
                        continue;
                    }
                    self.measure.is_back(node, now);
                    if self.can_hear(host, node) {
                        self.measure.shown(node, Some(host), now);
                        self.locally(node, back + Duration::from_millis(2), Input::Receipt { lsn });
                    }
                }
                Presence::Departed(part) => {
                    let known = self.master.is_under(host, node) && self.hosts[host].lie.is_none();
                    if part.is_none() && known && self.ran_well(node) && self.can_hear(host, node) {
                        self.measure.false_departures += 1;
                    }
                    let departure = self.master.departed(host, node);
                    if departure.struck_off {
                        self.tell_missed(host, node, back);
                    }
                    if departure.ends_channel {
                        let attempt = self.master.streams.get(&node).map_or(0, |s| s.attempt);
                        self.drop_stream(node);
                        self.lose_channel(node, attempt);
                    }
                }
            }
        }
    }

    pub(super) fn drop_stream(&mut self, host: HostId) {
        let now = self.now();
        if self.master.streams.remove(&host).is_some_and(|stream| stream.claim.is_some()) {
            self.master.orphaned.insert(host, now + ORPHAN_PATIENCE);
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
        let after = self.hosts[host].backoff.next_delay(&mut self.rng);
        self.at_master(after, MasterEvent::Connect { host, boot, attempt });
    }

    fn on_tick(&mut self) {
        let now = self.now();
        self.clock.schedule(now + TICK, Event::Master(Box::new(MasterEvent::Tick)));
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
                self.measure.wan(host, 2 * 95, now);
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
        self.master.forget_table(host);
    }
}
