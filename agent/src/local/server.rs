//! The socket's side: requests go to the driver and come back with its answer.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use muster_kit::files;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::fault;
use muster_net::dht::Dht;
use muster_proto::agent::v1::local_service_server::{LocalService, LocalServiceServer};
use muster_proto::agent::v1::{
    CheckNetworkRequest, CheckNetworkResponse, GetNodeKeysRequest, GetNodeKeysResponse, GetStatusRequest,
    GetStatusResponse, LeaveRequest, LeaveResponse, ReachRequest, ReadLettersRequest, ReadLettersResponse,
    SendLetterRequest, SendLetterResponse,
};
use muster_proto::dht::v1::{
    FindNodesRequest, FindNodesResponse, GetRecordsRequest, GetRecordsResponse, GetStatsRequest,
    GetStatsResponse, PutRecordRequest, PutRecordResponse,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Response, Status};

use super::{letters, network, table};
use crate::keyring::Keyring;
use crate::meetings::Meetings;
use crate::post::Post;

/// Requests that wait for the driver.
const REQUESTS: usize = 16;

/// What somebody on this host asks of the driver.
pub(crate) enum Request {
    Status(oneshot::Sender<GetStatusResponse>),
    /// This node in the hash table.
    Table(oneshot::Sender<Dht>),
    /// What this node knows of others' keys.
    Keys(oneshot::Sender<Keyring>),
    /// This node's sessions with other places.
    Meetings(oneshot::Sender<Meetings>),
    /// Letters.
    Post(oneshot::Sender<Post>),
    /// Part from the network and end; answered when that is done.
    Leave {
        reason: String,
        done: oneshot::Sender<()>,
    },
}

struct Local(mpsc::Sender<Request>);

impl Local {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Status> {
        let ending = || Status::from(fault(Code::Unavailable, "AGENT_ENDING", "the agent is about to end"));
        let (answer, answered) = oneshot::channel();
        self.0.send(request(answer)).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())
    }
}

#[tonic::async_trait]
impl LocalService for Local {
    async fn get_status(
        &self,
        _: tonic::Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.ask(Request::Status).await.map(Response::new)
    }

    async fn get_records(
        &self,
        request: tonic::Request<GetRecordsRequest>,
    ) -> Result<Response<GetRecordsResponse>, Status> {
        let dht = self.ask(Request::Table).await?;
        Ok(Response::new(table::records(&dht, &request.into_inner()).await?))
    }

    async fn put_record(
        &self,
        request: tonic::Request<PutRecordRequest>,
    ) -> Result<Response<PutRecordResponse>, Status> {
        let dht = self.ask(Request::Table).await?;
        Ok(Response::new(table::put(&dht, request.into_inner()).await?))
    }

    async fn find_nodes(
        &self,
        request: tonic::Request<FindNodesRequest>,
    ) -> Result<Response<FindNodesResponse>, Status> {
        let dht = self.ask(Request::Table).await?;
        Ok(Response::new(table::find(&dht, &request.into_inner()).await?))
    }

    async fn get_stats(
        &self,
        _: tonic::Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        let dht = self.ask(Request::Table).await?;
        Ok(Response::new(table::stats(&dht).await?))
    }

    async fn get_node_keys(
        &self,
        request: tonic::Request<GetNodeKeysRequest>,
    ) -> Result<Response<GetNodeKeysResponse>, Status> {
        let keyring = self.ask(Request::Keys).await?;
        Ok(Response::new(table::keys(&keyring, &request.into_inner()).await?))
    }

    type ReachStream = network::Reports;

    async fn reach(
        &self,
        request: tonic::Request<ReachRequest>,
    ) -> Result<Response<Self::ReachStream>, Status> {
        let meetings = self.ask(Request::Meetings).await?;
        Ok(Response::new(network::reach(&meetings, &request.into_inner()).await?))
    }

    async fn send_letter(
        &self,
        request: tonic::Request<SendLetterRequest>,
    ) -> Result<Response<SendLetterResponse>, Status> {
        let post = self.ask(Request::Post).await?;
        Ok(Response::new(letters::send(&post, request.into_inner()).await?))
    }

    async fn read_letters(
        &self,
        request: tonic::Request<ReadLettersRequest>,
    ) -> Result<Response<ReadLettersResponse>, Status> {
        let post = self.ask(Request::Post).await?;
        Ok(Response::new(letters::read(&post, request.into_inner()).await?))
    }

    async fn check_network(
        &self,
        _: tonic::Request<CheckNetworkRequest>,
    ) -> Result<Response<CheckNetworkResponse>, Status> {
        let meetings = self.ask(Request::Meetings).await?;
        Ok(Response::new(network::check(&meetings).await?))
    }

    async fn leave(&self, request: tonic::Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let reason = request.into_inner().reason;
        self.ask(|done| Request::Leave { reason, done }).await?;
        Ok(Response::new(LeaveResponse {}))
    }
}

/// Listens on `socket` until the shutdown.
///
/// # Errors
/// The socket or its folder cannot be made.
pub(crate) fn serve(socket: &Path, shutdown: &Shutdown) -> anyhow::Result<mpsc::Receiver<Request>> {
    if let Some(folder) = socket.parent() {
        files::create_private_dir(folder)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let server = tonic::transport::Server::builder().serve_with_incoming_shutdown(
        LocalServiceServer::new(Local(requests)),
        UnixListenerStream::new(listener),
        shutdown.clone().into_triggered(),
    );
    shutdown.spawn(async move {
        if let Err(error) = server.await {
            tracing::warn!(%error, "local control ended");
        }
    });
    Ok(inbox)
}
