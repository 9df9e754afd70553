//! A topology on loopback with its own certificates, and nodes with real keys that attach to it over TLS.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(dead_code, reason = "each test file uses its own part of the world")]

pub(crate) mod authority;
pub(crate) mod node;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_kit::connect::{Master, MasterChannel, TOPOLOGY};
use muster_kit::listen::Listener;
use muster_kit::shutdown::Shutdown;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{CallerCertificate, ClientTls, Material, ServerTls};
use muster_proto::fleet::v1 as fleet;
use muster_proto::fleet::v1::fleet_service_client::FleetServiceClient;
use muster_proto::task::v1 as task;
use muster_topology::store::sqlite::SqliteStore;
use muster_topology::{Config, StoreConfig};
use muster_types::{NodeId, Role};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

use authority::TestAuthority;
use node::TestNode;

/// Beyond any wait of a test that passes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) authority: Arc<TestAuthority>,
    folder: TempDir,
    service: Service,
}

impl World {
    pub(crate) async fn start() -> Self {
        let pki = Pki::new();
        let authority = Arc::new(TestAuthority::new(&pki));
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(&pki, authority.clone(), &folder).await;
        Self { pki, authority, folder, service }
    }

    /// Ends the service in the midst of whatever it does, and starts another on the same file.
    pub(crate) async fn crash_and_restart(&mut self) {
        self.service.crash();
        self.service = Service::start(&self.pki, self.authority.clone(), &self.folder).await;
    }

    /// The store that the service writes, opened beside it.
    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.folder.path().join("topology.db")).await.unwrap()
    }

    pub(crate) fn channel(&self, material: Material) -> MasterChannel {
        let tls = ClientTls::new(material).unwrap();
        Master::new([self.service.address.to_string()], tls).service(TOPOLOGY)
    }

    /// A node that auth has enrolled; topology has not seen it yet.
    pub(crate) fn enroll(&self, name: u8) -> TestNode {
        TestNode::enroll(self, NodeId([name; 20]))
    }

    pub(crate) fn fleet_as(&self, role: Role) -> FleetServiceClient<MasterChannel> {
        let identity = self.pki.identity(role, "tester");
        FleetServiceClient::new(self.channel(self.pki.leaf(&identity)))
    }

    /// Lays down a policy for tasks.
    pub(crate) fn lay_down(&self, policy: &str) {
        std::fs::write(self.folder.path().join("task-policy.toml"), policy).unwrap();
    }

    pub(crate) fn fleet(&self) -> FleetServiceClient<MasterChannel> {
        self.fleet_as(Role::Operator)
    }

    pub(crate) async fn node(&self, id: NodeId) -> fleet::Node {
        let name = format!("nodes/{id}");
        self.fleet().get_node(fleet::GetNodeRequest { name }).await.unwrap().into_inner()
    }

    /// Follows the event feed until the node is in this state.
    pub(crate) async fn until_node(&self, id: NodeId, state: fleet::NodeState) -> fleet::Node {
        let request = fleet::WatchEventsRequest { resume_token: String::new(), send_initial_state: true };
        let mut events = self.fleet().watch_events(request).await.unwrap().into_inner();
        let name = format!("nodes/{id}");
        let found = async {
            while let Some(response) = events.message().await.unwrap() {
                use fleet::watch_events_response::Update;
                let node = match response.update {
                    Some(Update::InitialNode(node)) => Some(node),
                    Some(Update::Event(event)) => changed_node(event),
                    _ => None,
                };
                if let Some(node) = node.filter(|node| node.name == name && node.state() == state) {
                    return node;
                }
            }
            panic!("the feed ended before {name} was {state:?}");
        };
        tokio::time::timeout(LIMIT, found).await.unwrap()
    }

    pub(crate) async fn create(&self, request: fleet::CreateTaskRequest) -> fleet::Task {
        self.fleet().create_task(request).await.unwrap().into_inner()
    }

    /// Everything that WatchTask tells from a token on, to the end.
    pub(crate) async fn watch(&self, name: &str, resume_token: &str) -> Vec<fleet::WatchTaskResponse> {
        let request = fleet::WatchTaskRequest { name: name.into(), resume_token: resume_token.into() };
        let mut stream = self.fleet().watch_task(request).await.unwrap().into_inner();
        let mut told = Vec::new();
        let all = async {
            while let Some(response) = stream.message().await.unwrap() {
                told.push(response);
            }
        };
        tokio::time::timeout(LIMIT, all).await.unwrap();
        told
    }
}

fn changed_node(event: fleet::Event) -> Option<fleet::Node> {
    match event.body? {
        fleet::event::Body::NodeChanged(changed) => changed.node,
        _ => None,
    }
}

/// A topology with threads of its own. Dropped, none of its tasks takes another step.
struct Service {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Service {
    async fn start(pki: &Pki, authority: Arc<TestAuthority>, folder: &TempDir) -> Self {
        let identity = pki.identity(Role::Service, "topology");
        let tls = ServerTls::new(pki.leaf(&identity), CallerCertificate::Required).unwrap();
        let store = StoreConfig::Sqlite(folder.path().join("topology.db"));
        let config = Config::new(store, folder.path(), pki.network, vec![pki.root_der()]);
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let serving = async move {
            let shutdown = Shutdown::new();
            let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_addr().unwrap();
            let incoming = listener.service(TOPOLOGY, tls);
            tokio::spawn(listener.run(shutdown.clone()));
            tokio::spawn(muster_topology::run_with(config, incoming, authority, shutdown));
            address
        };
        let address = runtime.spawn(serving).await.unwrap();
        Self { address, runtime: Some(runtime) }
    }
}

impl Service {
    fn crash(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.crash();
    }
}

/// `run` with these words, on these nodes.
pub(crate) fn run_on(nodes: &[NodeId]) -> fleet::CreateTaskRequest {
    let names = nodes.iter().map(|id| format!("nodes/{id}")).collect();
    fleet::CreateTaskRequest {
        spec: Some(task::TaskSpec { r#type: "run".to_owned(), ..task::TaskSpec::default() }),
        filter: Some(fleet::NodeFilter { names, ..fleet::NodeFilter::default() }),
        ..fleet::CreateTaskRequest::default()
    }
}

/// The states that one node went through, as WatchTask told them.
pub(crate) fn states(told: &[fleet::WatchTaskResponse], node: NodeId) -> Vec<task::TaskState> {
    let name = format!("nodes/{node}");
    told.iter()
        .filter_map(|response| match &response.update {
            Some(fleet::watch_task_response::Update::Target(target)) if target.node == name => {
                Some(target.state())
            }
            _ => None,
        })
        .collect()
}

pub(crate) fn done(told: &[fleet::WatchTaskResponse]) -> fleet::Task {
    match told.last().and_then(|response| response.update.clone()) {
        Some(fleet::watch_task_response::Update::Done(task)) => task,
        other => panic!("the last message is Done, not {other:?}"),
    }
}
