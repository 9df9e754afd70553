//! Enrollment that fails: each cause has its own words, and nothing half-written stays.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use muster_agent::enrollment::{EnrollError, enroll};
use muster_agent::identity::StateDir;
use muster_kit::grpc::{Routes, serve};
use muster_kit::listen::Listener;
use muster_kit::policy::{Callers, Policy};
use muster_kit::shutdown::Shutdown;
use muster_kit::status::fault;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{CallerCertificate, Material, ServerTls};
use muster_proto::auth::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use muster_proto::auth::v1::{
    CreateRenewalChallengeRequest, CreateRenewalChallengeResponse, EnrollRequest, EnrollResponse,
    RenewRequest, RenewResponse,
};
use muster_types::Role;
use tonic::{Code, Request, Response, Status};

const ENROLL: &str = "/muster.auth.v1.EnrollmentService/Enroll";

/// An auth that refuses everybody, and remembers their signing keys.
#[derive(Clone)]
struct Refusing {
    code: Code,
    reason: &'static str,
    seen: Arc<Mutex<Vec<Bytes>>>,
}

#[tonic::async_trait]
impl EnrollmentService for Refusing {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let keys = request.into_inner().node_keys.unwrap();
        self.seen.lock().unwrap().push(keys.signing_key);
        Err(fault(self.code, self.reason, "no").into())
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn create_renewal_challenge(
        &self,
        _: Request<CreateRenewalChallengeRequest>,
    ) -> Result<Response<CreateRenewalChallengeResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn refusing(code: Code, reason: &'static str) -> Refusing {
    Refusing { code, reason, seen: Arc::default() }
}

fn auth_leaf(pki: &Pki) -> Material {
    pki.leaf(&pki.identity(Role::Service, "auth"))
}

/// A master on loopback that shows `leaf`, and serves `root` in the clear.
async fn master(leaf: Material, root: Option<&Pki>, auth: Refusing) -> (SocketAddr, Shutdown) {
    let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    if let Some(root) = root {
        listener.serve_root(root.root_der().to_vec());
    }
    let tls = ServerTls::new(leaf, CallerCertificate::Optional).unwrap();
    let incoming = listener.service("auth.muster", tls);
    let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
    shutdown.spawn(listener.run(shutdown.clone()));
    let routes = Routes::new().with(EnrollmentServiceServer::new(auth));
    let policy = Policy::new().allow(ENROLL, Callers::Anybody);
    shutdown.spawn(serve("auth", routes, incoming, policy, shutdown.clone()));
    (address, shutdown)
}

async fn attempt(pki: &Pki, address: SocketAddr, state: &Path) -> EnrollError {
    let link = pki.link(&address.to_string(), [7; 16]);
    match enroll(&link, &StateDir::new(state), Arc::default()).await {
        Ok(_) => panic!("a refusing auth enrolled somebody"),
        Err(error) => error,
    }
}

fn files(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_link_that_will_never_work_again_is_told_apart_and_leaves_nothing() {
    let pki = Pki::new();
    let cases = [
        (Code::FailedPrecondition, "LINK_USED", "used already"),
        (Code::FailedPrecondition, "LINK_EXPIRED", "has expired"),
        (Code::FailedPrecondition, "LINK_REVOKED", "was revoked"),
        (Code::NotFound, "LINK_UNKNOWN", "does not know this link"),
    ];
    for (code, reason, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (address, shutdown) = master(auth_leaf(&pki), Some(&pki), refusing(code, reason)).await;
        let error = attempt(&pki, address, folder.path()).await;
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.is_final() && error.exit_code() == 3);
        assert!(files(folder.path()).is_empty(), "{reason}");
        shutdown.trigger();
    }
}

#[tokio::test]
async fn after_a_failure_of_the_master_the_same_keys_are_tried_again() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let auth = refusing(Code::Unavailable, "STORE_UNAVAILABLE");
    let (address, _shutdown) = master(auth_leaf(&pki), Some(&pki), auth.clone()).await;
    for _ in 0..2 {
        assert!(matches!(attempt(&pki, address, folder.path()).await, EnrollError::Master(_)));
    }
    let seen = auth.seen.lock().unwrap();
    assert!(seen.len() == 2 && seen[0] == seen[1], "a lost answer is repeated for the same key only");
    assert!(!StateDir::new(folder.path()).is_enrolled());
}

#[tokio::test]
async fn a_proxy_that_signs_tls_anew_is_told_from_another_master_and_neither_is_spoken_to() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let folder = tempfile::tempdir().unwrap();
    let auth = refusing(Code::Internal, "NEVER");
    let (proxy, _a) = master(auth_leaf(&theirs), Some(&ours), auth.clone()).await;
    let (foreign, _b) = master(auth_leaf(&theirs), Some(&theirs), auth.clone()).await;
    let (silent, _c) = master(auth_leaf(&theirs), None, auth.clone()).await;
    let error = attempt(&ours, proxy, folder.path()).await;
    assert!(matches!(error, EnrollError::ReSigned { .. }), "{error}");
    let error = attempt(&ours, foreign, folder.path()).await;
    assert!(matches!(error, EnrollError::AnotherRoot { .. }), "{error}");
    assert!(error.to_string().contains(&theirs.root_key.common_name()));
    let error = attempt(&ours, silent, folder.path()).await;
    assert!(matches!(error, EnrollError::Untrusted { .. }), "{error}");
    assert!(auth.seen.lock().unwrap().is_empty(), "no token was sent to a stranger");
}

#[tokio::test]
async fn a_certificate_of_the_wrong_service_and_one_out_of_date_are_named() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let wrong = pki.leaf(&pki.identity(Role::Service, "topology"));
    let (address, _a) = master(wrong, Some(&pki), refusing(Code::Internal, "NEVER")).await;
    let error = attempt(&pki, address, folder.path()).await;
    assert!(matches!(error, EnrollError::NotAMaster { .. }), "{error}");

    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let old = pki.leaf_valid(&pki.identity(Role::Service, "auth"), now - day * 20, now - day * 6);
    let (address, _b) = master(old, Some(&pki), refusing(Code::Internal, "NEVER")).await;
    let error = attempt(&pki, address, folder.path()).await;
    assert!(matches!(error, EnrollError::Clock { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there_are_told_apart() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let error = attempt(&pki, address, folder.path()).await;
    assert!(matches!(error, EnrollError::Unreachable { .. }), "{error}");

    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = web.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = web.accept().await.unwrap();
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = attempt(&pki, address, folder.path()).await;
    assert!(matches!(error, EnrollError::NotAMaster { .. }), "{error}");
    serving.abort();
}
