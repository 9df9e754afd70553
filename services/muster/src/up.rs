//! `muster up`: a whole master and an agent of this host in one process, for the price of one command.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_agent::enrollment;
use muster_agent::identity::StateDir;
use muster_auth::bootstrap;
use muster_auth::domain::label::Labels;
use muster_kit::shutdown::Shutdown;
use muster_kit::telemetry;
use muster_proto::fleet::v1::{GetNodeRequest, NodeState};
use muster_types::{EnrollmentLink, NetworkId};

use crate::cli::{Output, Place, Up};
use crate::config::MasterConfig;
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::master::{Master, Network};
use crate::render::json;
use crate::target::Target;

/// The id of the link that was printed last, inside the data directory.
const LINK_RECORD: &str = "next-device.link-id";

/// The agent beside the master is there within a second as a rule; who waits longer is told so.
const AGENT_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at it.
const AGENT_LOOK: Duration = Duration::from_millis(50);

/// The agent's state, inside the master's data directory: an agent installed as a service has its own elsewhere.
const AGENT_DIR: &str = "agent";

pub async fn run(place: &Place, output: Output, up: Up) -> Result<Exit, Failure> {
    let config = up.settings.resolve(place, "warn")?;
    let _telemetry = telemetry::init("muster", &config.telemetry)
        .map_err(|error| Failure::usage("cannot log as configured", error))?;
    let shutdown = Shutdown::on_signals().map_err(|error| Failure::internal("cannot hear signals", error))?;
    let targets = Target::expand(&[Target::All]);
    let master = Master::start(&config, &targets, Network::MayBeFounded, &shutdown).await?;
    let (agent, node, link) = match begin(&config, &master, up.no_agent).await {
        Ok(begun) => begun,
        Err(failure) => {
            shutdown.trigger();
            // The failure to begin is the one to tell.
            let _ = master.wait(&shutdown).await;
            return Err(failure);
        }
    };
    let greeting = Greeting::new(&master, node, link);
    let welcome = async {
        tokio::select! {
            online = greeting.until_online(&config.data_dir) => greeting.show(output, &config, online),
            () = shutdown.triggered() => {}
        }
    };
    let farewell = async {
        shutdown.triggered().await;
        if output == Output::Table {
            eprintln!("Ending. Ctrl-C again does not wait for what is under way.");
        }
    };
    let ended = tokio::join!(master.wait(&shutdown), run_agent(agent, &shutdown), welcome, farewell).0;
    if output == Output::Table {
        eprintln!("Ended. `muster up` goes on from here.");
    }
    ended
}

/// Until the shutdown. A master without its agent is still a master.
async fn run_agent(agent: Option<muster_agent::Config>, shutdown: &Shutdown) {
    let Some(agent) = agent else { return };
    if let Err(error) = muster_agent::run(agent, shutdown.child()).await {
        tracing::error!(%error, "the agent of this host has ended; the master goes on");
    }
}

/// The agent to run beside the master with its node's name, and the link for the next device.
async fn begin(
    config: &MasterConfig,
    master: &Master,
    no_agent: bool,
) -> Result<(Option<muster_agent::Config>, Option<String>, EnrollmentLink), Failure> {
    let auth =
        master.auth.as_ref().ok_or_else(|| Failure::internal("cannot make links", "auth is missing"))?;
    let no_link = |error| Failure::internal("cannot make a link", error);
    let next = async || bootstrap::next_node_link(auth, &config.data_dir.join(LINK_RECORD)).await;
    if no_agent {
        return Ok((None, None, next().await.map_err(no_link)?));
    }
    let state = StateDir::new(config.data_dir.join(AGENT_DIR));
    if !state.is_enrolled() {
        // By loopback: the address that others use may not lead back here.
        let own = bootstrap::node_link(auth, Labels::new()).await.map_err(no_link)?;
        let link = EnrollmentLink { address: master.local.clone(), ..own };
        enrollment::enroll(&link, &state, Arc::default())
            .await
            .map_err(|error| Failure::internal("the agent of this host cannot enroll", error))?;
    }
    let identity = state
        .identity()
        .map_err(|error| Failure::internal("the agent of this host has lost its identity", error))?;
    let agent = muster_agent::Config {
        state_dir: Some(state.path().to_owned()),
        master_addresses: vec![master.local.clone()],
        telemetry: config.telemetry.clone(),
        ..muster_agent::Config::default()
    };
    Ok((Some(agent), Some(format!("nodes/{}", identity.node)), next().await.map_err(no_link)?))
}

/// What `up` says once the master works, and, if it has one, its agent too.
struct Greeting {
    api: String,
    local: String,
    observe: SocketAddr,
    network: NetworkId,
    node: Option<String>,
    link: EnrollmentLink,
}

impl Greeting {
    fn new(master: &Master, node: Option<String>, link: EnrollmentLink) -> Self {
        let Master { api, local, observe, network, .. } = master;
        Self { api: api.clone(), local: local.clone(), observe: *observe, network: *network, node, link }
    }

    /// Whether the agent beside the master is there, so that what is proposed works; true where there is none to wait for.
    async fn until_online(&self, data_dir: &Path) -> bool {
        let Some(node) = &self.node else { return true };
        let place = Place { data_dir: Some(data_dir.to_owned()), context: None };
        let online = async {
            let mut fleet = Session::open(&place).await.ok()?.fleet();
            loop {
                let request = GetNodeRequest { name: node.clone() };
                let shown = fleet.get_node(request).await;
                if shown.is_ok_and(|node| node.get_ref().state() == NodeState::Online) {
                    return Some(());
                }
                tokio::time::sleep(AGENT_LOOK).await;
            }
        };
        matches!(tokio::time::timeout(AGENT_LIMIT, online).await, Ok(Some(())))
    }

    fn show(&self, output: Output, config: &MasterConfig, online: bool) {
        match output {
            Output::Json => self.print_json(config, online),
            Output::Table => self.print(config, online),
        }
    }

    fn print_json(&self, config: &MasterConfig, online: bool) {
        json::print(
            "Up",
            [
                ("api", self.api.clone().into()),
                ("localApi", self.local.clone().into()),
                ("observe", self.observe.to_string().into()),
                ("network", self.network.to_string().into()),
                ("dataDir", config.data_dir.display().to_string().into()),
                ("node", self.node.as_deref().into()),
                ("nodeOnline", (self.node.is_some() && online).into()),
                ("link", self.link.reveal().into()),
            ],
        );
    }

    fn print(&self, config: &MasterConfig, online: bool) {
        let Self { api, network, observe, .. } = self;
        let folder = config.data_dir.display();
        let usual = muster_kit::dirs::master_data_dir().is_ok_and(|usual| usual == config.data_dir);
        let option = if usual { String::new() } else { format!(" --data-dir {folder}") };
        println!("Muster {} is up. Ctrl-C ends it.", env!("CARGO_PKG_VERSION"));
        println!("  API        {api} (gRPC, mutual TLS); network {network}");
        println!("  state      {folder}; metrics http://{observe}/metrics");
        match &self.node {
            Some(node) if online => println!("  this host  {node}, its agent runs beside the master"),
            Some(node) => println!("  this host  {node}, its agent is not online yet; --log info says more"),
            None => println!("  this host  has no agent here (--no-agent)"),
        }
        println!("\nThe next device (the link works once, within 24 h, and until the next start of `up`):");
        println!("  muster-agent enroll '{}'", self.link.reveal());
        println!("\nTry, in another terminal:");
        println!("  muster{option} nodes");
        println!("  muster{option} run --all -- uptime");
    }
}
