//! Which of the kept identities are this replica's: replicas on one database take them from each other only when their
//! lease has run out, so that no two nodes run with one id.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::lease::{self, Lost, TERM};
use tokio::time::Instant;

use crate::domain::identity::Identity;
use crate::store::{Store, StoreError};
use crate::{RunError, StoreConfig};

/// Between two looks at whether another replica's lease has run out.
const LOOK: Duration = Duration::from_secs(1);

/// The replica that a file has; its successor goes on with the same identities at once.
const ONLY: &str = "only";

/// What this replica holds.
pub(crate) struct Slots {
    store: Arc<dyn Store>,
    holder: String,
    shared: bool,
    /// For the lease of one that was killed to run out.
    patience: Duration,
}

impl Slots {
    pub(crate) fn new(config: &StoreConfig, store: Arc<dyn Store>) -> Self {
        let shared = matches!(config, StoreConfig::Postgres(_));
        let holder = if shared { format!("{:032x}", rand::random::<u128>()) } else { ONLY.to_owned() };
        Self { store, holder, shared, patience: TERM + LOOK }
    }

    /// So many identities: kept ones that nobody holds, and new ones when the others' holders have shown that they live.
    pub(crate) async fn take(&self, count: usize) -> Result<Vec<Identity>, RunError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let known = self.store.identities().await?;
            let mut taken = Vec::new();
            for identity in &known {
                if taken.len() < count && self.hold(identity.slot).await? {
                    taken.push(identity.clone());
                }
            }
            if taken.len() == count {
                return Ok(taken);
            }
            // Held by a replica that lives, or by one that was killed and has let nothing go.
            let all_taken = taken.len() == known.len();
            if all_taken || !self.shared || Instant::now() >= deadline {
                let first = known.last().map_or(0, |last| last.slot + 1);
                self.draw(first, count - taken.len()).await?;
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn draw(&self, first: u16, count: usize) -> Result<(), RunError> {
        for slot in (first..).take(count) {
            self.store.keep_identity(&Identity::draw(slot)?).await?;
        }
        Ok(())
    }

    async fn hold(&self, slot: u16) -> Result<bool, StoreError> {
        let now = clock::wall();
        self.store.hold(slot, &self.holder, now, now + TERM).await
    }

    /// Returns why these may not be used any more; of a store that nobody else has, never.
    pub(crate) async fn keep(&self, slots: Vec<u16>) -> Lost {
        if !self.shared {
            return std::future::pending().await;
        }
        lease::keep(|| self.hold_all(&slots)).await
    }

    async fn hold_all(&self, slots: &[u16]) -> Result<bool, StoreError> {
        for slot in slots {
            if !self.hold(*slot).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whoever comes next need not wait.
    pub(crate) async fn let_go(&self) {
        if let Err(error) = self.store.let_go(&self.holder).await {
            tracing::warn!(%error, "the next replica has to wait for this one's lease to run out");
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_kit::testing::postgres::Postgres;

    use super::*;
    use crate::store::postgres::PostgresStore;

    async fn replica(server: &Postgres, patience: Duration) -> Slots {
        let url = server.url();
        let store = Arc::new(PostgresStore::connect(url.parse().unwrap()).await.unwrap());
        Slots { patience, ..Slots::new(&StoreConfig::Postgres(url), store) }
    }

    fn slots(taken: &[Identity]) -> Vec<u16> {
        taken.iter().map(|identity| identity.slot).collect()
    }

    #[tokio::test]
    async fn replicas_on_one_database_run_different_nodes_and_a_successor_goes_on_with_them() {
        let server = Postgres::start().unwrap();
        let one = replica(&server, Duration::ZERO).await;
        let two = replica(&server, Duration::ZERO).await;
        assert_eq!(slots(&one.take(2).await.unwrap()), [0, 1]);
        assert_eq!(slots(&two.take(2).await.unwrap()), [2, 3]);

        // The first says goodbye: whoever comes next has its identities, and it has them no more.
        one.let_go().await;
        let three = replica(&server, Duration::ZERO).await;
        assert_eq!(slots(&three.take(2).await.unwrap()), [0, 1]);
        assert!(!one.hold_all(&[0, 1]).await.unwrap());
        assert!(two.hold_all(&[2, 3]).await.unwrap());
    }

    #[tokio::test]
    async fn the_lease_of_a_killed_replica_runs_out_and_is_waited_for() {
        let server = Postgres::start().unwrap();
        let killed = replica(&server, Duration::ZERO).await;
        killed.take(1).await.unwrap();
        let (now, left) = (clock::wall(), Duration::from_millis(1_500));
        killed.store.hold(0, &killed.holder, now, now + left).await.unwrap();
        let successor = replica(&server, TERM).await;
        assert_eq!(slots(&successor.take(1).await.unwrap()), [0]);
    }
}
