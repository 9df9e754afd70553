//! What time alone changes: lost streams, targets that no host will end, old rows. Of several replicas the one that holds
//! the lease on the rounds does it for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::census;
use crate::domain::departure::{Orphan, Settle};
use crate::domain::ledger::Wake;
use crate::domain::tasks::EndTargets;
use crate::hub::Hub;
use crate::metrics;
use crate::store::{Retention, StoreError};
use crate::trust;
use crate::writer::WriteError;

/// Looks for lost streams and ripe targets this often, and when woken.
const ROUND: Duration = Duration::from_secs(1);

/// The lease on the rounds: a replica that died is replaced after so long, and several rounds fit into it.
const ROUNDS_LEASE: Duration = Duration::from_secs(5);

/// The name of that lease.
const ROUNDS: &str = "rounds";

/// Counts nodes and removes old rows this often.
const CHORES: Duration = Duration::from_secs(60);

/// Targets that one transaction ends.
const ENDINGS: i64 = 500;

/// Between two batches of a purge, so that others can write.
const PURGE_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Sweeps until the shutdown; then the replica's lease ends.
pub(crate) async fn run(hub: Arc<Hub>, retention: Retention, shutdown: Shutdown) {
    let mut wakes = hub.bus.subscribe();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut chores = Instant::now();
    loop {
        let swept = tokio::select! {
            () = shutdown.triggered() => break,
            () = sleep_until(chores) => {
                chores = Instant::now() + CHORES;
                do_chores(&hub, retention).await
            }
            () = wakes.next(|wake| *wake == Wake::Sweep) => alone(&hub, end_overdue(&hub)).await,
            _ = rounds.tick() => alone(&hub, look_around(&hub)).await,
        };
        if let Err(error) = swept {
            tracing::warn!(%error, "a sweep failed; the next one comes soon");
        }
    }
    if let Err(error) = hub.store.end_lease(&hub.replica).await {
        tracing::warn!(%error, "cannot end this replica's lease; it runs out");
    }
}

/// Does it if this replica is the one to do it.
async fn alone(hub: &Hub, work: impl Future<Output = Result<(), SweepError>>) -> Result<(), SweepError> {
    let now = clock::wall();
    let chosen =
        hub.peers.is_none() || hub.store.take_job(ROUNDS, &hub.replica, now, now + ROUNDS_LEASE).await?;
    metrics::leads(chosen);
    if chosen { work.await } else { Ok(()) }
}

async fn look_around(hub: &Hub) -> Result<(), SweepError> {
    let mut orphans = BTreeMap::new();
    for stream in hub.store.orphaned(clock::wall()).await? {
        let key = (stream.replica, stream.renewed);
        orphans.entry(key).or_insert_with(Vec::new).push(stream.node);
    }
    for ((replica, renewed), nodes) in orphans {
        hub.writer.submit(Orphan { nodes, replica, renewed }).await?;
    }
    for carrier in hub.store.unsettled().await? {
        hub.writer.submit(Settle { carrier }).await?;
    }
    end_overdue(hub).await
}

async fn end_overdue(hub: &Hub) -> Result<(), SweepError> {
    loop {
        let overdue = hub.store.overdue(clock::wall(), ENDINGS).await?;
        let last = i64::try_from(overdue.len()).is_ok_and(|count| count < ENDINGS);
        if !overdue.is_empty() {
            hub.writer.submit(EndTargets { overdue }).await?;
        }
        if last {
            return Ok(());
        }
    }
}

async fn do_chores(hub: &Hub, retention: Retention) -> Result<(), SweepError> {
    alone(hub, async { Ok(census::take(hub).await?) }).await?;
    if let Err(error) = hub.trust.refresh(&*hub.authority).await {
        tracing::warn!(%error, every = ?trust::REFRESH, "cannot learn whom to believe");
    }
    loop {
        let removed = hub.store.purge(clock::wall(), retention).await?;
        metrics::purged(removed);
        if removed == 0 {
            return Ok(());
        }
        tokio::time::sleep(PURGE_PAUSE).await;
    }
}
