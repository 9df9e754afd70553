//! The seats of this node, one at each relay. Whoever needs a seat waits for its relay, and for no other one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};

use muster_proto::relay::v1::CarryRequest;
use tokio::sync::{Mutex, mpsc};

use super::seat::Seat;

/// A relay's; its lock is held while the seat is taken, so that nobody takes two.
type Slot = Arc<Mutex<Option<Seat>>>;

/// As many as relays were sat at, but for those that nobody sits at or waits for any more.
#[derive(Default)]
pub(super) struct Seats(Lock<HashMap<String, Slot>>);

impl Seats {
    /// Into the seat at that relay; `take` sits down where nobody sits.
    ///
    /// # Errors
    /// Those of `take`, or the relay let go at once.
    pub(super) async fn at(
        &self,
        relay: &str,
        take: impl Future<Output = Result<Seat, String>>,
    ) -> Result<mpsc::Sender<CarryRequest>, String> {
        let slot = self.slot(relay);
        let mut slot = slot.lock().await;
        if let Some(asks) = slot.as_ref().and_then(Seat::asks) {
            return Ok(asks);
        }
        let seat = take.await.map_err(|error| format!("{relay}: {error}"))?;
        slot.insert(seat).asks().ok_or_else(|| format!("{relay} is gone"))
    }

    pub(super) fn is_taken(&self, relay: &str) -> bool {
        self.lock().get(relay).is_some_and(is_taken)
    }

    fn slot(&self, relay: &str) -> Slot {
        let mut slots = self.lock();
        // Who has a clone is about to sit down there.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || is_taken(slot));
        slots.entry(relay.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not while the seat is being taken.
fn is_taken(slot: &Slot) -> bool {
    slot.try_lock().is_ok_and(|seat| seat.as_ref().is_some_and(Seat::is_taken))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt;

    use super::*;

    /// A seat, and what holds its stream open.
    fn seat() -> (Seat, mpsc::Sender<CarryRequest>, mpsc::Receiver<CarryRequest>) {
        let (asks, outgoing) = mpsc::channel(1);
        (Seat::by(&asks), asks, outgoing)
    }

    #[tokio::test]
    async fn a_dead_relay_delays_nobody_who_sits_at_another() {
        let seats = Seats::default();
        let mut dead = Box::pin(seats.at("dead", pending()));
        assert!(dead.as_mut().now_or_never().is_none());
        let (live, _asks, _outgoing) = seat();
        seats.at("live", ready(Ok(live))).now_or_never().unwrap().unwrap();
        assert!(seats.is_taken("live") && !seats.is_taken("dead"));
    }

    #[tokio::test]
    async fn nobody_takes_two_seats_at_one_relay_and_one_that_was_left_is_forgotten() {
        let seats = Seats::default();
        let (first, asks, outgoing) = seat();
        seats.at("relay", ready(Ok(first))).await.unwrap();
        seats.at("relay", async { panic!("it is taken") }).await.unwrap();
        drop((asks, outgoing));
        assert_eq!(seats.at("other", ready(Err("full".to_owned()))).await.unwrap_err(), "other: full");
        assert!(!seats.lock().contains_key("relay"));
        let (again, _asks, _outgoing) = seat();
        seats.at("relay", ready(Ok(again))).await.unwrap();
    }
}
