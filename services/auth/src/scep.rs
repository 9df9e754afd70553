//! SCEP (RFC 8894) for devices without our agent: its own port, off by default, an RSA key of its own that signs no certificate.
//!
//! HTTP -> `message` (verified, opened) -> [`Auth`] (a challenge is a link) -> `reply` (enveloped, signed by the RA).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use cms::cert::IssuerAndSerialNumber;
use data_encoding::BASE64;
use der::{Decode, Encode};
use http::{Method, StatusCode};
use muster_kit::clock::BootClock;
use muster_kit::shutdown::Shutdown;
use muster_types::Token;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::crl::Shelf;
use crate::domain::cooldown::Cooldown;
use crate::domain::device::DeviceRequest;
use crate::http::{Answer, Asked, Handler, content, text};
use crate::service::{Admitted, Auth, AuthError, DeviceApplicant, Registration};
use crate::{metrics, pkcs7};
use message::{Kind, Message, MessageError};
use reply::{Failure, Verdict};

mod message;
mod reply;
#[cfg(feature = "testing")]
pub mod testing;

/// What we can do. SHA-384 stands here for strongSwan before 5.9.11 as well: it takes that word for AES.
const CAPABILITIES: &str =
    "AES\nGetNextCACert\nPOSTPKIOperation\nRenewal\nSHA-256\nSHA-384\nSHA-512\nSCEPStandard\n";

/// Messages of all askers opened at once: each costs an RSA operation of some milliseconds.
const OPENINGS: usize = 2;

/// Serves SCEP until the shutdown.
pub(crate) async fn serve(tcp: TcpListener, auth: Arc<Auth>, shelf: Arc<Shelf>, shutdown: Shutdown) {
    let openings = tokio::sync::Semaphore::new(OPENINGS);
    let scep = Scep { auth, shelf, openings, clock: BootClock::new(), cooldown: Mutex::default() };
    crate::http::serve(tcp, Arc::new(scep), shutdown).await;
}

struct Scep {
    auth: Arc<Auth>,
    shelf: Arc<Shelf>,
    openings: tokio::sync::Semaphore,
    clock: BootClock,
    cooldown: Mutex<Cooldown>,
}

#[async_trait]
impl Handler for Scep {
    async fn answer(&self, asked: Asked) -> Answer {
        match parameter(&asked.query, "operation").as_deref() {
            Some("GetCACaps") => content("text/plain", CAPABILITIES),
            Some("GetCACert") => self.authorities().await,
            Some("GetNextCACert") => self.next_authorities().await,
            Some("PKIOperation") => self.operation(&asked).await,
            _ => text(StatusCode::BAD_REQUEST, "operation is none of RFC 8894"),
        }
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        None
    }
}

impl Scep {
    async fn registration(&self) -> Result<Registration, Answer> {
        self.auth.registration().await.map_err(|error| {
            tracing::error!(%error, "SCEP has no key");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the registration authority has no key; the log says why")
        })
    }

    async fn authorities(&self) -> Answer {
        let registration = match self.registration().await {
            Ok(registration) => registration,
            Err(answer) => return answer,
        };
        let authority = self.auth.authority();
        let device = authority.devices().first().map(|one| one.certificate.as_slice());
        let chain = [Some(registration.certificate.as_slice()), device, Some(authority.root())];
        let chain: Vec<_> = chain.into_iter().flatten().collect();
        made("application/x-x509-ca-ra-cert", pkcs7::certificates(&chain))
    }

    /// What follows: the newest authority with its root, signed by the RA that clients know.
    async fn next_authorities(&self) -> Answer {
        let registration = match self.auth.eldest_registration().await {
            Ok(registration) => registration,
            Err(error) => return broken(error),
        };
        let authority = self.auth.authority();
        let device = authority.devices().first().map(|one| one.certificate.as_slice());
        let chain: Vec<_> = device.into_iter().chain([authority.root()]).collect();
        let Ok(inner) = pkcs7::certificates(&chain) else { return broken("the authorities") };
        match reply::sign(&inner, Vec::new(), &registration.key, &registration.certificate) {
            Ok(signed) => content("application/x-x509-next-ca-cert", signed),
            Err(error) => broken(error),
        }
    }

