//! Judges a run by the simulated world and by what hosts do to others, never by what a machine believes of itself:
//! who answers a stranger's query on the LAN, who was served by whom, what the master shows.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::Instant;

use crate::world::{HostId, Life, PlaceId, World};

/// After anything that befell a place's LSN or its network, each connected cell has exactly one LSN within this: a claim
/// interval and its spread, a lost claim, a pause between rivals, and the yielding.
pub const ONE_LSN: Duration = Duration::from_secs(30);
/// And every running node is attached and shown within this: the same, then its own slow lease and search.
pub const ATTACHED: Duration = Duration::from_secs(45);
/// After which a node has its channel to the master again: the longest pause between two tries.
const CHANNEL_BACK: Duration = Duration::from_secs(30);
/// A planned change of LSN, by which a better one takes over: the only excuse when all is quiet.
const HANDOVER: Duration = Duration::from_secs(3);
/// Service that is older than this is none: a ping interval and two repetitions.
const SERVED: Duration = Duration::from_secs(6);
/// An announced departure shows at the master within 1 s (design, section 2), found at the next look.
const ANNOUNCED: Duration = Duration::from_millis(1_000);
/// A silent death within the lease of 10 s and a second of margin.
const SILENT: Duration = Duration::from_secs(11);
/// A place gone dark, or a death that nobody was left to notice, within 90 s, and a look.
const DARK: Duration = Duration::from_secs(91);

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub at: Instant,
    pub what: String,
}

#[derive(Debug)]
pub struct Oracle {
    /// Last time that something befell a place's LSN or its network.
    disturbed: Vec<Instant>,
    /// Since when something has not been as it must be.
    wrong: BTreeMap<(Rule, usize), Instant>,
    pub violations: Vec<Violation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    OneLsn,
    Attached,
    Shown,
}

/// Violations kept; one is enough to fail.
const KEPT: usize = 20;

impl Oracle {
    pub fn new(world: &World) -> Self {
        let disturbed = vec![Instant::ZERO; world.place_count()];
        Self { disturbed, wrong: BTreeMap::new(), violations: Vec::new() }
    }

    pub fn disturb(&mut self, place: PlaceId, now: Instant) {
        self.disturbed[place] = now;
    }

    pub fn disturb_all(&mut self, now: Instant) {
        self.disturbed.fill(now);
    }

    /// Looks at every cell and every host. `settled`: nothing has happened for so long that no excuse is left.
    pub fn look(&mut self, world: &mut World, settled: bool) {
        for place in 0..world.place_count() {
            if !world.datagrams && !world.is_visible(place) {
                // Who hears no discovery and cannot ask the master knows nobody.
                self.disturb(place, world.now() + CHANNEL_BACK);
            }
            for segment in 0..2 {
                let lsns = world.who_is_lsn(place, segment);
                let members: Vec<_> = world.running(place, segment).collect();
                self.judge_cell(world, place, segment, &members, &lsns, settled);
            }
        }
        for host in 0..world.host_count() {
            self.judge_absence(world, host);
        }
    }

    fn judge_cell(
        &mut self,
        world: &World,
        place: PlaceId,
        segment: u8,
        members: &[HostId],
        lsns: &[HostId],
        settled: bool,
    ) {
        let cell = place * 2 + usize::from(segment);
        let since = self.disturbed[place];
        let one = members.is_empty() || lsns.len() == 1;
        self.judge(world, (Rule::OneLsn, cell), one, since, ONE_LSN, settled, || {
            let ids: Vec<_> = lsns.iter().map(|&host| (host, world.life_of(host))).collect();
            format!("place {place} segment {segment}: {} hosts and LSNs {ids:?}", members.len())
        });
        let &[lsn] = lsns else { return };
        for &host in members {
            let since = since.max(world.hosts[host].since);
            let served = world.served[host].filter(|served| world.now().since(served.at) <= SERVED);
            let attached = host == lsn || served.is_some_and(|served| served.by == lsn);
            self.judge(world, (Rule::Attached, host), attached, since, ATTACHED, settled, || {
                format!(
                    "host {host} of place {place} is not served by its LSN {lsn}: {:?}",
                    world.served[host]
                )
            });
            let shown = world.shown(host).is_some_and(|shown| shown.lsn == Some(lsn));
            let shown = shown || !world.is_visible(place);
            self.judge(world, (Rule::Shown, host), shown, since, ATTACHED, settled, || {
                format!("host {host} under LSN {lsn} is shown as {:?}", world.shown(host))
            });
        }
    }

    /// Who is gone is not shown as here for longer than its way of going allows.
    fn judge_absence(&mut self, world: &World, host: HostId) {
        let (known, now) = (&world.hosts[host], world.now());
        let shown = world.shown(host).is_some();
        if known.life == Life::Running || !shown || !world.master.is_up() {
            return;
        }
        let disturbed = self.disturbed[known.place];
        let quiet = disturbed + ATTACHED < known.since && world.is_visible(known.place);
        let bound = match known.life {
            _ if !quiet => DARK,
            Life::Left => ANNOUNCED,
            _ => SILENT,
        };
        if now.since(known.since.max(disturbed)) > bound {
            let text = format!("host {host} is {:?} since {:?} and shown as here", known.life, known.since);
            self.violate(now, text);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a verdict has many sides")]
    fn judge(
        &mut self,
        world: &World,
        what: (Rule, usize),
        right: bool,
        since: Instant,
        bound: Duration,
        settled: bool,
        text: impl FnOnce() -> String,
    ) {
        if right {
            self.wrong.remove(&what);
            return;
        }
        let now = world.now();
        let wrong_since = *self.wrong.entry(what).or_insert(now);
        let lasts = if settled {
            now.since(wrong_since) > HANDOVER
        } else {
            now.since(wrong_since.max(since)) > bound
        };
        if lasts {
            self.violate(now, text());
        }
    }

    fn violate(&mut self, at: Instant, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(Violation { at, what });
        }
    }
}
