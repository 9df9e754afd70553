//! One stream to gsn-registry, from the offer to its end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::connect::GSN_REGISTRY;
use muster_proto::gsn::v1::offer_request::Request as Say;
use muster_proto::gsn::v1::offer_response::Response as Hear;
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_proto::gsn::v1::{
    Candidacy, CandidateState, Caps, OfferRequest, OfferResponse, ProbeHeard, SendProbe, Standing,
};
use muster_proto::trust::v1::Envelope;
use muster_types::{Address, Contact};
use muster_wire::gsn;
use muster_wire::probe::{self, Token};
use muster_wire::time::span_to_wire;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Outcome, Terms};

/// What waits to go up.
const OUTGOING: usize = 64;

/// The registry hears of the node's load this often, and that it is there (three fit into its patience).
const LOAD: Duration = Duration::from_secs(10);

/// Who has heard no probe by then steps back: the registry's eager rounds are over after 20 s.
const DEAF: Duration = Duration::from_secs(45);

/// Who hears probes and is not proven by then steps back: a quarter of an hour is longer than any translator remembers whom
/// one wrote to.
const TRIAL: Duration = Duration::from_secs(900);

/// Probes that the registry may have this node send in a second.
const SENT: u32 = 10;

/// Pings a connection on which nothing else moves.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How far this node is from serving.
struct Standstill {
    began: Instant,
    heard: bool,
    proven: bool,
}

/// Until the stream ends, or nobody has reached this node for long enough.
pub(super) async fn hold(
    terms: &Terms,
    addresses: Vec<Address>,
    ticket: Envelope,
    heard: &mut mpsc::Receiver<(SocketAddr, Token)>,
) -> Outcome {
    let (says, saying) = mpsc::channel(OUTGOING);
    // There is room for the first.
    let offered = addresses.clone();
    let _ = says.try_send(request(Say::Candidacy(candidacy(terms, addresses, ticket))));
    let talked = match open(terms, saying).await {
        Ok(hears) => talk(terms, hears, says, heard, &offered).await,
        Err(status) => Err(status),
    };
    talked.unwrap_or_else(|status| {
        tracing::debug!(error = status.message(), "the registry of super nodes is not reached");
        Outcome::Broken
    })
}

async fn open(
    terms: &Terms,
    saying: mpsc::Receiver<OfferRequest>,
) -> Result<Streaming<OfferResponse>, Status> {
    let master = terms.client.master().await;
    let mut registry = RegistryServiceClient::new(master.keep_alive(KEEP_ALIVE).service(GSN_REGISTRY));
    Ok(registry.offer(ReceiverStream::new(saying)).await?.into_inner())
}

async fn talk(
    terms: &Terms,
    mut hears: Streaming<OfferResponse>,
    says: mpsc::Sender<OfferRequest>,
    heard: &mut mpsc::Receiver<(SocketAddr, Token)>,
    addresses: &[Address],
) -> Result<Outcome, Status> {
    let mut standstill = Standstill { began: Instant::now(), heard: false, proven: false };
    let (mut load, mut allowed) = (tokio::time::interval(LOAD), 0);
    loop {
        let say = tokio::select! {
            told = hears.message() => match told? {
                Some(OfferResponse { response: Some(Hear::Standing(standing)) }) => {
                    standstill.proven = stands(terms, &standing, addresses);
                    continue;
                }
                Some(OfferResponse { response: Some(Hear::SendProbe(wanted)) }) => {
                    if allowed > 0 {
                        allowed -= 1;
                        send(terms, &wanted);
                    }
                    continue;
                }
                // Of a newer version.
                Some(_) => continue,
                None => return Ok(Outcome::Broken),
            },
            Some((from, token)) = heard.recv() => {
                standstill.heard = true;
                repeat(terms, from, &token)
            }
            _ = load.tick() => {
                allowed = SENT * u32::try_from(LOAD.as_secs()).unwrap_or(1);
                Say::Load(terms.given.account(&terms.config, LOAD))
            }
            () = tokio::time::sleep_until(standstill.patience()), if !standstill.proven => {
                return Ok(Outcome::Unreachable);
            }
        };
        if says.send(request(say)).await.is_err() {
            return Ok(Outcome::Broken);
        }
    }
}

impl Standstill {
    fn patience(&self) -> Instant {
        self.began + if self.heard { TRIAL } else { DEAF }
    }
}

fn request(request: Say) -> OfferRequest {
    OfferRequest { request: Some(request) }
}

fn candidacy(terms: &Terms, addresses: Vec<Address>, ticket: Envelope) -> Candidacy {
    let caps = Caps {
        signalling_bytes_per_second: terms.config.signalling_bytes_per_second,
        relaying_bytes_per_second: terms.config.relaying_bytes_per_second,
        relayed_nodes: terms.config.relayed_nodes,
    };
    Candidacy {
        contact: Some(gsn::contact_to_wire(&Contact { node: terms.node, addresses })),
        ticket: Some(ticket),
        eligible: true,
        caps: Some(caps),
        subnet_keys: Vec::new(),
        nat: "none".to_owned(),
    }
}

fn repeat(terms: &Terms, from: SocketAddr, token: &Token) -> Say {
    Say::ProbeHeard(ProbeHeard {
        token: Bytes::copy_from_slice(token),
        source: Some(gsn::address_to_wire(from)),
        sent_ago: terms.endpoint.sent_ago(from.ip()).map(span_to_wire),
    })
}

/// Whether anybody reaches this node, as far as the registry knows.
fn stands(terms: &Terms, standing: &Standing, addresses: &[Address]) -> bool {
    let state = standing.state();
    let serving = state == CandidateState::Serving;
    terms.standing.send_replace(serving);
    if serving {
        terms.serves_at.send_replace(Some(addresses.to_vec()));
    } else {
        super::withdraw(terms);
    }
    tracing::info!(state = state.as_str_name(), reason = standing.reason, "as a global super node");
    matches!(state, CandidateState::Serving | CandidateState::Spare)
}

/// One datagram to another candidate. It answers nothing, so this costs whoever it names 17 bytes.
fn send(terms: &Terms, wanted: &SendProbe) {
    let Ok(to) = gsn::address_from_wire("send_probe.address", wanted.address.as_ref()) else { return };
    let Ok(token) = Token::try_from(&wanted.token[..]) else { return };
    terms.endpoint.send_reach_probe(to, &probe::encode(&token));
}
