//! What a node says of where it can be found.

use std::net::SocketAddr;

use muster_types::limits;

use super::timing::{FORESEEN, STEP};

/// What kind of address it is; the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Of one of its interfaces.
    Host,
    /// As somebody outside saw it.
    Reflexive,
    /// Its probes came from there, though nobody had said so.
    Met,
    /// The next ones of a translator that counts.
    Foreseen,
}

impl Kind {
    /// As it is shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Reflexive => "reflexive",
            Self::Met => "met",
            Self::Foreseen => "foreseen",
        }
    }
}

/// One address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    pub at: SocketAddr,
    pub kind: Kind,
}

/// Which port a node's translator gives to a new destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Not measured.
    #[default]
    Unknown,
    /// The same for all (RFC 4787, section 4.1: endpoint-independent mapping), or there is no translator.
    Kept,
    /// The one of before plus this.
    Counted(u16),
    /// Any.
    Drawn,
}

impl Ports {
    /// By the ports under which several others saw one socket, in the order in which it spoke to them.
    pub fn seen(ports: &[u16]) -> Self {
        let steps: Vec<_> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        match steps[..] {
            [] => Self::Unknown,
            _ if steps.iter().all(|step| *step == 0) => Self::Kept,
            [first, ..] if (1..=STEP).contains(&first) && steps.iter().all(|step| *step == first) => {
                Self::Counted(first)
            }
            _ => Self::Drawn,
        }
    }
}

/// Where a node may be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Best first, at most [`limits::ADDRESSES`].
    pub candidates: Vec<Candidate>,
    pub ports: Ports,
}

impl Whereabouts {
    /// Those that can be probed at all; who names more than allowed is heard no further.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Candidate> {
        self.candidates.iter().take(limits::ADDRESSES).copied().filter(|candidate| is_unicast(candidate.at))
    }

    /// The ports that come next, by each address that others saw.
    pub(super) fn foreseen(&self) -> Vec<SocketAddr> {
        let Ports::Counted(step) = self.ports else { return Vec::new() };
        let seen = self.candidates().filter(|candidate| candidate.kind == Kind::Reflexive).last();
        let ports = |base: u16| (1..=FORESEEN).map(move |count| base.wrapping_add(count.wrapping_mul(step)));
        seen.into_iter()
            .flat_map(|seen| ports(seen.at.port()).map(move |port| SocketAddr::new(seen.at.ip(), port)))
            .filter(|at| is_unicast(*at))
            .collect()
    }
}

fn is_unicast(at: SocketAddr) -> bool {
    let broadcast = matches!(at, SocketAddr::V4(v4) if v4.ip().is_broadcast());
    at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_counted_or_drawn() {
        for (seen, ports) in [
            (&[][..], Ports::Unknown),
            (&[9_000], Ports::Unknown),
            (&[9_000, 9_000], Ports::Kept),
            (&[9_000, 9_002, 9_004], Ports::Counted(2)),
            (&[9_000, 9_002, 9_005], Ports::Drawn),
            (&[9_002, 9_000], Ports::Drawn),
            (&[9_000, 19_000], Ports::Drawn),
        ] {
            assert_eq!(Ports::seen(seen), ports, "{seen:?}");
        }
    }

    #[test]
    fn what_comes_next_follows_the_last_address_that_was_seen() {
        let candidate = |at: &str| Candidate { at: at.parse().unwrap(), kind: Kind::Reflexive };
        let candidates = vec![candidate("203.0.113.1:9000"), candidate("203.0.113.1:9003")];
        let foreseen = Whereabouts { candidates, ports: Ports::Counted(3) }.foreseen();
        assert_eq!(foreseen.len(), usize::from(FORESEEN));
        assert_eq!(foreseen[..2], ["203.0.113.1:9006", "203.0.113.1:9009"].map(|at| at.parse().unwrap()));
    }

    #[test]
    fn nobody_is_made_to_probe_everybody() {
        let at = |at: &str| Candidate { at: at.parse().unwrap(), kind: Kind::Host };
        let candidates = ["224.0.0.1:9", "255.255.255.255:9", "0.0.0.0:9", "192.0.2.1:0", "[ff02::1]:9"];
        let told = Whereabouts { candidates: candidates.map(at).to_vec(), ports: Ports::Kept };
        assert_eq!(told.candidates().count(), 0);
        let many = Whereabouts { candidates: vec![at("192.0.2.1:9"); 100], ports: Ports::Kept };
        assert_eq!(many.candidates().count(), limits::ADDRESSES);
    }
}
