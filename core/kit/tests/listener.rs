//! The listener, the gate and the client's channel against each other, over real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_kit::backoff::Backoff;
use muster_kit::connect::{self, AUTH, Master, Proxies, TOPOLOGY, Trouble, diagnose};
use muster_kit::grpc::{self, Routes};
use muster_kit::listen::{HANDSHAKES, Listener, PeerInfo};
use muster_kit::policy::{Callers, Policy};
use muster_kit::shutdown::Shutdown;
use muster_kit::status;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{CallerCertificate, ClientTls, ServerTls};
use muster_proto::auth::v1 as auth;
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::auth::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use muster_types::Role;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

const ENROLL: &str = "/muster.auth.v1.EnrollmentService/Enroll";
const CHALLENGE: &str = "/muster.auth.v1.EnrollmentService/CreateRenewalChallenge";
const LIMIT: Duration = Duration::from_secs(20);

/// Answers with who called; holds `Enroll` back until told.
#[derive(Clone)]
struct Echo {
    name: &'static str,
    arrived: mpsc::UnboundedSender<()>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl EnrollmentService for Echo {
    async fn enroll(
        &self,
        _: Request<auth::EnrollRequest>,
    ) -> Result<Response<auth::EnrollResponse>, Status> {
        self.arrived.send(()).unwrap();
        self.release.notified().await;
        Ok(Response::new(auth::EnrollResponse::default()))
    }

    async fn renew(&self, _: Request<auth::RenewRequest>) -> Result<Response<auth::RenewResponse>, Status> {
        panic!("the policy does not let this through")
    }

    async fn create_renewal_challenge(
        &self,
        request: Request<auth::CreateRenewalChallengeRequest>,
    ) -> Result<Response<auth::CreateRenewalChallengeResponse>, Status> {
        let peer = request.extensions().get::<PeerInfo>().expect("the listener says who calls");
        let caller = peer.identity.as_ref().map_or("nobody".into(), |identity| identity.resource_name());
        let challenge = format!("{}: {caller}", self.name).into();
        Ok(Response::new(auth::CreateRenewalChallengeResponse { challenge }))
    }
}

struct World {
    pki: Pki,
    address: String,
    auth_tls: Arc<ServerTls>,
    shutdown: Shutdown,
    arrived: mpsc::UnboundedReceiver<()>,
    release: Arc<Notify>,
    served: JoinHandle<Result<(), grpc::ServeError>>,
}

/// A master whose two names are served by the same echo, `auth` with optional client certificates.
async fn world() -> World {
    world_that_admits(HANDSHAKES).await
}

async fn world_that_admits(per_second: NonZeroU32) -> World {
    let pki = Pki::new();
    let shutdown = Shutdown::new();
    let (arrived_tx, arrived) = mpsc::unbounded_channel();
    let release = Arc::new(Notify::new());
    let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.serve_root(pki.root_der().to_vec());
    listener.limit_handshakes(per_second);

    let tls = |name, callers| ServerTls::new(pki.leaf(&pki.identity(Role::Service, name)), callers).unwrap();
    let auth_tls = tls("auth", CallerCertificate::Optional);
    let auth = listener.service(AUTH, auth_tls.clone());
    let topology = listener.service(TOPOLOGY, tls("topology", CallerCertificate::Required));

    let echo = |name| Echo { name, arrived: arrived_tx.clone(), release: release.clone() };
    let routes = |name| Routes::new().with(EnrollmentServiceServer::new(echo(name)));
    let open = Policy::new().allow(CHALLENGE, Callers::Anybody).allow(ENROLL, Callers::Anybody);
    let operators = Policy::new().roles(CHALLENGE, &[Role::Operator]);
    let served = tokio::spawn(grpc::serve("auth", routes("auth"), auth, open, shutdown.clone()));
    tokio::spawn(grpc::serve("topology", routes("topology"), topology, operators, shutdown.clone()));
    tokio::spawn(listener.run(shutdown.clone()));
    World { pki, address, auth_tls, shutdown, arrived, release, served }
}

impl World {
    fn operator(&self) -> Arc<ClientTls> {
        ClientTls::new(self.pki.leaf(&self.pki.identity(Role::Operator, "ada"))).unwrap()
    }

