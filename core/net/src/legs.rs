//! Relayed packets by UDP, on the endpoint's own socket: those of a relay at which this node sits go into their routes; all
//! others to whoever relays here ([`crate::Endpoint::take_relayed`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use muster_overlay::relay::Channel;
use muster_wire::relay::{self, AddressProof, Datagram, HEADER, UdpToken};
use tokio::sync::{mpsc, watch};

use crate::endpoint::Shared;
use crate::relayed::RelayInbound;
use crate::sealed::Sealed;
use crate::usage::Traffic;

/// Datagrams that wait for whoever relays here. A node relays little: what waits longer is sent again above.
pub(crate) const WAITING: usize = 256;

/// Relays by their UDP addresses.
#[derive(Debug)]
pub(crate) struct Legs {
    table: RwLock<HashMap<SocketAddr, Arc<Leg>>>,
    others: mpsc::Sender<Sealed>,
}

#[derive(Debug)]
struct Leg {
    channels: RwLock<HashMap<u16, RelayInbound>>,
    bound: watch::Sender<u64>,
    bind: Mutex<Bind>,
    /// Something went out since somebody looked.
    used: AtomicBool,
}

/// What the relay was asked last.
#[derive(Debug, Default)]
struct Bind {
    token: UdpToken,
    counter: u64,
    /// As the relay told it at this socket's address, when that was new to it.
    proof: AddressProof,
}

impl Bind {
    fn datagram(&self) -> Bytes {
        relay::bind(&self.token, self.counter, &self.proof)
    }
}

/// One relay's datagrams; dropping it lets them go.
pub struct RelayLeg {
    shared: Arc<Shared>,
    at: SocketAddr,
    leg: Arc<Leg>,
}

impl Legs {
    pub(crate) fn new(others: mpsc::Sender<Sealed>) -> Self {
        Self { table: RwLock::default(), others }
    }

    /// A datagram with a relay's mark came in. Answers what is to be answered.
    pub(crate) fn heard(&self, from: SocketAddr, datagram: Datagram, bytes: Bytes) -> Option<Bytes> {
        let leg = self.table.read().unwrap_or_else(PoisonError::into_inner).get(&from).cloned();
        match (leg, datagram) {
            (Some(leg), Datagram::Data(channel)) => leg.deliver(channel, bytes),
            (Some(leg), Datagram::Bound { counter }) => {
                leg.bound.send_if_modified(|last| std::mem::replace(last, counter.max(*last)) < counter);
            }
            (Some(leg), Datagram::Prove { proof }) => return leg.prove(proof),
            (None, Datagram::Bound { .. } | Datagram::Prove { .. }) => {}
            (_, Datagram::Bind { .. } | Datagram::Data(_)) => {
                if self.others.try_send(Sealed { from, bytes }).is_err() {
                    tracing::trace!(%from, "lost a datagram to be relayed");
                }
            }
        }
        None
    }
}

impl Leg {
    fn deliver(&self, Channel(channel): Channel, datagram: Bytes) {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbound) = channels.get(&channel) {
            inbound.deliver(datagram.slice(HEADER..));
        }
    }
}

impl Leg {
    /// The bind again, with the proof. Each proof is taken once, and only while an answer is waited for.
    fn prove(&self, proof: AddressProof) -> Option<Bytes> {
        let mut bind = self.bind.lock().unwrap_or_else(PoisonError::into_inner);
        if bind.proof == proof || bind.counter <= *self.bound.borrow() {
            return None;
        }
        bind.proof = proof;
        Some(bind.datagram())
    }
}

impl RelayLeg {
    pub(crate) fn open(shared: &Arc<Shared>, at: SocketAddr) -> Self {
        let leg = Leg {
            channels: RwLock::default(),
            bound: watch::Sender::new(0),
            bind: Mutex::default(),
            used: AtomicBool::new(false),
        };
        let (shared, leg) = (Arc::clone(shared), Arc::new(leg));
        let mut table = shared.legs.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(at, Arc::clone(&leg));
        drop(table);
        Self { shared, at, leg }
    }

    /// What comes through `channel` goes into this route.
    pub fn join(&self, channel: u16, inbound: RelayInbound) {
        self.leg.channels.write().unwrap_or_else(PoisonError::into_inner).insert(channel, inbound);
    }

    pub fn part(&self, channel: u16) {
        self.leg.channels.write().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    }

    /// Asks the relay to tie this socket to the session with that token.
    pub fn bind(&self, token: &UdpToken, counter: u64) {
        let mut bind = self.leg.bind.lock().unwrap_or_else(PoisonError::into_inner);
        (bind.token, bind.counter) = (*token, counter);
        let datagram = bind.datagram();
        drop(bind);
        self.shared.discovery.send(self.at, &datagram, Traffic::Relayed);
    }

    /// The highest counter that the relay has confirmed.
    pub fn bound(&self) -> watch::Receiver<u64> {
        self.leg.bound.subscribe()
    }

    pub fn send(&self, channel: u16, packet: &[u8]) {
        self.leg.used.store(true, Ordering::Relaxed);
        let datagram = [&relay::header(Channel(channel))[..], packet].concat();
        self.shared.discovery.send(self.at, &datagram, Traffic::Relayed);
    }

    /// Whether anything was sent since this was asked before.
    pub fn take_used(&self) -> bool {
        self.leg.used.swap(false, Ordering::Relaxed)
    }
}

impl Drop for RelayLeg {
    fn drop(&mut self) {
        let mut table = self.shared.legs.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.get(&self.at).is_some_and(|leg| Arc::ptr_eq(leg, &self.leg)) {
            table.remove(&self.at);
        }
    }
}

impl std::fmt::Debug for RelayLeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayLeg").field("at", &self.at).finish_non_exhaustive()
    }
}