    async fn operation(&self, asked: &Asked) -> Answer {
        if let Some(wait) = self.cooldown(|cooldown, now| cooldown.wait(asked.source, now)) {
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "too many wrong messages from this address");
            answer
                .headers_mut()
                .insert(http::header::RETRY_AFTER, http::HeaderValue::from(wait.as_secs() + 1));
            return answer;
        }
        let bytes = match asked.method {
            Method::POST => asked.body.to_vec(),
            _ => {
                match parameter(&asked.query, "message").and_then(|text| BASE64.decode(text.as_bytes()).ok())
                {
                    Some(bytes) => bytes,
                    None => return text(StatusCode::BAD_REQUEST, "message is no base64"),
                }
            }
        };
        let message = match Message::verify(&bytes) {
            Ok(message) => message,
            Err(error) => {
                self.cooldown(|cooldown, now| cooldown.on_failure(asked.source, now));
                return text(StatusCode::BAD_REQUEST, &error.to_string());
            }
        };
        let registration = match self.registration().await {
            Ok(registration) => registration,
            Err(answer) => return answer,
        };
        let verdict = self.judge(&message, &registration, asked.source).await;
        metrics::count_device("scep", outcome(&verdict));
        let made = reply::reply(&message, &verdict, &registration.key, &registration.certificate);
        made.map_or_else(broken, |der| content("application/x-pki-message", der))
    }

    async fn judge(&self, message: &Message, registration: &Registration, source: IpAddr) -> Verdict {
        let opened = {
            // The semaphore is never closed; a large key must not keep a thread from others.
            let _opening = self.openings.acquire().await;
            let (message, key) = (message.clone(), registration.key.clone());
            tokio::task::spawn_blocking(move || message.open(&key)).await
        };
        let opened = match opened.unwrap_or(Err(MessageError::Closed)) {
            Ok(opened) => opened,
            Err(error) => {
                self.cooldown(|cooldown, now| cooldown.on_failure(source, now));
                tracing::info!(%source, %error, "refused a SCEP message");
                let failure = match error {
                    MessageError::Algorithm(_) => Failure::BadAlg,
                    _ => Failure::BadMessageCheck,
                };
                return Verdict::Failure(failure);
            }
        };
        match message.kind {
            Kind::PkcsReq => self.enroll(message, &opened, source).await,
            Kind::RenewalReq => self.renew(message, &opened, source).await,
            Kind::CertPoll => self.poll(message, source).await,
            Kind::GetCert => self.certificate(&opened).await,
            Kind::GetCrl => self.revocation_list(&opened),
        }
    }

    async fn enroll(&self, message: &Message, request: &[u8], source: IpAddr) -> Verdict {
        let request = match DeviceRequest::parse(request) {
            Ok(request) => request,
            Err(error) => return refused(source, &error),
        };
        // Who signs the message is who gets the certificate, or else the challenge could be lent to another key.
        if spki(message).as_deref() != Some(request.spki()) {
            return refused(source, &"the message is signed by another key than the one it is for");
        }
        let Some(challenge) = request.challenge.as_ref().and_then(|text| text.parse::<Token>().ok()) else {
            self.cooldown(|cooldown, now| cooldown.on_failure(source, now));
            return refused(source, &"the request carries no challenge of ours");
        };
        let applicant = DeviceApplicant { request, source: source.to_string() };
        let outcome = self.auth.enroll_device(&challenge, &applicant).await;
        if let Err(AuthError::UnknownToken) = &outcome {
            self.cooldown(|cooldown, now| cooldown.on_failure(source, now));
        }
        answered(outcome, source)
    }

    async fn renew(&self, message: &Message, request: &[u8], source: IpAddr) -> Verdict {
        match DeviceRequest::parse(request) {
            Ok(request) => {
                let source_text = source.to_string();
                answered(self.auth.renew_device(&message.signer_der, &request, &source_text).await, source)
            }
            Err(error) => refused(source, &error),
        }
    }

    async fn poll(&self, message: &Message, source: IpAddr) -> Verdict {
        match spki(message) {
            Some(spki) => answered(self.auth.poll_device(&spki, &source.to_string()).await, source),
            None => Verdict::Failure(Failure::BadRequest),
        }
    }

    async fn certificate(&self, asked: &[u8]) -> Verdict {
        let Ok(name) = IssuerAndSerialNumber::from_der(asked) else {
            return Verdict::Failure(Failure::BadRequest);
        };
        match self.auth.device_certificate(name.serial_number.as_bytes()).await {
            Ok(Some(der)) => success(pkcs7::certificates(&[&der])),
            _ => Verdict::Failure(Failure::BadCertId),
        }
    }

    fn revocation_list(&self, asked: &[u8]) -> Verdict {
        if IssuerAndSerialNumber::from_der(asked).is_err() {
            return Verdict::Failure(Failure::BadRequest);
        }
        let authority = self.auth.authority();
        let path = authority.devices().first().map(|one| Shelf::path(&one.name));
        match path.and_then(|path| self.shelf.list(&path)) {
            Some(list) => success(pkcs7::revocation_list(&list)),
            None => Verdict::Failure(Failure::BadCertId),
        }
    }

    fn cooldown<T>(&self, act: impl FnOnce(&mut Cooldown, muster_types::Instant) -> T) -> T {
        // A panic while it was locked leaves at worst one failure uncounted.
        act(&mut self.cooldown.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }
}

