//! Hosts' own firewalls, which let in only what was asked for, and knocks, which find that out.

use std::time::Duration;

use muster_overlay::Input;
use muster_overlay::standing::{Standing, Uptime};
use muster_types::Contact;

use super::session::{Flight, Parcel};
use super::{HostId, STALL_MEMORY, Served, World, cost};
use crate::model::link::Fate;

/// When a knock is tried, and how long it takes to say that nothing came of it: the shell's own (`core/net/src/knock.rs`).
const KNOCKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(750)];
const KNOCK_LIMIT: Duration = Duration::from_millis(1_500);

impl World {
    /// Its firewall lets in only what its host has asked for, or everything.
    pub fn block(&mut self, host: HostId, blocked: bool) {
        self.stir(self.hosts[host].place);
        self.note("block", host, u64::from(blocked));
        self.hosts[host].blocked = blocked;
    }

    /// Has the attested uptime that decides between LSNs, from its next start.
    pub fn attest(&mut self, host: HostId, basis_points: u16) {
        self.hosts[host].uptime = Uptime(basis_points);
        self.hosts[host].standing = Standing { wired: true, mains_powered: true };
    }

    /// Who served this host within the last seconds.
    pub fn served_by(&self, host: HostId) -> Option<HostId> {
        let recent = |served: &Served| self.now().since(served.at) < STALL_MEMORY;
        self.served[host].filter(recent).map(|served| served.by)
    }

    /// One packet there and one back, from a port that nobody has heard of, tried anew where one is lost.
    pub(super) fn knock(&mut self, from: HostId, contact: &Contact) {
        let peer = contact.node;
        let to = self.by_id.get(&peer).copied();
        let heard = to.filter(|&to| self.can_hear(from, to) && !self.hosts[to].blocked);
        let tries =
            heard.and_then(|to| KNOCKS.into_iter().find_map(|after| self.there_and_back(from, to, after)));
        self.locally(from, tries.unwrap_or(KNOCK_LIMIT), Input::Knocked { peer, answered: tries.is_some() });
    }

    /// How long from now, if neither packet is lost.
    fn there_and_back(&mut self, from: HostId, to: HostId, after: Duration) -> Option<Duration> {
        let mut at = self.now() + after;
        for (a, b) in [(from, to), (to, from)] {
            self.measure.message(a, "knock", cost::KNOCK, at);
            for up in [true, false] {
                let link = if up { &mut self.hosts[a].up } else { &mut self.hosts[b].down };
                let Fate::Arrives(then) = link.send(at, cost::KNOCK, &mut self.rng) else { return None };
                at = then;
            }
        }
        Some(at.since(self.now()))
    }

    /// A firewall that lets only answers in knows whom its host has spoken to.
    pub(super) fn keeps_out(&self, host: HostId, peer: HostId, parcel: &Parcel) -> bool {
        let asked =
            || self.hosts[host].sessions.contains_key(&peer) || self.handshakes.contains_key(&(host, peer));
        self.hosts[host].blocked
            && match parcel {
                Parcel::Discovery { .. } => true,
                Parcel::Handshake { flight: Flight::Hello, .. } => !asked(),
                _ => false,
            }
    }
}
