//! Who has a session, who is about to have one, and which of two crossing dials becomes it. One rule decides at
//! both ends without a word between them: while both dial, the dial of the lower id counts, and the other end's
//! is answered only once that has failed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_types::NodeId;
use tokio_util::sync::CancellationToken;

use crate::session::{Session, Side};

/// A dial that crossed another on the way arrives within this time after the other became a session.
const CROSSING: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Peers {
    own: NodeId,
    table: Mutex<HashMap<NodeId, Slot>>,
    attempts: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    session: Option<Session>,
    underway: Option<Underway>,
}

#[derive(Debug, Clone)]
struct Underway {
    attempt: u64,
    side: Side,
    cancel: CancellationToken,
    done: CancellationToken,
}

/// The right to open a session with one peer; dropping it tells all who wait.
#[derive(Debug)]
pub(crate) struct Attempt {
    peers: Arc<Peers>,
    peer: NodeId,
    underway: Underway,
}

/// What stands in the way of a dial.
#[derive(Debug)]
pub(crate) enum Begin {
    Open(Session),
    /// Somebody else is at it; ask again afterwards.
    Underway(CancellationToken),
    Mine(Attempt),
}

/// What is known of a session that stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    boot_nonce: u64,
    side: Side,
    age: Duration,
}

/// Whether a peer that dials gets a session although there is one.
fn replaces(own: NodeId, peer: NodeId, boot_nonce: u64, standing: Standing) -> bool {
    let crossed = standing.age < CROSSING && standing.side == Side::Dialled && own < peer;
    // A peer dials only without a session: either its dial crossed ours on the way, or it has lost ours.
    boot_nonce != standing.boot_nonce || !crossed
}

