//! FleetService: what operators and CMDBs ask of topology. Each group of calls has its room; here they come in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use muster_kit::listen::PeerInfo;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::Fault;
use muster_proto::fleet::v1 as fleet;
use muster_proto::fleet::v1::fleet_service_server::FleetService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::domain::deed::Refusal;
use crate::grpc::refusal;
use crate::hub::Hub;

mod clone;
mod create;
mod nodes;
mod page;
mod policy;
mod probe;
mod select;
mod signed;
mod tasks;
mod watch;

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct Fleet {
    hub: Arc<Hub>,
    shutdown: Shutdown,
}

impl Fleet {
    pub(crate) fn new(hub: Arc<Hub>, shutdown: Shutdown) -> Self {
        Self { hub, shutdown }
    }

    /// What a rule of people's refused stands in the audit log before the caller hears of it.
    async fn on_record<T>(&self, actor: &str, subject: &str, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(refused) = &result
            && refused.code == Code::PermissionDenied
        {
            let detail = format!("{}: {}", refused.reason, refused.message);
            let refusal = Refusal { actor: actor.to_owned(), subject: subject.to_owned(), detail };
            self.hub.writer.submit(refusal).await.map_err(|error| refusal::write(&error))?;
        }
        result
    }

    /// Nothing that a person or program does stays out of the audit log. Cancelling goes on: there is no more of it than of
    /// tasks.
    fn can_be_recorded(&self) -> Result<(), Fault> {
        if self.hub.audit_full.load(Ordering::Relaxed) {
            return Err(refusal::audit_behind());
        }
        Ok(())
    }

    fn audience<T>(&self, request: &Request<T>) -> watch::Audience {
        let peer = request.extensions().get::<PeerInfo>().cloned();
        watch::Audience { hub: self.hub.clone(), shutdown: self.shutdown.clone(), peer }
    }
}

/// Who calls, by name, for the record.
fn creator<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<PeerInfo>();
    peer.and_then(|peer| Some(peer.identity.as_ref()?.resource_name())).unwrap_or_default()
}

fn answer<T>(result: Result<T, Fault>) -> Answer<T> {
    Ok(Response::new(result?))
}

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchTaskStream = ReceiverStream<Result<fleet::WatchTaskResponse, Status>>;
    type WatchEventsStream = ReceiverStream<Result<fleet::WatchEventsResponse, Status>>;

    async fn get_node(&self, request: Request<fleet::GetNodeRequest>) -> Answer<fleet::Node> {
        answer(nodes::get(&self.hub, request.into_inner()).await)
    }

    async fn list_nodes(
        &self,
        request: Request<fleet::ListNodesRequest>,
    ) -> Answer<fleet::ListNodesResponse> {
        answer(nodes::list(&self.hub, request.into_inner()).await)
    }

    async fn update_node_labels(
        &self,
        request: Request<fleet::UpdateNodeLabelsRequest>,
    ) -> Answer<fleet::Node> {
        self.can_be_recorded()?;
        let actor = creator(&request);
        let node = request.get_ref().name.clone();
        let labelled = nodes::update_labels(&self.hub, actor.clone(), request.into_inner()).await;
        answer(self.on_record(&actor, &node, labelled).await)
    }

    async fn refresh_presence(
        &self,
        request: Request<fleet::RefreshPresenceRequest>,
    ) -> Answer<fleet::RefreshPresenceResponse> {
        answer(probe::refresh(&self.hub, request.into_inner()).await)
    }

    async fn delete_node(
        &self,
        request: Request<fleet::DeleteNodeRequest>,
    ) -> Answer<fleet::DeleteNodeResponse> {
        self.can_be_recorded()?;
        let actor = creator(&request);
        let node = request.get_ref().name.clone();
        let deleted = nodes::delete(&self.hub, actor.clone(), request.into_inner()).await;
        answer(self.on_record(&actor, &node, deleted).await)
    }

    async fn resolve_clone(&self, request: Request<fleet::ResolveCloneRequest>) -> Answer<fleet::Node> {
        let actor = creator(&request);
        let node = request.get_ref().name.clone();
        let resolved = clone::resolve(&self.hub, actor.clone(), request.into_inner()).await;
        answer(self.on_record(&actor, &node, resolved).await)
    }

    async fn get_topology(
        &self,
        request: Request<fleet::GetTopologyRequest>,
    ) -> Answer<fleet::GetTopologyResponse> {
        answer(nodes::topology(&self.hub, request.into_inner()).await)
    }

    async fn create_task(&self, request: Request<fleet::CreateTaskRequest>) -> Answer<fleet::Task> {
        self.can_be_recorded()?;
        let creator = creator(&request);
        let made = create::create(&self.hub, creator.clone(), request.into_inner()).await;
        answer(self.on_record(&creator, "tasks/-", made).await)
    }

    async fn get_task(&self, request: Request<fleet::GetTaskRequest>) -> Answer<fleet::Task> {
        answer(tasks::get(&self.hub, request.into_inner()).await)
    }

    async fn list_tasks(
        &self,
        request: Request<fleet::ListTasksRequest>,
    ) -> Answer<fleet::ListTasksResponse> {
        answer(tasks::list(&self.hub, request.into_inner()).await)
    }

    async fn cancel_task(&self, request: Request<fleet::CancelTaskRequest>) -> Answer<fleet::Task> {
        let actor = creator(&request);
        let task = request.get_ref().name.clone();
        let cancelled = tasks::cancel(&self.hub, &actor, request.into_inner()).await;
        answer(self.on_record(&actor, &task, cancelled).await)
    }

    async fn approve_task(&self, request: Request<fleet::ApproveTaskRequest>) -> Answer<fleet::Task> {
        self.can_be_recorded()?;
        let approver = creator(&request);
        let task = request.get_ref().name.clone();
        let approved = policy::approve(&self.hub, approver.clone(), request.into_inner()).await;
        answer(self.on_record(&approver, &task, approved).await)
    }

    async fn list_task_targets(
        &self,
        request: Request<fleet::ListTaskTargetsRequest>,
    ) -> Answer<fleet::ListTaskTargetsResponse> {
        answer(tasks::targets(&self.hub, request.into_inner()).await)
    }

    async fn list_task_output(
        &self,
        request: Request<fleet::ListTaskOutputRequest>,
    ) -> Answer<fleet::ListTaskOutputResponse> {
        answer(tasks::output(&self.hub, request.into_inner()).await)
    }

    async fn watch_task(&self, request: Request<fleet::WatchTaskRequest>) -> Answer<Self::WatchTaskStream> {
        let audience = self.audience(&request);
        answer(watch::task(audience, request.into_inner()).await)
    }

    async fn watch_events(
        &self,
        request: Request<fleet::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let audience = self.audience(&request);
        answer(watch::events(audience, request.into_inner()).await)
    }

    async fn list_events(
        &self,
        request: Request<fleet::ListEventsRequest>,
    ) -> Answer<fleet::ListEventsResponse> {
        answer(watch::list(&self.hub, request.into_inner()).await)
    }
}
