//! Tells auth's audit log what was done here: deeds wait in the store, beside the change that each tells of, and go in
//! their order until auth has them. A call that is repeated records nothing twice. While too many wait, people and programs
//! are told to come back; what hosts do goes on, and is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::shutdown::Shutdown;

use crate::authority::AuthorityError;
use crate::hub::Hub;
use crate::metrics;
use crate::store::{DEEDS, StoreError};

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
        measure(&hub).await;
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

/// Whether there is room for what people may want.
async fn measure(hub: &Hub) {
    match hub.store.waiting_deeds().await {
        Ok(waiting) => {
            metrics::waiting_deeds(waiting);
            let full = waiting >= DEEDS;
            if full && !hub.audit_full.swap(full, Ordering::Relaxed) {
                tracing::error!(waiting, "auth takes no deeds into its log: people's commands are refused");
            }
            hub.audit_full.store(full, Ordering::Relaxed);
        }
        Err(error) => tracing::debug!(%error, "deeds are not counted"),
    }
}

async fn catch_up(hub: &Hub) -> Result<(), TellError> {
    loop {
        let now = clock::wall();
        let waiting = hub.store.deeds(BATCH).await?;
        if waiting.is_empty() && hub.store.confess_omissions(now).await? > 0 {
            continue;
        }
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
