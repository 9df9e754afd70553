//! Our relay as a process of its own, and what its parent, the generator, gives it: real TLS, real tickets, and as much
//! of auth as a relay asks.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use muster_kit::connect::{AUTH, Master, RELAY};
use muster_kit::grpc::{self, Routes};
use muster_kit::listen::Listener;
use muster_kit::policy::Policy;
use muster_kit::shutdown::Shutdown;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{CallerCertificate, ClientTls, Material, ServerTls};
use muster_overlay::relay::Limits;
use muster_proto::auth::v1::authority_service_server::{AuthorityService, AuthorityServiceServer};
use muster_proto::auth::v1::{GetTrustBundleRequest, GetTrustBundleResponse, SignRequest, SignResponse};
use muster_proto::trust::v1::TrustBundle;
use muster_relay::Config;
use muster_types::{NetworkId, Role};
use muster_wire::testing::TestNetwork;
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

/// The relay's name in tickets.
pub(crate) const NAME: &str = "relay-1";

const TRUST_BUNDLE: &str = "/muster.auth.v1.AuthorityService/GetTrustBundle";

/// No limit of bandwidth that a benchmark reaches, and no default of ours: coturn has none either.
const LIMITS: Limits = Limits { seats: 10_000, channels: 64, bytes_per_second: 100_000_000_000 };

#[derive(Serialize, Deserialize)]
struct Keys {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
    roots: Vec<Vec<u8>>,
}

/// What the relay is told by its parent on stdin.
#[derive(Serialize, Deserialize)]
pub(crate) struct Papers {
    auth: Keys,
    relay: Keys,
    bundle: Vec<u8>,
    network: Vec<u8>,
    root: Vec<u8>,
}

impl Keys {
    fn of(material: &Material) -> Self {
        let plain = |all: &[CertificateDer<'_>]| all.iter().map(|one| one.to_vec()).collect();
        Self {
            chain: plain(&material.chain),
            key: material.key.secret_der().to_vec(),
            roots: plain(&material.roots),
        }
    }

    fn material(self) -> Result<Material> {
        let certificates = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::try_from(self.key).map_err(|error| anyhow!(error))?;
        Ok(Material { chain: certificates(self.chain), key, roots: certificates(self.roots) })
    }
}

impl Papers {
    pub(crate) fn of(pki: &Pki, network: &TestNetwork) -> Self {
        let leaf = |name: &str| Keys::of(&pki.leaf(&pki.identity(Role::Service, name)));
        Self {
            auth: leaf("auth"),
            relay: leaf("relay"),
            bundle: network.bundle().encode_to_vec(),
            network: network.id.as_bytes().to_vec(),
            root: network.root().to_vec(),
        }
    }
}

/// The part of auth that a relay asks: which signers there are.
struct Signers(TrustBundle);

#[tonic::async_trait]
impl AuthorityService for Signers {
    async fn sign(&self, _: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        Err(Status::unimplemented("a relay has nothing signed"))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        let trust_bundle = Some(self.0.clone());
        Ok(Response::new(GetTrustBundleResponse { trust_bundle, network_id: Bytes::new() }))
    }
}

/// Serves until it is killed; says its address first.
pub(crate) async fn run() -> Result<()> {
    let papers: Papers = serde_json::from_reader(std::io::stdin())?;
    let shutdown = Shutdown::new();
    let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let relay = papers.relay.material()?;
    let auth = ServerTls::new(papers.auth.material()?, CallerCertificate::Required)?;
    let signers = AuthorityServiceServer::new(Signers(TrustBundle::decode(&papers.bundle[..])?));
    let policy = Policy::new().roles(TRUST_BUNDLE, &[Role::Service]);
    let incoming = listener.service(AUTH, auth);
    shutdown.spawn(grpc::serve("auth", Routes::new().with(signers), incoming, policy, shutdown.clone()));

    let network = NetworkId::try_from(&papers.network[..]).ok().context("a network's id")?;
    let config = Config {
        limits: LIMITS,
        ..Config::new(NAME.to_owned(), network, vec![CertificateDer::from(papers.root)])
    };
    let caller = Master::new([address.to_string()], ClientTls::new(relay.clone())?).service(AUTH);
    let incoming = listener.service(RELAY, ServerTls::new(relay, CallerCertificate::Required)?);
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    shutdown.spawn(muster_relay::run(config, incoming, Some(socket), caller, shutdown.clone()));
    println!("{address}");
    listener.run(shutdown).await;
    Ok(())
}
