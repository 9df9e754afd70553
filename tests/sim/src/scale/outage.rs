//! The power comes back everywhere at once while the master is away; later the master returns, and everybody wants it.

use std::time::Duration;

use muster_kit::listen::HANDSHAKES;

use super::{Report, boot_all, fleet, return_master};

/// Hosts start within this after the power came back: firmware and system take their time.
const STARTING: Duration = Duration::from_secs(90);
/// Before the master returns every clock runs, so that whatever hosts do while they wait is there to meet it.
const AWAKE: Duration = Duration::from_secs(70);
/// All hosts of 30,000 are back within this.
const BACK: Duration = Duration::from_secs(60);
/// What a crowd of lone hosts takes beyond the bare rate: who is sent away is told whole seconds, and adds its jitter.
const ROUNDING: Duration = Duration::from_millis(1_500);
/// No agent or LSN sends more than so many times its mean minute.
const BURST: u64 = 5;
/// Below this a minute is no burst, whatever the mean: a claim, an attach and a table of thirty.
const SMALL_MINUTE: u64 = 100_000;

#[derive(Debug, Clone)]
pub struct Outage {
    pub nodes: usize,
    pub places: usize,
    /// From the first start until the master returns.
    pub away: Duration,
}

impl Outage {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        world.set_master(false);
        boot_all(&mut world, STARTING, &mut rng);
        let started = world.now();
        report.sample("power back -> has or is LSN", &world.measure().network_to_lsn);
        world.run_for(self.away.saturating_sub(started.elapsed() + AWAKE));
        report.line(format!(
            "{} of {} places rest while the master is away",
            world.resting_places(),
            self.places
        ));
        world.thaw_all();
        world.run_for(AWAKE);
        world.measure.loads.begin_peaks();
        let minutes = world.now().elapsed().as_secs_f64() / 60.0;
        let means: Vec<_> =
            world.measure().loads.hosts().iter().map(|load| load.total as f64 / minutes).collect();
        let returned = return_master(&mut world);
        world.run_for(2 * BACK);
        while world.measure().still_missed() > 0 && world.now().since(returned) < self.away {
            world.run_for(BACK);
        }
        report.sample("master back -> it shows a host", &world.measure().shown_again);
        let late = world.measure().still_missed();
        report.demand(late == 0, format!("{late} hosts are not shown again"));
        let worst = world.measure().shown_again.worst();
        let at_the_rate = Duration::from_secs(self.places as u64) / HANDSHAKES.get() + ROUNDING;
        let bound = BACK.max(at_the_rate);
        report.demand(worst <= bound, format!("the last host is back after {worst:?}, not within {bound:?}"));
        let audit = report.audit(&mut world);
        let lsns = audit.is_lsn.iter().filter(|is| **is).count().max(1) as f64;
        let lsn_mean =
            audit.is_lsn.iter().zip(&means).filter(|(is, _)| **is).map(|(_, mean)| mean).sum::<f64>() / lsns;
        // Who has only just become LSN is measured by what LSNs send.
        let usual =
            audit.is_lsn.iter().zip(&means).map(|(is, mean)| if *is { mean.max(lsn_mean) } else { *mean });
        let bursts = world
            .measure()
            .loads
            .hosts()
            .iter()
            .zip(usual)
            .filter(|(load, mean)| load.peak > SMALL_MINUTE && load.peak as f64 > BURST as f64 * mean);
        let bursts = bursts.count();
        report.line(format!(
            "{bursts} hosts sent over {BURST} times their mean minute after the master's return"
        ));
        report.demand(bursts == 0, format!("{bursts} hosts sent over {BURST} times their mean minute"));
        report.demand(audit.odd_cells == 0, "a cell has not exactly one LSN");
        report.demand(audit.shown == audit.running, "the master does not show everybody");
        report.loads(&world, &audit.is_lsn);
        report
    }
}
