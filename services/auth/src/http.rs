//! A small HTTP/1.1 server for the protocols of others: connections, heads, bodies and times are bounded.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_kit::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Connections at once; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 256;

/// A handshake, a head, or a body may take so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The answer may take so long: a store that is slow, an RSA key that is large.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A body: a SCEP message with a large key takes some 6 KiB.
const BODY_BYTES: usize = 64 * 1024;

/// A head; a SCEP message may come in the query.
const HEAD_BYTES: usize = 32 * 1024;

/// After a failed accept there is no use in trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Answer = Response<Full<Bytes>>;

/// One request, read whole.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) source: IpAddr,
    /// The leaf that TLS verified, DER.
    pub(crate) certificate: Option<Vec<u8>>,
}

#[async_trait]
pub(crate) trait Handler: Send + Sync + 'static {
    async fn answer(&self, asked: Asked) -> Answer;

    /// The TLS of the next connection; none: in the clear.
    fn tls(&self) -> Option<TlsAcceptor>;
}

/// Who is at the other end.
#[derive(Debug, Clone)]
struct Peer {
    source: IpAddr,
    certificate: Option<Vec<u8>>,
}

pub(crate) async fn serve<H: Handler>(tcp: TcpListener, handler: Arc<H>, shutdown: Shutdown) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.triggered() => return,
            accepted = tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let (handler, ended) = (handler.clone(), shutdown.clone());
                shutdown.spawn(async move {
                    tokio::select! {
                        () = ended.triggered() => {}
                        () = admit(stream, remote.ip().to_canonical(), handler) => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn admit<H: Handler>(stream: TcpStream, source: IpAddr, handler: Arc<H>) {
    let Some(acceptor) = handler.tls() else {
        return speak(stream, Peer { source, certificate: None }, handler).await;
    };
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.map(|leaf| leaf.to_vec());
            speak(stream, Peer { source, certificate }, handler).await;
        }
        Ok(Err(error)) => tracing::info!(%source, %error, "refused a connection"),
        Err(_) => tracing::info!(%source, "refused a connection that did not get through in time"),
    }
}

async fn speak<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    handler: Arc<H>,
) {
    let service = service_fn(move |request| {
        let (handler, peer) = (handler.clone(), peer.clone());
        async move { Ok::<_, Infallible>(reply(request, peer, handler).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn reply<H: Handler>(request: Request<Incoming>, peer: Peer, handler: Arc<H>) -> Answer {
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(PATIENCE, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broken off"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        source: peer.source,
        certificate: peer.certificate,
    };
    match tokio::time::timeout(ANSWER_LIMIT, handler.answer(asked)).await {
        Ok(answer) => answer,
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "it takes too long; try again"),
    }
}

pub(crate) fn text(status: StatusCode, message: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    answer
}

pub(crate) fn content(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}
