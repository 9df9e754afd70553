//! A seat at a global super node: the words of a relay's stream, in messages of a session with that node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use muster_net::{Endpoint, Session, TrafficClass};
use muster_proto::relay::v1::carry_request::Request;
use muster_proto::relay::v1::{CarryRequest, CarryResponse};
use muster_types::{Contact, NodeId};
use muster_wire::session;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Answers that wait for the seat; packets beyond it are lost, as on any network.
const ANSWERS: usize = 256;

/// Where the answers of each super node go.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<Mutex<HashMap<NodeId, mpsc::Sender<CarryResponse>>>>);

impl Switch {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, mpsc::Sender<CarryResponse>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answered(&self, by: NodeId, answer: CarryResponse) {
        let waiting = self.lock().get(&by).cloned();
        if waiting.is_none_or(|waiting| waiting.try_send(answer).is_err()) {
            tracing::debug!(node = %by.short(), "lost a word of a super node: nobody keeps up, or it was not asked");
        }
    }

    pub(super) fn sits_at(&self, node: NodeId) -> bool {
        self.lock().contains_key(&node)
    }

    /// Opens a session with the node, or takes the one that stands, and asks for a seat. What is read from `outgoing` goes
    /// there until either ends.
    pub(super) async fn sit(
        &self,
        endpoint: &Endpoint,
        contact: Contact,
        outgoing: mpsc::Receiver<CarryRequest>,
    ) -> Result<BoxStream<'static, Result<CarryResponse, String>>, String> {
        let node = contact.node;
        let stood = endpoint.session(node).is_some();
        let session = endpoint.connect(contact).await.map_err(|error| error.to_string())?;
        let (answers, inbox) = mpsc::channel(ANSWERS);
        self.lock().insert(node, answers.clone());
        say(&session, CarryRequest { request: None })?;
        let switch = self.clone();
        tokio::spawn(async move {
            carry(&session, outgoing).await;
            let mut seats = switch.lock();
            if seats.get(&node).is_some_and(|known| known.same_channel(&answers)) {
                seats.remove(&node);
            }
            drop(seats);
            if !stood {
                session.close(muster_net::CloseCode::Done, "nobody is behind it any more");
            }
        });
        Ok(ReceiverStream::new(inbox).map(Ok).boxed())
    }
}

/// Until the seat is given up or the session ends.
async fn carry(session: &Session, mut outgoing: mpsc::Receiver<CarryRequest>) {
    loop {
        tokio::select! {
            request = outgoing.recv() => match request {
                Some(request) => if say(session, request).is_err() { return },
                None => return,
            },
            () = session.ended() => return,
        }
    }
}

/// A packet that finds no room is lost; anything else that finds none ends the seat.
fn say(session: &Session, request: CarryRequest) -> Result<(), String> {
    let packet = matches!(request.request, Some(Request::Packet(_)));
    let class = if packet { TrafficClass::Interactive } else { TrafficClass::Control };
    let bytes = session::encode_carry_request(request).map_err(|error| error.to_string())?;
    match session.try_send_as(class, &bytes) {
        Err(error) if !packet || session.is_closed() => Err(error.to_string()),
        _ => Ok(()),
    }
}
