//! `muster up`: a whole master and an agent of this host in one process, for the price of one command.

use muster_agent::enrollment;
use muster_agent::identity::StateDir;
use muster_auth::bootstrap;
use muster_auth::domain::label::Labels;
use muster_kit::shutdown::Shutdown;
use muster_kit::telemetry;
use muster_types::EnrollmentLink;

use crate::cli::{Output, Place, Up};
use crate::config::MasterConfig;
use crate::exit::{Exit, Failure};
use crate::master::{Master, Network};
use crate::render::json;
use crate::target::Target;

/// The agent's state, inside the master's data directory: an agent installed as a service has its own elsewhere.
const AGENT_DIR: &str = "agent";

pub async fn run(place: &Place, output: Output, up: Up) -> Result<Exit, Failure> {
    let config = up.settings.resolve(place, "warn")?;
    let _telemetry = telemetry::init("muster", &config.telemetry)
        .map_err(|error| Failure::usage("cannot log as configured", error))?;
    let shutdown = Shutdown::on_signals().map_err(|error| Failure::internal("cannot hear signals", error))?;
    let targets = Target::expand(&[Target::All]);
    let master = Master::start(&config, &targets, Network::MayBeFounded, &shutdown).await?;
    let agent = match begin(&config, &master, up.no_agent).await {
        Ok((agent, node, link)) => {
            greet(output, &config, &master, node.as_deref(), &link);
            agent
        }
        Err(failure) => {
            shutdown.trigger();
            // The failure to begin is the one to tell.
            let _ = master.wait(&shutdown).await;
            return Err(failure);
        }
    };
    let (ended, ()) = tokio::join!(master.wait(&shutdown), run_agent(agent, &shutdown));
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
    let link = async || {
        let made = bootstrap::node_link(auth, Labels::new()).await;
        made.map_err(|error| Failure::internal("cannot make a link", error))
    };
    if no_agent {
        return Ok((None, None, link().await?));
    }
    let state = StateDir::new(config.data_dir.join(AGENT_DIR));
    if !state.is_enrolled() {
        // By loopback: the address that others use may not lead back here.
        let link = EnrollmentLink { address: master.local.clone(), ..link().await? };
        enrollment::enroll(&link, &state)
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
    Ok((Some(agent), Some(format!("nodes/{}", identity.node)), link().await?))
}

fn greet(output: Output, config: &MasterConfig, master: &Master, node: Option<&str>, link: &EnrollmentLink) {
    let Master { api, observe, network, .. } = master;
    if output == Output::Json {
        json::print(
            "Up",
            [
                ("api", api.clone().into()),
                ("localApi", master.local.clone().into()),
                ("observe", observe.to_string().into()),
                ("network", network.to_string().into()),
                ("dataDir", config.data_dir.display().to_string().into()),
                ("node", node.into()),
                ("link", link.reveal().into()),
            ],
        );
        return;
    }
    let folder = config.data_dir.display();
    let usual = muster_kit::dirs::master_data_dir().is_ok_and(|usual| usual == config.data_dir);
    let option = if usual { String::new() } else { format!(" --data-dir {folder}") };
    println!("Muster {} is up. Ctrl-C ends it.", env!("CARGO_PKG_VERSION"));
    println!("  API        {api} (gRPC, mutual TLS); network {network}");
    println!("  state      {folder}; metrics http://{observe}/metrics");
    match node {
        Some(node) => println!("  this host  {node}, its agent runs beside the master"),
        None => println!("  this host  has no agent here (--no-agent)"),
    }
    println!("\nThe next device (the link works once, within 24 h):");
    println!("  muster-agent enroll '{}'", link.reveal());
    println!("\nTry, in another terminal:");
    println!("  muster{option} nodes");
    println!("  muster{option} run --all -- uptime");
}
