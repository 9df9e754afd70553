//! One host of a hundred is revoked at once: how long until everybody knows, and until the last session with one is cut.

use std::time::Duration;

use rand::seq::SliceRandom;

use super::{Report, boot_all, fleet};
use crate::measure::Sample;

/// Of a hundred revoked hosts ninety-nine are without a session after this.
const SOON: Duration = Duration::from_secs(10);
/// Then the fleet is looked at.
const AFTER: Duration = Duration::from_secs(60);
/// So many hosts for each that is revoked.
const ONE_OF: usize = 100;

#[derive(Debug, Clone)]
pub struct Revocation {
    pub nodes: usize,
    pub places: usize,
}

impl Revocation {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        boot_all(&mut world, Duration::from_secs(60), &mut rng);
        world.thaw_all();
        world.run_for(Duration::from_secs(5));
        let mut hosts: Vec<_> = (0..world.host_count()).collect();
        hosts.shuffle(&mut rng);
        hosts.truncate((self.nodes / ONE_OF).max(1));
        let lsns = super::lsns(&mut world);
        let leading = hosts.iter().filter(|host| lsns.contains(host)).count();
        world.revoke(hosts.iter().copied());
        world.run_for(AFTER);

        let mut last = Sample::default();
        hosts.iter().filter_map(|host| world.cut_after(*host)).for_each(|after| last.add(after));
        report.line(format!("{} hosts revoked at once, {leading} of them LSNs", hosts.len()));
        report.sample("revoked -> a host knows", world.heard_of_revocations());
        report.sample("revoked -> its last session is cut", &last);
        report.demand(last.percentile(99) <= SOON, format!("sessions last {:?}", last.percentile(99)));
        let left = world.sessions_with_revoked();
        report.demand(left == 0, format!("{left} sessions with revoked hosts stand"));
        let ignorant = world.ignorant_of_revocations();
        report.demand(ignorant == 0, format!("{ignorant} hosts have not heard of it"));
        let shown = hosts.iter().filter(|host| world.shown(**host).is_some()).count();
        report.demand(shown == 0, format!("the master shows {shown} revoked hosts"));
        let hidden =
            (0..world.host_count()).filter(|host| !world.is_revoked(*host) && world.shown(*host).is_none());
        let hidden = hidden.count();
        report.demand(hidden == 0, format!("the master does not show {hidden} others"));
        report
    }
}
