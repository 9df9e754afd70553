//! A settled network of any size: what puts, gets and finds take; then part of it dies at once, or has been false all along.

use std::time::{Duration, Instant as Wall};

use muster_overlay::dht::{Care, Input, Settings, Standing, Wish};
use rand::Rng;
use rand::seq::SliceRandom;

use super::load::Report;
use super::network::{Life, Network, Setup};

/// Records outlive every run here.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Upkeep is not what is looked at here.
const NO_UPKEEP: Duration = Duration::from_secs(100 * 24 * 3_600);

#[derive(Debug, Clone)]
pub struct Scale {
    pub setup: Setup,
    pub operations: usize,
    pub dead_percent: u32,
    pub false_percent: u32,
    pub care: Care,
}

#[derive(Debug)]
pub struct Outcome {
    pub put: Report,
    pub get: Report,
    pub find: Report,
    /// Contacts of a table in the mean.
    pub contacts: f64,
    pub events: u64,
    pub events_per_second: f64,
    pub trace: u64,
}

/// Settings of a network in which only operations are looked at.
pub fn quiet(mut settings: Settings) -> Settings {
    settings.question = NO_UPKEEP;
    settings
}

impl Scale {
    pub fn new(nodes: usize, operations: usize) -> Self {
        let mut setup = Setup::of(nodes);
        setup.settings = quiet(Settings { office_bucket: setup.settings.bucket, ..setup.settings });
        Self { setup, operations, dead_percent: 0, false_percent: 0, care: Care::OnMiss }
    }

    pub fn run(&self, seed: u64) -> Outcome {
        let mut network = Network::settled(&self.setup, seed);
        network.strike(self.false_percent, Life::False);
        let (wall, before) = (Wall::now(), network.events());
        // A publisher that false nodes deceive has published to them alone.
        let put_care = if self.false_percent > 0 { Care::Disjoint } else { Care::Plain };
        let (records, put) = network.put_many(self.operations, LIFE, put_care);
        if self.dead_percent > 0 {
            network.strike(self.dead_percent, Life::Down);
        }
        let get = network.get_all(&records, self.operations, Wish::First, self.care);
        let find_care = if self.false_percent > 0 { Care::Disjoint } else { Care::Plain };
        let find = network.find_all(self.operations, find_care);
        let (events, spent) = (network.events() - before, wall.elapsed());
        let contacts: usize = network.machines.iter().map(|machine| machine.stats().contacts).sum();
        Outcome {
            put,
            get,
            find,
            contacts: contacts as f64 / self.setup.nodes as f64,
            events,
            events_per_second: events as f64 / spent.as_secs_f64(),
            trace: network.trace(),
        }
    }
}

/// So many LSNs that know each other almost completely, and clients that ask them first.
pub fn with_lsns(lsns: usize, clients: usize, operations: usize, seed: u64) -> Report {
    let mut setup = Setup::of(lsns + clients);
    setup.settings = quiet(setup.settings);
    let mut network = Network::new(&setup, seed);
    let mut offices: Vec<_> = network.ids.all().collect();
    offices.shuffle(&mut network.rng);
    let clients = offices.split_off(lsns);
    for &node in &offices {
        network.input(node, Input::Standing(Standing { reachable: true, office: true, lsn: None }));
    }
    for &node in &offices {
        // Of those drawn only the LSNs count.
        let bucket = setup.settings.office_bucket * setup.nodes / lsns;
        network.introduce(node, bucket);
    }
    for &node in &clients {
        let lsn = offices[network.rng.random_range(0..offices.len())];
        network.input(node, Input::Standing(Standing { reachable: false, office: false, lsn: Some(lsn) }));
    }
    network.users = clients;
    let (records, _) = network.put_many(operations, LIFE, Care::Plain);
    network.get_all(&records, operations, Wish::First, Care::OnMiss)
}