    fn client(
        &self,
        service: &'static str,
        tls: Arc<ClientTls>,
    ) -> EnrollmentServiceClient<connect::MasterChannel> {
        EnrollmentServiceClient::new(Master::new([self.address.clone()], tls).service(service))
    }
}

async fn challenge(mut client: EnrollmentServiceClient<connect::MasterChannel>) -> Result<String, Status> {
    let answer = client.create_renewal_challenge(auth::CreateRenewalChallengeRequest {});
    let answer = tokio::time::timeout(LIMIT, answer).await.expect("an answer in time")?;
    Ok(String::from_utf8(answer.into_inner().challenge.to_vec()).unwrap())
}

#[tokio::test]
async fn the_server_name_finds_the_service_and_the_certificate_says_who_calls() {
    let world = world().await;
    let operator = world.operator();
    assert_eq!(challenge(world.client(AUTH, operator.clone())).await.unwrap(), "auth: operators/ada");
    assert_eq!(challenge(world.client(TOPOLOGY, operator)).await.unwrap(), "topology: operators/ada");
}

#[tokio::test]
async fn a_device_that_knows_only_the_links_root_key_reaches_what_is_open_to_anybody() {
    let world = world().await;
    let link = world.pki.link(&world.address, [1; 16]);
    let tls = ClientTls::trusting(&link.root_key).unwrap();
    assert_eq!(challenge(world.client(AUTH, tls.clone())).await.unwrap(), "auth: nobody");
    let refused = challenge(world.client(TOPOLOGY, tls)).await.unwrap_err();
    assert_eq!(diagnose(&refused), Some(Trouble::CertificateRefused), "{refused:?}");
}

#[tokio::test]
async fn what_the_policy_does_not_name_is_refused_with_a_reason() {
    let world = world().await;
    let mut client = world.client(AUTH, world.operator());
    let refused = client.renew(auth::RenewRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(status::reason(&refused).as_deref(), Some("ROLE_NOT_ALLOWED"));
    assert_eq!(status::metadata(&refused)["role"], "operator");
    assert_eq!(diagnose(&refused), None, "the master itself answered");

    let node = world.pki.leaf(&world.pki.identity(Role::Node, &"ab".repeat(20)));
    let refused = challenge(world.client(TOPOLOGY, ClientTls::new(node).unwrap())).await.unwrap_err();
    assert_eq!(status::reason(&refused).as_deref(), Some("ROLE_NOT_ALLOWED"));
}

#[tokio::test]
async fn a_master_of_another_root_is_found_out_and_so_is_a_stranger_by_the_master() {
    let world = world().await;
    let stranger = Pki::new();
    let link = stranger.link(&world.address, [1; 16]);
    let unknown =
        challenge(world.client(AUTH, ClientTls::trusting(&link.root_key).unwrap())).await.unwrap_err();
    assert_eq!(diagnose(&unknown), Some(Trouble::UntrustedRoot), "{unknown:?}");

    let mut forged = stranger.leaf(&world.pki.identity(Role::Operator, "ada"));
    forged.roots = vec![world.pki.root_der()];
    let refused = challenge(world.client(TOPOLOGY, ClientTls::new(forged).unwrap())).await.unwrap_err();
    let trouble = diagnose(&refused);
    assert!(matches!(trouble, Some(Trouble::CertificateRefused | Trouble::Lost)), "{refused:?}");
}

#[tokio::test]
async fn a_valid_certificate_of_the_wrong_service_is_not_believed() {
    let world = world().await;
    let impostor = world.pki.leaf(&world.pki.identity(Role::Service, "topology"));
    world.auth_tls.reload(impostor).unwrap();
    let refused = challenge(world.client(AUTH, world.operator())).await.unwrap_err();
    assert_eq!(diagnose(&refused), Some(Trouble::WrongName), "{refused:?}");
}

/// Somebody on the way who would have both ends speak something weaker.
#[tokio::test]
async fn downgrade_to_an_older_tls_is_refused_by_the_master() {
    let world = world().await;
    let speaks = async |version: &str| {
        let address = &world.address;
        let said = tokio::process::Command::new("openssl")
            .args(["s_client", "-connect", address, "-servername", "auth.muster", version])
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        String::from_utf8_lossy(&said.stdout).contains("Server certificate")
    };
    assert!(speaks("-tls1_3").await, "openssl reaches the listener");
    assert!(!speaks("-tls1_2").await);
}

#[tokio::test]
async fn an_expired_server_certificate_is_called_that() {
    let world = world().await;
    let identity = world.pki.identity(Role::Service, "auth");
    let hour = Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    world.auth_tls.reload(world.pki.leaf_valid(&identity, now - 2 * hour, now - hour)).unwrap();
    let refused = challenge(world.client(AUTH, world.operator())).await.unwrap_err();
    assert_eq!(diagnose(&refused), Some(Trouble::NotValidNow), "{refused:?}");
}

#[tokio::test]
async fn new_certificates_serve_new_connections_while_old_ones_go_on() {
    let world = world().await;
    let old = world.client(AUTH, world.operator());
    challenge(old.clone()).await.unwrap();

    // Another network's certificate: whoever connects from now on cannot believe it.
    let other = Pki::new();
    world.auth_tls.reload(other.leaf(&other.identity(Role::Service, "auth"))).unwrap();
    assert_eq!(challenge(old).await.unwrap(), "auth: operators/ada");
    let new = challenge(world.client(AUTH, world.operator())).await.unwrap_err();
    assert_eq!(diagnose(&new), Some(Trouble::UntrustedRoot));

    let tls = world.operator();
    tls.reload(other.leaf(&other.identity(Role::Operator, "eve"))).unwrap();
    assert_eq!(challenge(world.client(AUTH, tls)).await.unwrap(), "auth: operators/eve");
}

#[tokio::test]
async fn the_root_is_served_in_the_clear_beside_tls() {
    let world = world().await;
    let root = connect::presented_root(&world.address, &Proxies::default()).await.unwrap();
    assert_eq!(root, world.pki.root_der());
    assert_eq!(muster_kit::tls::root_key(&root).unwrap(), world.pki.root_key);
}

#[tokio::test]
async fn a_call_in_flight_is_finished_by_the_drain() {
    let mut world = world().await;
    let mut client = world.client(AUTH, world.operator());
    let call = tokio::spawn(async move { client.enroll(auth::EnrollRequest::default()).await });
    world.arrived.recv().await.unwrap();
    world.shutdown.trigger();
    world.release.notify_one();
    tokio::time::timeout(LIMIT, call).await.unwrap().unwrap().expect("the call was answered");
    tokio::time::timeout(LIMIT, world.served).await.unwrap().unwrap().unwrap();
    world.shutdown.wait_drained(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_client_that_asks_for_a_deadline_gets_it() {
    let world = world().await;
    let mut client = world.client(AUTH, world.operator());
    let mut request = Request::new(auth::EnrollRequest::default());
    request.set_timeout(Duration::from_millis(50));
    let late = client.enroll(request).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
}

#[tokio::test]
async fn nobody_at_home_and_no_such_name_are_told_apart() {
    let world = world().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let trouble = |address: String| {
        let master = Master::new([address], world.operator());
        async move {
            let client = EnrollmentServiceClient::new(master.service(AUTH));
            diagnose(&challenge(client).await.unwrap_err())
        }
    };
    assert_eq!(trouble(closed.to_string()).await, Some(Trouble::NotReached));
    assert_eq!(trouble("no-such-host.invalid:1".into()).await, Some(Trouble::NotResolved));
}

#[tokio::test]
async fn the_second_address_serves_when_the_first_is_dead() {
    let world = world().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let master = Master::new([closed.to_string(), world.address.clone()], world.operator());
    let client = EnrollmentServiceClient::new(master.service(AUTH));
    assert_eq!(challenge(client).await.unwrap(), "auth: operators/ada");
}

#[tokio::test]
async fn a_herd_is_sent_away_by_name_and_through_as_soon_as_the_rate_allows() {
    const HERD: usize = 600;
    const RATE: NonZeroU32 = NonZeroU32::new(200).unwrap();
    let world = world_that_admits(RATE).await;
    let (tls, begun) = (world.operator(), Instant::now());
    let mut herd = tokio::task::JoinSet::new();
    for _ in 0..HERD {
        let client = world.client(AUTH, tls.clone());
        herd.spawn(async move {
            let (mut backoff, mut sent_away) = (Backoff::new(), 0);
            while let Err(busy) = challenge(client.clone()).await {
                assert_eq!(diagnose(&busy), Some(Trouble::Busy), "{busy:?}");
                sent_away += 1;
                let delay = backoff.delay_after(status::retry_after(&busy), &mut rand::rng());
                tokio::time::sleep(delay).await;
            }
            (begun.elapsed(), sent_away)
        });
    }
    let ended = herd.join_all().await;
    let sent_away: usize = ended.iter().map(|(_, sent_away)| sent_away).sum();
    assert!(sent_away >= HERD - 2 * RATE.get() as usize, "{sent_away}: this was no herd");
    let last = ended.iter().map(|(after, _)| *after).max().unwrap();
    assert!(last < LIMIT / 2, "the last one was in after {last:?}");
    for window in (0..10).map(Duration::from_secs) {
        let within = |after: &&Duration| (window..window + Duration::from_secs(1)).contains(*after);
        let admitted = ended.iter().map(|(after, _)| after).filter(within).count();
        assert!(admitted <= 2 * RATE.get() as usize + 1, "{admitted} within a second");
    }
}
