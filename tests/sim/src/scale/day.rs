//! A working day: half of the hosts are switched off in the evening and all come back between half past eight and a
//! quarter past nine.

use std::time::Duration;

use rand::Rng;

use super::{Report, agenda, boot_all, fleet};
use crate::measure::Traffic;
use crate::world::HostId;

const HOUR: Duration = Duration::from_secs(3_600);
/// From noon: people go home between four and eight.
const EVENING: (Duration, Duration) = (Duration::from_secs(4 * 3_600), Duration::from_secs(8 * 3_600));
/// And come back between 8:30 and 9:15.
const MORNING: (Duration, Duration) =
    (Duration::from_secs(20 * 3_600 + 1_800), Duration::from_secs(21 * 3_600 + 900));
/// Of the hosts that go, so many are switched off; the others' lids are closed.
const SHUT_DOWN: f64 = 0.6;
/// From a network until an LSN, for almost everybody.
const QUICK: Duration = Duration::from_millis(1_000);

#[derive(Debug, Clone)]
pub struct Day {
    pub nodes: usize,
    pub places: usize,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Leave(HostId),
    Boot(HostId),
    Sleep(HostId),
    Wake(HostId),
}

impl Day {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        boot_all(&mut world, Duration::from_secs(60), &mut rng);
        let noon = world.now();
        let mut acts = Vec::new();
        for host in (0..self.nodes).filter(|_| rng.random_bool(0.5)).collect::<Vec<_>>() {
            let mut within = |(from, to): (Duration, Duration)| rng.random_range(from..to);
            let (home, back) = (within(EVENING), within(MORNING));
            let shut_down = rng.random_bool(SHUT_DOWN);
            let (goes, comes) = if shut_down {
                (Act::Leave(host), Act::Boot(host))
            } else {
                (Act::Sleep(host), Act::Wake(host))
            };
            acts.extend([(home, goes), (back, comes)]);
        }
        for (at, act) in agenda(acts) {
            world.run_until(noon + at);
            match act {
                Act::Leave(host) => world.leave(host),
                Act::Boot(host) => world.boot(host),
                Act::Sleep(host) => world.sleep(host),
                Act::Wake(host) => world.wake(host),
            }
        }
        world.run_until(noon + 24 * HOUR);
        let measure = world.measure();
        report.sample("switched on, or opened -> has or is LSN", &measure.network_to_lsn);
        report.sample("disconnections, as nodes report them", &measure.disconnections);
        let slow = measure.network_to_lsn.percentile(99);
        report.demand(slow <= QUICK, format!("one host of a hundred waits {slow:?} for its LSN"));
        let false_detections = measure.false_detections + measure.false_departures;
        report.line(format!("false detections: {false_detections} (rest is not simulated)"));
        let Traffic { messages, bytes } = measure.lan;
        let days = self.nodes as f64;
        report.line(format!(
            "LAN: {:.0} messages and {:.1} MB a host and day; WAN: {:.1} kB",
            messages as f64 / days,
            bytes as f64 / days / 1e6,
            measure.wan.bytes as f64 / days / 1e3
        ));
        let audit = report.audit(&mut world);
        report.demand(audit.odd_cells == 0, "a cell has not exactly one LSN");
        report.demand(audit.shown == audit.running, "the master does not show everybody");
        report.demand(audit.ghosts == 0, "the master shows hosts that are not there");
        report.loads(&world, &audit.is_lsn);
        report
    }
}
