//! What others ask of this node.

use muster_types::Key;

use super::contact::{Entry, Handle};
use super::distance::Names;
use super::input::Ticket;
use super::intent::Intent;
use super::message::{Answer, OFFERED, Refusal, Request, Sender};
use super::record::Record;
use super::{Dht, Turn};

impl<C: Handle> Dht<C> {
    pub(super) fn serve<N: Names<C>>(
        &mut self,
        from: Sender<C>,
        ticket: Ticket,
        request: Request,
        turn: &mut Turn<'_, C, N>,
    ) {
        if request == Request::Parting {
            self.table.parted(from.contact, turn.names);
        } else {
            self.notice(from, turn);
        }
        let answer = match request {
            Request::Ping | Request::Parting => Answer::Pong { offices: self.offices() },
            Request::Changed { record } => {
                self.listening.changed(record, turn.intents);
                Answer::Pong { offices: self.offices() }
            }
            _ if !self.role.serves() => Answer::Refused(Refusal::NotServing),
            Request::FindNode { target } => {
                Answer::Nodes { closest: self.known_to(from.contact, target, turn) }
            }
            Request::FindValue { key, kind } => {
                let closest = self.known_to(from.contact, key, turn);
                match self.store.find(key, kind, turn.now) {
                    records if records.is_empty() => Answer::Nodes { closest },
                    records => Answer::Value { records, closest },
                }
            }
            Request::Store { record, cached } => match self.keep(record, cached, turn) {
                Ok(()) => Answer::Stored,
                Err(refusal) => Answer::Refused(refusal),
            },
            Request::Offer { mut digests } => {
                digests.truncate(OFFERED);
                Answer::Wanted { digests: self.store.compare(digests, turn.now) }
            }
            Request::Listen { key, kind, lease } => {
                self.listening.enter(from.contact, key, kind, lease, turn.now)
            }
        };
        turn.intents.push(Intent::Reply { to: from.contact, ticket, answer });
    }

    /// Only who is well is handed on: answers full of the dead crowd out the living.
    fn known_to<N: Names<C>>(&self, asker: C, target: Key, turn: &Turn<'_, C, N>) -> Vec<C> {
        let admit = |entry: &Entry<C>| entry.is_good() && entry.contact != asker;
        let closest = self.table.closest(target, turn.settings.k, turn.names, admit);
        closest.into_iter().map(|(_, contact)| contact).collect()
    }

    /// Keeps a record, and tells those who listen if it is news.
    pub(super) fn keep<N: Names<C>>(
        &mut self,
        record: Record,
        cached: bool,
        turn: &mut Turn<'_, C, N>,
    ) -> Result<(), Refusal> {
        if self.store.put(record.clone(), cached, turn.now, turn.settings)? {
            self.tell_listeners(&record, turn);
        }
        Ok(())
    }
}
