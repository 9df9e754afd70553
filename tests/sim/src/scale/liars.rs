//! In every place the host that would be LSN lies, each place in its own way. No lie may hide an honest host for long,
//! show one that is not there, or reach beyond its own place.

use std::time::Duration;

use super::{Report, boot_all, fleet, lsns};
use crate::world::{HostId, Lie, Life};

/// A hidden host attaches to topology itself after five seconds, and whatever the lie was, everybody shows within this.
const SHOWN: Duration = Duration::from_secs(120);
/// The master's picture is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Liars {
    pub nodes: usize,
    pub places: usize,
    /// How long the lies go on.
    pub span: Duration,
}

impl Liars {
    pub fn run(&self, seed: u64) -> Report {
        let liars = self.best_of_each_place(seed);
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        for &liar in &liars {
            world.make_liar(liar, Lie::ALL[world.place(liar) % Lie::ALL.len()]);
        }
        boot_all(&mut world, Duration::from_secs(10), &mut rng);
        world.run_for(SHOWN);
        let in_office = lsns(&mut world).into_iter().filter(|lsn| liars.contains(lsn)).count();
        report.line(format!("{in_office} of {} liars are in office", liars.len()));
        report.demand(in_office * 2 > liars.len(), "too few liars are in office: this proves little");
        let mut hidden = [0_u64; Lie::ALL.len() + 1];
        let (mut looks, mut ghosts) = (0_u64, 0_u64);
        let end = world.now() + self.span;
        while world.now() < end {
            world.run_for(LOOK);
            looks += 1;
            for host in 0..world.host_count() {
                let running = world.life(host) == Life::Running;
                let kind = world.place(host) % Lie::ALL.len();
                hidden[kind] += u64::from(running && world.shown(host).is_none());
                ghosts += u64::from(!running && world.shown(host).is_some());
            }
        }
        let host_looks = (looks * self.nodes as u64).max(1) as f64;
        for (kind, hidden) in Lie::ALL.iter().zip(hidden) {
            let share = hidden as f64 / host_looks * Lie::ALL.len() as f64 * 100.0;
            report.line(format!("{kind:?}: honest hosts are hidden {share:.3} % of the time"));
            report.demand(share < 1.0, format!("{kind:?} hides hosts {share:.2} % of the time"));
        }
        report.line(format!("ghosts seen: {ghosts}"));
        report.demand(ghosts == 0, "the master shows hosts that are not there");
        let audit = report.audit(&mut world);
        report.demand(audit.shown == audit.running, "a lie hides a host for good");
        report
    }

    /// Who is LSN of each place when nobody lies: in a rehearsal of the same world.
    fn best_of_each_place(&self, seed: u64) -> Vec<HostId> {
        let (mut rehearsal, mut rng) = fleet(self.nodes, self.places, seed);
        boot_all(&mut rehearsal, Duration::from_secs(10), &mut rng);
        lsns(&mut rehearsal)
    }
}
