//! ControlService: what nodes ask of topology.
//!
//! Attach -> [`admit`] (who is it, where does it stand) -> [`session`] (frames up and down until the stream ends).

use std::sync::Arc;

use bytes::Bytes;
use muster_kit::listen::PeerInfo;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::fault;
use muster_proto::control::v1::control_service_server::ControlService;
use muster_proto::control::v1::{
    AttachRequest, AttachResponse, FindLsnsRequest, FindLsnsResponse, GetNodeTicketRequest,
    GetNodeTicketResponse, ListOwnTasksRequest, ListOwnTasksResponse, OwnTask,
};
use muster_types::NodeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{refusal, render, wire};
use crate::domain::task::TaskId;
use crate::hub::Hub;

mod admit;
mod down;
mod grants;
mod presence;
mod session;
mod up;
mod uptime;

/// Frames on their way down one stream; a node that does not read makes its session wait.
const OUTBOUND: usize = 64;

/// Tasks in one page of ListOwnTasks.
const OWN_TASKS: i64 = 200;

pub(crate) struct Control {
    hub: Arc<Hub>,
    shutdown: Shutdown,
}

impl Control {
    pub(crate) fn new(hub: Arc<Hub>, shutdown: Shutdown) -> Self {
        Self { hub, shutdown }
    }
}

/// The node at the other end, by its certificate.
fn caller<T>(request: &Request<T>) -> Result<(NodeId, PeerInfo), Status> {
    let peer = request.extensions().get::<PeerInfo>();
    peer.and_then(|peer| Some((peer.identity.as_ref()?.node_id()?, peer.clone()))).ok_or_else(|| {
        fault(Code::PermissionDenied, "NOT_A_NODE", "only nodes have a control channel").into()
    })
}

#[tonic::async_trait]
impl ControlService for Control {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (node, peer) = caller(&request)?;
        let (frames, stream) = mpsc::channel(OUTBOUND);
        let (hub, shutdown) = (self.hub.clone(), self.shutdown.clone());
        self.shutdown.spawn(session::run(
            hub,
            node,
            peer.remote_addr.ip(),
            request.into_inner(),
            frames,
            shutdown,
        ));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn find_lsns(
        &self,
        request: Request<FindLsnsRequest>,
    ) -> Result<Response<FindLsnsResponse>, Status> {
        let (_, peer) = caller(&request)?;
        let request = request.into_inner();
        let observed = self.hub.source_visible.then(|| peer.remote_addr.ip());
        let own = wire::subnet_keys(&request.prefixes, observed);
        let mut keys = own.clone();
        keys.extend(wire::keys(&request.subnet_keys));
        let claims = presence::served_claims(&self.hub, keys.into_iter().collect())
            .await
            .map_err(|error| refusal::store(&error))?;
        let subnet_keys = own.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        Ok(Response::new(FindLsnsResponse { claims, subnet_keys }))
    }

    async fn list_own_tasks(
        &self,
        request: Request<ListOwnTasksRequest>,
    ) -> Result<Response<ListOwnTasksResponse>, Status> {
        let (node, _) = caller(&request)?;
        let request = request.into_inner();
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse::<TaskId>().map_err(|_| {
                Status::from(refusal::invalid("BAD_PAGE_TOKEN", "the page token is none of ours"))
            })?),
        };
        let limit = match i64::from(request.page_size) {
            0 => OWN_TASKS,
            size => size.clamp(1, OWN_TASKS),
        };
        let targets =
            self.hub.store.targets_of(node, before, limit).await.map_err(|error| refusal::store(&error))?;
        let full = i64::try_from(targets.len()).is_ok_and(|count| count == limit);
        let next = targets.last().filter(|_| full).map(|target| target.task.to_string());
        let tasks = targets
            .into_iter()
            .map(|target| OwnTask {
                task_id: Bytes::copy_from_slice(target.task.as_bytes()),
                occurrence: String::new(),
                state: target.state.as_str().to_uppercase(),
            })
            .collect();
        Ok(Response::new(ListOwnTasksResponse { tasks, next_page_token: next.unwrap_or_default() }))
    }

    async fn get_node_ticket(
        &self,
        request: Request<GetNodeTicketRequest>,
    ) -> Result<Response<GetNodeTicketResponse>, Status> {
        caller(&request)?;
        let node = wire::node_id(&request.into_inner().node_id, "node_id")
            .map_err(|error| Status::from(refusal::invalid("BAD_NODE_ID", error.to_string())))?;
        let found = self.hub.store.nodes_by_id(&[node]).await.map_err(|error| refusal::store(&error))?;
        let ticket = found.first().and_then(|it| render::envelope(&it.row.attested.ticket));
        let unknown = || fault(Code::NotFound, "NODE_UNSEEN", format!("nodes/{node} has never been seen"));
        Ok(Response::new(GetNodeTicketResponse { ticket: Some(ticket.ok_or_else(unknown)?) }))
    }
}

/// Claims of a Welcome or a list: what the store holds as envelopes.
fn sealed(claims: &[crate::domain::opaque::Opaque]) -> Vec<muster_proto::trust::v1::Envelope> {
    claims.iter().filter_map(render::envelope).collect()
}
