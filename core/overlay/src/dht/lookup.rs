//! One iterative lookup: candidates sorted by distance, asked the closest first, until the closest have all answered or what
//! was sought is found. Careful lookups walk several paths that share no contact, then join them.

use muster_types::{Instant, Key};

use super::contact::{Handle, RoundTrip};
use super::distance::Distance;
use super::input::{Care, OpId, Wish};
use super::intent::Effort;
use super::record::{Kind, Record};
use super::timing::{CANDIDATES, NEWEST_HOLDERS, PATH_WIDTH, Settings};

/// What a lookup is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Goal {
    /// This node's own neighborhood: joining.
    Own,
    Find {
        op: OpId,
    },
    Get {
        op: OpId,
        kind: Kind,
        wish: Wish,
    },
    Put {
        op: OpId,
        record: Record,
    },
    Listen {
        op: OpId,
        kind: Kind,
    },
}

impl Goal {
    /// The kind of value that contacts are asked for; `None`: for contacts alone.
    pub(super) fn value(&self) -> Option<Kind> {
        match self {
            Self::Get { kind, .. } | Self::Listen { kind, .. } => Some(*kind),
            Self::Own | Self::Find { .. } | Self::Put { .. } => None,
        }
    }

    pub(super) fn op(&self) -> Option<OpId> {
        match self {
            Self::Own => None,
            Self::Find { op } | Self::Get { op, .. } | Self::Put { op, .. } | Self::Listen { op, .. } => {
                Some(*op)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Fresh,
    Asked,
    /// Not answered in time; it may still.
    Late,
    Answered,
    Failed,
}

#[derive(Debug, Clone, Copy)]
struct Candidate<C> {
    distance: Distance,
    contact: C,
    progress: Progress,
    path: u8,
    hop: u8,
    round_trip: RoundTrip,
    had_value: bool,
}

impl<C> Candidate<C> {
    fn may_count(&self) -> bool {
        !matches!(self.progress, Progress::Late | Progress::Failed)
    }
}

/// What the lookup wants next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move<C> {
    Ask(C, RoundTrip),
    Wait,
    Done,
}

#[derive(Debug)]
pub(super) struct Lookup<C> {
    pub(super) target: Key,
    pub(super) goal: Goal,
    care: Care,
    /// Paths that are still apart; 0: joined.
    paths: u8,
    candidates: Vec<Candidate<C>>,
    /// Found so far, of each publisher the newest, newest first.
    pub(super) records: Vec<Record>,
    holders: usize,
    in_flight: usize,
    late: usize,
    pub(super) reseeded: bool,
    began: Instant,
    effort: Effort,
}

impl<C: Handle> Lookup<C> {
    pub(super) fn new(target: Key, goal: Goal, care: Care, now: Instant) -> Self {
        Self {
            target,
            goal,
            care,
            paths: 0,
            candidates: Vec::new(),
            records: Vec::new(),
            holders: 0,
            in_flight: 0,
            late: 0,
            reseeded: false,
            began: now,
            effort: Effort::default(),
        }
    }

    pub(super) fn is_disjoint(&self) -> bool {
        self.care == Care::Disjoint
    }

    /// Contacts to begin with. `hop` is 1, or 0 for the own LSN.
    pub(super) fn seed(&mut self, seeds: &[(Distance, C, RoundTrip)], hop: u8, settings: &Settings) {
        let paths = if self.is_disjoint() { settings.paths.min(seeds.len()).max(1) } else { 1 };
        if paths > 1 {
            self.paths = paths as u8;
        }
        for (place, &(distance, contact, round_trip)) in seeds.iter().enumerate() {
            self.insert(distance, contact, round_trip, hop, (place % paths) as u8);
        }
    }

    /// A contact that `by` knows; it belongs to the path of `by` unless another path has it already.
    pub(super) fn learn(&mut self, by: C, distance: Distance, contact: C, round_trip: RoundTrip) {
        if let Some(teacher) = self.candidates.iter().find(|candidate| candidate.contact == by) {
            let (hop, path) = (teacher.hop.saturating_add(1), teacher.path);
            self.insert(distance, contact, round_trip, hop, path);
        }
    }

    fn insert(&mut self, distance: Distance, contact: C, round_trip: RoundTrip, hop: u8, path: u8) {
        let place = self.candidates.partition_point(|candidate| candidate.distance < distance);
        if self.candidates.get(place).is_some_and(|candidate| candidate.distance == distance) {
            return;
        }
        if self.candidates.len() >= CANDIDATES {
            let farthest = self.candidates.last().map(|candidate| candidate.progress);
            if place == self.candidates.len() || farthest != Some(Progress::Fresh) {
                return;
            }
            self.candidates.pop();
        }
        let progress = Progress::Fresh;
        let candidate = Candidate { distance, contact, progress, path, hop, round_trip, had_value: false };
        self.candidates.insert(place, candidate);
    }

    /// Whom to ask next. More at once the more of those asked have not answered.
    pub(super) fn next(&mut self, settings: &Settings) -> Move<C> {
        if self.is_satisfied() {
            return Move::Done;
        }
        if self.paths > 0 {
            if let Some(place) = (0..self.paths).find_map(|path| self.next_of_path(path)) {
                return self.ask(place);
            }
            if (0..self.paths).any(|path| self.path_waits(path)) {
                return Move::Wait;
            }
            self.paths = 0;
        }
        let at_once = (settings.alpha + 2 * self.late).min(settings.alpha_most.max(settings.alpha));
        let mut closest = self
            .candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.may_count())
            .take(settings.k);
        match closest.clone().find(|(_, candidate)| candidate.progress == Progress::Fresh) {
            Some((place, _)) if self.in_flight < at_once => self.ask(self.nearest_in_the_network(place)),
            Some(_) => Move::Wait,
            None if closest.any(|(_, candidate)| candidate.progress == Progress::Asked) => Move::Wait,
            None if self.effort.answered == 0 && self.late > 0 => Move::Wait,
            None => Move::Done,
        }
    }

    /// Among candidates that share as many bits with the target, the one with the shortest known round trip.
    fn nearest_in_the_network(&self, first: usize) -> usize {
        let bits = self.candidates[first].distance.shared_bits();
        let equals = self.candidates.iter().enumerate().skip(first);
        equals
            .take_while(|(_, candidate)| candidate.distance.shared_bits() == bits)
            .filter(|(_, candidate)| candidate.progress == Progress::Fresh)
            .min_by_key(|(_, candidate)| candidate.round_trip)
            .map_or(first, |(place, _)| place)
    }

    /// A path asks one contact at a time, the closest it has.
    fn next_of_path(&self, path: u8) -> Option<usize> {
        if self.path_waits(path) {
            return None;
        }
        let mut closest = self.of_path(path);
        closest.find(|(_, candidate)| candidate.progress == Progress::Fresh).map(|(place, _)| place)
    }

    fn path_waits(&self, path: u8) -> bool {
        self.of_path(path).any(|(_, candidate)| candidate.progress == Progress::Asked)
    }

    fn of_path(&self, path: u8) -> impl Iterator<Item = (usize, &Candidate<C>)> {
        let own = self.candidates.iter().enumerate().filter(move |(_, candidate)| candidate.path == path);
        own.filter(|(_, candidate)| candidate.may_count()).take(PATH_WIDTH)
    }

    fn ask(&mut self, place: usize) -> Move<C> {
        let candidate = &mut self.candidates[place];
        candidate.progress = Progress::Asked;
        self.in_flight += 1;
        self.effort.asked += u32::from(candidate.hop > 0);
        Move::Ask(candidate.contact, candidate.round_trip)
    }

    fn is_satisfied(&self) -> bool {
        let enough = match self.goal {
            Goal::Get { wish: Wish::Newest, .. } => NEWEST_HOLDERS,
            Goal::Get { wish: Wish::First, .. } => 1,
            Goal::Own | Goal::Find { .. } | Goal::Put { .. } | Goal::Listen { .. } => usize::MAX,
        };
        self.holders >= enough
    }

    pub(super) fn answered(&mut self, by: C, records: Vec<Record>) {
        let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.contact == by) else {
            return;
        };
        let hop = u32::from(candidate.hop);
        match candidate.progress {
            Progress::Asked => self.in_flight -= 1,
            Progress::Late => self.late -= 1,
            Progress::Fresh | Progress::Answered | Progress::Failed => return,
        }
        candidate.progress = Progress::Answered;
        candidate.had_value = !records.is_empty();
        self.effort.answered += 1;
        if !records.is_empty() {
            self.effort.hops = if self.holders == 0 { hop } else { self.effort.hops };
            self.holders += 1;
            records.into_iter().for_each(|record| self.keep(record));
        }
    }

