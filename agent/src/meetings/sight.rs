//! How this node is seen from outside: its own addresses, those that servers saw, and what that tells of the translator
//! between (RFC 4787). Asked when somebody wants to meet, or when the network changed; never while idle.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use muster_kit::clock::BootClock;
use muster_net::Endpoint;
use muster_overlay::meeting::{Candidate, Kind, Ports, Whereabouts};
use muster_types::{Instant, limits};

use crate::relays::Standing;

/// A translator forgets within half a minute (RFC 4787, REQ-5 asks for two): what is older is asked again.
const FRESH: Duration = Duration::from_secs(20);

/// How one server sees this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) server: SocketAddr,
    /// `None`: no answer.
    pub(crate) answer: Option<(SocketAddr, Duration)>,
}

/// Everything that was found out at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) own: Vec<SocketAddr>,
    pub(crate) seen: Vec<Seen>,
    /// `None`: this node may have moved since.
    taken: Option<Instant>,
}

impl Sight {
    /// Asks the servers in their order, each once; the wait is one round trip, or 1.75 s where UDP does not pass.
    pub(crate) async fn take(
        endpoint: &Endpoint,
        own: Vec<SocketAddr>,
        servers: &[SocketAddr],
        clock: &BootClock,
    ) -> Self {
        let asked = servers
            .iter()
            .map(|server| async { Seen { server: *server, answer: endpoint.ask_sight(*server).await } });
        Self { own, seen: join_all(asked).await, taken: Some(clock.now()) }
    }

    pub(super) fn is_fresh(&self, own: &[SocketAddr], now: Instant) -> bool {
        self.own == own && self.taken.is_some_and(|taken| now.since(taken) < FRESH)
    }

    pub(super) fn expire(&mut self) {
        self.taken = None;
    }

    /// Whether a peer that was told of `before` would seek in vain. Another port is no other place: some translators draw one
    /// for each look; nor is a server that did not answer.
    pub(super) fn is_elsewhere(&self, before: &Self) -> bool {
        let known = |ip: IpAddr| before.answers().any(|seen| seen.ip() == ip);
        self.own != before.own || self.answers().any(|seen| !known(seen.ip()))
    }

    /// In the order in which the servers were asked.
    fn answers(&self) -> impl Iterator<Item = SocketAddr> {
        self.seen.iter().filter_map(|seen| Some(seen.answer?.0))
    }

    pub(crate) fn ports(&self) -> Ports {
        let of = |v4: bool| -> Vec<u16> {
            self.answers().filter(|seen| seen.is_ipv4() == v4).map(|seen| seen.port()).collect()
        };
        let (v4, v6) = (of(true), of(false));
        if v4.is_empty() { Ports::seen(&v6) } else { Ports::seen(&v4) }
    }

    /// Nothing translates between this host and a server: it saw the very address that the host has.
    fn untranslated(&self) -> Option<IpAddr> {
        self.answers().find(|seen| self.own.contains(seen)).map(|seen| seen.ip())
    }

    /// What a peer is told.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        let hosts = self.own.iter().map(|at| Candidate { at: *at, kind: Kind::Host });
        let mut candidates: Vec<_> = hosts.take(limits::ADDRESSES / 2).collect();
        for at in self.answers() {
            if candidates.iter().all(|known| known.at != at) {
                candidates.push(Candidate { at, kind: Kind::Reflexive });
            }
        }
        candidates.truncate(limits::ADDRESSES);
        Whereabouts { candidates, ports: self.ports() }
    }

    /// RFC 4787, section 4.1.
    pub(crate) fn mapping(&self) -> &'static str {
        match self.ports() {
            _ if self.untranslated().is_some() => "none",
            Ports::Unknown => "unknown",
            Ports::Kept => "endpoint-independent",
            Ports::Counted(_) | Ports::Drawn => "address-and-port-dependent",
        }
    }

    /// What it means for somebody who wants to be reached, as far as it is known.
    pub(crate) fn meaning(&self, relays: &[Standing]) -> String {
        let rest = if relays.is_empty() {
            "and no relay is known, so the others are not reached at all"
        } else if relays.iter().any(|relay| relay.connected) {
            "a relay carries the others"
        } else {
            "a relay is to carry the others, and none has been needed yet"
        };
        let answered = self.answers().count();
        match (self.untranslated(), self.ports()) {
            _ if self.seen.is_empty() => {
                "The master names nobody who could be asked how this host is seen; it is reached as far as its own \
                 addresses go."
                    .to_owned()
            }
            _ if answered == 0 => without_udp(relays),
            (Some(ip), _) if is_private(ip) => format!(
                "No translator lies between this host and the master's servers, but its address is a private one: hosts \
                 elsewhere may not reach it directly; {rest}."
            ),
            (Some(_), _) => "This host has a public address: everybody reaches it directly.".to_owned(),
            (None, Ports::Unknown) => format!(
                "One server alone could be asked: the translator's kind is not known; direct sessions are tried, {rest}."
            ),
            (None, Ports::Kept) => format!(
                "The translator keeps one port for all: nearly everybody is reached directly; {rest}."
            ),
            (None, Ports::Counted(step)) => format!(
                "The translator counts its ports up by {step}: most are reached directly, some by a guess; {rest}."
            ),
            (None, Ports::Drawn) => format!(
                "The translator draws a new port for everybody: only those with an open translator are reached \
                 directly; {rest}."
            ),
        }
    }
}

