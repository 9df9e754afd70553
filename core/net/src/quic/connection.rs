//! One QUIC connection, seen through what the rest of this crate needs of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use noq::{ConnectionError, RecvStream, SendDatagramError, SendStream, VarInt};
use rustls::pki_types::CertificateDer;

use super::ways::Ways;
use crate::error::{CloseCode, CloseReason};
use crate::path::canonical;
use crate::stream::StreamError;

/// Why a connection is no more.
pub(crate) type Loss = CloseReason;

#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(super) inner: noq::Connection,
    pub(super) ways: Arc<Ways>,
}

impl Connection {
    pub(super) fn new(inner: noq::Connection) -> Self {
        Self { inner, ways: Arc::default() }
    }

    /// The peer's certificate and those above it.
    pub(crate) fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.inner.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
    }

    /// As QUIC knows it: virtual where no UDP is.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.current().map(|(_, remote)| remote)
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.inner.rtt(self.current()?.0)
    }

    /// Where the peer sees this end's packets come from.
    pub(crate) fn observed(&self) -> Option<SocketAddr> {
        self.inner.observed_external_addr().get().map(canonical)
    }

    /// UDP payload bytes sent and received so far.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let stats = self.inner.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    pub(crate) async fn open(&self) -> Result<(SendStream, RecvStream), Loss> {
        self.inner.open_bi().await.map_err(loss)
    }

    pub(crate) async fn accept(&self) -> Result<(SendStream, RecvStream), Loss> {
        self.inner.accept_bi().await.map_err(loss)
    }

    pub(crate) async fn read_datagram(&self) -> Result<Bytes, Loss> {
        self.inner.read_datagram().await.map_err(loss)
    }

    /// Oldest first out when the buffer is full. The error is the limit, or `None` if the connection is gone.
    pub(crate) fn send_datagram(&self, bytes: Bytes) -> Result<(), Option<usize>> {
        self.inner.send_datagram(bytes).map_err(|error| match error {
            SendDatagramError::ConnectionLost(_) => None,
            _ => Some(self.inner.max_datagram_size().unwrap_or(0)),
        })
    }

    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(VarInt::from_u32(code as u32), reason.as_bytes());
    }

    pub(crate) async fn closed(&self) -> Loss {
        loss(self.inner.closed().await)
    }

    pub(crate) fn close_reason(&self) -> Option<Loss> {
        self.inner.close_reason().map(loss)
    }
}

fn loss(error: ConnectionError) -> Loss {
    match error {
        ConnectionError::LocallyClosed => Loss::Local,
        ConnectionError::ApplicationClosed(close) => Loss::Peer {
            code: u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::TransportError(error) => Loss::Misbehaved(error.to_string()),
        other => Loss::Lost(other.to_string()),
    }
}

/// Why a stream gave no more.
pub(crate) fn read_error(error: noq::ReadError) -> StreamError {
    match error {
        noq::ReadError::ConnectionLost(error) => StreamError::Session(loss(error)),
        _ => StreamError::Reset,
    }
}
