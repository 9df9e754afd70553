//! Places where nothing happens. Their clocks stand still: no timer fires, no packet is made, and their machines never
//! learn of it; what they would have sent is computed. A million nodes fit into minutes because almost all of them rest.

use std::time::Duration;

use muster_overlay::intent::Station;
use muster_overlay::message::{Message, Ping, Pong};
use muster_overlay::timing::{BEAT_ANSWER_EVERY, BEAT_INTERVAL, CLAIM_INTERVAL, PING_INTERVAL, STABILITY};
use muster_types::Instant;

use super::{Event, HostId, PlaceId, World, cost};

/// Nothing but beats, pings and shown claims for so long: what the machines do once they are stable (a planned change of
/// LSN) is over then.
const QUIET_AFTER: Duration = STABILITY.saturating_add(CLAIM_INTERVAL).saturating_add(Duration::from_secs(5));
/// Deputies of an LSN, who get its beats.
const DEPUTIES: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Packets and inputs on their way.
    pub(super) pending: u32,
    /// When something happened last.
    stirred: Instant,
    /// Its clock stands still since then.
    resting_since: Option<Instant>,
}

/// What one host sends in a quiet second.
struct Rate {
    kind: &'static str,
    per_second: f64,
    bytes: usize,
}

impl World {
    /// Something happens in a place.
    pub(super) fn stir(&mut self, place: PlaceId) -> Instant {
        self.thaw(place);
        let now = self.now();
        self.places[place].quiet.stirred = now;
        now
    }

    /// Every clock runs again, for as long as after a disturbance.
    pub fn thaw_all(&mut self) {
        for place in 0..self.places.len() {
            self.stir(place);
        }
    }

    pub fn resting_places(&self) -> usize {
        self.places.iter().filter(|place| place.quiet.resting_since.is_some()).count()
    }

    pub(super) fn rest_if_quiet(&mut self, place: PlaceId) {
        let (now, quiet) = (self.now(), &self.places[place].quiet);
        let idle = quiet.pending == 0 && now.since(quiet.stirred) > QUIET_AFTER;
        if !self.rest || !idle || quiet.resting_since.is_some() {
            return;
        }
        let hosts = &mut self.hosts;
        if self.places[place].members.iter().any(|&host| hosts[host].frozen_until > now) {
            return;
        }
        for &host in &self.places[place].members {
            hosts[host].wake_at = None;
        }
        self.places[place].quiet.resting_since = Some(now);
    }

    pub(super) fn thaw(&mut self, place: PlaceId) {
        let Some(since) = self.places[place].quiet.resting_since.take() else { return };
        let rested = self.now().since(since);
        // It has been quiet for as long as it took to rest, and goes on being so.
        let members: Vec<HostId> = self.places[place].members.iter().copied().collect();
        for host in members {
            self.count_rest(host, rested);
            let known = &mut self.hosts[host];
            known.rested += rested;
            if let Some(served) = &mut self.served[host] {
                served.at += rested;
            }
            let next = known.machine.poll_timeout().filter(|_| known.is_running());
            if let Some((at, _)) = next {
                let at = at + known.rested;
                known.wake_at = Some(at);
                self.clock.schedule(at, Event::Wake { host, at });
            }
        }
    }

    fn count_rest(&mut self, host: HostId, rested: Duration) {
        if !self.hosts[host].is_running() {
            return;
        }
        let now = self.now();
        for Rate { kind, per_second, bytes } in self.rates(host) {
            let messages = (per_second * rested.as_secs_f64()).round() as u64;
            self.measure.rested(host, kind, messages, bytes, now);
        }
    }

    /// By its role, which is the machine's own word: only the figures depend on it.
    fn rates(&self, host: HostId) -> Vec<Rate> {
        let machine = &self.hosts[host].machine;
        let every = |interval: Duration| 1.0 / interval.as_secs_f64();
        let ping = || Message::Ping(Ping { sequence: 1, load_percent: 0 });
        let pong = || Message::Pong(Pong { sequence: 1, load_percent: 0, lsn: None, without_master: false });
        let beats = every(BEAT_INTERVAL);
        match machine.station() {
            Station::IsLsn { .. } => {
                let children = machine.children().len();
                let deputies = children.min(DEPUTIES);
                let (beaten, pinged) = (deputies as f64 * beats, (children - deputies) as f64);
                vec![
                    Rate { kind: "beat", per_second: beaten, bytes: cost::BEAT + cost::ACK },
                    Rate {
                        kind: "pong",
                        per_second: pinged * every(PING_INTERVAL),
                        bytes: cost::message(&pong()) + cost::ACK,
                    },
                    Rate {
                        kind: "multicast",
                        per_second: every(CLAIM_INTERVAL),
                        bytes: cost::CLAIM_DATAGRAM,
                    },
                ]
            }
            Station::HasLsn { .. } if self.is_deputy(host) => {
                let per_second = beats / BEAT_ANSWER_EVERY as f64;
                vec![Rate { kind: "beat", per_second, bytes: cost::BEAT + cost::ACK }]
            }
            Station::HasLsn { .. } => {
                let bytes = cost::message(&ping()) + cost::ACK;
                vec![Rate { kind: "ping", per_second: every(PING_INTERVAL), bytes }]
            }
            _ => Vec::new(),
        }
    }

    fn is_deputy(&self, host: HostId) -> bool {
        let known = &self.hosts[host];
        let first = known.machine.neighbors().into_iter().flat_map(|list| list.neighbors.iter());
        first.take(DEPUTIES).any(|neighbor| neighbor.contact.node == known.id)
    }
}