fn without_udp(relays: &[Standing]) -> String {
    if relays.is_empty() {
        "UDP does not pass, and no relay is known: no other place is reached.".to_owned()
    } else if relays.iter().any(|relay| relay.connected) {
        "UDP does not pass: sessions with other places go through a relay, by TCP.".to_owned()
    } else {
        "UDP does not pass: sessions with other places are to go through a relay, by TCP; none has been tried yet."
            .to_owned()
    }
}

/// Not one that the whole internet routes to (RFC 1918, RFC 6598, RFC 4193, RFC 3927 and their like).
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn sight(own: &str, seen: &[Option<&str>]) -> Sight {
        let seen = seen.iter().map(|seen| Seen {
            server: at("198.51.100.1:9"),
            answer: seen.map(|seen| (at(seen), Duration::from_millis(9))),
        });
        Sight { own: vec![at(own)], seen: seen.collect(), taken: Some(Instant::ZERO) }
    }

    fn relay(connected: bool) -> Standing {
        Standing { name: "relay-0".to_owned(), addresses: Vec::new(), connected }
    }

    #[test]
    fn what_servers_saw_tells_the_translators_kind() {
        let inside = "192.168.1.7:27431";
        for (seen, mapping, word) in [
            (&[Some("203.0.113.1:27431"), Some("203.0.113.1:27431")][..], "endpoint-independent", "keeps"),
            (&[Some("203.0.113.1:9000"), Some("203.0.113.1:9001")], "address-and-port-dependent", "counts"),
            (&[Some("203.0.113.1:9000"), Some("203.0.113.1:60001")], "address-and-port-dependent", "draws"),
            (&[Some("203.0.113.1:9000"), None], "unknown", "One server"),
            (&[Some(inside), Some(inside)], "none", "a private one"),
            (&[None, None], "unknown", "UDP does not pass"),
        ] {
            let sight = sight(inside, seen);
            assert_eq!(sight.mapping(), mapping, "{seen:?}");
            let meaning = sight.meaning(&[relay(false)]);
            assert!(meaning.contains(word), "{meaning}");
        }
        let public = sight("203.0.113.1:27431", &[Some("203.0.113.1:27431")]);
        assert!(public.meaning(&[]).contains("public address"));
    }

    #[test]
    fn no_more_is_said_of_relays_than_is_known() {
        let blocked = sight("192.168.1.7:27431", &[None]);
        assert!(blocked.meaning(&[relay(false)]).contains("none has been tried yet"));
        assert!(blocked.meaning(&[relay(false), relay(true)]).contains("go through a relay"));
        assert!(blocked.meaning(&[]).contains("no relay is known"));
    }

    #[test]
    fn another_port_is_no_other_place_and_another_network_with_the_same_addresses_is() {
        let inside = "192.168.1.7:27431";
        let before = sight(inside, &[Some("203.0.113.1:9000"), None]);
        for same in [&[Some("203.0.113.1:9007")][..], &[None]] {
            assert!(!sight(inside, same).is_elsewhere(&before), "{same:?}");
        }
        assert!(sight(inside, &[Some("203.0.113.2:9000")]).is_elsewhere(&before));
        assert!(sight("192.168.1.8:27431", &[None]).is_elsewhere(&before));
    }

    #[test]
    fn a_look_is_good_for_a_while_unless_the_host_has_moved_since() {
        let mut sight = sight("192.168.1.7:27431", &[]);
        let own = [at("192.168.1.7:27431")];
        assert!(sight.is_fresh(&own, Instant::ZERO + FRESH / 2));
        assert!(!sight.is_fresh(&own, Instant::ZERO + FRESH));
        sight.expire();
        assert!(!sight.is_fresh(&own, Instant::ZERO));
    }

    #[test]
    fn a_peer_is_told_the_own_address_and_each_that_was_seen_once() {
        let sight = sight("192.168.1.7:27431", &[Some("203.0.113.1:9"), Some("203.0.113.1:9"), None]);
        let told: Vec<_> = sight.whereabouts().candidates.iter().map(|it| (it.at, it.kind)).collect();
        let expected = [(at("192.168.1.7:27431"), Kind::Host), (at("203.0.113.1:9"), Kind::Reflexive)];
        assert_eq!(told, expected);
    }
}
