//! A signed list of revoked hosts on its way through a fleet: from the master down its channels, then from host to host
//! over the sessions that they have. Who hears of it cuts those that it names, admits them no more, and passes it on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_overlay::Input;
use muster_types::Instant;

use super::session::Parcel;
use super::{Event, HostId, World};

/// From an operator's word until topology's channels carry it: a replica looks at auth's list this often.
const AUTH_LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Revoking {
    hosts: BTreeSet<HostId>,
    heard: BTreeMap<HostId, Instant>,
    /// When the last host that had a session with it closed it.
    cut: BTreeMap<HostId, Instant>,
}

impl World {
    /// The master takes these hosts in no more, and tells everybody who has a channel.
    pub fn revoke(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        self.thaw_all();
        let now = self.now();
        self.revoking = Revoking { hosts: hosts.into_iter().collect(), ..Revoking::default() };
        let channels: Vec<_> = self.master.streams.keys().copied().collect();
        for host in channels {
            let place = self.hosts[host].place;
            let after = AUTH_LOOK + self.places[place].round_trip / 2;
            let boot = self.hosts[host].boot;
            self.later(place, now + after, Event::HeardOfRevocations { host, boot, place });
        }
        for host in self.revoking.hosts.clone() {
            self.drop_stream(host);
            self.master.remove(host);
        }
    }

    pub fn is_revoked(&self, host: HostId) -> bool {
        self.revoking.hosts.contains(&host)
    }

    /// Whether `host` knows that `peer` counts no longer.
    pub(super) fn bars(&self, host: HostId, peer: HostId) -> bool {
        self.revoking.hosts.contains(&peer) && self.revoking.heard.contains_key(&host)
    }

    /// When each host heard of it, and when each revoked one lost its last session.
    pub fn revocation_times(&self) -> (&BTreeMap<HostId, Instant>, &BTreeMap<HostId, Instant>) {
        (&self.revoking.heard, &self.revoking.cut)
    }

    /// Sessions that a host which is not revoked still holds with one that is.
    pub fn sessions_with_revoked(&self) -> usize {
        let held =
            |host: HostId| self.hosts[host].sessions.keys().filter(|peer| self.is_revoked(**peer)).count();
        (0..self.hosts.len()).filter(|host| !self.is_revoked(*host)).map(held).sum()
    }

    pub(super) fn hear_of_revocations(&mut self, host: HostId, boot: u32) {
        let known = &self.hosts[host];
        if known.boot != boot || !known.is_running() || self.revoking.heard.contains_key(&host) {
            return;
        }
        self.note("revocations", host, 0);
        let now = self.now();
        self.revoking.heard.insert(host, now);
        let peers: Vec<_> = self.hosts[host].sessions.keys().copied().collect();
        for peer in peers {
            if self.is_revoked(peer) { self.cut(host, peer) } else { self.pass_on(host, peer) }
        }
        let members = self.places[self.hosts[host].place].members.iter().copied();
        let barred: Vec<_> = members.filter(|it| *it != host && self.is_revoked(*it)).collect();
        for revoked in barred {
            let id = self.hosts[revoked].id;
            self.locally(host, Duration::ZERO, Input::Barred(id));
        }
    }

    /// Who is behind hears it over the session that stands.
    pub(super) fn pass_on(&mut self, host: HostId, peer: HostId) {
        if !self.revoking.heard.contains_key(&host) || self.revoking.heard.contains_key(&peer) {
            return;
        }
        if let Some(session) = self.hosts[host].sessions.get(&peer).map(|end| end.id) {
            self.dispatch(host, peer, Parcel::Revocations { session });
        }
    }

    fn cut(&mut self, host: HostId, peer: HostId) {
        let id = self.hosts[peer].id;
        self.close(host, id);
        let now = self.now();
        self.revoking.cut.insert(peer, now);
        self.locally(host, Duration::ZERO, Input::Closed { peer: id });
    }
}
