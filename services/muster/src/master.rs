//! A master at work: its services behind one listener in one process, all of them or some.
//!
//! data directory locked -> listener bound -> auth opened, or joined from here -> topology -> serving -> drained.

mod dht;
mod gsn;
mod post;
mod reached;
mod relay;
mod topology;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_auth::bootstrap::{self, ServiceTls};
use muster_auth::crl::{self, Shelf};
use muster_auth::join::{self, pem};
use muster_auth::{Auth, StartError, config as auth_files};
use muster_kit::connect::AUTH;
use muster_kit::files;
use muster_kit::listen::Listener;
use muster_kit::observe::Observatory;
use muster_kit::shutdown::Shutdown;
use muster_kit::tls::{self, CallerCertificate};
use muster_types::NetworkId;
use muster_types::limits::DEFAULT_PORT;
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::config::{self, MasterConfig};
use crate::credentials;
use crate::exit::{Exit, Failure};
use crate::target::Target;
use post::Post;
use reached::Reached;

/// Longer than the services take to drain themselves.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// What the services return when they end.
type Ended = Result<(), Failure>;

/// Services at work in this process.
pub struct Master {
    /// Where devices and operators elsewhere reach it.
    pub api: String,
    /// Where this host reaches it.
    pub local: String,
    pub observe: SocketAddr,
    pub network: NetworkId,
    /// If it runs in this process.
    pub auth: Option<Arc<Auth>>,
    services: JoinSet<Ended>,
    _lock: File,
}

/// Whether a master may found the network that it is to serve. No replica makes a root by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    MayBeFounded,
    MustBeThere,
}

/// What every service needs of the network.
struct Trust {
    network: NetworkId,
    roots: Vec<CertificateDer<'static>>,
}

impl Master {
    /// Starts the services; returns when they take connections.
    pub async fn start(
        config: &MasterConfig,
        targets: &BTreeSet<Target>,
        network: Network,
        shutdown: &Shutdown,
    ) -> Result<Self, Failure> {
        let lock = lock(&config.data_dir)?;
        let observatory = Observatory::bind(config.observe).await.map_err(|error| {
            Failure::usage("cannot be watched", error).next("--observe 127.0.0.1:0 takes any free port")
        })?;
        let observe = observatory.local_addr().unwrap_or(config.observe);
        let readiness = observatory.readiness();
        let mut listener = bind(config.listen).await?;
        listener.limit_handshakes(config.handshakes_per_second);
        let bound = listener.local_addr().map_err(|error| Failure::internal("cannot listen", error))?;
        let local = SocketAddr::new(reachable_here(bound.ip()), bound.port()).to_string();
        let addresses = addresses(config, bound);

        let mut services = JoinSet::new();
        let auth = if targets.contains(&Target::Auth) {
            let auth = open_auth(config, addresses.clone(), network).await?;
            serve_auth(config, &auth, addresses.clone(), &mut listener, &mut services, shutdown).await?;
            introduce(config, targets, &auth, reached_from_here(targets, &local, &addresses), shutdown)
                .await?;
            Some(auth)
        } else {
            None
        };
        let (trust, joined) = match &auth {
            Some(auth) => (own_trust(auth), None),
            None => elsewhere(config, targets, shutdown).await?,
        };
        if let Some(root) = trust.roots.first() {
            listener.serve_root(root.to_vec());
        }
        let mut post = Post {
            config,
            trust: &trust,
            reached: Reached { auth: auth.as_ref(), local: &local, addresses: &addresses },
            joined,
            listener: &mut listener,
            services: &mut services,
            shutdown,
        };
        post.start(targets, observatory.pages()).await?;
        shutdown.spawn(listener.run(shutdown.clone()));
        shutdown.spawn(observatory.run(shutdown.clone()));
        readiness.set(true);
        let (draining, ended) = (readiness, shutdown.clone());
        shutdown.spawn(async move {
            ended.triggered().await;
            draining.set(false);
        });
        let api = addresses.first().cloned().unwrap_or_else(|| local.clone());
        Ok(Self { api, local, observe, network: trust.network, auth, services, _lock: lock })
    }

