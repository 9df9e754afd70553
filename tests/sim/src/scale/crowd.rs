//! A place with more nodes than a cell takes. It is several cells then: as few as hold them, each with one LSN, and nobody
//! changes from one to another. When people go home they become one again.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_overlay::timing::APART_PAUSE;
use muster_types::limits::CELL_NODES;

use super::{Report, fleet};
use crate::world::{HostId, Life, World};

/// LSNs that have no room for each other ask again within this.
const ASKED_AGAIN: Duration = APART_PAUSE.saturating_mul(2);
/// Survivors of an LSN are under another one within this: those too whom the next cell had no room for.
const SURVIVED: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Crowd {
    pub nodes: usize,
    /// In which everybody comes.
    pub morning: Duration,
}

impl Crowd {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, _) = fleet(self.nodes, 1, seed);
        let mut report = Report::default();
        let between = self.morning / u32::try_from(self.nodes).unwrap_or(u32::MAX);
        for host in 0..self.nodes {
            world.boot(host);
            world.run_for(between);
        }
        world.run_for(ASKED_AGAIN);
        let cells = attached(&mut report, &mut world, "in the morning");
        report.demand(cells.len() == self.nodes.div_ceil(CELL_NODES), "not the fewest cells that hold them");
        let (under, bytes) = (places(&world), world.measure().lan.bytes);
        world.run_for(ASKED_AGAIN);
        world.thaw_all();
        let moved = under.iter().zip(places(&world)).filter(|(before, after)| **before != *after).count();
        report.demand(moved == 0, format!("{moved} nodes changed their cell though nothing happened"));
        let rate = (world.measure().lan.bytes - bytes) as f64 / ASKED_AGAIN.as_secs_f64() / self.nodes as f64;
        report.line(format!("a node sends {rate:.0} B/s on its LAN when nothing happens"));
        let fullest = cells.iter().max_by_key(|(_, size)| **size).map(|(&lsn, _)| lsn);
        fullest.into_iter().for_each(|lsn| world.kill(lsn));
        world.run_for(SURVIVED);
        attached(&mut report, &mut world, "after the death of the fullest cell's LSN");
        self.evening(&mut world, &mut report);
        report
    }

    /// All go home but half a cell.
    fn evening(&self, world: &mut World, report: &mut Report) {
        for host in (0..self.nodes).filter(|host| host % self.nodes.div_ceil(CELL_NODES / 2) != 0) {
            if world.life(host) == Life::Running {
                world.leave(host);
                world.run_for(Duration::from_millis(100));
            }
        }
        world.run_for(2 * ASKED_AGAIN);
        let cells = attached(report, world, "in the evening");
        report.demand(cells.len() == 1, "cells that fit into one stay apart");
    }
}

/// Which LSN each host is under, as the master shows it.
fn places(world: &World) -> Vec<Option<HostId>> {
    (0..world.host_count()).map(|host| world.shown(host)?.lsn).collect()
}

/// Every running host is an LSN or served by the one that the master shows it under. Answers the cells' sizes.
fn attached(report: &mut Report, world: &mut World, when: &str) -> BTreeMap<HostId, usize> {
    world.thaw_all();
    let mut cells: BTreeMap<HostId, usize> = BTreeMap::new();
    let mut lost = 0;
    for (host, lsn) in places(world).into_iter().enumerate() {
        let running = world.life(host) == Life::Running;
        match lsn.filter(|&lsn| running && (lsn == host || world.served_by(host) == Some(lsn))) {
            Some(lsn) => *cells.entry(lsn).or_default() += 1,
            None => lost += usize::from(running),
        }
    }
    let sizes: Vec<_> = cells.values().collect();
    report.line(format!("{when}: cells of {sizes:?}, {lost} nodes in none"));
    report.demand(lost == 0, format!("{when} {lost} nodes are in no cell"));
    report.demand(cells.values().all(|&size| size <= CELL_NODES), format!("{when} a cell is too large"));
    cells
}
