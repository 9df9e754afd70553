//! Revocations one after another, through a whole day's worth of cases: hosts of quiet places, LSNs, and hosts of places whose LSN
//! is just dying or taking its leave. How long until the last session with each is cut, and until everybody knows.

use std::time::Duration;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Report, agenda, boot_all, fleet, lsns};
use crate::measure::Sample;
use crate::world::{HostId, World};

/// Of a hundred revoked hosts ninety-nine are without a session after this.
const SOON: Duration = Duration::from_secs(10);
/// So often one of each case, in four places.
const ROUNDS: usize = 25;
/// From one round to the next; what has not become quiet by then overlaps.
const ROUND: Duration = Duration::from_secs(4);
/// Within this the words of a round fall, and the changes of LSN beside them.
const TOGETHER: Duration = Duration::from_secs(2);
/// Then the fleet is looked at.
const AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Revocations {
    pub nodes: usize,
    pub places: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Quiet,
    Lsn,
    LsnDies,
    LsnLeaves,
}

impl Case {
    const ALL: [Self; 4] = [Self::Quiet, Self::Lsn, Self::LsnDies, Self::LsnLeaves];

    fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "a host of a quiet place",
            Self::Lsn => "an LSN",
            Self::LsnDies => "a host whose LSN dies just then",
            Self::LsnLeaves => "a host whose LSN takes its leave just then",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Revoke(HostId),
    Kill(HostId),
    Leave(HostId),
}

impl Revocations {
    pub fn run(&self, seed: u64) -> Report {
        let (mut world, mut rng) = fleet(self.nodes, self.places, seed);
        let mut report = Report::default();
        boot_all(&mut world, Duration::from_secs(60), &mut rng);
        let mut cells: Vec<_> =
            lsns(&mut world).into_iter().filter(|lsn| world.children_of(*lsn).len() > 1).collect();
        cells.shuffle(&mut rng);
        let mut revoked: Vec<(Case, HostId)> = Vec::new();
        for round in cells.chunks_exact(Case::ALL.len()).take(ROUNDS) {
            let begin = world.now();
            let mut acts = Vec::new();
            for (case, &lsn) in Case::ALL.into_iter().zip(round) {
                let planned = plan(case, lsn, &mut world, &mut acts, &mut rng);
                revoked.extend(planned.map(|host| (case, host)));
            }
            for (after, act) in agenda(acts) {
                world.run_until(begin + after);
                match act {
                    Act::Revoke(host) => world.revoke([host]),
                    Act::Kill(lsn) => world.kill(lsn),
                    Act::Leave(lsn) => world.leave(lsn),
                }
            }
            world.run_until(begin + ROUND);
        }
        world.run_for(AFTER);
        tell(&world, &revoked, &mut report);
        report
    }
}

/// What happens in one place in this round, and who is revoked. An LSN that goes does so within a second of the word.
fn plan(
    case: Case,
    lsn: HostId,
    world: &mut World,
    acts: &mut Vec<(Duration, Act)>,
    rng: &mut ChaCha8Rng,
) -> Option<HostId> {
    // None where another one has become LSN since.
    let child = *world.children_of(lsn).choose(rng)?;
    let mut at = || TOGETHER.mul_f64(rng.random());
    let host = if case == Case::Lsn { lsn } else { child };
    acts.push((at(), Act::Revoke(host)));
    match case {
        Case::Quiet | Case::Lsn => {}
        Case::LsnDies => acts.push((at(), Act::Kill(lsn))),
        Case::LsnLeaves => acts.push((at(), Act::Leave(lsn))),
    }
    Some(host)
}

fn tell(world: &World, revoked: &[(Case, HostId)], report: &mut Report) {
    report.line(format!("{} hosts revoked, each by a word of its own", revoked.len()));
    let mut all = Sample::default();
    for case in Case::ALL {
        let mut sample = Sample::default();
        let hosts = revoked.iter().filter(|(of, _)| *of == case).map(|(_, host)| *host);
        hosts.filter_map(|host| world.cut_after(host)).for_each(|after| sample.add(after));
        report.sample(&format!("the word -> the last session with {} is cut", case.as_str()), &sample);
        all.merge(&sample);
    }
    report.sample("the word -> the last session is cut, all", &all);
    report.sample("the word -> a host knows", world.heard_of_revocations());
    report.demand(!all.is_empty(), "nobody was revoked: the places are too few or too small");
    report.demand(all.percentile(99) <= SOON, format!("sessions last {:?}", all.percentile(99)));
    let left = world.sessions_with_revoked();
    report.demand(left == 0, format!("{left} sessions with revoked hosts stand"));
    let ignorant = world.ignorant_of_revocations();
    report.demand(ignorant == 0, format!("{ignorant} hosts do not know the whole list"));
    let shown = revoked.iter().filter(|(_, host)| world.shown(*host).is_some()).count();
    report.demand(shown == 0, format!("the master shows {shown} revoked hosts"));
}
