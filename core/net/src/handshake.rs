//! From a TLS connection to a session: who the peer is stands in its certificate, and its Hello must fit it.
//! The dialling end speaks first; the accepting end answers only when this connection is the one that counts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::version;
use muster_wire::hello::{self, TlsPeer};
use muster_wire::revocation::Reason;
use muster_wire::{Hello, Verifier};
use tokio::time::timeout;

use crate::config::{Shown, shown};
use crate::endpoint::Shared;
use crate::error::{CloseCode, CloseReason};
use crate::path::Path;
use crate::peers::Attempt;
use crate::quic::{Connection, Incoming};
use crate::session::{Opening, Session, Side};
use crate::stream::{StreamError, read_frame, write_frame};

/// From the first packet of a stranger to an answered Hello; a dial of ours that goes first is waited for.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why a connection became no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Tls(String),
    #[error("its certificate is not that of a node of this network: {0}")]
    Certificate(String),
    #[error("its certificate is {0}")]
    Revoked(Reason),
    #[error("its Hello was not believed: {0}")]
    Hello(String),
    #[error("it speaks protocol {0}, which is too old")]
    TooOld(u32),
    #[error("it did not say Hello within {HANDSHAKE:?}")]
    Mute,
    #[error("another session with it counts")]
    Duplicate,
    #[error("the connection ended: {0}")]
    Ended(CloseReason),
}

impl HandshakeError {
    fn code(&self) -> CloseCode {
        match self {
            Self::Duplicate => CloseCode::Duplicate,
            Self::TooOld(_) | Self::Revoked(_) => CloseCode::NotAdmitted,
            _ => CloseCode::Refused,
        }
    }
}

impl From<StreamError> for HandshakeError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Session(reason) => Self::Ended(reason),
            other => Self::Hello(other.to_string()),
        }
    }
}

/// Brings the session about that this node dialled.
pub(crate) async fn dialled(
    shared: &Arc<Shared>,
    connection: Connection,
    attempt: Attempt,
) -> Result<Session, HandshakeError> {
    let result = timeout(HANDSHAKE, greet(shared, &connection)).await.unwrap_or(Err(HandshakeError::Mute));
    finish(shared, connection, attempt, result)
}

async fn greet(shared: &Arc<Shared>, connection: &Connection) -> Result<Opening, HandshakeError> {
    let peer = identify(shared, connection)?;
    let (mut send, mut recv) = connection.open().await.map_err(HandshakeError::Ended)?;
    write_frame(&mut send, &shared.hello()).await?;
    let bytes = read_frame(&mut recv).await?.ok_or(HandshakeError::Mute)?;
    let hello = believe(shared, &bytes, &peer)?;
    opening(shared, connection, hello, Side::Dialled, send, recv)
}

/// Brings the session about that a peer dialled, or closes its connection.
pub(crate) async fn accepted(shared: &Arc<Shared>, incoming: Incoming) -> Result<Session, HandshakeError> {
    let answered = timeout(HANDSHAKE, async {
        let gone = || HandshakeError::Ended(CloseReason::Lost("its path broke".to_owned()));
        let path = shared.routes.path(incoming.remote()).ok_or_else(gone)?;
        let connection = shared.quic.handshake(incoming, path).await.map_err(HandshakeError::Tls)?;
        let result = answer(shared, &connection).await;
        Ok::<_, HandshakeError>((connection, result))
    });
    let (connection, result) = answered.await.unwrap_or(Err(HandshakeError::Mute))?;
    match result {
        Ok((attempt, opening)) => {
            if matches!(opening.path, Path::Udp(_)) {
                shared.reach.udp_worked(tokio::time::Instant::now());
            }
            finish(shared, connection, attempt, Ok(opening))
        }
        Err(error) => Err(refuse(&connection, error)),
    }
}

async fn answer(shared: &Arc<Shared>, connection: &Connection) -> Result<(Attempt, Opening), HandshakeError> {
    let peer = identify(shared, connection)?;
    let (mut send, mut recv) = connection.accept().await.map_err(HandshakeError::Ended)?;
    let bytes = read_frame(&mut recv).await?.ok_or(HandshakeError::Mute)?;
    let hello = believe(shared, &bytes, &peer)?;
    let admitted = shared.peers.admit(peer.node, hello.boot_nonce).await;
    let attempt = admitted.ok_or(HandshakeError::Duplicate)?;
    write_frame(&mut send, &shared.hello()).await?;
    Ok((attempt, opening(shared, connection, hello, Side::Accepted, send, recv)?))
}

fn finish(
    shared: &Arc<Shared>,
    connection: Connection,
    attempt: Attempt,
    result: Result<Opening, HandshakeError>,
) -> Result<Session, HandshakeError> {
    let started = result.and_then(|opening| shared.start(opening, attempt));
    started.map_err(|error| refuse(&connection, error))
}

fn refuse(connection: &Connection, error: HandshakeError) -> HandshakeError {
    connection.close(error.code(), &error.to_string());
    error
}

/// Whom TLS has proved.
fn identify(shared: &Shared, connection: &Connection) -> Result<TlsPeer, HandshakeError> {
    let fail = HandshakeError::Certificate;
    let chain = connection.peer_certificates().unwrap_or_default();
    let leaf = chain.first().ok_or_else(|| fail("there is none".to_owned()))?;
    let Shown { identity, serial, key } = shown(leaf).map_err(fail)?;
    match identity.node_id() {
        Some(node) if identity.network == shared.network && node != shared.node => {
            let trust = shared.trust();
            match trust.revocations().of_holder(node, &serial, Some(&key)) {
                Some(it) => Err(HandshakeError::Revoked(it.reason)),
                None => Ok(TlsPeer { node, certificate_serial: serial }),
            }
        }
        Some(node) if node == shared.node => Err(fail("it is this node's own".to_owned())),
        _ => Err(fail(identity.to_string())),
    }
}

fn believe(shared: &Shared, bytes: &Bytes, peer: &TlsPeer) -> Result<Hello, HandshakeError> {
    let trust = shared.trust();
    let verifier = Verifier { trust: &trust, now: shared.now() };
    let hello = hello::decode(bytes, peer, &verifier);
    let hello = hello.map_err(|error| HandshakeError::Hello(error.to_string()))?;
    // A version speaks with the one before it (design: overlay messages).
    if hello.protocol + 1 < version::PROTOCOL {
        return Err(HandshakeError::TooOld(hello.protocol));
    }
    Ok(hello)
}

fn opening(
    shared: &Shared,
    connection: &Connection,
    hello: Hello,
    side: Side,
    send: crate::quic::SendStream,
    recv: crate::quic::RecvStream,
) -> Result<Opening, HandshakeError> {
    let remote = connection.remote();
    let path = remote.and_then(|remote| shared.routes.path(remote));
    let gone = || HandshakeError::Ended(CloseReason::Lost("its path broke".to_owned()));
    let path = path.ok_or_else(gone)?;
    Ok(Opening { connection: connection.clone(), hello, side, path, send, recv })
}
