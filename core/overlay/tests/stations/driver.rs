//! One node with its clock and its randomness, driven by hand.

use std::time::Duration;

use muster_overlay::claim::Tenure;
use muster_overlay::input::Network;
use muster_overlay::intent::Station;
use muster_overlay::message::{Accepted, Beat, Discovery, Message, Neighbor, NeighborList, Seal, Terms};
use muster_overlay::standing::{Standing, Uptime};
use muster_overlay::timing::{LEASE, MASTER_PATIENCE, PING_INTERVAL};
use muster_overlay::{Claim, Config, Input, Intent, Node};
use muster_types::{Address, Contact, Instant, NodeId, Version};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub(crate) const OWN: NodeId = NodeId([5; 20]);
pub(crate) const LSN: NodeId = NodeId([1; 20]);
pub(crate) const STEADY: Standing = Standing { wired: true, mains_powered: true };

/// The machine with its clock, its randomness and everything that it has wanted so far.
pub(crate) struct Driver {
    pub(crate) node: Node,
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) wanted: Vec<Intent>,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let node = Node::new(Config {
            node: OWN,
            version: version(1),
            minimum_version: version(1),
            uptime: Uptime(5_000),
            subnet_keys: vec![],
        });
        Self { node, now: Instant::ZERO, rng: ChaCha8Rng::seed_from_u64(1), wanted: vec![] }
    }

    /// With a network, and the search under way.
    pub(crate) fn connected() -> Self {
        let mut driver = Self::new();
        driver.input(Input::Network(network()));
        driver
    }

    /// Nobody was there.
    pub(crate) fn lsn() -> Self {
        let mut driver = Self::connected();
        driver.pass(MASTER_PATIENCE * 2);
        assert!(matches!(driver.node.station(), Station::IsLsn { .. }));
        driver.wanted.clear();
        driver
    }

    /// A child of [`LSN`] in its first epoch, first of the neighbor list.
    pub(crate) fn deputy() -> Self {
        let mut driver = Self::connected();
        driver.input(Input::Heard {
            from: address(1).udp().expect("it has a UDP port"),
            discovery: Discovery::Claim(claim(LSN, 7, 1)),
        });
        driver.open(LSN);
        driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 7, 1))));
        assert!(matches!(driver.node.station(), Station::HasLsn { lsn: LSN, .. }));
        driver.wanted.clear();
        driver
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.node.handle(input, self.now, &mut self.rng);
        self.wanted.extend(std::iter::from_fn(|| self.node.poll_intent()));
    }

    pub(crate) fn receive(&mut self, from: NodeId, message: Message) {
        self.input(Input::Received { from, message });
    }

    pub(crate) fn open(&mut self, peer: NodeId) {
        self.input(Input::Opened { peer, version: version(1), observed: None });
    }

    pub(crate) fn knocked(&mut self, peer: NodeId, answered: bool) {
        self.input(Input::Knocked { peer, answered });
    }

    pub(crate) fn beat(&mut self, sequence: u64) {
        let beat = Beat { lineage: 7, epoch: 1, sequence, answer: false };
        self.input(Input::BeatReceived { from: LSN, beat });
    }

    /// Time passes, and each timer is kept.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((at, _)) = self.node.poll_timeout().filter(|&(at, _)| at <= end) {
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now, &mut self.rng);
            self.wanted.extend(std::iter::from_fn(|| self.node.poll_intent()));
        }
        self.now = end;
    }

    pub(crate) fn sent(&self, to: NodeId) -> impl Iterator<Item = &Message> {
        self.wanted.iter().filter_map(move |intent| match intent {
            Intent::Send { to: peer, message } if *peer == to => Some(message),
            _ => None,
        })
    }
}

pub(crate) fn version(major: u16) -> Version {
    Version { major, minor: 0, patch: 0 }
}

pub(crate) fn address(host: u8) -> Address {
    Address { ip: [10, 0, 0, host].into(), udp_port: Some(27431), tcp_port: Some(27431) }
}

pub(crate) fn network() -> Network {
    Network { addresses: vec![address(5)], prefixes: vec![], gateway: None, standing: STEADY }
}

pub(crate) fn contact(node: NodeId) -> Contact {
    Contact { node, addresses: vec![address(node.0[0])] }
}

pub(crate) fn claim(lsn: NodeId, lineage: u64, epoch: u64) -> Claim {
    Claim {
        lineage,
        epoch,
        predecessor: None,
        subnet_keys: vec![],
        claimant: contact(lsn),
        uptime: Uptime(6_000),
        standing: STEADY,
        successor: None,
        settled: true,
        seal: Seal::OWN,
    }
}

pub(crate) fn accepted(claim: Claim) -> Accepted {
    let neighbor = Neighbor { contact: contact(OWN), uptime: Uptime(5_000), standing: STEADY };
    Accepted {
        neighbors: NeighborList { number: 1, neighbors: [neighbor].into() },
        claim,
        terms: Terms { lease: LEASE, ping_interval: PING_INTERVAL },
        observed: None,
    }
}

pub(crate) fn tenure(driver: &Driver) -> Tenure {
    let Station::IsLsn { lineage, epoch } = driver.node.station() else { panic!("it is no LSN") };
    Tenure { lsn: OWN, lineage, epoch }
}

pub(crate) fn join(driver: &mut Driver, child: NodeId, version: Version) {
    let join = muster_overlay::message::Join {
        contact: contact(child),
        subnet_keys: vec![],
        uptime: Uptime(100),
        standing: STEADY,
        attach: tenure(driver).attach(child),
        version,
        brings: None,
    };
    driver.open(child);
    driver.receive(child, Message::Join(join));
}
