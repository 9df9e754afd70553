//! Takes in connections from strangers: bounded in number, in time, and proved to own their address once there
//! are many.

use std::net::TcpListener as StdListener;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::endpoint::Shared;
use crate::handshake;

/// Handshakes at once. Each costs about a millisecond of CPU and 40 kB.
const HANDSHAKES: usize = 64;

/// From this many on, strangers prove their address first (QUIC Retry), so that forged ones cost next to nothing.
const UNPROVEN: usize = HANDSHAKES / 2;

/// QUIC connections until the endpoint closes.
pub(crate) async fn quic(shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = shared.quic.accept().await {
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::debug!(from = %incoming.remote(), "ignored a connection: too many handshakes");
            incoming.ignore();
            continue;
        };
        let busy = HANDSHAKES - slots.available_permits() > UNPROVEN;
        let Some(incoming) = (if busy { incoming.validated() } else { Some(incoming) }) else { continue };
        let shared = Arc::clone(&shared);
        handshakes.spawn(async move {
            let from = incoming.remote();
            if let Err(error) = handshake::accepted(&shared, incoming).await {
                tracing::info!(%from, %error, "a connection became no session");
            }
            drop(slot);
        });
    }
}

/// TCP connections that carry QUIC's packets.
pub(crate) async fn tcp(shared: Arc<Shared>, listener: StdListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "TCP is not listened to"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if shared.carry(stream, from).is_none() {
                    tracing::debug!(%from, "dropped a TCP connection: there are too many");
                }
            }
            // The peer gave up, or this process has no more descriptors: the first passes, the second needs time.
            Err(error) => {
                tracing::debug!(%error, "TCP accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// After a failed accept.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
