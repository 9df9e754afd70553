//! A day in the life: laptops come in the morning and go in the evening, half of the desktops sleep at night, some go without a
//! word; three time zones. Everybody who is up serves, which is harder than what the table is made for.

use std::time::Duration;

use muster_overlay::dht::{Care, Input, Record, Settings, Standing, Wish};
use muster_types::Instant;
use rand::{Rng, RngCore};

use super::load::{Health, Report};
use super::names::Handle;
use super::network::{Life, Network, Setup};
use crate::measure::Traffic;
use crate::world::Clock;

const HOUR: Duration = Duration::from_secs(3_600);
const LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Servers whose tables are looked at each time.
const SAMPLE: usize = 300;
/// Bootstrap nodes.
const BOOTSTRAPS: Handle = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A tenth.
    AlwaysOn,
    /// A third, of which half sleep at night.
    Desktop,
    /// The rest: off at night, closed now and then by day.
    Laptop,
}

#[derive(Debug)]
enum Change {
    Comes(Handle),
    /// With a word of farewell, or without.
    Goes(Handle, bool),
}

#[derive(Debug, Clone)]
pub struct Day {
    pub nodes: usize,
    pub hours: u32,
    pub records: usize,
    pub settings: Settings,
}

#[derive(Debug)]
pub struct Outcome {
    /// Every hour.
    pub health: Vec<(Instant, Health)>,
    pub gets: Report,
    pub fewest_holders: usize,
    pub mean_holders: f64,
    /// Sent by a server in a second, uses of the table not counted.
    pub bytes_per_second: f64,
    pub messages_per_second: f64,
    pub mean_up: f64,
    pub events: u64,
    pub trace: u64,
}

impl Day {
    pub fn new(nodes: usize) -> Self {
        Self { nodes, hours: 24, records: 200, settings: Settings::default() }
    }

    pub fn run(&self, seed: u64) -> Outcome {
        let mut setup = Setup::of(self.nodes);
        // Nobody here is an LSN: tables are as small as Kademlia's.
        setup.settings = Settings { office_bucket: self.settings.bucket, ..self.settings.clone() };
        let mut network = Network::settled(&setup, seed);
        network.count_sessions();
        let mut changes = Clock::default();
        for node in network.ids.all() {
            network.input(node, Input::Bootstrap((0..BOOTSTRAPS).filter(|&other| other != node).collect()));
            let places = network.place_count();
            plan(node, places, self.hours, &mut network, &mut changes);
        }
        network.run_for(Duration::from_secs(60));
        let (records, _) = network.put_many(self.records, LIFE, Care::Plain);
        Watch::default().over(self, &mut network, &mut changes, &records)
    }
}

/// What is counted as the day goes by.
#[derive(Debug, Default)]
struct Watch {
    health: Vec<(Instant, Health)>,
    quiet: Traffic,
    server_seconds: f64,
    seconds: f64,
}

impl Watch {
    fn over(
        mut self,
        day: &Day,
        network: &mut Network,
        changes: &mut Clock<Change>,
        records: &[Record],
    ) -> Outcome {
        let start = network.now();
        for hour in 1..=day.hours {
            self.until(start + HOUR * hour, network, changes);
            self.health.push((network.now(), network.health(SAMPLE)));
        }
        let gets = network.get_all(records, day.records, Wish::First, Care::OnMiss);
        let holders: Vec<_> = records.iter().map(|record| network.holders(record)).collect();
        Outcome {
            health: self.health,
            gets,
            fewest_holders: holders.iter().copied().min().unwrap_or_default(),
            mean_holders: holders.iter().sum::<usize>() as f64 / holders.len().max(1) as f64,
            bytes_per_second: self.quiet.bytes as f64 / self.server_seconds,
            messages_per_second: self.quiet.messages as f64 / self.server_seconds,
            mean_up: self.server_seconds / self.seconds,
            events: network.events(),
            trace: network.trace(),
        }
    }

    fn until(&mut self, end: Instant, network: &mut Network, changes: &mut Clock<Change>) {
        let before = network.traffic();
        let mut up = network.ids.all().filter(|&node| network.life(node) == Life::Up).count();
        loop {
            let change = changes.next_until(end);
            let span = changes.now().since(network.now());
            self.server_seconds += up as f64 * span.as_secs_f64();
            self.seconds += span.as_secs_f64();
            network.run_until(changes.now());
            match change {
                None => break,
                Some(Change::Comes(node)) => up += usize::from(come(network, node)),
                Some(Change::Goes(node, announced)) => up -= usize::from(go(network, node, announced)),
            }
        }
        self.quiet.merge(&network.traffic().since(&before));
    }
}

/// It wakes up with what it knew when it fell asleep.
fn come(network: &mut Network, node: Handle) -> bool {
    let comes = network.life(node) == Life::Down;
    if comes {
        network.set_life(node, Life::Up);
        network.input(node, Input::WokeUp);
        network.input(node, Input::Standing(Standing { reachable: true, office: true, lsn: None }));
    }
    comes
}

fn go(network: &mut Network, node: Handle, announced: bool) -> bool {
    let goes = network.life(node) == Life::Up;
    if goes {
        if announced {
            network.input(node, Input::Leave);
        }
        network.set_life(node, Life::Down);
    }
    goes
}

/// A host's days, by its place's clock; the first event to come tells whether it is up at the start.
fn plan(node: Handle, places: usize, hours: u32, network: &mut Network, changes: &mut Clock<Change>) {
    let rng = &mut network.rng;
    let class = match node % 20 {
        0 | 1 => Class::AlwaysOn,
        2..=8 => Class::Desktop,
        _ => Class::Laptop,
    };
    let sleeps = class == Class::Laptop || (class == Class::Desktop && rng.random());
    if node < BOOTSTRAPS || !sleeps {
        return;
    }
    let zone = 8 * 60 * ((node as usize % places) % 3) as i64;
    let mut events = Vec::new();
    for day in -1..=i64::from(hours / 24) {
        let midnight = 24 * 60 * day + zone;
        // Sixty of a hundred come within one hour.
        let comes = midnight + around(8 * 60 + 30, 36, rng);
        let closes = comes + around(180, 60, rng);
        events.push((comes, Change::Comes(node)));
        if class == Class::Laptop {
            events.push((closes, Change::Goes(node, rng.random())));
            events.push((closes + around(40, 15, rng), Change::Comes(node)));
        }
        events.push((midnight + around(17 * 60, 60, rng), Change::Goes(node, rng.random())));
    }
    events.retain(|&(minute, _)| minute > 0);
    events.sort_by_key(|&(minute, _)| minute);
    let asleep = matches!(events.first(), Some((_, Change::Comes(_))));
    for (minute, change) in events {
        changes.schedule(Instant::ZERO + Duration::from_secs(60 * minute as u64), change);
    }
    if asleep {
        network.set_life(node, Life::Down);
    }
}

/// Minutes, nearly normal.
fn around(mean: i64, deviation: i64, rng: &mut impl RngCore) -> i64 {
    let uniform: f64 = (0..4).map(|_| rng.random::<f64>()).sum();
    let normal = (uniform - 2.0) * 3.0_f64.sqrt();
    mean + (deviation as f64 * normal) as i64
}
