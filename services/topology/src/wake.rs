//! Who changed something tells those who read it to look again.
//!
//! Messages only wake: they may be lost, repeated or late, so readers re-read the store by revision and also poll.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::domain::ledger::Wake;

/// Batches of wake-ups that a slow reader may lag behind; further behind it looks at everything.
const BACKLOG: usize = 1_024;

/// Carries wake-ups between writers and readers, of one process or, by `crate::peers`, of several replicas.
pub trait WakeBus: Send + Sync + 'static {
    fn publish(&self, wakes: BTreeSet<Wake>);
    fn subscribe(&self) -> Wakes;
}

/// Wake-ups from the moment of subscribing on.
pub struct Wakes(broadcast::Receiver<Batch>);

/// `None`: some were missed, look at everything.
type Batch = Option<Arc<BTreeSet<Wake>>>;

impl Wakes {
    /// Waits for one of `interest`, or for having missed some. All that have come by then are one: who is woken looks at
    /// whatever there is.
    pub async fn next(&mut self, interest: impl Fn(&Wake) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(Some(wakes)) if !wakes.iter().any(&interest) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    self.0 = self.0.resubscribe();
                    return;
                }
                // The bus is gone with its service; whoever waits is about to end too.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// The bus of a service that runs as one process.
pub struct LocalBus(broadcast::Sender<Batch>);

impl Default for LocalBus {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl LocalBus {
    /// Wakes every reader: something was missed, and nobody knows what.
    pub fn wake_everyone(&self) {
        let _ = self.0.send(None);
    }
}

impl WakeBus for LocalBus {
    fn publish(&self, wakes: BTreeSet<Wake>) {
        // Without a reader there is nobody to wake.
        let _ = self.0.send(Some(Arc::new(wakes)));
    }

    fn subscribe(&self) -> Wakes {
        Wakes(self.0.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use muster_types::NodeId;

    use super::*;

    #[tokio::test]
    async fn a_reader_wakes_for_what_it_reads() {
        let bus = LocalBus::default();
        let mut wakes = bus.subscribe();
        let mine = Wake::Carrier(NodeId([1; 20]));
        bus.publish(BTreeSet::from([Wake::Carrier(NodeId([2; 20]))]));
        bus.publish(BTreeSet::from([mine]));
        wakes.next(|wake| *wake == mine).await;
    }

    #[tokio::test]
    async fn wake_ups_that_came_together_are_one() {
        let bus = LocalBus::default();
        let mut wakes = bus.subscribe();
        bus.publish(BTreeSet::from([Wake::Events]));
        bus.publish(BTreeSet::from([Wake::Events]));
        wakes.next(|wake| *wake == Wake::Events).await;
        assert!(wakes.next(|wake| *wake == Wake::Events).now_or_never().is_none());
        bus.publish(BTreeSet::from([Wake::Events]));
        wakes.next(|wake| *wake == Wake::Events).await;
    }

    #[tokio::test]
    async fn a_reader_that_lags_behind_looks_at_everything() {
        let bus = LocalBus::default();
        let mut wakes = bus.subscribe();
        for _ in 0..=BACKLOG {
            bus.publish(BTreeSet::from([Wake::Events]));
        }
        wakes.next(|_| false).await;
    }

    #[tokio::test]
    async fn a_reader_is_woken_when_nobody_knows_what_was_missed() {
        let bus = LocalBus::default();
        let mut wakes = bus.subscribe();
        bus.wake_everyone();
        wakes.next(|_| false).await;
    }
}
