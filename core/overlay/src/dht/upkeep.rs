//! Upkeep of a server's table: one question at a time, at a steady pace that does not depend on the table's size. Whoever
//! has been heard of meanwhile is not asked, so upkeep rides on traffic; a client asks nothing at all.

use std::time::Duration;

use muster_types::{Instant, Key};
use rand::{Rng, RngCore};

use super::calls::Purpose;
use super::contact::{Entry, Handle};
use super::distance::{Distance, Names, key_at};
use super::input::Care;
use super::lookup::{Goal, Lookup};
use super::message::{Answer, CONTACTS, Request, Sender, Service};
use super::timing::{
    CHECKS, EAGER_QUESTION, EAGER_QUESTIONS, FAR_FRESH, HEALING_SHARE, JOIN_RETRY, NEAR_FRESH, REMEMBERED,
};
use super::{Dht, Turn};

/// Bootstrap nodes of one network; a few are many.
const BOOTSTRAPS: usize = 16;
/// Far contacts heard of that one answer makes us check: the table fills by and by.
const FAR_CHECKS: usize = 2;
/// Fruitless exploring becomes rarer by doubling, until one question in 64 goes to it.
const BARREN_MOST: u32 = 6;

#[derive(Debug)]
pub(super) struct Upkeep<C> {
    next: Option<Instant>,
    asked: u32,
    eager: u32,
    /// Explorations in a row that brought nobody new.
    barren: u32,
    bootstraps: Vec<C>,
    remembered: Vec<Remembered<C>>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered<C> {
    contact: C,
    /// Who speaks of it is not believed before.
    checked: Option<Instant>,
}

impl<C> Default for Upkeep<C> {
    fn default() -> Self {
        Self { next: None, asked: 0, eager: 0, barren: 0, bootstraps: Vec::new(), remembered: Vec::new() }
    }
}

impl<C: Handle> Upkeep<C> {
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// Those outside of the table: bootstrap nodes, and contacts of other days.
    pub(super) fn contacts(&self) -> impl Iterator<Item = C> {
        let remembered = self.remembered.iter().map(|remembered| remembered.contact);
        self.bootstraps.iter().copied().chain(remembered)
    }

    /// It was there once, or is said to be: worth another try some day. When memory is full, chance decides who goes, so that
    /// some from every time and place stay.
    pub(super) fn remember(&mut self, contact: C, rng: &mut dyn RngCore) {
        self.note(contact, None, rng);
    }

    pub(super) fn remember_all(&mut self, contacts: Vec<C>, rng: &mut dyn RngCore) {
        contacts.into_iter().take(REMEMBERED).for_each(|contact| self.remember(contact, rng));
    }

    fn note(&mut self, contact: C, checked: Option<Instant>, rng: &mut dyn RngCore) {
        let noted = Remembered { contact, checked };
        if let Some(known) = self.remembered.iter_mut().find(|known| known.contact == contact) {
            *known = noted;
        } else if self.remembered.len() < REMEMBERED {
            self.remembered.push(noted);
        } else {
            self.remembered[rng.random_range(0..REMEMBERED)] = noted;
        }
    }

    pub(super) fn no_longer_away(&mut self, contact: C) {
        self.remembered.retain(|known| known.contact != contact);
    }

    fn failed_lately(&self, contact: C, now: Instant) -> bool {
        let known = self.remembered.iter().find(|known| known.contact == contact);
        known.and_then(|known| known.checked).is_some_and(|checked| now.since(checked) < NEAR_FRESH)
    }

    fn pace<N>(&mut self, turn: &mut Turn<'_, C, N>) {
        let span = if self.eager > 0 { EAGER_QUESTION } else { turn.settings.question };
        self.next = Some(turn.now + span.mul_f64(turn.rng.random_range(0.8..1.2)));
    }
}

impl<C: Handle> Dht<C> {
    pub(super) fn meet_bootstraps<N: Names<C>>(&mut self, mut contacts: Vec<C>, turn: &mut Turn<'_, C, N>) {
        contacts.truncate(BOOTSTRAPS);
        self.upkeep.bootstraps = contacts;
        if self.role.serves() && !self.knows_anybody() {
            self.join(turn);
        }
    }

