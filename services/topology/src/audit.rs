//! Tells auth's audit log what was done here: deeds wait in the store, beside the change that each tells of, and go in
//! their order until auth has them. A call that is repeated records nothing twice.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::shutdown::Shutdown;

use crate::authority::AuthorityError;
use crate::hub::Hub;
use crate::store::StoreError;

/// Between two looks: a deed stands in the log this soon.
const INTERVAL: Duration = Duration::from_secs(1);

/// Deeds in one call; auth commits one after the other.
const BATCH: i64 = 100;

/// The lease on telling: two that told at once would mix up the order.
const JOB: &str = "audit";

/// Longer than a call may take.
const LEASE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tells until the shutdown. An auth that does not answer is told later; nothing is lost meanwhile.
pub(crate) async fn tell(hub: Arc<Hub>, shutdown: Shutdown) {
    let mut failing = false;
    loop {
        let told = tokio::select! {
            () = shutdown.triggered() => return,
            told = catch_up(&hub) => told,
        };
        match told {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the audit log is behind; it is told again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn catch_up(hub: &Hub) -> Result<(), TellError> {
    loop {
        let now = clock::wall();
        let waiting = hub.store.deeds(BATCH).await?;
        if waiting.is_empty()
            || hub.peers.is_some() && !hub.store.take_job(JOB, &hub.replica, now, now + LEASE).await?
        {
            return Ok(());
        }
        let numbers: Vec<_> = waiting.iter().map(|deed| deed.number).collect();
        hub.authority.record(waiting).await?;
        hub.store.forget_deeds(&numbers).await?;
    }
}
