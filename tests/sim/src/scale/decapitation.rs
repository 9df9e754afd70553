//! Most LSNs die in one moment: seventy of a hundred drawn at random, or the ninety-five with the most children.

use std::time::Duration;

use rand::seq::SliceRandom;

use super::{Report, boot_all, fleet, lsns};
use crate::world::HostId;

/// Almost every survivor is under another LSN within this.
const SOON: Duration = Duration::from_secs(5);
const ALMOST_EVERY: f64 = 0.999;
/// Then the fleet is looked at.
const AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// So many of a hundred, by lot.
    AnyPercent(usize),
    /// So many of a hundred, the best connected first.
    BestConnectedPercent(usize),
}

#[derive(Debug, Clone)]
pub struct Decapitation {
    pub nodes: usize,
    pub places: usize,
    pub victims: Victims,
}

impl Decapitation {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        boot_all(&mut world, Duration::from_secs(60), &mut rng);
        world.thaw_all();
        world.run_for(Duration::from_secs(5));
        let mut lsns: Vec<(HostId, Vec<HostId>)> =
            lsns(&mut world).into_iter().map(|lsn| (lsn, world.children_of(lsn))).collect();
        let percent = match self.victims {
            Victims::AnyPercent(percent) => {
                lsns.shuffle(&mut rng);
                percent
            }
            Victims::BestConnectedPercent(percent) => {
                lsns.sort_by_key(|(lsn, children)| (std::cmp::Reverse(children.len()), *lsn));
                percent
            }
        };
        lsns.truncate(lsns.len() * percent / 100);
        let now = world.now();
        for (lsn, children) in &lsns {
            children.iter().for_each(|&child| world.measure.orphaned(child, *lsn, now));
            world.kill(*lsn);
        }
        report.line(format!("{} LSNs killed at once", lsns.len()));
        world.run_for(AFTER);
        let (sample, never) = (&world.measure().reattached, world.measure().still_orphaned());
        report.sample("LSN killed -> survivor under the next", sample);
        let all = (sample.len() + never) as f64;
        let share = sample.within(SOON) as f64 / all.max(1.0);
        report.line(format!(
            "{:.3} % of {all} survivors attached within {SOON:?}, {never} never",
            share * 100.0
        ));
        report.demand(share >= ALMOST_EVERY, format!("only {:.3} % are attached in time", share * 100.0));
        let audit = report.audit(&mut world);
        report.demand(audit.odd_cells == 0, "a cell has not exactly one LSN");
        report.demand(audit.shown == audit.running, "the master does not show everybody");
        report.loads(&world, &audit.is_lsn);
        report
    }
}