    fn keep(&mut self, record: Record) {
        if let Some(known) = self.records.iter_mut().find(|known| known.publisher == record.publisher) {
            if known.sequence < record.sequence {
                *known = record;
            }
        } else {
            self.records.push(record);
        }
        self.records.sort_by_key(|record| std::cmp::Reverse(record.sequence));
    }

    pub(super) fn late(&mut self, contact: C) {
        self.advance(contact, Progress::Late);
    }

    pub(super) fn failed(&mut self, contact: C) {
        self.advance(contact, Progress::Failed);
    }

    fn advance(&mut self, contact: C, to: Progress) {
        let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.contact == contact)
        else {
            return;
        };
        match candidate.progress {
            Progress::Asked => self.in_flight -= 1,
            Progress::Late => self.late -= 1,
            Progress::Fresh | Progress::Answered | Progress::Failed => return,
        }
        candidate.progress = to;
        self.late += usize::from(to == Progress::Late);
    }

    /// Nothing found on one path: whether to look again, on disjoint ones. It begins anew.
    pub(super) fn try_harder(&mut self) -> bool {
        let sought = matches!(self.goal, Goal::Get { .. }) && self.records.is_empty();
        if !sought || self.care != Care::OnMiss {
            return false;
        }
        self.care = Care::Disjoint;
        self.candidates.clear();
        (self.in_flight, self.late, self.reseeded) = (0, 0, false);
        true
    }

    pub(super) fn has_answers(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.progress == Progress::Answered && candidate.hop > 0)
    }

    /// Those who answered, closest first.
    pub(super) fn closest(&self) -> impl Iterator<Item = (Distance, C)> {
        let answered = self.candidates.iter().filter(|candidate| candidate.progress == Progress::Answered);
        answered.map(|candidate| (candidate.distance, candidate.contact))
    }

    /// Who would have answered sooner had it had a copy: the closest that missed ("caching at the nearest miss"), and the own LSN.
    pub(super) fn missed(&self) -> impl Iterator<Item = C> {
        let missed =
            |candidate: &&Candidate<C>| candidate.progress == Progress::Answered && !candidate.had_value;
        let nearest = self.candidates.iter().filter(missed).find(|candidate| candidate.hop > 0);
        let own_lsn = self.candidates.iter().filter(missed).find(|candidate| candidate.hop == 0);
        nearest.into_iter().chain(own_lsn).map(|candidate| candidate.contact)
    }

    pub(super) fn effort(&self, now: Instant) -> Effort {
        let to_closest = self.candidates.iter().find(|candidate| candidate.progress == Progress::Answered);
        let hops = match to_closest {
            Some(closest) if self.records.is_empty() => u32::from(closest.hop),
            _ => self.effort.hops,
        };
        Effort { hops, lasted: now.since(self.began), ..self.effort }
    }
}

#[cfg(test)]
mod tests;
