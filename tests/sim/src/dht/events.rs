//! What can befall a living network at once: a place loses power, or half of the places lose sight of the other half.

use std::time::Duration;

use muster_overlay::dht::{Care, Input, Record, Standing, Wish};

use super::load::{Health, Report};
use super::network::{Life, Network, Setup};

const LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
const MINUTE: Duration = Duration::from_secs(60);
/// Servers whose tables are looked at.
const SAMPLE: usize = 300;

#[derive(Debug)]
pub struct PowerCut {
    /// Gets while nobody has noticed yet.
    pub at_once: Report,
    /// Tables after half an hour.
    pub later: Health,
    /// The fewest holders of any record after an hour and a half, when a sweep has passed.
    pub fewest_holders: usize,
}

/// So many of a hundred places go dark at once.
pub fn power_cut(nodes: usize, percent: usize, operations: usize, seed: u64) -> PowerCut {
    let mut network = Network::settled(&Setup::of(nodes), seed);
    network.run_for(10 * MINUTE);
    let (records, _) = network.put_many(operations, LIFE, Care::Plain);
    let dark = (network.place_count() * percent).div_ceil(100);
    for node in network.ids.all().filter(|&node| network.place(node) < dark).collect::<Vec<_>>() {
        network.set_life(node, Life::Down);
    }
    let at_once = network.get_all(&records, operations, Wish::First, Care::OnMiss);
    network.run_for(30 * MINUTE);
    let later = network.health(SAMPLE);
    network.run_for(90 * MINUTE);
    let fewest_holders = fewest_holders(&network, &records);
    PowerCut { at_once, later, fewest_holders }
}

pub fn fewest_holders(network: &Network, records: &[Record]) -> usize {
    records.iter().map(|record| network.holders(record)).min().unwrap_or_default()
}

#[derive(Debug)]
pub struct Partition {
    /// Puts, each in its own half, when they have been apart for an hour.
    pub apart: Report,
    /// From the healing until nearly all tables are whole; `None`: not within two hours.
    pub whole_after: Option<Duration>,
    /// Everybody gets what either half has published while they were apart.
    pub together: Report,
}

/// Half of the places does not hear the other half for two hours.
pub fn partition(nodes: usize, operations: usize, seed: u64) -> Partition {
    let mut network = Network::settled(&Setup::of(nodes), seed);
    network.run_for(10 * MINUTE);
    network.part();
    network.run_for(60 * MINUTE);
    let (records, apart) = network.put_many(operations, LIFE, Care::Plain);
    network.run_for(60 * MINUTE);
    network.heal();
    let began = network.now();
    let mut whole_after = None;
    for _ in 0..60 {
        network.run_for(2 * MINUTE);
        if network.health(SAMPLE).healthy >= 0.95 {
            whole_after = Some(network.now().since(began));
            break;
        }
    }
    let together = network.get_all(&records, 2 * operations, Wish::First, Care::OnMiss);
    Partition { apart, whole_after, together }
}

#[derive(Debug)]
pub struct Joining {
    /// Messages of everybody for each that joined.
    pub messages: f64,
    pub bytes: f64,
    pub health: Health,
}

/// A network grows from one bootstrap node, one node after the other; the last hundred are counted.
pub fn joining(nodes: usize, seed: u64) -> Joining {
    const COUNTED: usize = 100;
    let mut network = Network::new(&Setup::of(nodes), seed);
    let first = 0;
    let (mut before, mut quiet) = ((network.traffic(), network.now()), network.traffic());
    for node in network.ids.all() {
        if node as usize + COUNTED == nodes {
            let from = network.traffic();
            network.run_for(MINUTE);
            quiet = network.traffic().since(&from);
            before = (network.traffic(), network.now());
        }
        if node != first {
            network.input(node, Input::Bootstrap(vec![first]));
        }
        network.input(node, Input::Standing(Standing { reachable: true, office: true, lsn: None }));
        network.run_for(Duration::from_millis(if node as usize + COUNTED < nodes { 200 } else { 2_000 }));
    }
    network.run_for(MINUTE);
    let spent = network.traffic().since(&before.0);
    let minutes = network.now().since(before.1).as_secs_f64() / 60.0;
    let net = |all: u64, quiet: u64| (all as f64 - quiet as f64 * minutes) / COUNTED as f64;
    let health = network.health(SAMPLE);
    Joining { messages: net(spent.messages, quiet.messages), bytes: net(spent.bytes, quiet.bytes), health }
}
