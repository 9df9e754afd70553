//! "How do you see me?", asked and answered on the overlay's own port (RFC 8489). Nobody is answered more than he sent, but
//! for bare requests of other programs: they are 12 bytes short of their answer, by IPv6 24, and answered once a second.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_wire::stun::{self, Message, Transaction};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::endpoint::Shared;
use crate::usage::Traffic;

/// Waits for an answer: RFC 8489, section 6.2.1, begins with 500 ms; half of it suffices for the nearest servers, and the
/// last wait is for those around the world.
const WAITS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1_000)];

/// Own questions at once.
const QUESTIONS: usize = 64;

/// Limits of who answers, all within one second.
const SECOND: Duration = Duration::from_secs(1);
/// Answers to one address: a household behind one translator asks a few times when it wakes up.
const OF_ONE: u32 = 10;
/// Answers that are longer than their question, to one address.
const LONGER: u32 = 1;
/// Answers to everybody, 44 kB.
const OF_ALL: u32 = 1_000;

/// Decides whom to answer.
#[derive(Debug)]
pub struct Responder {
    since: Instant,
    total: u32,
    sources: HashMap<IpAddr, [u32; 2]>,
}

impl Default for Responder {
    fn default() -> Self {
        Self { since: Instant::now(), total: 0, sources: HashMap::new() }
    }
}

impl Responder {
    /// The answer to a datagram, if it is a request and there have not been too many.
    pub fn answer(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Bytes> {
        self.answer_at(from, datagram, Instant::now())
    }

    fn answer_at(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> Option<Bytes> {
        let Some(Message::Request(transaction)) = stun::decode(datagram) else { return None };
        let answer = stun::answer(&transaction, from);
        self.admit(from.ip(), answer.len() > datagram.len(), now).then_some(answer)
    }

    fn admit(&mut self, from: IpAddr, longer: bool, now: Instant) -> bool {
        if now - self.since >= SECOND {
            (self.since, self.total) = (now, 0);
            self.sources.clear();
        }
        if self.total >= OF_ALL {
            return false;
        }
        let counts = self.sources.entry(from).or_default();
        let admitted = counts[0] < OF_ONE && !(longer && counts[1] >= LONGER);
        if admitted {
            counts[0] += 1;
            counts[1] += u32::from(longer);
            self.total += 1;
        }
        admitted
    }
}

/// Own questions that wait.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<HashMap<Transaction, Question>>);

#[derive(Debug)]
struct Question {
    to: SocketAddr,
    answer: oneshot::Sender<SocketAddr>,
}

/// Takes a question back that is not waited for any more.
struct Asked<'a>(&'a Questions, Transaction);

impl Questions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Transaction, Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, from: SocketAddr, transaction: &Transaction, seen: SocketAddr) {
        let mut questions = self.lock();
        // Only from whom was asked: others cannot know the transaction, but may have overheard it.
        if questions.get(transaction).is_some_and(|question| question.to == from)
            && let Some(question) = questions.remove(transaction)
        {
            // The asker may have given up.
            let _ = question.answer.send(seen);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// How `server` sees this node's socket, and the round trip. `None`: no answer, or too many questions.
pub(crate) async fn ask(shared: &Shared, server: SocketAddr) -> Option<(SocketAddr, Duration)> {
    let transaction: Transaction = rand::random();
    let (answer, mut answered) = oneshot::channel();
    {
        let mut questions = shared.questions.lock();
        if questions.len() >= QUESTIONS {
            return None;
        }
        questions.insert(transaction, Question { to: server, answer });
    }
    let _asked = Asked(&shared.questions, transaction);
    let request = stun::request(&transaction);
    for wait in WAITS {
        let sent = Instant::now();
        shared.discovery.send(server, &request, Traffic::Stun);
        if let Ok(seen) = timeout(wait, &mut answered).await {
            return seen.ok().map(|seen| (seen, sent.elapsed()));
        }
    }
    None
}

/// A STUN datagram came to the overlay's port.
pub(crate) fn heard(shared: &Shared, responder: &mut Responder, from: SocketAddr, datagram: &[u8]) {
    shared.usage.received(Traffic::Stun, datagram.len());
    match stun::decode(datagram) {
        Some(Message::Answer(transaction, seen)) => shared.questions.answered(from, &transaction, seen),
        Some(Message::Request(_)) => {
            if let Some(answer) = responder.answer(from, datagram) {
                shared.discovery.send(from, &answer, Traffic::Stun);
            }
        }
        None => tracing::trace!(%from, "dropped a datagram that is no STUN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(number: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, number], 9))
    }

    #[test]
    fn nobody_gets_more_answers_than_his_share_and_bare_requests_one_a_second() {
        let (mut responder, asked, now) = (Responder::default(), stun::request(&[1; 12]), Instant::now());
        let answers = (0..100).filter(|_| responder.answer_at(from(1), &asked, now).is_some()).count();
        assert_eq!(answers, OF_ONE as usize);
        let bare = [&asked[..2], &[0, 0], &asked[4..20]].concat();
        assert!(responder.answer_at(from(2), &bare, now).is_some_and(|answer| answer.len() > bare.len()));
        assert_eq!(responder.answer_at(from(2), &bare, now), None);
        assert!(responder.answer_at(from(1), &asked, now + SECOND).is_some());
    }

    #[test]
    fn a_flood_from_many_is_answered_at_a_bounded_rate() {
        let (mut responder, asked, now) = (Responder::default(), stun::request(&[1; 12]), Instant::now());
        let sources = (0..10_000_u32).map(|number| SocketAddr::from((number.to_be_bytes(), 9)));
        let answers = sources.filter(|from| responder.answer_at(*from, &asked, now).is_some()).count();
        assert_eq!(answers, OF_ALL as usize);
        assert!(responder.sources.len() <= OF_ALL as usize);
    }
}
