//! The numbered list of revoked hosts on its way through a fleet: from the master down its channels, then from host to host
//! over the sessions that they have. Who hears of more cuts those that it names, admits them no more, and passes it on; a new
//! channel's Welcome and a new session's Hello make up for what went by. As the agent's driver does it.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_overlay::Input;
use muster_types::Instant;

use super::channel::MasterEvent;
use super::session::Parcel;
use super::{Event, HostId, World};
use crate::measure::Sample;

/// From an operator's word until topology's channels carry it: a replica looks at auth's list this often.
const AUTH_LOOK: Duration = Duration::from_millis(500);

/// What the list says of a host.
#[derive(Debug, Clone, Copy)]
struct Revoked {
    number: u64,
    /// When the operator said so.
    at: Instant,
    /// When the last one that had a session with it closed it.
    cut: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Revoking {
    hosts: BTreeMap<HostId, Revoked>,
    /// When each number was said; the first is 1.
    said: Vec<Instant>,
    /// Up to where topology carries it.
    carried: u64,
    /// Up to where each host knows.
    known: BTreeMap<HostId, u64>,
    heard: Sample,
}

impl World {
    /// An operator's word, one increment of the list.
    pub fn revoke(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        let now = self.now();
        self.revoking.said.push(now);
        let number = self.revoking.said.len() as u64;
        let entry = Revoked { number, at: now, cut: None };
        self.revoking.hosts.extend(hosts.into_iter().map(|host| (host, entry)));
        self.at_master(AUTH_LOOK, MasterEvent::Longer);
    }

    /// The master takes these hosts in no more, and tells everybody who has a channel; them too.
    pub(super) fn carry_revocations(&mut self) {
        self.thaw_all();
        let number = self.revoking.carried + 1;
        self.revoking.carried = number;
        let channels: Vec<_> = self.master.streams.iter().map(|(host, it)| (*host, it.attempt)).collect();
        for (host, attempt) in channels {
            self.tell_by_channel(host, attempt);
        }
        let barred = self.revoking.hosts.iter().filter(|(_, it)| it.number == number);
        for host in barred.map(|(host, _)| *host).collect::<Vec<_>>() {
            if self.master.has_stream(host) {
                self.was_cut(host);
            }
            self.drop_stream(host);
            self.master.remove(host);
        }
    }

    /// The list as far as it is longer than this host knows, by its channel or in its Welcome.
    pub(super) fn tell_by_channel(&mut self, host: HostId, attempt: u64) {
        let up_to = self.revoking.carried;
        if self.knows(host) < up_to {
            let place = self.hosts[host].place;
            let at = self.now() + self.places[place].round_trip / 2;
            let boot = self.hosts[host].boot;
            self.later(place, at, Event::HeardOfRevocations { host, boot, attempt, up_to, place });
        }
    }

    pub fn is_revoked(&self, host: HostId) -> bool {
        self.revoking.hosts.contains_key(&host)
    }

    /// Whether topology takes it in no more.
    pub(super) fn is_expelled(&self, host: HostId) -> bool {
        self.revoking.hosts.get(&host).is_some_and(|it| it.number <= self.revoking.carried)
    }

    fn knows(&self, host: HostId) -> u64 {
        self.revoking.known.get(&host).copied().unwrap_or_default()
    }

    /// Whether `host` knows that `peer` counts no longer.
    pub(super) fn bars(&self, host: HostId, peer: HostId) -> bool {
        self.revoking.hosts.get(&peer).is_some_and(|it| it.number <= self.knows(host))
    }

    /// For each host and each increment: how long until it knew.
    pub fn heard_of_revocations(&self) -> &Sample {
        &self.revoking.heard
    }

    /// How long after the word each revoked host lost its last session; those that never had one are left out.
    pub fn cut_after(&self, host: HostId) -> Option<Duration> {
        let revoked = self.revoking.hosts.get(&host)?;
        Some(revoked.cut?.since(revoked.at))
    }

    /// Running hosts, but for revoked ones, that do not know the whole list.
    pub fn ignorant_of_revocations(&self) -> usize {
        let all = self.revoking.said.len() as u64;
        let counts = |host: &HostId| self.hosts[*host].is_running() && !self.is_revoked(*host);
        (0..self.hosts.len()).filter(counts).filter(|host| self.knows(*host) < all).count()
    }

    /// Sessions that a running host which is not revoked still holds with one that is.
    pub fn sessions_with_revoked(&self) -> usize {
        let held =
            |host: HostId| self.hosts[host].sessions.keys().filter(|peer| self.is_revoked(**peer)).count();
        let counts = |host: &HostId| self.hosts[*host].is_running() && !self.is_revoked(*host);
        (0..self.hosts.len()).filter(counts).map(held).sum()
    }

    /// What a channel carried; one that has ended since carried nothing, but to those that it ended for.
    pub(super) fn hear_by_channel(&mut self, host: HostId, boot: u32, attempt: u64, up_to: u64) {
        let stands = self.master.streams.get(&host).is_some_and(|stream| stream.attempt == attempt);
        if self.hosts[host].boot == boot && (stands || self.is_expelled(host)) {
            self.hear_of_revocations(host, None, up_to);
        }
    }

    pub(super) fn hear_of_revocations(&mut self, host: HostId, from: Option<HostId>, up_to: u64) {
        let before = self.knows(host);
        if !self.hosts[host].is_running() || up_to <= before {
            return;
        }
        self.note("revocations", host, up_to);
        let now = self.now();
        let news = &self.revoking.said[before as usize..up_to as usize];
        news.iter().for_each(|said| self.revoking.heard.add(now.since(*said)));
        self.revoking.known.insert(host, up_to);
        let peers: Vec<_> = self.hosts[host].sessions.keys().copied().collect();
        for peer in peers {
            if self.bars(host, peer) {
                self.cut(host, peer);
            } else if Some(peer) != from {
                self.pass_on(host, peer);
            }
        }
        let members = self.places[self.hosts[host].place].members.iter().copied();
        let is_news = |it: &HostId| {
            self.revoking.hosts.get(it).is_some_and(|it| it.number > before && it.number <= up_to)
        };
        let barred: Vec<_> = members.filter(|it| *it != host && is_news(it)).collect();
        for revoked in barred {
            let id = self.hosts[revoked].id;
            self.locally(host, Duration::ZERO, Input::Barred(id));
        }
    }

    /// Who is behind hears it over the session that stands.
    pub(super) fn pass_on(&mut self, host: HostId, peer: HostId) {
        let up_to = self.knows(host);
        if self.knows(peer) >= up_to {
            return;
        }
        if let Some(session) = self.hosts[host].sessions.get(&peer).map(|end| end.id) {
            self.dispatch(host, peer, Parcel::Revocations { session, up_to });
        }
    }

    fn cut(&mut self, host: HostId, peer: HostId) {
        let id = self.hosts[peer].id;
        self.close(host, id);
        self.was_cut(peer);
        self.locally(host, Duration::ZERO, Input::Closed { peer: id });
    }

    fn was_cut(&mut self, revoked: HostId) {
        let now = self.now();
        if let Some(entry) = self.revoking.hosts.get_mut(&revoked) {
            entry.cut = Some(now);
        }
    }
}
