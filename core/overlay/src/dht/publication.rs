//! Publications: a record goes to the closest nodes, each says whether it keeps it, and the publisher knows how many do.
//! Before a record expires its publisher is asked to renew it.

use std::collections::BTreeMap;

use muster_types::{Instant, Key};

use super::calls::Purpose;
use super::contact::Handle;
use super::distance::{Distance, Names};
use super::input::{Care, OpId};
use super::intent::{Effort, Intent, Kept};
use super::lookup::{Goal, Lookup};
use super::message::{Answer, Refusal, Request};
use super::record::{Kind, Record};
use super::timing::{OWN_RECORDS, RENEW_SHARE};
use super::{Dht, Turn};

#[derive(Debug)]
struct Publication<C> {
    record: Record,
    kept: Kept<C>,
    waiting: usize,
    /// Asked in place of those who fail; the closest last.
    others: Vec<C>,
    effort: Effort,
    began: Instant,
}

/// A record of this node's own.
#[derive(Debug)]
struct Own {
    op: OpId,
    key: Key,
    kind: Kind,
    renew: Instant,
}

#[derive(Debug)]
pub(super) struct Publications<C> {
    under_way: BTreeMap<OpId, Publication<C>>,
    own: Vec<Own>,
}

impl<C> Default for Publications<C> {
    fn default() -> Self {
        Self { under_way: BTreeMap::new(), own: Vec::new() }
    }
}

impl<C> Publications<C> {
    pub(super) fn next(&self) -> Option<Instant> {
        self.own.iter().map(|own| own.renew).min()
    }

    /// Neither the outcome nor renewal is of interest any more.
    pub(super) fn cancel(&mut self, op: OpId) {
        self.under_way.remove(&op);
        self.own.retain(|own| own.op != op);
    }

    fn watch(&mut self, op: OpId, record: &Record, now: Instant) {
        self.own.retain(|own| (own.key, own.kind) != (record.key, record.kind));
        if self.own.len() < OWN_RECORDS {
            let renew = now + record.expires.since(now).mul_f64(RENEW_SHARE);
            self.own.push(Own { op, key: record.key, kind: record.kind, renew });
        }
    }
}

impl<C: Handle> Dht<C> {
    pub(super) fn put<N: Names<C>>(
        &mut self,
        op: OpId,
        record: Record,
        care: Care,
        turn: &mut Turn<'_, C, N>,
    ) {
        self.publications.watch(op, &record, turn.now);
        self.begin(Lookup::new(record.key, Goal::Put { op, record }, care, turn.now), turn);
    }

    /// The closest are found: each is asked to keep the record.
    pub(super) fn publish<N: Names<C>>(
        &mut self,
        op: OpId,
        record: Record,
        lookup: &Lookup<C>,
        turn: &mut Turn<'_, C, N>,
    ) {
        let mut kept =
            Kept { holders: Vec::new(), by_this_node: false, refused: Vec::new(), silent: Vec::new() };
        let mut closest: Vec<_> = lookup.closest().collect();
        let own = Distance::between(self.own, record.key);
        let nearer = closest.iter().filter(|&&(distance, _)| distance < own).count();
        if self.role.serves() && nearer < turn.settings.k {
            kept.by_this_node = self.keep(record.clone(), false, turn).is_ok();
        }
        let count = turn.settings.k - usize::from(kept.by_this_node);
        let others = closest
            .split_off(count.min(closest.len()))
            .into_iter()
            .rev()
            .map(|(_, contact)| contact)
            .collect();
        let effort = lookup.effort(turn.now);
        let began = turn.now - effort.lasted;
        let publication = Publication { record, kept, waiting: 0, others, effort, began };
        self.publications.under_way.insert(op, publication);
        for (_, contact) in closest {
            self.entrust(op, contact, turn);
        }
        self.close(op, turn);
    }

    fn entrust<N: Names<C>>(&mut self, op: OpId, to: C, turn: &mut Turn<'_, C, N>) {
        let Some(publication) = self.publications.under_way.get(&op) else { return };
        let request = Request::Store { record: publication.record.clone(), cached: false };
        let asked = self.ask(to, Purpose::Publish(op), request, turn);
        if let Some(publication) = self.publications.under_way.get_mut(&op) {
            publication.waiting += usize::from(asked);
            publication.effort.asked += u32::from(asked);
        }
    }

    pub(super) fn on_published<N: Names<C>>(
        &mut self,
        op: OpId,
        by: C,
        answer: &Answer<C>,
        turn: &mut Turn<'_, C, N>,
    ) {
        match *answer {
            Answer::Stored => {
                if let Some(publication) = self.publications.under_way.get_mut(&op) {
                    publication.waiting -= 1;
                    publication.effort.answered += 1;
                    publication.kept.holders.push(by);
                }
                self.close(op, turn);
            }
            Answer::Refused(refusal) => self.on_unpublished(op, by, Some(refusal), turn),
            _ => self.on_unpublished(op, by, None, turn),
        }
    }

    /// Refused, or never answered: the next closest takes its place.
    pub(super) fn on_unpublished<N: Names<C>>(
        &mut self,
        op: OpId,
        by: C,
        refusal: Option<Refusal>,
        turn: &mut Turn<'_, C, N>,
    ) {
        let Some(publication) = self.publications.under_way.get_mut(&op) else { return };
        publication.waiting -= 1;
        match refusal {
            Some(refusal) => publication.kept.refused.push((by, refusal)),
            None => publication.kept.silent.push(by),
        }
        if let Some(other) = publication.others.pop() {
            self.entrust(op, other, turn);
        }
        self.close(op, turn);
    }

    fn close<N: Names<C>>(&mut self, op: OpId, turn: &mut Turn<'_, C, N>) {
        if self.publications.under_way.get(&op).is_some_and(|publication| publication.waiting == 0)
            && let Some(Publication { kept, effort, began, .. }) = self.publications.under_way.remove(&op)
        {
            let effort = Effort { lasted: turn.now.since(began), ..effort };
            turn.intents.push(Intent::Put { op, kept, effort });
        }
    }

    pub(super) fn renew_own<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let due: Vec<_> = self.publications.own.extract_if(.., |own| own.renew <= turn.now).collect();
        turn.intents.extend(due.into_iter().map(|Own { key, kind, .. }| Intent::Renew { key, kind }));
    }
}