    /// Until the shutdown, or until a service ends by itself, which ends the others too.
    pub async fn wait(mut self, shutdown: &Shutdown) -> Result<Exit, Failure> {
        let mut outcome = Ok(Exit::Ok);
        while let Some(ended) = self.services.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(Failure::internal("a service broke down", error)));
            if let Err(failure) = ended {
                outcome = outcome.and(Err(failure));
            }
            shutdown.trigger();
        }
        shutdown.trigger();
        if let Err(error) = shutdown.wait_drained(DRAIN_LIMIT).await {
            tracing::warn!(%error, "ending anyway");
        }
        outcome
    }
}

/// Auth's own settings. The first of `addresses` stands in links.
pub fn auth_config(config: &MasterConfig, addresses: Vec<String>) -> muster_auth::Config {
    muster_auth::Config {
        database_url: config.database_url.clone(),
        secret_file: config.secret_file.clone(),
        pkcs11: config.pkcs11.clone(),
        discovery_domain: config.discovery_domain.clone(),
        est_listen: config.est_listen,
        scep_listen: config.scep_listen,
        ..muster_auth::Config::embedded(&config.data_dir, addresses)
    }
}

async fn open_auth(
    config: &MasterConfig,
    addresses: Vec<String>,
    network: Network,
) -> Result<Arc<Auth>, Failure> {
    let auth_config = self::auth_config(config, addresses);
    let opened = match network {
        Network::MayBeFounded => muster_auth::init(&auth_config).await,
        Network::MustBeThere => muster_auth::open(&auth_config).await,
    };
    opened.map_err(|error| {
        let failure = Failure::internal("auth does not start", &error);
        match error {
            StartError::NotFounded(_) => failure.next("muster init, once for all replicas"),
            StartError::RootMissing(_) => failure.next("muster init --import FILE"),
            StartError::Token(_) => failure.next("muster doctor, which asks the token alone"),
            _ => failure,
        }
    })
}

async fn serve_auth(
    config: &MasterConfig,
    auth: &Arc<Auth>,
    addresses: Vec<String>,
    listener: &mut Listener,
    services: &mut JoinSet<Ended>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let auth_config = self::auth_config(config, addresses);
    let tls = bootstrap::service_tls(auth, "auth", CallerCertificate::Optional, shutdown)
        .await
        .map_err(|error| Failure::internal("auth gets no certificate", error))?;
    let incoming = listener.service(AUTH, tls.server);
    let (serving, ended, shelf) = (auth.clone(), shutdown.clone(), Shelf::new());
    let lists = shelf.clone();
    listener.serve_pages(move |path| lists.list(path).map(|list| (crl::CONTENT_TYPE, list)));
    services.spawn(async move {
        let served = muster_auth::run(serving, &auth_config, incoming, shelf, ended).await;
        served.map_err(|error| Failure::internal("auth ended", error))
    });
    Ok(())
}

