//! A tunnel through an HTTP proxy (RFC 9110, section 9.3.6); what goes through it is the same TLS as without.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::proxies::Source;

/// Of a proxy whose URL names none: that of http (RFC 9110, section 4.2.1).
const DEFAULT_PORT: u16 = 80;
/// For a connection to the proxy, and for its own to the master: half of what all attempts have.
const LIMIT: Duration = Duration::from_secs(5);
/// Of the head of a proxy's answer; the least that hyper can do.
const ANSWER_BYTES: usize = 8 * 1024;
/// Header fields of it.
const ANSWER_FIELDS: usize = 64;
/// Of its own words, what is repeated to people.
const REASON_CHARS: usize = 80;

/// Why a proxy does not carry us.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProxyFault {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("no answer within {LIMIT:?}")]
    Silent,
    #[error("it answers \"{0}\": give user:password in its URL, as in http://USER:PASSWORD@HOST:PORT")]
    PasswordWanted(String),
    #[error("it answers \"{0}\": it does not accept the user and the password in its URL")]
    PasswordRefused(String),
    #[error("it answers \"{0}\": allow this address there, or name it in NO_PROXY")]
    Refused(String),
    #[error("it does not answer as an HTTP proxy: {0}")]
    NotAProxy(String),
    #[error("it is a {0} proxy, and only http ones are spoken")]
    Scheme(String),
    #[error(
        "it has no URL like http://USER:PASSWORD@HOST:PORT; write signs of the password as %40, %3A and so on"
    )]
    Unreadable,
}

impl ProxyFault {
    /// The proxy itself said no.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self, Self::PasswordWanted(_) | Self::PasswordRefused(_) | Self::Refused(_))
    }
}

/// A proxy that is to be used.
#[derive(Debug, Clone)]
pub struct Proxy {
    uri: Uri,
    /// Marked as sensitive: it prints nothing of itself.
    password: Option<HeaderValue>,
    source: Source,
}

impl Proxy {
    pub(super) fn new(uri: Uri, password: Option<HeaderValue>, source: Source) -> Self {
        Self { uri, password, source }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        match self.uri.host() {
            Some(host) => format!("{host}:{}", self.uri.port_u16().unwrap_or(DEFAULT_PORT)),
            None => "(unreadable)".to_owned(),
        }
    }

    /// Who names it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether it connects to `address` (`host:port`); nothing is said there.
    ///
    /// # Errors
    /// It does not, or is none.
    pub async fn carries(&self, address: &str) -> Result<(), ProxyFault> {
        self.tunnel(address).await.map(|_| ())
    }

    /// A connection to `address` (`host:port`), whose name the proxy resolves, and what came over it already.
    pub(super) async fn tunnel(&self, address: &str) -> Result<(TcpStream, Bytes), ProxyFault> {
        if self.uri.host().is_none() {
            return Err(ProxyFault::Unreadable);
        }
        if let Some(scheme) = self.uri.scheme_str().filter(|scheme| *scheme != "http") {
            return Err(ProxyFault::Scheme(scheme.to_owned()));
        }
        tokio::time::timeout(LIMIT, self.opened(address)).await.unwrap_or(Err(ProxyFault::Silent))
    }

    async fn opened(&self, address: &str) -> Result<(TcpStream, Bytes), ProxyFault> {
        let unreachable = |error: io::Error| ProxyFault::Unreachable(error.to_string());
        let stream = TcpStream::connect(self.address()).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut connecting = http1::Builder::new();
        // Old proxies know header fields by their usual letters alone.
        connecting.max_buf_size(ANSWER_BYTES).max_headers(ANSWER_FIELDS).title_case_headers(true);
        let (mut proxy, connection) =
            connecting.handshake(TokioIo::new(stream)).await.map_err(|error| strange(&error))?;
        let request = self.request(address)?;
        let asked = async {
            let answer = proxy.send_request(request).await.map_err(|error| strange(&error))?;
            if !answer.status().is_success() {
                return Err(self.refusal(&answer));
            }
            hyper::upgrade::on(answer).await.map_err(|error| strange(&error))
        };
        let upgraded = driven(connection.with_upgrades(), asked).await?;
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
            Err(_) => Err(ProxyFault::NotAProxy("another connection than ours".to_owned())),
        }
    }

    fn request(&self, address: &str) -> Result<Request<Empty<Bytes>>, ProxyFault> {
        let mut request = Request::connect(address).header(HOST, address);
        if let Some(password) = &self.password {
            request = request.header(PROXY_AUTHORIZATION, password);
        }
        request.body(Empty::new()).map_err(|error| ProxyFault::Refused(error.to_string()))
    }

    fn refusal(&self, answer: &Response<Incoming>) -> ProxyFault {
        let line = status_line(answer);
        match (answer.status(), &self.password) {
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, None) => ProxyFault::PasswordWanted(line),
            // tinyproxy says 401 to a wrong password, as if it were the master.
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED, Some(_)) => {
                ProxyFault::PasswordRefused(line)
            }
            _ => ProxyFault::Refused(line),
        }
    }
}

/// The end of `asked`, for which `connection` has to run.
async fn driven<C>(
    connection: C,
    asked: impl Future<Output = Result<Upgraded, ProxyFault>>,
) -> Result<Upgraded, ProxyFault>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::pin!(connection, asked);
    tokio::select! {
        biased;
        ended = &mut asked => ended,
        // If it failed, the request tells why.
        _ = &mut connection => asked.await,
    }
}

/// The status as the proxy words it, fit for a log.
fn status_line(answer: &Response<Incoming>) -> String {
    let own = answer.extensions().get::<ReasonPhrase>().map(|it| String::from_utf8_lossy(it.as_bytes()));
    let usual = answer.status().canonical_reason().unwrap_or_default();
    let reason = own.as_deref().unwrap_or(usual).chars().filter(|it| !it.is_control());
    let reason: String = reason.take(REASON_CHARS).collect();
    format!("{} {reason}", answer.status().as_str()).trim_end().to_owned()
}

/// The innermost words: what stands around them only repeats that it failed.
fn strange(error: &hyper::Error) -> ProxyFault {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ProxyFault::NotAProxy(cause.to_string())
}
