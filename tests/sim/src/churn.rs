//! Churn: what befalls a thousand hosts in fifty places, drawn from one seed, watched by the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_types::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::measure::Measure;
use crate::model::link::{Loss, Shape};
use crate::oracle::{ATTACHED, Oracle, Violation};
use crate::world::{HostId, Life, PlaceId, Setup, World};

/// How often the oracle looks.
const LOOK: Duration = Duration::from_secs(1);
/// All hosts are switched on within this.
const MORNING: Duration = Duration::from_secs(10);
/// At the end; more than a planned change of LSN takes.
const LAST_LOOKS: u32 = 5;
/// Mean time between two events of one place.
const GAP: Duration = Duration::from_secs(12);

#[derive(Debug, Clone)]
pub struct Churn {
    pub nodes: usize,
    pub places: usize,
    /// How long things happen; the morning before and the settling after are not counted.
    pub span: Duration,
    /// `false`: a network that drops UDP.
    pub datagrams: bool,
    /// Hosts whose story is told on stderr.
    pub watch: Vec<HostId>,
}

#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub measure: Measure,
    pub trace: u64,
    pub events: u64,
    pub simulated: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Boot(HostId),
    Wake(HostId),
    Heal(PlaceId),
    WanUp(PlaceId),
    MasterDown,
    MasterUp,
    /// Something happens in this place.
    Strike(PlaceId),
}

/// A busy office: 1 ms each way, now and then a burst in which most packets are lost.
pub fn office_link() -> Shape {
    Shape {
        delay: Duration::from_micros(400),
        jitter: Duration::from_micros(600),
        loss: Loss::Bursts {
            good: Duration::from_secs(60),
            bad: Duration::from_millis(120),
            loss_when_good: 0.001,
            loss_when_bad: 0.7,
        },
        ..Shape::default()
    }
}

impl Churn {
    pub fn run(&self, seed: u64) -> Outcome {
        let (nodes, places, datagrams) = (self.nodes, self.places, self.datagrams);
        let setup = Setup { nodes, places, link: office_link(), rest: false, datagrams };
        let mut world = World::new(&setup, seed);
        world.watch(&self.watch);
        let oracle = Oracle::new(&world);
        let rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0c1d_ec0d_e5ee_d000);
        let mut run = Run { world, oracle, rng, acts: BTreeMap::new(), made: 0 };
        run.schedule_morning(self.span);
        run.until(Instant::ZERO + MORNING + self.span);
        run.settle();
        let Run { world, oracle, .. } = run;
        let (trace, events, simulated) = (world.trace(), world.events(), world.now().elapsed());
        Outcome {
            seed,
            violations: oracle.violations,
            measure: world.into_measure(),
            trace,
            events,
            simulated,
        }
    }
}

struct Run {
    world: World,
    oracle: Oracle,
    rng: ChaCha8Rng,
    acts: BTreeMap<(Instant, u64), Act>,
    made: u64,
}

impl Run {
    fn schedule(&mut self, at: Instant, act: Act) {
        self.made += 1;
        self.acts.insert((at, self.made), act);
    }

    fn after(&mut self, least: f64, most: f64, act: Act) {
        let span = Duration::from_secs_f64(self.rng.random_range(least..most));
        self.schedule(self.world.now() + span, act);
    }

    fn schedule_morning(&mut self, span: Duration) {
        for host in 0..self.world.host_count() {
            self.after(0.0, MORNING.as_secs_f64(), Act::Boot(host));
        }
        for place in 0..self.world.place_count() {
            let at = MORNING + ATTACHED + GAP.mul_f64(self.rng.random::<f64>());
            self.schedule(Instant::ZERO + at, Act::Strike(place));
        }
        if self.rng.random_bool(0.3) {
            let at = MORNING + span.mul_f64(0.5);
            self.schedule(Instant::ZERO + at, Act::MasterDown);
            self.schedule(Instant::ZERO + at + Duration::from_secs(20), Act::MasterUp);
        }
        self.oracle.disturb_all(Instant::ZERO + MORNING);
    }

    fn until(&mut self, end: Instant) {
        let mut next_look = self.world.now() + LOOK;
        while self.world.now() < end {
            let next_act = self.acts.first_key_value().map(|(&(at, _), _)| at);
            let next = next_act.unwrap_or(end).min(next_look).min(end);
            self.world.run_until(next);
            if next == next_look {
                self.oracle.look(&mut self.world, false);
                next_look += LOOK;
            }
            while let Some(entry) = self.acts.first_entry().filter(|entry| entry.key().0 <= next) {
                let act = entry.remove();
                self.act(act);
            }
        }
    }

