//! A day without the master: what a fleet does when nobody answers, and what it grows by.

use std::time::Duration;

use super::{Report, boot_all, fleet, return_master};

/// After the master's return everybody is shown within this.
const BACK: Duration = Duration::from_secs(60);
/// While alone, hosts come and go: so many restarts in every hour and hundred hosts.
const RESTARTS: usize = 1;

#[derive(Debug, Clone)]
pub struct Alone {
    pub nodes: usize,
    pub places: usize,
    pub hours: u32,
}

impl Alone {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        boot_all(&mut world, Duration::from_secs(60), &mut rng);
        world.set_master(false);
        let mut bytes_before = world.measure().lan.bytes;
        for hour in 0..self.hours {
            let begin = world.now();
            for restart in 0..self.nodes * RESTARTS / 100 {
                let host = (restart * 100 + hour as usize) % self.nodes;
                world.leave(host);
                world.run_for(Duration::from_secs(2));
                world.boot(host);
            }
            world.run_until(begin + Duration::from_secs(3_600));
            if hour == 0 || hour + 1 == self.hours {
                let bytes = world.measure().lan.bytes - bytes_before;
                let per_host = bytes as f64 / self.nodes as f64 / 1_000.0;
                report.line(format!(
                    "hour {}: {per_host:.0} kB a host on the LAN; the largest machine keeps {} unsaid changes",
                    hour + 1,
                    world.most_unsaid()
                ));
            }
            bytes_before = world.measure().lan.bytes;
        }
        report.demand(
            world.most_unsaid() <= muster_types::limits::CELL_NODES,
            "an LSN keeps more changes for the master than a cell has nodes",
        );
        let returned = return_master(&mut world);
        world.run_for(BACK);
        report.sample("master back -> it shows a host", &world.measure().shown_again);
        let late = world.measure().still_missed();
        report.demand(
            late == 0,
            format!("{late} hosts are not shown {:?} after the return", world.now().since(returned)),
        );
        let audit = report.audit(&mut world);
        report.demand(audit.odd_cells == 0, "a cell has not exactly one LSN");
        report.demand(audit.ghosts == 0, "the master shows hosts that are not there");
        report.loads(&world, &audit.is_lsn);
        report
    }
}
