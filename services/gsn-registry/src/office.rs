//! The registry at work: the machine behind one lock, the streams of its candidates, the probes' sockets, the store.
//!
//! streams and calls -> [`Registry`] -> once a second: probes out, candidates told, rows kept, others' rows read.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use muster_proto::gsn::v1::{OfferResponse, SendProbe, offer_response::Response as Body};
use muster_types::NodeId;
use muster_wire::gsn;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::domain::candidate::Offer;
use crate::domain::record::{History, Kept};
use crate::domain::registry::{CANDIDATES, Full, Intent, Registry, Via};
use crate::domain::relays::{self, Relay};
use crate::grpc::wire;
use crate::metrics;
use crate::probing::Probing;
use crate::store::{FORGOTTEN, Store, StoreError};

const TICK: Duration = Duration::from_secs(1);

/// Others' rows are read each so many ticks: a list is never older than that.
const LEARN_EVERY: u64 = 2;

/// Rows of long ago are dropped each so many ticks.
const FORGET_EVERY: u64 = 3_600;

/// A replica's demand counts for so long after it was last heard of.
const DEMAND_LIFETIME: Duration = Duration::from_secs(30);

/// A store that says nothing for so long is asked again.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Rows that wait for the store.
const UNKEPT: usize = 2 * CANDIDATES;

/// What waits to go down one stream; who does not read it is cut.
const OUTBOX: usize = 32;

/// One candidate's stream, for as long as it is the node's newest.
struct Seat {
    session: u64,
    outbox: mpsc::Sender<OfferResponse>,
    _ends_with_this: DropGuard,
}

/// What a stream sends down, and what tells it that it is over.
pub(crate) struct Entered {
    pub(crate) waiting: mpsc::Receiver<OfferResponse>,
    pub(crate) over: CancellationToken,
}

pub(crate) struct Office {
    floor: Mutex<Floor>,
    pub(crate) store: Arc<dyn Store>,
    probing: Probing,
    replica: String,
    sessions: AtomicU64,
}

struct Floor {
    registry: Registry,
    streams: HashMap<NodeId, Seat>,
    /// Not in the store yet: the newest of each candidate, present and gone.
    unkept: BTreeMap<NodeId, Kept>,
}

impl Office {
    pub(crate) fn new(store: Arc<dyn Store>, probing: Probing, replica: String) -> Self {
        let registry = Registry::new(replica.clone(), probing.sources());
        let floor = Mutex::new(Floor { registry, streams: HashMap::new(), unkept: BTreeMap::new() });
        Self { floor, store, probing, replica, sessions: AtomicU64::new(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the machine, or changes it.
    pub(crate) fn registry<R>(&self, look: impl FnOnce(&mut Registry) -> R) -> R {
        look(&mut self.lock().registry)
    }

    /// A number for a new stream.
    pub(crate) fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// A stream begins; an older one of the same node ends.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn enter(
        &self,
        session: u64,
        offer: Offer,
        observed: Option<IpAddr>,
        history: History,
    ) -> Result<Entered, Full> {
        let (node, (outbox, waiting), over) = (offer.node, mpsc::channel(OUTBOX), CancellationToken::new());
        let seat = Seat { session, outbox, _ends_with_this: over.clone().drop_guard() };
        let mut floor = self.lock();
        // The newer of two that began together may have been here first.
        if floor.streams.get(&node).is_none_or(|known| known.session < session) {
            floor.registry.offer(session, offer, observed, history, clock::wall())?;
            floor.streams.insert(node, seat);
        }
        Ok(Entered { waiting, over })
    }

    /// The node says something new on its stream.
    pub(crate) fn renew(&self, session: u64, offer: Offer, observed: Option<IpAddr>) {
        let mut floor = self.lock();
        if floor.streams.get(&offer.node).is_some_and(|known| known.session == session) {
            // Known already: there is room for it.
            let _ = floor.registry.offer(session, offer, observed, History::default(), clock::wall());
        }
    }

    /// A stream has ended: the node is listed no more.
    pub(crate) fn leave(&self, node: NodeId, session: u64) {
        let mut floor = self.lock();
        floor.registry.leave(node, session, clock::wall());
        if floor.streams.get(&node).is_some_and(|known| known.session == session) {
            floor.streams.remove(&node);
        }
    }

    /// # Errors
    /// The store does not answer.
    pub(crate) async fn register(&self, relay: Relay) -> Result<bool, StoreError> {
        let taken = self.lock().registry.relays.register(relay.clone(), clock::wall());
        if taken {
            self.store.keep_relay(&relay).await?;
        }
        Ok(taken)
    }

    /// What a node did in earlier sessions.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn history(&self, node: NodeId) -> Result<History, StoreError> {
        Ok(self.store.candidate(node).await?.map(|kept| kept.history).unwrap_or_default())
    }

    /// Until the shutdown: what the machine wants never waits for the store.
    pub(crate) async fn tend(self: Arc<Self>, shutdown: Shutdown) {
        let rounds = async {
            let mut due = every_tick();
            loop {
                due.tick().await;
                self.act();
            }
        };
        let books = async {
            let mut due = every_tick();
            for tick in 0_u64.. {
                due.tick().await;
                self.keep_books(tick).await;
            }
        };
        tokio::select! {
            () = shutdown.triggered() => {}
            () = rounds => {}
            () = books => {}
        }
    }

    async fn keep_books(&self, tick: u64) {
        match tokio::time::timeout(STORE_LIMIT, self.turn(tick)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the registry's store does not answer; candidates are served from memory");
            }
            Err(_) => {
                tracing::warn!(within = ?STORE_LIMIT, "the registry's store is silent; candidates are served from memory");
            }
        }
    }

