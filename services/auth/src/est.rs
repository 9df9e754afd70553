//! EST (RFC 7030) for devices without our agent: PKCS#10 in, certificates out, over TLS with a name that clients can verify.
//!
//! A challenge is the password of HTTP's basic authentication; whoever has a certificate shows it in TLS to renew.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Method, StatusCode};
use muster_kit::clock::BootClock;
use muster_kit::shutdown::Shutdown;
use muster_kit::tls;
use muster_types::Token;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::bootstrap::{RENEWAL_AGE, ROTATION_LOOK};
use crate::domain::cooldown::Cooldown;
use crate::domain::device::DeviceRequest;
use crate::http::{Answer, Asked, Handler, content, text};
use crate::service::{Admitted, Auth, AuthError, DeviceApplicant, Issued};
use crate::{metrics, pkcs7};

/// Where all of EST is (RFC 7030, section 3.2.2).
const ROOM: &str = "/.well-known/est/";

/// How long whoever waits for an operator's word should let pass, in seconds.
const APPROVAL_LOOK: u64 = 30;

/// Why EST is not served.
#[derive(Debug, thiserror::Error)]
pub enum EstError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("EST's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the trusted roots cannot be used: {0}")]
    Roots(String),
}

/// Serves EST until the shutdown, with a certificate for `hosts`.
///
/// # Errors
/// There is no certificate for it.
pub(crate) async fn serve(
    tcp: TcpListener,
    auth: Arc<Auth>,
    hosts: Vec<String>,
    shutdown: Shutdown,
) -> Result<(), EstError> {
    let issued = auth.issue_server("est", &hosts).await?;
    let tls = Arc::new(ArcSwap::from_pointee(config(&issued)?));
    shutdown.spawn(keep(auth.clone(), hosts, tls.clone(), shutdown.clone()));
    let est = Est { auth, tls, clock: BootClock::new(), cooldown: Mutex::default() };
    crate::http::serve(tcp, Arc::new(est), shutdown).await;
    Ok(())
}

/// Renews the certificate in time, and when root or issuing authority changed.
async fn keep(auth: Arc<Auth>, hosts: Vec<String>, tls: Arc<ArcSwap<ServerConfig>>, shutdown: Shutdown) {
    let (mut made, mut version) = (auth.now(), auth.authority().version());
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(ROTATION_LOOK) => {}
        }
        let newest = auth.authority().version();
        if auth.now().since(made) < RENEWAL_AGE && newest == version {
            continue;
        }
        let renewed = match auth.issue_server("est", &hosts).await {
            Ok(issued) => config(&issued),
            Err(error) => Err(error.into()),
        };
        match renewed {
            Ok(fresh) => {
                tls.store(Arc::new(fresh));
                (made, version) = (auth.now(), newest);
            }
            Err(error) => tracing::warn!(%error, "could not renew the certificate of EST; trying again"),
        }
    }
}