    /// Makes itself known to its neighborhood by looking for itself.
    pub(super) fn join<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        self.upkeep.next = Some(turn.now + JOIN_RETRY);
        self.begin(Lookup::new(self.own, Goal::Own, Care::Plain, turn.now), turn);
    }

    pub(super) fn on_joined<N: Names<C>>(&mut self, lookup: &Lookup<C>, turn: &mut Turn<'_, C, N>) {
        if self.role.serves() && lookup.closest().next().is_some() {
            self.upkeep.eager = EAGER_QUESTIONS;
            self.upkeep.pace(turn);
        }
    }

    fn knows_anybody(&self) -> bool {
        self.table.entries().iter().any(Entry::is_good)
    }

    /// A server's regular work, when its time has come.
    pub(super) fn tend<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        if self.upkeep.next.is_none_or(|next| next > turn.now) {
            return;
        }
        self.store.expire(turn.now);
        self.sweep(turn);
        self.count_offices(turn);
        if !self.role.serves() {
            return;
        }
        if !self.knows_anybody() {
            return self.join(turn);
        }
        self.question(turn);
        self.upkeep.pace(turn);
    }

    fn question<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        self.upkeep.asked = self.upkeep.asked.wrapping_add(1);
        let turn_of = self.upkeep.asked;
        if self.upkeep.eager > 0 {
            self.upkeep.eager -= 1;
            return self.explore((EAGER_QUESTIONS - 1 - self.upkeep.eager) as usize, turn);
        }
        if turn_of.is_multiple_of(HEALING_SHARE) {
            return self.heal(turn);
        }
        let (near, far) = (self.stalest_near(turn), self.stalest_far(turn));
        let (near, far) = (
            near.map(|contact| (contact, self.own)),
            far.map(|contact| (contact, self.key_near(contact, turn))),
        );
        let chosen = if turn_of.is_multiple_of(2) { near.or(far) } else { far.or(near) };
        if let Some((contact, target)) = chosen {
            self.ask(contact, Purpose::Question, Request::FindNode { target }, turn);
        } else if self.role.service() == Service::Office
            && turn_of.is_multiple_of(1 << self.upkeep.barren.min(BARREN_MOST))
        {
            self.explore(turn.rng.random_range(0..self.table.buckets()), turn);
        }
    }

    /// Whom do others know in a part of the key space where there is room? A node that has just come asks for its buckets one
    /// after the other; office holders go on, ever less often, until they know each other almost completely.
    fn explore<N: Names<C>>(&mut self, bucket: usize, turn: &mut Turn<'_, C, N>) {
        let target = key_at(self.own, bucket % self.table.buckets(), turn.rng.random());
        if !self.table.has_room(target) {
            return;
        }
        let closest = self.table.closest(target, 1, turn.names, Entry::is_good);
        if let Some(&(_, contact)) = closest.first() {
            self.upkeep.barren += 1;
            self.ask(contact, Purpose::Question, Request::FindNode { target }, turn);
        }
    }

    /// Somebody who was away, or a bootstrap node: what they know of our neighborhood joins what we know.
    fn heal<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let away: Vec<_> =
            self.table.entries().iter().filter(|entry| entry.is_away()).map(|entry| entry.contact).collect();
        let outside: Vec<_> =
            self.upkeep.contacts().filter(|&contact| turn.names.key(contact) != self.own).collect();
        let all = away.len() + outside.len();
        if all == 0 {
            return;
        }
        let chosen = turn.rng.random_range(0..all);
        let Some(&contact) = away.iter().chain(&outside).nth(chosen) else { return };
        let key = turn.names.key(contact);
        if self.table.find(contact, key).is_some_and(|entry| entry.is_forgotten(turn.now)) {
            return self.table.remove(contact, turn.names);
        }
        self.ask(contact, Purpose::Question, Request::FindNode { target: self.own }, turn);
    }

    fn stalest_near<N>(&self, turn: &Turn<'_, C, N>) -> Option<C> {
        stalest(self.table.near(turn.settings.k), NEAR_FRESH, turn.now)
    }

    fn stalest_far<N>(&self, turn: &Turn<'_, C, N>) -> Option<C> {
        stalest(self.table.entries(), FAR_FRESH, turn.now)
    }

    /// Some key of the bucket that a contact lives in.
    fn key_near<N: Names<C>>(&self, contact: C, turn: &mut Turn<'_, C, N>) -> Key {
        key_at(self.own, self.table.bucket(turn.names.key(contact)), turn.rng.random())
    }

    /// Who is spoken of must answer itself before it counts.
    pub(super) fn on_question_answer<N: Names<C>>(&mut self, answer: Answer<C>, turn: &mut Turn<'_, C, N>) {
        let Answer::Nodes { closest } = answer else { return };
        let near = self.table.closest(self.own, turn.settings.k, turn.names, |entry| !entry.is_away());
        let border = near.get(turn.settings.k - 1).map_or(Distance::FARTHEST, |&(distance, _)| distance);
        let mut far = if self.upkeep.eager > 0 { CHECKS } else { FAR_CHECKS };
        for contact in closest.into_iter().take(CONTACTS) {
            let key = turn.names.key(contact);
            if !self.table.wants(contact, key) || self.upkeep.failed_lately(contact, turn.now) {
                continue;
            }
            self.upkeep.barren = 0;
            if Distance::between(self.own, key) < border {
                self.inquire(contact, Request::FindNode { target: self.own }, Purpose::Question, turn);
            } else if far > 0 {
                far -= 1;
                self.check(contact, turn);
            }
        }
    }

    /// Does it live?
    pub(super) fn check<N: Names<C>>(&mut self, contact: C, turn: &mut Turn<'_, C, N>) {
        self.inquire(contact, Request::Ping, Purpose::Check, turn);
    }

    fn inquire<N: Names<C>>(
        &mut self,
        contact: C,
        request: Request,
        purpose: Purpose,
        turn: &mut Turn<'_, C, N>,
    ) {
        let under_way = self.calls.with(Purpose::Check) + self.calls.with(Purpose::Question);
        if under_way < CHECKS && !self.calls.asks(contact) {
            self.ask(contact, purpose, request, turn);
        }
    }

    pub(super) fn on_checked<N: Names<C>>(
        &mut self,
        contact: C,
        answer: &Answer<C>,
        turn: &mut Turn<'_, C, N>,
    ) {
        if let Answer::Pong { offices } = *answer {
            self.on_offices(contact, offices, turn);
        }
    }

    /// Somebody asks us. Known contacts are refreshed by that; a stranger is asked back, to see that it can be reached.
    pub(super) fn notice<N: Names<C>>(&mut self, from: Sender<C>, turn: &mut Turn<'_, C, N>) {
        let key = turn.names.key(from.contact);
        if self.table.find(from.contact, key).is_some() {
            return self.hear(from, None, turn);
        }
        if from.service != Service::Client && self.role.serves() && self.table.wants(from.contact, key) {
            self.check(from.contact, turn);
        }
    }

    /// A stranger has not answered.
    pub(super) fn note_failure<N: Names<C>>(&mut self, contact: C, turn: &mut Turn<'_, C, N>) {
        self.upkeep.note(contact, Some(turn.now), turn.rng);
    }
}

/// The longest unheard of those that are unheard for so long, the doubtful before all; who is away has its own turn.
fn stalest<C: Handle>(entries: &[Entry<C>], fresh: Duration, now: Instant) -> Option<C> {
    let due = entries.iter().filter(|entry| !entry.is_away());
    let due = due.filter(|entry| !entry.is_good() || entry.unheard(now) >= fresh);
    due.max_by_key(|entry| (!entry.is_good(), entry.unheard(now))).map(|entry| entry.contact)
}