impl Peers {
    pub(crate) fn new(own: NodeId) -> Arc<Self> {
        Arc::new(Self { own, table: Mutex::default(), attempts: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn session(&self, peer: NodeId) -> Option<Session> {
        self.lock().get(&peer)?.session.clone().filter(|session| !session.is_closed())
    }

    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.lock().values().filter_map(|slot| slot.session.clone()).collect()
    }

    /// Before dialling.
    pub(crate) fn begin(self: &Arc<Self>, peer: NodeId) -> Begin {
        let mut table = self.lock();
        let slot = table.entry(peer).or_default();
        if let Some(session) = slot.session.as_ref().filter(|session| !session.is_closed()) {
            return Begin::Open(session.clone());
        }
        match &slot.underway {
            Some(underway) => Begin::Underway(underway.done.clone()),
            None => Begin::Mine(self.attempt(slot, peer, Side::Dialled)),
        }
    }

    /// Before a dial beside the session that stands. `None`: another one is underway.
    pub(crate) fn begin_again(self: &Arc<Self>, peer: NodeId) -> Option<Attempt> {
        let mut table = self.lock();
        let slot = table.entry(peer).or_default();
        slot.underway.is_none().then(|| self.attempt(slot, peer, Side::Dialled))
    }

    /// Before answering the Hello of a peer that dialled; waits while an own dial goes first. `None`: there is a
    /// session that counts.
    pub(crate) async fn admit(self: &Arc<Self>, peer: NodeId, boot_nonce: u64) -> Option<Attempt> {
        loop {
            let done = match self.try_admit(peer, boot_nonce) {
                Admission::Granted(attempt) => return Some(attempt),
                Admission::Refused => return None,
                Admission::Later(done) => done,
            };
            done.cancelled().await;
        }
    }

    fn try_admit(self: &Arc<Self>, peer: NodeId, boot_nonce: u64) -> Admission {
        let mut table = self.lock();
        let slot = table.entry(peer).or_default();
        if let Some(session) = slot.session.as_ref().filter(|session| !session.is_closed()) {
            let (nonce, side, age) = (session.boot_nonce(), session.side(), session.opened().elapsed());
            let standing = Standing { boot_nonce: nonce, side, age };
            if !replaces(self.own, peer, boot_nonce, standing) {
                return Admission::Refused;
            }
        }
        match &slot.underway {
            // The higher id's dial gives way.
            Some(underway) if underway.side == Side::Dialled && self.own > peer => underway.cancel.cancel(),
            Some(underway) => return Admission::Later(underway.done.clone()),
            None => {}
        }
        Admission::Granted(self.attempt(slot, peer, Side::Accepted))
    }

    fn attempt(self: &Arc<Self>, slot: &mut Slot, peer: NodeId, side: Side) -> Attempt {
        let underway = Underway {
            attempt: self.attempts.fetch_add(1, Ordering::Relaxed),
            side,
            cancel: CancellationToken::new(),
            done: CancellationToken::new(),
        };
        slot.underway = Some(underway.clone());
        Attempt { peers: Arc::clone(self), peer, underway }
    }

    /// A session ended. Another with the same peer stays.
    pub(crate) fn remove(&self, session: &Session) {
        let mut table = self.lock();
        let Some(slot) = table.get_mut(&session.peer()) else { return };
        if slot.session.as_ref().is_some_and(|current| current.same_as(session)) {
            slot.session = None;
        }
        if slot.session.is_none() && slot.underway.is_none() {
            table.remove(&session.peer());
        }
    }
}

enum Admission {
    Granted(Attempt),
    Refused,
    Later(CancellationToken),
}

impl Attempt {
    /// Until the other end's dial is preferred.
    pub(crate) async fn cancelled(&self) {
        self.underway.cancel.cancelled().await;
    }

    /// The attempt became a session. `Err`: it was cancelled just before. `Ok` holds what it replaces.
    pub(crate) fn succeed(self, session: &Session) -> Result<Option<Session>, Cancelled> {
        let mut table = self.peers.lock();
        if self.underway.cancel.is_cancelled() {
            return Err(Cancelled);
        }
        let slot = table.entry(self.peer).or_default();
        Ok(slot.session.replace(session.clone()))
    }
}

/// The other end's dial counts.
#[derive(Debug)]
pub(crate) struct Cancelled;

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut table = self.peers.lock();
        if let Some(slot) = table.get_mut(&self.peer) {
            if slot.underway.as_ref().is_some_and(|underway| underway.attempt == self.underway.attempt) {
                slot.underway = None;
            }
            if slot.session.is_none() && slot.underway.is_none() {
                table.remove(&self.peer);
            }
        }
        drop(table);
        self.underway.done.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId([1; 20]);
    const HIGH: NodeId = NodeId([2; 20]);
    const YOUNG: Duration = Duration::from_millis(10);
    const OLD: Duration = Duration::from_secs(60);

    fn standing(side: Side, age: Duration) -> Standing {
        Standing { boot_nonce: 7, side, age }
    }

    #[test]
    fn only_a_crossing_dial_of_the_higher_id_is_turned_away() {
        assert!(!replaces(LOW, HIGH, 7, standing(Side::Dialled, YOUNG)));
        for (own, peer, nonce, standing) in [
            (HIGH, LOW, 7, standing(Side::Dialled, YOUNG)),
            (LOW, HIGH, 7, standing(Side::Accepted, YOUNG)),
            (LOW, HIGH, 7, standing(Side::Dialled, OLD)),
            (LOW, HIGH, 8, standing(Side::Dialled, YOUNG)),
        ] {
            assert!(replaces(own, peer, nonce, standing), "{own:?} {peer:?} {nonce} {standing:?}");
        }
    }

    #[tokio::test]
    async fn the_higher_ids_dial_gives_way_and_the_lower_ids_goes_first() {
        let high = Peers::new(HIGH);
        let Begin::Mine(dial) = high.begin(LOW) else { panic!("nothing stands in the way") };
        let accepted = high.admit(LOW, 7).await.unwrap();
        dial.cancelled().await;
        drop((dial, accepted));

        let low = Peers::new(LOW);
        let Begin::Mine(dial) = low.begin(HIGH) else { panic!("nothing stands in the way") };
        let mut answer = tokio_test_pending(low.admit(HIGH, 7));
        assert!(answer.is_pending());
        drop(dial);
        assert!(answer.finish().await.is_some());
        assert!(low.lock().is_empty());
    }

    /// A future, polled once.
    struct Polled<F>(std::pin::Pin<Box<F>>, bool);

    fn tokio_test_pending<F: Future>(future: F) -> Polled<F> {
        let mut future = Box::pin(future);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let pending = future.as_mut().poll(&mut cx).is_pending();
        Polled(future, pending)
    }

    impl<F: Future> Polled<F> {
        fn is_pending(&mut self) -> bool {
            self.1
        }

        async fn finish(self) -> F::Output {
            self.0.await
        }
    }
}
