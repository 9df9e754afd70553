//! How this node is seen from outside: its own addresses, those that servers saw, and what that tells of the translator
//! between (RFC 4787). Asked when somebody wants to meet, or when the network changed; never while idle.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use muster_net::Endpoint;
use muster_overlay::meeting::{Candidate, Kind, Ports, Whereabouts};
use muster_types::limits;
use tokio::time::Instant;

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
    taken: Instant,
}

impl Sight {
    /// Asks the servers in their order, each once; the wait is one round trip, or 1.75 s where UDP does not pass.
    pub(crate) async fn take(endpoint: &Endpoint, own: Vec<SocketAddr>, servers: &[SocketAddr]) -> Self {
        let asked = servers
            .iter()
            .map(|server| async { Seen { server: *server, answer: endpoint.ask_sight(*server).await } });
        Self { own, seen: join_all(asked).await, taken: Instant::now() }
    }

    pub(crate) fn is_fresh(&self, own: &[SocketAddr]) -> bool {
        self.own == own && self.taken.elapsed() < FRESH
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

    /// Nothing translates: a server saw the very address that this host has.
    pub(crate) fn is_public(&self) -> bool {
        self.answers().any(|seen| self.own.contains(&seen))
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
            _ if self.is_public() => "none",
            Ports::Unknown => "unknown",
            Ports::Kept => "endpoint-independent",
            Ports::Counted(_) | Ports::Drawn => "address-and-port-dependent",
        }
    }

    /// What it means for somebody who wants to be reached.
    pub(crate) fn meaning(&self, relays: bool) -> String {
        let rest = if relays {
            "a relay carries the others"
        } else {
            "and no relay is reached, so the others are not reached at all"
        };
        let answered = self.answers().count();
        match self.ports() {
            _ if self.seen.is_empty() => {
                "The master names nobody who could be asked how this host is seen; it is reached as far as its own \
                 addresses go."
                    .to_owned()
            }
            _ if answered == 0 && relays => {
                "UDP does not pass: every session goes through a relay, by TCP.".to_owned()
            }
            _ if answered == 0 => "UDP does not pass, and no relay is reached: no other place is.".to_owned(),
            _ if self.is_public() => {
                "This host has a public address: everybody reaches it directly.".to_owned()
            }
            Ports::Unknown => format!(
                "One server alone could be asked: the translator's kind is not known; direct sessions are tried, {rest}."
            ),
            Ports::Kept => format!(
                "The translator keeps one port for all: nearly everybody is reached directly; {rest}."
            ),
            Ports::Counted(step) => format!(
                "The translator counts its ports up by {step}: most are reached directly, some by a guess; {rest}."
            ),
            Ports::Drawn => format!(
                "The translator draws a new port for everybody: only those with an open translator are reached \
                 directly; {rest}."
            ),
        }
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
        Sight { own: vec![at(own)], seen: seen.collect(), taken: Instant::now() }
    }

    #[tokio::test]
    async fn what_servers_saw_tells_the_translators_kind() {
        let inside = "192.168.1.7:27431";
        for (seen, mapping, word) in [
            (&[Some("203.0.113.1:27431"), Some("203.0.113.1:27431")][..], "endpoint-independent", "keeps"),
            (&[Some("203.0.113.1:9000"), Some("203.0.113.1:9001")], "address-and-port-dependent", "counts"),
            (&[Some("203.0.113.1:9000"), Some("203.0.113.1:60001")], "address-and-port-dependent", "draws"),
            (&[Some("203.0.113.1:9000"), None], "unknown", "One server"),
            (&[Some(inside), Some(inside)], "none", "public"),
            (&[None, None], "unknown", "UDP does not pass"),
        ] {
            let sight = sight(inside, seen);
            assert_eq!(sight.mapping(), mapping, "{seen:?}");
            assert!(sight.meaning(true).contains(word), "{}", sight.meaning(true));
        }
    }

    #[tokio::test]
    async fn a_peer_is_told_the_own_address_and_each_that_was_seen_once() {
        let sight = sight("192.168.1.7:27431", &[Some("203.0.113.1:9"), Some("203.0.113.1:9"), None]);
        let told: Vec<_> = sight.whereabouts().candidates.iter().map(|it| (it.at, it.kind)).collect();
        let expected = [(at("192.168.1.7:27431"), Kind::Host), (at("203.0.113.1:9"), Kind::Reflexive)];
        assert_eq!(told, expected);
    }
}