    /// Everything is put right; then nothing happens until no excuse is left.
    fn settle(&mut self) {
        let now = self.world.now();
        self.acts.clear();
        self.act(Act::MasterUp);
        for place in 0..self.world.place_count() {
            self.act(Act::Heal(place));
            self.act(Act::WanUp(place));
        }
        for host in 0..self.world.host_count() {
            self.act(Act::Wake(host));
        }
        self.oracle.disturb_all(now);
        self.until(now + ATTACHED);
        for _ in 0..LAST_LOOKS {
            self.world.run_for(LOOK);
            self.oracle.look(&mut self.world, true);
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.world.now();
        match act {
            Act::Boot(host) if matches!(self.world.life(host), Life::Dead | Life::Left) => {
                self.world.boot(host)
            }
            Act::Wake(host) if self.world.life(host) == Life::Asleep => self.world.wake(host),
            Act::Boot(_) | Act::Wake(_) => {}
            Act::Heal(place) => {
                self.world.heal(place);
                self.shake(place);
            }
            Act::WanUp(place) => {
                self.world.set_wan(place, true);
                self.shake(place);
            }
            Act::MasterDown => {
                self.world.set_master(false);
                self.oracle.disturb_all(now);
            }
            Act::MasterUp => {
                self.world.set_master(true);
                self.oracle.disturb_all(now);
            }
            Act::Strike(place) => {
                self.strike(place);
                let gap = GAP.mul_f64(-self.rng.random::<f64>().max(1e-9).ln());
                self.schedule(now + gap, Act::Strike(place));
            }
        }
    }

    fn shake(&mut self, place: PlaceId) {
        self.oracle.disturb(place, self.world.now());
        let world = &self.world;
        let cell: BTreeSet<_> = (0..world.host_count()).filter(|&host| world.place(host) == place).collect();
        self.world.measure.forget_cell(|host| cell.contains(&host));
    }

    fn strike(&mut self, place: PlaceId) {
        let Some(lsn) = self.world.who_is_lsn(place, 0).first().copied() else { return };
        let members: Vec<_> = self.world.running(place, 0).collect();
        let any = members[self.rng.random_range(0..members.len())];
        match self.rng.random_range(0..100) {
            0..18 => self.kill(any, lsn),
            18..32 => self.kill(lsn, lsn),
            32..34 => self.kill_the_line(lsn),
            34..50 => self.leave(any, lsn),
            50..56 => self.leave(lsn, lsn),
            56..68 => self.sleep(any, lsn),
            68..76 => self.freeze(any, lsn),
            76..88 => self.carry(any, lsn),
            88..92 => self.part(place),
            92..95 => self.cut_wan(place),
            _ => {}
        }
    }

    /// A host goes; if it is the LSN, the clocks start.
    fn gone(&mut self, host: HostId, lsn: HostId, announced: bool) {
        let (now, place) = (self.world.now(), self.world.place(host));
        self.world.measure.forget(host);
        if host == lsn {
            let children = self.world.children_of(lsn);
            self.shake(place);
            self.world.measure.lsn_gone(lsn, children, announced, now);
        }
    }

    fn kill(&mut self, host: HostId, lsn: HostId) {
        self.gone(host, lsn, false);
        if self.rng.random_bool(0.5) {
            self.world.crash(host);
        } else {
            self.world.kill(host);
        }
        self.after(5.0, 40.0, Act::Boot(host));
    }

    /// LSN and both deputies at once.
    fn kill_the_line(&mut self, lsn: HostId) {
        let place = self.world.place(lsn);
        for host in self.world.line_of(lsn) {
            self.world.crash(host);
            self.after(5.0, 40.0, Act::Boot(host));
        }
        self.shake(place);
    }

    fn leave(&mut self, host: HostId, lsn: HostId) {
        self.gone(host, lsn, true);
        self.world.leave(host);
        self.after(5.0, 40.0, Act::Boot(host));
    }

    fn sleep(&mut self, host: HostId, lsn: HostId) {
        self.gone(host, lsn, false);
        self.world.sleep(host);
        self.after(2.0, 60.0, Act::Wake(host));
    }

    fn freeze(&mut self, host: HostId, lsn: HostId) {
        let span = Duration::from_secs_f64(self.rng.random_range(0.2..3.0));
        self.world.measure.forget(host);
        if host == lsn {
            self.shake(self.world.place(host));
        }
        self.world.freeze(host, span);
    }

    fn carry(&mut self, host: HostId, lsn: HostId) {
        let (from, to) = (self.world.place(host), self.rng.random_range(0..self.world.place_count()));
        if from != to {
            self.gone(host, lsn, true);
            self.world.carry(host, to);
        }
    }

    fn part(&mut self, place: PlaceId) {
        let share = self.rng.random_range(0.2..0.8);
        let seed: u64 = self.rng.random();
        self.world.part(place, |host| ChaCha8Rng::seed_from_u64(seed ^ host as u64).random_bool(share));
        self.shake(place);
        self.after(3.0, 40.0, Act::Heal(place));
    }

    fn cut_wan(&mut self, place: PlaceId) {
        self.world.set_wan(place, false);
        self.shake(place);
        self.after(2.0, 120.0, Act::WanUp(place));
    }
}