fn spki(message: &Message) -> Option<Vec<u8>> {
    message.signer.tbs_certificate.subject_public_key_info.to_der().ok()
}

fn answered(outcome: Result<Admitted, AuthError>, source: IpAddr) -> Verdict {
    match outcome {
        Ok(admitted) => success(pkcs7::certificates(&[&admitted.certificate, &admitted.issuer])),
        Err(error) if error.is_pending() => Verdict::Pending,
        Err(error) => refused(source, &error),
    }
}

fn refused(source: IpAddr, why: &dyn std::fmt::Display) -> Verdict {
    tracing::info!(%source, %why, "refused a device by SCEP");
    Verdict::Failure(Failure::BadRequest)
}

fn success(made: der::Result<Vec<u8>>) -> Verdict {
    made.map_or_else(
        |error| {
            tracing::error!(%error, "cannot encode what SCEP carries");
            Verdict::Failure(Failure::BadRequest)
        },
        Verdict::Success,
    )
}

fn outcome(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Success(_) => "ok",
        Verdict::Pending => "pending",
        Verdict::Failure(_) => "refused",
    }
}

fn made(kind: &'static str, der: der::Result<Vec<u8>>) -> Answer {
    der.map_or_else(broken, |der| content(kind, der))
}

fn broken(error: impl std::fmt::Display) -> Answer {
    tracing::error!(%error, "cannot encode an answer of SCEP");
    text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encoded")
}

/// The value of a query's parameter, percent-decoded; base64's '+' stays what it is.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?.1;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                bytes.push(data_encoding::HEXLOWER_PERMISSIVE.decode(&[*high, *low]).ok()?.first().copied()?);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Whether bytes are a SCEP message whose signature holds. For the fuzzer, which must not make it panic.
#[must_use]
pub fn is_message(der: &[u8]) -> bool {
    Message::verify(der).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_a_query_is_decoded_and_its_plus_kept() {
        let query = "operation=PKIOperation&message=MII%2bA+b%3D%3d";
        assert_eq!(parameter(query, "operation").as_deref(), Some("PKIOperation"));
        assert_eq!(parameter(query, "message").as_deref(), Some("MII+A+b=="));
        assert_eq!(parameter(query, "other"), None);
        assert_eq!(parameter("message=%zz", "message"), None);
    }
}