/// Lets this host's operator in, and the services that run elsewhere.
async fn introduce(
    config: &MasterConfig,
    targets: &BTreeSet<Target>,
    auth: &Arc<Auth>,
    reached: Vec<String>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::internal("cannot let others in", error);
    let operator = auth_files::operator_file(&config.data_dir);
    bootstrap::local_admin(auth, operator, shutdown).await.map_err(|error| failed(&error))?;
    let place = config.data_dir.join(credentials::LOCAL_ADDRESS);
    files::write_private(&place, reached.join("\n").as_bytes()).map_err(|error| failed(&error))?;
    for target in Target::SERVICES {
        if target == Target::Auth || targets.contains(&target) {
            continue;
        }
        let file = auth_files::join_file(&config.data_dir, target.as_str());
        if !file.exists() {
            bootstrap::write_join_link(auth, target.as_str(), &file).await.map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

/// How this host's operator reaches the master; also elsewhere, where topology runs in another process.
fn reached_from_here(targets: &BTreeSet<Target>, local: &str, addresses: &[String]) -> Vec<String> {
    let elsewhere: &[String] = if targets.contains(&Target::Topology) { &[] } else { addresses };
    let elsewhere = elsewhere.iter().filter(|address| *address != local).cloned();
    std::iter::once(local.to_owned()).chain(elsewhere).collect()
}

async fn service_tls(
    auth: &Arc<Auth>,
    name: &'static str,
    shutdown: &Shutdown,
) -> Result<ServiceTls, Failure> {
    bootstrap::service_tls(auth, name, CallerCertificate::Required, shutdown)
        .await
        .map_err(|error| Failure::internal(format!("{name} gets no certificate"), error))
}

/// A service whose auth runs in another process: it joins by the link that auth left for it.
async fn join_elsewhere(
    config: &MasterConfig,
    name: &'static str,
    shutdown: &Shutdown,
) -> Result<(Trust, ServiceTls), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let file = auth_files::join_file(&config.data_dir, name);
        Failure::new(Exit::Unreachable, format!("{name} cannot join its network"), error).next(format!(
            "start auth first; it leaves {} in its data directory: copy that here",
            file.display()
        ))
    };
    let state = config.data_dir.join(format!("{name}.pem"));
    let link = auth_files::join_file(&config.data_dir, name);
    let tls = join::join(&link, state.clone(), CallerCertificate::Required, shutdown)
        .await
        .map_err(|error| failed(&error))?;
    let text = std::fs::read_to_string(&state).map_err(|error| failed(&error))?;
    let Some(pem::State::Admitted(material)) = pem::from_pem(&text) else {
        return Err(failed(&format!("{} holds no certificate", state.display())));
    };
    let root = material.roots.first().ok_or_else(|| failed(&"it has no root"))?;
    let network = tls::root_key(root).map_err(|error| failed(&error))?.network_id();
    Ok((Trust { network, roots: material.roots }, tls))
}

fn own_trust(auth: &Arc<Auth>) -> Trust {
    let authority = auth.authority();
    let roots = authority.roots().iter().map(|der| CertificateDer::from(der.clone())).collect();
    Trust { network: authority.network(), roots }
}

/// What a process believes that runs no auth, and the first of its services, which has joined to learn it.
async fn elsewhere(
    config: &MasterConfig,
    targets: &BTreeSet<Target>,
    shutdown: &Shutdown,
) -> Result<(Trust, Option<(Target, ServiceTls)>), Failure> {
    let first = *targets.first().ok_or_else(|| Failure::usage("nothing to serve", "no target is named"))?;
    let (trust, tls) = join_elsewhere(config, first.as_str(), shutdown).await?;
    Ok((trust, Some((first, tls))))
}

/// One process at a time writes to a data directory.
pub fn lock(data_dir: &Path) -> Result<File, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot keep the master's state in {}", data_dir.display()), error)
            .next("--data-dir DIR, a folder of yours")
    };
    files::create_private_dir(data_dir).map_err(|error| failed(&error))?;
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(|error| failed(&error))?;
    file.try_lock().map_err(|_| {
        Failure::usage(format!("{} is in use", data_dir.display()), "another master runs with it")
            .next("end that one, or use another --data-dir")
    })?;
    Ok(file)
}

async fn bind(listen: Option<SocketAddr>) -> Result<Listener, Failure> {
    let bound = match listen {
        Some(address) => Listener::bind(address).await,
        None => Listener::bind_any(DEFAULT_PORT).await,
    };
    bound.map_err(|error| {
        let place = listen.map_or_else(|| format!("port {DEFAULT_PORT}"), |address| address.to_string());
        Failure::usage(format!("cannot listen on {place}"), error)
            .next("end whoever has it, or choose another: --listen [::]:27441")
    })
}

/// How this host reaches what is bound to `ip`.
fn reachable_here(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip }
}

fn addresses(config: &MasterConfig, bound: SocketAddr) -> Vec<String> {
    if !config.addresses.is_empty() {
        return config.addresses.clone();
    }
    let ip = if bound.ip().is_unspecified() { config::own_address() } else { bound.ip() };
    vec![SocketAddr::new(ip, bound.port()).to_string()]
}
