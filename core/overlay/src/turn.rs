//! What every room of the machine may read and do during one turn: the time, this node's own facts, its timers,
//! its outgoing intents, and randomness.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::{Contact, Instant, NodeId, SubnetKey, Version};
use rand::{Rng, RngCore};

use crate::claim::{Claim, Tenure};
use crate::input::Network;
use crate::intent::Intent;
use crate::message::{Discovery, Join, LsnQuery, Message, Seal};
use crate::standing::Uptime;
use crate::timer::{Timer, Timers};

/// What a node knows of itself.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) version: Version,
    pub(crate) minimum_version: Version,
    pub(crate) network: Network,
    pub(crate) subnet_keys: Vec<SubnetKey>,
    pub(crate) uptime: Uptime,
    pub(crate) load_percent: u8,
}

impl Own {
    pub(crate) fn contact(&self) -> Contact {
        Contact { node: self.node, addresses: self.network.addresses.clone() }
    }

    /// This node's claim to an office; it is signed on its way out.
    pub(crate) fn claim(&self, lineage: u64, epoch: u64, predecessor: Option<NodeId>) -> Claim {
        Claim {
            lineage,
            epoch,
            predecessor,
            subnet_keys: self.subnet_keys.clone(),
            claimant: self.contact(),
            uptime: self.uptime,
            standing: self.network.standing,
            successor: None,
            settled: false,
            seal: Seal::OWN,
        }
    }

    pub(crate) fn join(&self, tenure: Tenure) -> Join {
        Join {
            contact: self.contact(),
            subnet_keys: self.subnet_keys.clone(),
            uptime: self.uptime,
            standing: self.network.standing,
            attach: tenure.attach(self.node),
            version: self.version,
            brings: None,
        }
    }

    pub(crate) fn query(&self, nonce: u32) -> Discovery {
        let subnet_keys = self.subnet_keys.clone();
        Discovery::Query(LsnQuery { node: self.node, subnet_keys, uptime: self.uptime, nonce })
    }
}

pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) own: &'a Own,
    /// Open sessions, with the address that the peer's packets come from.
    pub(crate) sessions: &'a BTreeMap<NodeId, Option<SocketAddr>>,
    /// Children at the turn's beginning.
    pub(crate) children: usize,
    pub(crate) timers: &'a mut Timers,
    pub(crate) intents: &'a mut VecDeque<Intent>,
    pub(crate) rng: &'a mut dyn RngCore,
}

impl Turn<'_> {
    pub(crate) fn intend(&mut self, intent: Intent) {
        self.intents.push_back(intent);
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.intend(Intent::Send { to, message });
    }

    pub(crate) fn set(&mut self, timer: Timer, after: Duration) {
        self.timers.set(timer, self.now + after);
    }

    /// A random span from zero to `limit`.
    pub(crate) fn spread(&mut self, limit: Duration) -> Duration {
        self.between(Duration::ZERO, limit)
    }

    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.rng.random_range(least..=most)
    }
}
