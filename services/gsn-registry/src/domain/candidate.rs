//! One candidate with its stream: what it offers, what is proven of it, how it stands.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use muster_types::{Address, NodeId, SubnetKey, Timestamp};
use muster_wire::probe::Token;

use super::proof::{Proof, Verdict};
use super::record::{Caps, History, Kept, Load, State};

/// Addresses of one candidate that are probed: one a family.
pub const ADDRESSES: usize = 2;

/// A lease is renewed long before; it only tells the node how long to go on when the registry is away.
pub const LEASE: Duration = Duration::from_secs(60);

/// What is kept of a candidate is believed for so long by other replicas.
const ALIVE: Duration = Duration::from_secs(30);

/// How often what is kept is kept anew though nothing changed.
const KEEP: Duration = Duration::from_secs(10);

/// What a node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub node: NodeId,
    /// Public ones; of each family the first counts.
    pub addresses: Vec<Address>,
    pub noise_key: [u8; 32],
    pub eligible: bool,
    pub caps: Caps,
    pub subnets: Vec<SubnetKey>,
    pub nat: String,
}

/// How a candidate stands, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub until: Option<Timestamp>,
    pub reason: String,
    pub reliability: u16,
}

/// An address with what is proven of it.
#[derive(Debug, Clone)]
pub struct Offered {
    pub address: Address,
    pub at: SocketAddr,
    pub proof: Proof,
}

#[derive(Debug)]
pub struct Candidate {
    pub session: u64,
    pub offer: Offer,
    /// Where its stream comes from, if that is visible.
    pub observed: Option<IpAddr>,
    pub addresses: Vec<Offered>,
    pub history: History,
    pub load: Load,
    pub state: State,
    pub lease_until: Option<Timestamp>,
    pub last_proof: Option<Timestamp>,
    since: Timestamp,
    passed: Timestamp,
    told: Option<Standing>,
    kept: Timestamp,
    changed: bool,
}

impl Candidate {
    pub fn new(
        session: u64,
        offer: Offer,
        observed: Option<IpAddr>,
        history: History,
        now: Timestamp,
    ) -> Self {
        let mut candidate = Self {
            session,
            addresses: Vec::new(),
            observed,
            history,
            load: Load::default(),
            state: State::Unproven,
            lease_until: None,
            last_proof: None,
            since: now,
            passed: now,
            told: None,
            kept: Timestamp::default(),
            changed: true,
            offer,
        };
        candidate.take_addresses();
        candidate
    }

    /// When its stream began.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The node says it anew; what is proven of an address that stays is proven still.
    pub fn renew(&mut self, offer: Offer) {
        self.offer = offer;
        self.changed = true;
        self.take_addresses();
    }

    fn take_addresses(&mut self) {
        let before = std::mem::take(&mut self.addresses);
        for address in &self.offer.addresses {
            let Some(at) = address.udp() else { continue };
            let family = self.addresses.iter().any(|other| other.at.is_ipv4() == at.is_ipv4());
            if family || self.addresses.len() >= ADDRESSES {
                continue;
            }
            let proof = before.iter().find(|other| other.at == at).map(|other| other.proof.clone());
            // Others' word for a TCP port is not proof of one.
            let address = Address { tcp_port: None, ..*address };
            self.addresses.push(Offered { address, at, proof: proof.unwrap_or_default() });
        }
    }

    /// The candidate repeats a probe.
    pub fn heard(
        &mut self,
        token: &Token,
        source: SocketAddr,
        sent_ago: Option<Duration>,
        now: Timestamp,
    ) -> Verdict {
        let mut verdict = Verdict::Unknown;
        for offered in &mut self.addresses {
            verdict = offered.proof.heard(token, source, sent_ago, now);
            if verdict != Verdict::Unknown {
                break;
            }
        }
        if verdict != Verdict::Unknown {
            self.history.probes_heard += 1;
        }
        if verdict == Verdict::Counted {
            self.history.probes_counted += 1;
            self.last_proof = Some(now);
        }
        verdict
    }

    pub fn is_proven(&self, now: Timestamp) -> bool {
        self.addresses.iter().any(|offered| offered.proof.is_proven(now))
    }

    /// Lets time pass; says whether it may be chosen.
    pub fn pass(&mut self, now: Timestamp) -> bool {
        for offered in &mut self.addresses {
            offered.proof.expire(now);
        }
        let proven = self.offer.eligible && self.is_proven(now);
        self.history.pass(now.since(self.passed), proven);
        self.passed = now;
        proven
    }

    /// Takes the state that was decided; what to tell the node, if that is new.
    pub fn decide(&mut self, state: State, now: Timestamp) -> Option<Standing> {
        if state != self.state {
            (self.state, self.changed) = (state, true);
        }
        let renew = self.lease_until.is_none_or(|until| until.since(now) < LEASE / 2);
        match state {
            State::Serving if renew => self.lease_until = Some(now + LEASE),
            State::Serving => {}
            _ => self.lease_until = None,
        }
        let standing = Standing {
            state,
            until: self.lease_until,
            reason: self.reason().to_owned(),
            reliability: self.history.reliability(),
        };
        let differs = self.told.as_ref().is_none_or(|told| {
            (told.state, told.until, &told.reason) != (standing.state, standing.until, &standing.reason)
        });
        differs.then(|| self.told.insert(standing).clone())
    }

    fn reason(&self) -> &'static str {
        match self.state {
            State::Unwilling => "its owner does not want it, or it runs on battery",
            State::Unproven if self.addresses.is_empty() => "it offers no address that counts",
            State::Unproven => self.addresses.first().map_or("", |offered| offered.proof.missing()),
            State::Spare => "enough others serve",
            State::Serving => "",
            State::Gone => "its stream has ended",
        }
    }

    /// What to keep, if it is time to.
    pub fn to_keep(&mut self, replica: &str, now: Timestamp) -> Option<Kept> {
        if !self.changed && now.since(self.kept) < KEEP {
            return None;
        }
        (self.changed, self.kept) = (false, now);
        Some(self.kept(replica, now))
    }

    pub fn kept(&self, replica: &str, now: Timestamp) -> Kept {
        let proven = self.addresses.iter().filter(|offered| offered.proof.is_proven(now));
        let alive = self.state != State::Gone;
        Kept {
            node: self.offer.node,
            state: self.state,
            reason: self.reason().to_owned(),
            offered: self.offer.addresses.clone(),
            proven: proven.map(|offered| offered.address).collect(),
            noise_key: self.offer.noise_key,
            caps: self.offer.caps,
            nat: self.offer.nat.clone(),
            subnets: self.offer.subnets.clone(),
            history: self.history,
            load: self.load,
            since: self.since,
            last_proof: self.last_proof,
            lease_until: self.lease_until,
            replica: replica.to_owned(),
            alive_until: if alive { now + ALIVE } else { now },
        }
    }
}