fn config(issued: &Issued) -> Result<ServerConfig, EstError> {
    let material = issued.material();
    let mut roots = RootCertStore::empty();
    for root in material.roots {
        roots.add(root).map_err(|error| EstError::Roots(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| EstError::Roots(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain, material.key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

struct Est {
    auth: Arc<Auth>,
    tls: Arc<ArcSwap<ServerConfig>>,
    clock: BootClock,
    cooldown: Mutex<Cooldown>,
}

#[async_trait]
impl Handler for Est {
    async fn answer(&self, asked: Asked) -> Answer {
        let Some(path) = asked.path.strip_prefix(ROOM) else {
            return text(StatusCode::NOT_FOUND, "EST is at /.well-known/est/");
        };
        // A label may stand before the operation (RFC 7030, section 3.2.2); we have one authority.
        let operation = path.rsplit('/').next().unwrap_or_default();
        match (&asked.method, operation) {
            (&Method::GET, "cacerts") => self.authorities(),
            (&Method::POST, "simpleenroll") => self.enroll(&asked).await,
            (&Method::POST, "simplereenroll") => self.renew(&asked).await,
            (_, "cacerts" | "simpleenroll" | "simplereenroll") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "GET cacerts, POST the others")
            }
            _ => {
                text(StatusCode::NOT_IMPLEMENTED, "cacerts, simpleenroll and simplereenroll are all there is")
            }
        }
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        Some(TlsAcceptor::from(self.tls.load_full()))
    }
}

impl Est {
    /// All that a device needs to verify certificates of devices, and of EST itself.
    fn authorities(&self) -> Answer {
        let authority = self.auth.authority();
        let devices = authority.devices().iter().map(|one| one.certificate.as_slice());
        let roots = authority.roots().iter().chain(authority.crosses()).map(Vec::as_slice);
        let all: Vec<_> = roots.chain(devices).collect();
        carried(&all)
    }

    async fn enroll(&self, asked: &Asked) -> Answer {
        let source = asked.source;
        if let Some(wait) = self.cooldown(|cooldown, now| cooldown.wait(source, now)) {
            let answer = text(StatusCode::TOO_MANY_REQUESTS, "too many unknown challenges from this address");
            return retry_after(answer, wait.as_secs() + 1);
        }
        let Some(challenge) = password(asked) else {
            let mut answer = text(StatusCode::UNAUTHORIZED, "the password is the challenge");
            let basic = HeaderValue::from_static("Basic realm=\"est\"");
            answer.headers_mut().insert(http::header::WWW_AUTHENTICATE, basic);
            return answer;
        };
        let request = match request(asked) {
            Ok(request) => request,
            Err(answer) => return *answer,
        };
        let applicant = DeviceApplicant { request, source: source.to_string() };
        let outcome = match challenge.parse::<Token>() {
            Ok(challenge) => self.auth.enroll_device(&challenge, &applicant).await,
            Err(_) => Err(AuthError::UnknownToken),
        };
        if let Err(AuthError::UnknownToken) = &outcome {
            self.cooldown(|cooldown, now| cooldown.on_failure(source, now));
        }
        answered(outcome, source)
    }

    async fn renew(&self, asked: &Asked) -> Answer {
        let Some(certificate) = &asked.certificate else {
            return text(StatusCode::UNAUTHORIZED, "show the certificate that is to be renewed, in TLS");
        };
        match request(asked) {
            Ok(request) => {
                let source = asked.source.to_string();
                answered(self.auth.renew_device(certificate, &request, &source).await, asked.source)
            }
            Err(answer) => *answer,
        }
    }

    fn cooldown<T>(&self, act: impl FnOnce(&mut Cooldown, muster_types::Instant) -> T) -> T {
        // A panic while it was locked leaves at worst one failure uncounted.
        act(&mut self.cooldown.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }
}

/// The password of HTTP's basic authentication (RFC 7617); the user's name says nothing.
fn password(asked: &Asked) -> Option<String> {
    let header = asked.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = header.split_once(' ')?;
    let text = String::from_utf8(BASE64.decode(value.trim().as_bytes()).ok()?).ok()?;
    let password = text.split_once(':')?.1;
    scheme.eq_ignore_ascii_case("basic").then(|| password.to_owned())
}

/// The PKCS#10 in the body: base64 (RFC 7030, section 4.2.1), or DER from those who read RFC 8951 otherwise.
fn request(asked: &Asked) -> Result<DeviceRequest, Box<Answer>> {
    let refused = |why: &str| Box::new(text(StatusCode::BAD_REQUEST, why));
    let stripped: Vec<u8> = asked.body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let der = BASE64.decode(&stripped).unwrap_or_else(|_| asked.body.to_vec());
    DeviceRequest::parse(&der).map_err(|error| refused(&error.to_string()))
}

fn answered(outcome: Result<Admitted, AuthError>, source: IpAddr) -> Answer {
    let outcome_name = match &outcome {
        Ok(_) => "ok",
        Err(error) if error.is_pending() => "pending",
        Err(_) => "refused",
    };
    metrics::count_device("est", outcome_name);
    match outcome {
        Ok(admitted) => carried(&[&admitted.certificate]),
        Err(error) if error.is_pending() => {
            retry_after(text(StatusCode::ACCEPTED, &error.to_string()), APPROVAL_LOOK)
        }
        Err(error) => {
            tracing::info!(%source, %error, "refused a device by EST");
            match error {
                AuthError::UnknownToken => text(StatusCode::UNAUTHORIZED, "the challenge is none of ours"),
                AuthError::Store(_) => text(StatusCode::SERVICE_UNAVAILABLE, "try again"),
                AuthError::Authority(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "auth's log says why"),
                refused => text(StatusCode::FORBIDDEN, &refused.to_string()),
            }
        }
    }
}

fn retry_after(mut answer: Answer, seconds: u64) -> Answer {
    answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

fn carried(certificates: &[&[u8]]) -> Answer {
    match pkcs7::certificates(certificates) {
        Ok(der) => {
            let kind = "application/pkcs7-mime; smime-type=certs-only";
            // Without line breaks: strongSwan takes none, and the others need none (RFC 8951, section 3.1).
            let mut answer = content(kind, Bytes::from(BASE64.encode(&der)));
            let encoding = HeaderValue::from_static("base64");
            answer.headers_mut().insert("content-transfer-encoding", encoding);
            answer
        }
        Err(error) => {
            tracing::error!(%error, "cannot encode what EST carries");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encoded")
        }
    }
}
