//! Devices without our agent: strongSwan's `pki`, openssl and curl against SCEP and EST as they are served.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Output;

use data_encoding::HEXLOWER;
use muster_auth::domain::leaf::Serial;
use muster_auth::domain::link::{Binding, Terms, challenge_terms};
use muster_auth::domain::revocation::{Reason, Subject};
use muster_auth::service::{RevocationRequest, Wanted};
use muster_types::{Identity, Role};
use tokio::process::Command;
use world::{Backend, World};

/// A world that serves SCEP and EST as well.
struct Place {
    world: World,
    scep: String,
    est: String,
    folder: tempfile::TempDir,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Place {
    async fn start() -> Self {
        let (scep, est) = (free_address(), free_address());
        let world = World::start_with(Backend::Sqlite, |config| {
            (config.scep_listen, config.est_listen) = (Some(scep), Some(est));
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("strongswan.conf"), "").unwrap();
        std::fs::write(folder.path().join("root.pem"), root(&world)).unwrap();
        let place =
            Self { world, scep: format!("http://{scep}/scep"), est: format!("https://{est}"), folder };
        // The first RSA key takes its time; whoever asks waits for it.
        place
            .says(
                "curl",
                &[
                    "-sf",
                    "--retry",
                    "30",
                    "--retry-connrefused",
                    "--retry-delay",
                    "1",
                    "--max-time",
                    "60",
                    "-o",
                    "ca.p7",
                    &format!("{}?operation=GetCACert", place.scep),
                ],
            )
            .await;
        place
            .says(
                "curl",
                &[
                    "-sfk",
                    "--retry",
                    "30",
                    "--retry-connrefused",
                    "--retry-delay",
                    "1",
                    &format!("{}/.well-known/est/cacerts", place.est),
                ],
            )
            .await;
        place
    }

    async fn challenge(&self, terms: Terms) -> String {
        let network = self.world.auth.authority().network();
        let operator = Identity { network, role: Role::Operator, name: "alice".into() };
        let wanted = Wanted { terms, request_id: None, validate_only: false };
        self.world.auth.create_link(&operator, &wanted).await.unwrap().secret.unwrap()
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("STRONGSWAN_CONF", self.folder.path().join("strongswan.conf"))
            .output()
            .await
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Stdout of what must succeed.
    async fn says(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(program, arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {out}\n{err}");
        output.stdout
    }

    fn keep(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn rsa_key(&self, name: &str) {
        let key = self.says("pki", &["--gen", "--type", "rsa", "--size", "2048"]).await;
        self.keep(name, &key);
    }

    /// `pki --scep` for `host`; its certificate in PEM, or what went wrong.
    async fn scep(&self, key: &str, host: &str, more: &[&str]) -> Result<Vec<u8>, String> {
        let name = format!("CN={host}");
        let common = [
            "--scep",
            "--url",
            &self.scep,
            "--in",
            key,
            "--dn",
            &name,
            "--cacert-enc",
            "ra.pem",
            "--cacert-sig",
            "ra.pem",
            "--cacert",
            "devices.pem",
            "--cacert",
            "root.pem",
            "--outform",
            "pem",
        ];
        let output = self.run("pki", &[&common[..], more].concat()).await;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The certificates that GetCACert brought, each in its file.
    async fn fetch_authorities(&self) {
        let text = self.says("openssl", &["pkcs7", "-inform", "DER", "-in", "ca.p7", "-print_certs"]).await;
        let text = String::from_utf8(text).unwrap();
        for part in text.split_inclusive("-----END CERTIFICATE-----") {
            let name = if part.contains("registration")
                && part.split("issuer").next().unwrap().contains("registration")
            {
                "ra.pem"
            } else if part.split("issuer").next().unwrap().contains("device authority") {
                "devices.pem"
            } else {
                continue;
            };
            self.keep(name, &part.as_bytes()[part.find("-----BEGIN").unwrap()..]);
        }
    }
}

fn root(world: &World) -> String {
    muster_auth::join::pem::section("CERTIFICATE", world.auth.authority().root())
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrolls_by_scep_is_refused_on_reuse_and_renews() {
    let place = Place::start().await;
    place.fetch_authorities().await;
    let caps = place.says("curl", &["-sf", &format!("{}?operation=GetCACaps", place.scep)]).await;
    assert!(String::from_utf8(caps).unwrap().contains("SCEPStandard"));
    place.rsa_key("k1.der").await;
    place.rsa_key("k2.der").await;
    let challenge = place.challenge(challenge_terms("printer-3")).await;
    let wrong_name = place.scep("k1.der", "printer-4", &["--password", &challenge]).await;
    assert!(wrong_name.is_err(), "a challenge is for one subject");
    let first = place.scep("k1.der", "printer-3", &["--password", &challenge]).await.unwrap();
    place.keep("c1.pem", &first);
    place.says("openssl", &["verify", "-CAfile", "root.pem", "-untrusted", "devices.pem", "c1.pem"]).await;
    let text = place.says("openssl", &["x509", "-in", "c1.pem", "-noout", "-subject"]).await;
    assert!(String::from_utf8(text).unwrap().contains("printer-3"));

    let reused = place.scep("k2.der", "printer-3", &["--password", &challenge]).await.unwrap_err();
    assert!(reused.contains("failed") || reused.contains("fail"), "{reused}");
    let link = place.world.auth.links(None, 1).await.unwrap().remove(0);
    assert!(link.contest.is_some(), "the reuse is noticed");

    let renewed = place.scep("k2.der", "printer-3", &["--cert", "c1.pem", "--key", "k1.der"]).await.unwrap();
    place.keep("c2.pem", &renewed);
    place.says("openssl", &["verify", "-CAfile", "root.pem", "-untrusted", "devices.pem", "c2.pem"]).await;

    // Revoked, it renews no more, and openssl finds it in the list.
    let serial = place.says("openssl", &["x509", "-in", "c2.pem", "-noout", "-serial"]).await;
    let serial = String::from_utf8(serial).unwrap().trim().trim_start_matches("serial=").to_lowercase();
    let subject = Subject::Serial(Serial(HEXLOWER.decode(serial.as_bytes()).unwrap()));
    let request = RevocationRequest {
        subject,
        reason: Reason::KeyCompromise,
        comment: String::new(),
        validate_only: false,
    };
    place.world.auth.revoke("operators/alice", &request).await.unwrap();
    place.rsa_key("k3.der").await;
    let refused = place.scep("k3.der", "printer-3", &["--cert", "c2.pem", "--key", "k2.der"]).await;
    assert!(refused.is_err());
    let found = until_revoked(&place, "/crl/devices-1.crl", &["-untrusted", "devices.pem"], "c2.pem").await;
    assert!(found.contains("certificate revoked"), "{found}");
}

/// Fetches the list until openssl says that the certificate is in it.
async fn until_revoked(place: &Place, path: &str, untrusted: &[&str], certificate: &str) -> String {
    let url = format!("http://{}{path}", place.world.address);
    let begun = std::time::Instant::now();
    loop {
        place.says("curl", &["-sf", "-o", "list.der", &url]).await;
        place.says("openssl", &["crl", "-inform", "DER", "-in", "list.der", "-out", "list.pem"]).await;
        let check = ["verify", "-CAfile", "root.pem", "-CRLfile", "list.pem", "-crl_check"];
        let output = place.run("openssl", &[&check[..], untrusted, &[certificate]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("revoked") || begun.elapsed().as_secs() > 20 {
            return said;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scep_answers_broken_messages_and_goes_on() {
    let place = Place::start().await;
    let url = format!("{}?operation=PKIOperation", place.scep);
    place.keep("broken", &[0x30, 0x82, 0xff, 0xff, 0x06]);
    place.keep("large", &vec![0x30; 70_000]);
    for file in ["broken", "large"] {
        let code = place
            .says(
                "curl",
                &["-s", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", &format!("@{file}"), &url],
            )
            .await;
        let code: u16 = String::from_utf8(code).unwrap().parse().unwrap();
        assert!(code == 400 || code == 413, "{file}: {code}");
    }
    let next = format!("{}?operation=GetNextCACert", place.scep);
    place.says("curl", &["-sf", "-o", "next.p7", &next]).await;
    let text = place
        .says("openssl", &["cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", "next.p7"])
        .await;
    assert!(String::from_utf8_lossy(&text).contains("signedData"));
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_curl_enroll_and_renew_by_est() {
    let place = Place::start().await;
    let est = |operation: &str| format!("{}/.well-known/est/{operation}", place.est);
    let trusted = ["-sS", "--cacert", "root.pem", "--fail-with-body"];
    let cas = place.says("curl", &[&trusted[..], &[&est("cacerts")]].concat()).await;
    place.keep("cas.b64", &cas);
    place.says("openssl", &["base64", "-d", "-A", "-in", "cas.b64", "-out", "cas.p7"]).await;
    place
        .says("openssl", &["pkcs7", "-inform", "DER", "-in", "cas.p7", "-print_certs", "-out", "cas.pem"])
        .await;

    place.says("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "k.pem"]).await;
    let san = "subjectAltName=DNS:camera-1.example.org";
    place
        .says(
            "openssl",
            &[
                "req",
                "-new",
                "-key",
                "k.pem",
                "-subj",
                "/CN=camera-1",
                "-addext",
                san,
                "-outform",
                "DER",
                "-out",
                "r.der",
            ],
        )
        .await;
    place.says("openssl", &["base64", "-in", "r.der", "-out", "r.b64"]).await;
    let binding = Binding { host_name: "camera-1.example.org".into(), ..Binding::default() };
    let challenge = place.challenge(Terms { binding, ..challenge_terms("camera-1") }).await;
    let post = ["-H", "Content-Type: application/pkcs10", "--data-binary", "@r.b64"];
    let nobody = place.run("curl", &[&trusted[..], &post, &[&est("simpleenroll")]].concat()).await;
    assert!(!nobody.status.success(), "without a challenge there is no certificate");
    let user = format!("camera:{challenge}");
    let answer =
        place.says("curl", &[&trusted[..], &post, &["-u", &user, &est("simpleenroll")]].concat()).await;
    certificate(&place, &answer, "c.pem").await;
    place.says("openssl", &["verify", "-CAfile", "root.pem", "-untrusted", "cas.pem", "c.pem"]).await;
    // The answer was lost: the same key gets it again, another gets nothing.
    let again =
        place.says("curl", &[&trusted[..], &post, &["-u", &user, &est("simpleenroll")]].concat()).await;
    assert_eq!(again, answer);
    place
        .says(
            "openssl",
            &[
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                "k2.pem",
                "-subj",
                "/CN=camera-1",
                "-outform",
                "DER",
                "-out",
                "r2.der",
            ],
        )
        .await;
    place.says("openssl", &["base64", "-in", "r2.der", "-out", "r2.b64"]).await;
    let post2 = ["-H", "Content-Type: application/pkcs10", "--data-binary", "@r2.b64"];
    let reused =
        place.run("curl", &[&trusted[..], &post2, &["-u", &user, &est("simpleenroll")]].concat()).await;
    assert!(!reused.status.success(), "a challenge works for one key");

    place.says("sh", &["-c", "cat c.pem cas.pem > chain.pem"]).await;
    let shown = ["--cert", "c.pem", "--key", "k.pem"];
    place.says("sh", &["-c", "openssl x509 -in c.pem -out leaf.pem"]).await;
    let chain = devices_chain(&place).await;
    let shown = ["--cert", chain.as_str(), shown[2], shown[3]];
    let renewed =
        place.says("curl", &[&trusted[..], &shown, &post2, &[&est("simplereenroll")]].concat()).await;
    certificate(&place, &renewed, "c2.pem").await;
    place.says("openssl", &["verify", "-CAfile", "root.pem", "-untrusted", "cas.pem", "c2.pem"]).await;
    let nobody = place.run("curl", &[&trusted[..], &post2, &[&est("simplereenroll")]].concat()).await;
    assert!(!nobody.status.success(), "without a certificate there is nothing to renew");
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrolls_by_est_is_refused_on_reuse_and_renews() {
    let place = Place::start().await;
    // It speaks TLS 1.3 when told so.
    place.keep("strongswan.conf", b"libtls {\n version_max = 1.3\n}\n");
    let trusted = ["--url", &place.est, "--cacert", "root.pem"];
    let fetched = [&["--estca", "--caout", "ca.pem", "--outform", "pem", "--force"], &trusted[..]].concat();
    place.says("pki", &fetched).await;
    place.keep("devices.pem", devices_authority(&place).as_bytes());

    for (key, request) in [("k.pem", "r.der"), ("k2.pem", "r2.der")] {
        let made =
            place.says("pki", &["--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"]).await;
        place.keep(key, &made);
        let asked = place.says("pki", &["--req", "--type", "priv", "--in", key, "--dn", "CN=camera-2"]).await;
        place.keep(request, &asked);
    }
    let challenge = place.challenge(challenge_terms("camera-2")).await;
    let user = format!("camera:{challenge}");
    let est = [&["--est", "--cacert", "devices.pem", "--outform", "pem"], &trusted[..]].concat();
    let enrolled = [&est[..], &["--in", "r.der", "--userpass", &user]].concat();
    let certificate = place.says("pki", &enrolled).await;
    place.keep("c.pem", &certificate);
    let verified = ["verify", "-CAfile", "root.pem", "-untrusted", "devices.pem"];
    place.says("openssl", &[&verified[..], &["c.pem"]].concat()).await;

    let other = [&est[..], &["--in", "r2.der", "--userpass", &user]].concat();
    assert!(!place.run("pki", &other).await.status.success(), "a challenge works for one key");

    let shown = ["--in", "r2.der", "--cert", "c.pem", "--key", "k.pem"];
    let renewed = place.says("pki", &[&est[..], &shown].concat()).await;
    assert_ne!(renewed, certificate);
    place.keep("c2.pem", &renewed);
    place.says("openssl", &[&verified[..], &["c2.pem"]].concat()).await;
}

fn devices_authority(place: &Place) -> String {
    let device = &place.world.auth.authority().devices()[0].certificate.clone();
    muster_auth::join::pem::section("CERTIFICATE", device)
}

/// The leaf with its issuer, as TLS shows it.
async fn devices_chain(place: &Place) -> String {
    let leaf = std::fs::read_to_string(place.path().join("leaf.pem")).unwrap();
    place.keep("shown.pem", (leaf + &devices_authority(place)).as_bytes());
    "shown.pem".to_owned()
}

async fn certificate(place: &Place, answer: &[u8], name: &str) {
    place.keep("answer.b64", answer);
    place.says("openssl", &["base64", "-d", "-A", "-in", "answer.b64", "-out", "answer.p7"]).await;
    place
        .says("openssl", &["pkcs7", "-inform", "DER", "-in", "answer.p7", "-print_certs", "-out", name])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devices_certificate_opens_nothing_of_ours() {
    use muster_auth::domain::device::DeviceRequest;
    use muster_auth::service::DeviceApplicant;
    use muster_kit::tls::Material;
    use muster_proto::auth::v1::ListLinksRequest;
    use muster_proto::auth::v1::link_service_client::LinkServiceClient;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let world = World::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "printer-3");
    let request = DeviceRequest::parse(params.serialize_request(&key).unwrap().der()).unwrap();
    let network = world.auth.authority().network();
    let operator = Identity { network, role: Role::Operator, name: "alice".into() };
    let wanted = Wanted { terms: challenge_terms("printer-3"), request_id: None, validate_only: false };
    let challenge = world.auth.create_link(&operator, &wanted).await.unwrap().secret.unwrap();
    let applicant = DeviceApplicant { request, source: "192.0.2.1".into() };
    let admitted = world.auth.enroll_device(&challenge.parse().unwrap(), &applicant).await.unwrap();
    let material = Material {
        chain: vec![CertificateDer::from(admitted.certificate), CertificateDer::from(admitted.issuer)],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        roots: vec![CertificateDer::from(world.auth.authority().root().to_vec())],
    };
    let mut links = LinkServiceClient::new(world.channel(material));
    assert!(links.list_links(ListLinksRequest::default()).await.is_err());
}
