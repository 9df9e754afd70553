//! Tickets for relays: made here, signed by auth, many in one call, and handed out again while they are good.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock;
use muster_kit::connect::MasterChannel;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::{Fault, fault};
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::auth::v1::{Payload, SignRequest};
use muster_proto::payload_type::RELAY_TICKET;
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};
use muster_wire::relay::{RelayTicket, TICKET_LIFETIME};
use tokio::sync::{mpsc, oneshot};
use tonic::Code;

use crate::metrics;

/// A ticket is handed out again while it is good for that much longer.
const GOOD_FOR: Duration = Duration::from_secs(300);

/// Tickets that are remembered; beyond it all are signed anew.
const REMEMBERED: usize = 50_000;

/// Tickets that wait to be signed.
const WAITING: usize = 4_096;

/// Tickets of one call to auth; its own bound is a thousand.
const BATCH: usize = 500;

/// A ticket, signed.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) envelope: Envelope,
    pub(crate) expires: Timestamp,
    pub(crate) bytes_per_second: u64,
}

/// What a ticket is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wish {
    pub(crate) node: NodeId,
    pub(crate) certificate_serial: Bytes,
    pub(crate) peer: Option<NodeId>,
    pub(crate) relay: String,
    pub(crate) bytes_per_second: u64,
}

struct Order {
    ticket: RelayTicket,
    answer: oneshot::Sender<Result<Envelope, Fault>>,
}

pub(crate) struct Tickets {
    known: Mutex<HashMap<Wish, Signed>>,
    orders: mpsc::Sender<Order>,
}

impl Tickets {
    /// Its clerk works until the shutdown.
    pub(crate) fn new(auth: MasterChannel, shutdown: &Shutdown) -> Self {
        let (orders, waiting) = mpsc::channel(WAITING);
        shutdown.spawn(work(AuthorityServiceClient::new(auth), waiting, shutdown.clone()));
        Self { known: Mutex::default(), orders }
    }

    /// # Errors
    /// Auth does not sign, or too many wait for it.
    pub(crate) async fn issue(&self, wish: Wish) -> Result<Signed, Fault> {
        let issued = clock::wall();
        if let Some(signed) = self.known(&wish, issued) {
            metrics::ticket(false);
            return Ok(signed);
        }
        let expires = issued + TICKET_LIFETIME;
        let Wish { node, certificate_serial, peer, relay, bytes_per_second } = wish.clone();
        let ticket = RelayTicket { node, certificate_serial, peer, relay, bytes_per_second, issued, expires };
        let (answer, signed) = oneshot::channel();
        self.orders.try_send(Order { ticket, answer }).map_err(|_| {
            fault(Code::ResourceExhausted, "TOO_MANY_TICKETS", "too many tickets are waited for")
        })?;
        let envelope = signed
            .await
            .map_err(|_| fault(Code::Unavailable, "SHUTTING_DOWN", "the registry ends; ask again"))??;
        metrics::ticket(true);
        let signed = Signed { envelope, expires, bytes_per_second };
        self.remember(wish, signed.clone(), issued);
        Ok(signed)
    }

    fn known(&self, wish: &Wish, now: Timestamp) -> Option<Signed> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(wish).filter(|signed| signed.expires.since(now) > GOOD_FOR).cloned()
    }

    fn remember(&self, wish: Wish, signed: Signed, now: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, signed| signed.expires.since(now) > GOOD_FOR);
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(wish, signed);
    }
}

/// Has signed what waits, all of it in one call, and then what came meanwhile.
async fn work(
    mut auth: AuthorityServiceClient<MasterChannel>,
    mut waiting: mpsc::Receiver<Order>,
    shutdown: Shutdown,
) {
    let mut orders = Vec::with_capacity(BATCH);
    loop {
        let came = tokio::select! {
            () = shutdown.triggered() => return,
            came = waiting.recv_many(&mut orders, BATCH) => came,
        };
        if came == 0 {
            return;
        }
        let payload = |order: &Order| Payload {
            payload_type: RELAY_TICKET.to_owned(),
            payload: order.ticket.to_payload(),
        };
        let payloads = orders.iter().map(payload).collect();
        let signed = match auth.sign(SignRequest { payloads }).await {
            Ok(answer) if answer.get_ref().envelopes.len() == orders.len() => {
                Ok(answer.into_inner().envelopes)
            }
            Ok(_) => Err("it did not sign all of them".to_owned()),
            Err(status) => Err(status.message().to_owned()),
        };
        match signed {
            Ok(envelopes) => {
                for (order, envelope) in orders.drain(..).zip(envelopes) {
                    // Whoever asked may have gone.
                    let _ = order.answer.send(Ok(envelope));
                }
            }
            Err(reason) => {
                tracing::warn!(reason, tickets = orders.len(), "auth does not sign tickets for relays");
                let refused = fault(Code::Unavailable, "AUTH_UNAVAILABLE", format!("auth: {reason}"));
                for order in orders.drain(..) {
                    let _ = order.answer.send(Err(refused.clone()));
                }
            }
        }
    }
}
