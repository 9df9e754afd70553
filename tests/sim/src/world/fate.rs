//! What befalls hosts, places and the master, at the word of whoever writes the story.

use std::time::Duration;

use muster_overlay::Input;
use muster_overlay::message::PartCode;

use super::{HostId, Life, PlaceId, World};

impl World {
    pub fn boot(&mut self, host: HostId) {
        let now = self.stir(self.hosts[host].place);
        self.note("boot", host, 0);
        self.hosts[host].boot(now);
        self.served[host] = None;
        self.measure.network_up(host, now);
        let network = self.hosts[host].network(host);
        self.input(host, Input::Network(network));
    }

    /// The power fails: silence.
    pub fn kill(&mut self, host: HostId) {
        let now = self.stir(self.hosts[host].place);
        self.note("kill", host, 0);
        self.hosts[host].halt(Life::Dead, now);
    }

    /// Its process dies, and its system closes the TCP connections that it had.
    pub fn crash(&mut self, host: HostId) {
        self.kill(host);
        if self.datagrams {
            return;
        }
        self.hosts[host].refuses = true;
        let broken = |peer: &HostId| self.hosts[*peer].sessions.contains_key(&host);
        let peers: Vec<_> =
            (0..self.hosts.len()).filter(broken).filter(|&peer| self.can_hear(host, peer)).collect();
        let gone = self.hosts[host].id;
        for peer in peers {
            self.hosts[peer].sessions.remove(&host);
            self.locally(peer, Duration::from_millis(1), Input::Closed { peer: gone });
        }
    }

    /// The user shuts it down: it takes its leave.
    pub fn leave(&mut self, host: HostId) {
        self.stir(self.hosts[host].place);
        self.note("leave", host, 0);
        self.input(host, Input::Leave { code: PartCode::LEAVING, description: "shut down".to_owned() });
    }

    pub fn sleep(&mut self, host: HostId) {
        let now = self.stir(self.hosts[host].place);
        self.note("sleep", host, 0);
        let host = &mut self.hosts[host];
        (host.life, host.since) = (Life::Asleep, now);
    }

    pub fn wake(&mut self, host: HostId) {
        let now = self.stir(self.hosts[host].place);
        self.note("wake", host, 0);
        (self.hosts[host].life, self.hosts[host].since) = (Life::Running, now);
        self.served[host] = None;
        self.measure.network_up(host, now);
        self.input(host, Input::WokeUp);
    }

    /// Its process gets no CPU for so long.
    pub fn freeze(&mut self, host: HostId, span: Duration) {
        self.stir(self.hosts[host].place);
        self.note("freeze", host, span.as_micros() as u64);
        self.hosts[host].frozen_until = self.now() + span;
    }

    /// The user carries it to another place.
    pub fn carry(&mut self, host: HostId, place: PlaceId) {
        self.stir(self.hosts[host].place);
        let now = self.stir(place);
        self.note("carry", host, place as u64);
        self.places[self.hosts[host].place].members.remove(&host);
        self.places[place].members.insert(host);
        self.hosts[host].place = place;
        self.hosts[host].segment = 0;
        self.hosts[host].since = now;
        self.served[host] = None;
        self.measure.network_up(host, now);
        let network = self.hosts[host].network(host);
        self.input(host, Input::Network(network));
    }

    /// The hosts chosen hear the others of their place no more.
    pub fn part(&mut self, place: PlaceId, apart: impl Fn(HostId) -> bool) {
        self.stir(place);
        self.note("part", place, 0);
        for &host in &self.places[place].members {
            self.hosts[host].segment = u8::from(apart(host));
        }
    }

    pub fn heal(&mut self, place: PlaceId) {
        self.part(place, |_| false);
    }

    pub fn set_wan(&mut self, place: PlaceId, up: bool) {
        self.stir(place);
        self.note("wan", place, u64::from(up));
        self.places[place].wan = up;
    }

    pub fn set_master(&mut self, up: bool) {
        self.note("master", 0, u64::from(up));
        self.master.up = up;
    }
}