    async fn turn(&self, tick: u64) -> Result<(), StoreError> {
        self.keep().await?;
        if tick.is_multiple_of(LEARN_EVERY) {
            self.learn().await?;
        }
        if tick.is_multiple_of(FORGET_EVERY) {
            self.store.forget(clock::wall() - FORGOTTEN).await?;
        }
        Ok(())
    }

    /// Rows wait until the store has them; the store may get the same one twice.
    async fn keep(&self) -> Result<(), StoreError> {
        let rows: Vec<_> = self.lock().unkept.values().cloned().collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.store.keep(&rows).await?;
        let mut floor = self.lock();
        for row in rows {
            if floor.unkept.get(&row.node) == Some(&row) {
                floor.unkept.remove(&row.node);
            }
        }
        Ok(())
    }

    /// What the machine wants done.
    fn act(&self) {
        let mut floor = self.lock();
        let now = clock::wall();
        for intent in floor.registry.tick(now, &mut rand::rng()) {
            match intent {
                Intent::Probe { via: Via::Own(socket), to, token } => {
                    metrics::probe(false);
                    self.probing.send(socket, to, &token);
                }
                Intent::Probe { via: Via::Node(helper), to, token } => {
                    metrics::probe(true);
                    let address = Some(gsn::address_to_wire(to));
                    let probe = SendProbe { token: Bytes::copy_from_slice(&token), address };
                    floor.tell(helper, Body::SendProbe(probe));
                }
                Intent::Tell { node, standing } => {
                    floor.tell(node, Body::Standing(wire::standing(&standing)))
                }
                Intent::End { node } => {
                    floor.streams.remove(&node);
                }
                Intent::Keep(kept) => floor.keep(*kept),
            }
        }
        for (state, count) in floor.registry.states() {
            metrics::candidates(state, count);
        }
        let (wanted, serving) = floor.registry.wanted(now);
        metrics::needed(wanted, serving);
        metrics::relays(floor.registry.relays.list(now).len());
    }

    async fn learn(&self) -> Result<(), StoreError> {
        let now = clock::wall();
        let demand = self.registry(|registry| registry.demand(now));
        self.store.keep_demand(&self.replica, demand, now + DEMAND_LIFETIME).await?;
        let there = self.store.elsewhere(&self.replica, now).await?;
        self.registry(|registry| {
            registry.learn(there.candidates, there.demand);
            registry.relays.learn(there.relays, now);
        });
        Ok(())
    }
}

fn every_tick() -> tokio::time::Interval {
    let mut due = tokio::time::interval(TICK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    due
}

impl Floor {
    /// While the store is away long enough for so many to come and go, the history of the last is lost.
    fn keep(&mut self, kept: Kept) {
        if self.unkept.len() < UNKEPT || self.unkept.contains_key(&kept.node) {
            self.unkept.insert(kept.node, kept);
        }
    }

    fn tell(&mut self, node: NodeId, body: Body) {
        let Some(seat) = self.streams.get(&node) else { return };
        if seat.outbox.try_send(OfferResponse { response: Some(body) }).is_err() {
            self.streams.remove(&node);
        }
    }
}

/// How long a registration of a relay counts.
pub(crate) const RELAY_LEASE: Duration = relays::LEASE;
