//! What strongSwan's client never asks of SCEP: polling, certificates and revocation lists by name, the next authority.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use muster_auth::domain::link::{Terms, challenge_terms};
use muster_auth::domain::revocation::{Reason, Subject};
use muster_auth::scep::testing::{Answer, Client, name_of};
use muster_auth::service::{RevocationRequest, Wanted};
use muster_types::{Identity, Role};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use world::{Backend, World};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Message types of RFC 8894, section 3.2.1.2.
const PKCS_REQ: &str = "19";
const CERT_POLL: &str = "20";
const GET_CERT: &str = "21";
const GET_CRL: &str = "22";

/// A master that serves SCEP.
struct Place {
    world: World,
    url: String,
    /// DER of the registration authority.
    registration: Vec<u8>,
}

impl Place {
    async fn start() -> Self {
        let scep: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let world = World::start_with(Backend::Sqlite, |config| config.scep_listen = Some(scep)).await;
        let registration = world.auth.registration().await.unwrap().certificate.clone();
        Self { world, url: format!("http://{scep}/scep"), registration }
    }

    fn operator(&self) -> Identity {
        let network = self.world.auth.authority().network();
        Identity { network, role: Role::Operator, name: "alice".into() }
    }

    async fn challenge(&self, terms: Terms) -> String {
        let wanted = Wanted { terms, request_id: None, validate_only: false };
        self.world.auth.create_link(&self.operator(), &wanted).await.unwrap().secret.unwrap()
    }

    /// One message to the service, and what it answers.
    async fn ask(&self, client: &Client, kind: &str, content: &[u8]) -> Answer {
        let message = client.message(kind, content, &self.registration);
        let url = format!("{}?operation=PKIOperation", self.url);
        let retry = ["--retry", "30", "--retry-connrefused", "--retry-delay", "1"];
        let mut curl = Command::new("curl")
            .args(["-sf", "--data-binary", "@-", "-H", "Content-Type: application/x-pki-message"])
            .args(retry)
            .arg(&url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        curl.stdin.take().unwrap().write_all(&message).await.unwrap();
        let output = curl.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        client.read(&output.stdout, &self.registration)
    }

    /// An admitted device: its certificate.
    async fn admitted(&self, client: &Client, name: &str) -> Vec<u8> {
        let challenge = self.challenge(challenge_terms(name)).await;
        let answer = self.ask(client, PKCS_REQ, &client.request(name, &challenge)).await;
        assert_eq!(answer.status, "0", "{answer:?}");
        answer.certificates.into_iter().find(|der| is_leaf(der)).expect("its certificate")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_operators_word_polls_until_it_is_given() {
    let place = Place::start().await;
    let client = Client::new("printer-3");
    let terms = Terms { needs_approval: true, ..challenge_terms("printer-3") };
    let challenge = place.challenge(terms).await;
    let asked = client.request("printer-3", &challenge);
    assert_eq!(place.ask(&client, PKCS_REQ, &asked).await.status, "3");
    // What is inside a poll names issuer and subject; who polls is known by its key.
    assert_eq!(place.ask(&client, CERT_POLL, &asked).await.status, "3");
    let stranger = Client::new("printer-3");
    let refused = place.ask(&stranger, CERT_POLL, &asked).await;
    assert_eq!((refused.status.as_str(), refused.failure.as_deref()), ("2", Some("2")));
    let waiting = place.world.auth.approvals(1).await.unwrap().remove(0);
    place.world.auth.decide(&place.operator(), &waiting.id, true).await.unwrap();
    let polled = place.ask(&client, CERT_POLL, &asked).await;
    assert_eq!((polled.status.as_str(), polled.certificates.len()), ("0", 2));
    // The answer was lost: it is the same again.
    assert_eq!(place.ask(&client, CERT_POLL, &asked).await.certificates, polled.certificates);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_handed_out_by_issuer_and_serial_number() {
    let place = Place::start().await;
    let client = Client::new("camera-1");
    let own = place.admitted(&client, "camera-1").await;
    let found = place.ask(&client, GET_CERT, &name_of(&own)).await;
    assert_eq!((found.status.as_str(), &found.certificates), ("0", &vec![own]));
    let unknown = place.ask(&client, GET_CERT, &name_of(&place.registration)).await;
    assert_eq!((unknown.status.as_str(), unknown.failure.as_deref()), ("2", Some("4")), "badCertId");
    let nonsense = place.ask(&client, GET_CERT, b"no name").await;
    assert_eq!((nonsense.status.as_str(), nonsense.failure.as_deref()), ("2", Some("2")), "badRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revocation_list_comes_by_scep_and_names_who_is_revoked() {
    let place = Place::start().await;
    let client = Client::new("camera-2");
    let own = place.admitted(&client, "camera-2").await;
    let subject = Subject::Name("devices/camera-2".into());
    let request = RevocationRequest {
        subject,
        reason: Reason::KeyCompromise,
        comment: String::new(),
        validate_only: false,
    };
    place.world.auth.revoke("operators/alice", &request).await.unwrap();
    let serial = x509_serial(&own);
    let begun = std::time::Instant::now();
    loop {
        let answer = place.ask(&client, GET_CRL, &name_of(&own)).await;
        assert_eq!((answer.status.as_str(), answer.revocation_lists.len()), ("0", 1));
        if answer.revocation_lists[0].windows(serial.len()).any(|window| window == serial) {
            break;
        }
        assert!(begun.elapsed().as_secs() < 30, "the list does not name it");
        tokio::task::yield_now().await;
    }
}

/// The answer has the authority's certificate beside it.
fn is_leaf(certificate: &[u8]) -> bool {
    !X509Certificate::from_der(certificate).unwrap().1.is_ca()
}

fn x509_serial(certificate: &[u8]) -> Vec<u8> {
    X509Certificate::from_der(certificate).unwrap().1.raw_serial().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_authority_is_the_rotated_one_signed_by_the_registration_authority_that_clients_know() {
    let place = Place::start().await;
    let before = place.world.auth.authority().devices()[0].certificate.clone();
    place.world.auth.rotate_issuing("admins/eve").await.unwrap();
    let after = place.world.auth.authority().devices()[0].certificate.clone();
    assert_ne!(before, after);
    let url = format!("{}?operation=GetNextCACert", place.url);
    let retry = ["--retry", "30", "--retry-connrefused", "--retry-delay", "1"];
    let answer = Command::new("curl").arg("-sf").args(retry).arg(&url).output().await.unwrap();
    assert!(answer.status.success());
    let carries = |der: &[u8]| answer.stdout.windows(der.len()).any(|window| window == der);
    assert!(carries(&after) && carries(place.world.auth.authority().root()) && !carries(&before));
    let folder = tempfile::tempdir().unwrap();
    let pem = muster_auth::join::pem::section("CERTIFICATE", &place.registration);
    std::fs::write(folder.path().join("ra.pem"), pem).unwrap();
    std::fs::write(folder.path().join("next.p7"), &answer.stdout).unwrap();
    let verified = Command::new("openssl")
        .args(["cms", "-verify", "-inform", "DER", "-in", "next.p7", "-nointern", "-certfile", "ra.pem"])
        .args(["-noverify", "-binary", "-out", "inner.p7"])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
