//! What time alone changes: lost streams, targets that no host will end, old rows. Of several replicas the one that holds
//! the lease on the rounds does it for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::census;
use crate::domain::departure::{Orphan, Settle};
use crate::domain::ledger::Wake;
use crate::domain::tasks::EndTargets;
use crate::hub::Hub;
use crate::metrics::{self, Census};
use crate::store::{Retention, StoreError};
use crate::writer::WriteError;

/// Looks for lost streams and ripe targets this often, and when woken.
const ROUND: Duration = Duration::from_secs(1);

/// The lease on the rounds: a replica that died is replaced after so long, and several rounds fit into it.
const ROUNDS_LEASE: Duration = Duration::from_secs(5);

/// The name of that lease.
const ROUNDS: &str = "rounds";

/// Counts nodes and begins to remove old rows this often.
const CHORES: Duration = Duration::from_secs(60);

/// Targets that one transaction ends.
const ENDINGS: i64 = 500;

/// A round removes old rows for no longer than this, so that others can write and the next round is in time.
const PURGE_TURN: Duration = Duration::from_millis(200);

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
    let mut sweep = Sweep::new(hub.clone(), retention);
    loop {
        let swept = tokio::select! {
            () = shutdown.triggered() => break,
            () = wakes.next(|wake| *wake == Wake::Sweep) => sweep.end_overdue().await,
            _ = rounds.tick() => sweep.round().await,
        };
        if let Err(error) = swept {
            tracing::warn!(%error, "a sweep failed; the next one comes soon");
        }
    }
    if let Err(error) = hub.store.end_lease(&hub.replica).await {
        tracing::warn!(%error, "cannot end this replica's lease; it runs out");
    }
}

/// One replica's part in the rounds.
struct Sweep {
    hub: Arc<Hub>,
    retention: Retention,
    /// Whether this replica was the one to do it, when it last looked.
    leads: bool,
    /// What this replica shows of the fleet.
    shown: Census,
    chores: Instant,
    /// Old rows may be left.
    purges: bool,
}

impl Sweep {
    fn new(hub: Arc<Hub>, retention: Retention) -> Self {
        Self { hub, retention, leads: false, shown: Census::default(), chores: Instant::now(), purges: false }
    }

    /// Whether this replica is the one to do it. Who becomes it counts at once; who no longer is shows nothing.
    async fn is_chosen(&mut self) -> Result<bool, SweepError> {
        let (hub, now) = (&self.hub, clock::wall());
        let chosen =
            hub.peers.is_none() || hub.store.take_job(ROUNDS, &hub.replica, now, now + ROUNDS_LEASE).await?;
        metrics::leads(chosen);
        match (std::mem::replace(&mut self.leads, chosen), chosen) {
            (false, true) => self.chores = Instant::now(),
            (true, false) => self.show(Census::default()),
            _ => {}
        }
        Ok(chosen)
    }

    fn show(&mut self, census: Census) {
        metrics::census(&self.shown, &census);
        self.shown = census;
    }

    async fn end_overdue(&mut self) -> Result<(), SweepError> {
        if self.is_chosen().await? { end_overdue(&self.hub).await } else { Ok(()) }
    }

    async fn round(&mut self) -> Result<(), SweepError> {
        if !self.is_chosen().await? {
            return Ok(());
        }
        look_around(&self.hub).await?;
        if self.chores <= Instant::now() {
            self.chores = Instant::now() + CHORES;
            self.purges = true;
            let census = census::take(&self.hub).await?;
            self.show(census);
        }
        let end = Instant::now() + PURGE_TURN;
        while self.purges && Instant::now() < end {
            let removed = self.hub.store.purge(clock::wall(), self.retention).await?;
            metrics::purged(removed);
            self.purges = removed > 0;
        }
        Ok(())
    }
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
