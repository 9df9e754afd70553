//! Attempts to connect, one after another with a head start, until the first stands (RFC 8305, "happy eyeballs").

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::overheard::Overheard;
use super::proxies::{Proxies, Source};
use super::proxy::{Proxy, ProxyFault};

/// What an attempt has before the next begins (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// What a proxy has before the direct way is tried beside it: across an ocean and through two handshakes, with time to spare.
const DIRECT_AFTER: Duration = Duration::from_secs(1);
/// Addresses that are tried in all.
const ATTEMPTS: usize = 16;

/// Why the master was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no address of the master is known")]
    NoAddress,
    #[error("{0:?} is no name that TLS can verify")]
    BadName(String),
    #[error("cannot resolve {address}: {source}")]
    Unresolved { address: String, source: io::Error },
    #[error("cannot connect to {address}: {source}")]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error("{address} does not prove that it is the master: {source}")]
    Tls { address: String, source: rustls::Error },
    #[error("{address} is a Muster master without this service")]
    NotHere { address: String },
    #[error("{address} answers, but does not speak TLS as the master does: {source}")]
    NotTls { address: String, source: io::Error },
    #[error("{address} admits no more connections now; it asks to be tried again in {retry_after:?}")]
    Busy { address: String, retry_after: Duration },
    #[error("the proxy {proxy}, named by {named_by}, does not lead to {address}: {fault}")]
    Proxy { proxy: String, named_by: Source, address: String, fault: ProxyFault },
    #[error("no answer from {addresses} within {limit:?}")]
    Slow { addresses: String, limit: Duration },
}

impl ConnectError {
    /// What somebody answered says more than silence does.
    fn weight(&self) -> u8 {
        match self {
            Self::Busy { .. } => 6,
            Self::Proxy { fault, .. } if fault.is_an_answer() => 5,
            Self::Tls { .. } => 4,
            Self::NotTls { .. } => 3,
            Self::Proxy { .. } => 2,
            Self::Unreachable { .. } | Self::Slow { .. } => 1,
            _ => 0,
        }
    }

    /// The one that says more, this one if neither does.
    fn or(self, earlier: Self) -> Self {
        if self.weight() >= earlier.weight() { self } else { earlier }
    }
}

/// What all attempts have in common.
#[derive(Clone)]
pub(super) struct Aim<'a> {
    pub(super) name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) proxies: &'a Proxies,
    /// All attempts together, from now.
    pub(super) limit: Duration,
}

type Reached = Result<TlsStream<Overheard>, ConnectError>;

/// The first connection that stands, TLS included. Addresses behind a proxy are tried by it, and directly when that fails or
/// takes its time: a proxy of yesterday's network must not keep a host from its master.
pub(super) async fn connect(addresses: &[String], aim: Aim<'_>) -> Reached {
    let deadline = Instant::now() + aim.limit;
    let ways: Vec<Way> = addresses.iter().cloned().zip(aim.proxies.to(addresses)).collect();
    let behind: Vec<Way> =
        ways.iter().filter(|way| way.1.is_some()).map(|(address, _)| (address.clone(), None)).collect();
    let first = race(ways, aim.clone(), deadline);
    if behind.is_empty() {
        return first.await;
    }
    in_turn(first, DIRECT_AFTER, race(behind, aim, deadline)).await
}

/// `second` begins when `first` has failed, or has not come about for so long; whichever stands first counts, else the
/// error that says more.
pub(super) async fn in_turn<T>(
    first: impl Future<Output = Result<T, ConnectError>>,
    head_start: Duration,
    second: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::pin!(first, second);
    match tokio::time::timeout(head_start, &mut first).await {
        Ok(Ok(stands)) => Ok(stands),
        Ok(Err(error)) => second.await.map_err(|later| error.or(later)),
        Err(_) => match select(first, second).await {
            Either::Left((Ok(stands), _)) | Either::Right((Ok(stands), _)) => Ok(stands),
            Either::Left((Err(error), second)) => second.await.map_err(|later| error.or(later)),
            Either::Right((Err(later), first)) => first.await.map_err(|error| error.or(later)),
        },
    }
}

/// `host:port`, and the proxy on the way there.
type Way = (String, Option<Proxy>);

async fn race(ways: Vec<Way>, aim: Aim<'_>, deadline: Instant) -> Reached {
    let addresses: Vec<_> = ways.iter().map(|(address, _)| address.as_str()).collect();
    let slow = ConnectError::Slow { addresses: addresses.join(", "), limit: aim.limit };
    let Ok(targets) = timeout_at(deadline, resolve(ways)).await else { return Err(slow) };
    let mut waiting = targets?.into_iter();
    let mut running = FuturesUnordered::new();
    let mut worst = ConnectError::NoAddress;
    let mut exhausted = false;
    loop {
        if !exhausted {
            match waiting.next() {
                Some(target) => running.push(attempt(target, &aim)),
                None => exhausted = true,
            }
        }
        tokio::select! {
            finished = running.next() => match finished {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => worst = error.or(worst),
                None => return Err(worst),
            },
            () = tokio::time::sleep(HEAD_START), if !exhausted => {}
            () = tokio::time::sleep_until(deadline) => return Err(slow.or(worst)),
        }
    }
}

/// Where an attempt goes.
enum Target {
    Address(SocketAddr),
    /// A name or an address that the proxy takes care of.
    ByProxy(Proxy, String),
}

impl Target {
    /// As errors name it.
    fn name(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::ByProxy(proxy, address) => format!("{address} behind the proxy {}", proxy.address()),
        }
    }

    async fn connect(&self, proxies: &Proxies) -> Result<Overheard, ConnectError> {
        match self {
            Self::Address(address) => {
                let unreachable = |source| ConnectError::Unreachable { address: *address, source };
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                Ok(Overheard::new(stream, Bytes::new()))
            }
            Self::ByProxy(proxy, address) => {
                let opened = proxy.tunnel(address).await;
                proxies.note(proxy, opened.as_ref().err().cloned());
                let (stream, early) = opened.map_err(|fault| ConnectError::Proxy {
                    proxy: proxy.address(),
                    named_by: proxy.source().clone(),
                    address: address.clone(),
                    fault,
                })?;
                Ok(Overheard::new(stream, early))
            }
        }
    }
}

async fn attempt(target: Target, aim: &Aim<'_>) -> Reached {
    let stream = target.connect(aim.proxies).await?;
    let address = target.name();
    let handshake = TlsConnector::from(aim.tls.clone()).connect(aim.name.clone(), stream);
    handshake.into_fallible().await.map_err(|(source, stream)| {
        if let Some(retry_after) = stream.retry_after() {
            return ConnectError::Busy { address, retry_after };
        }
        match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
                ConnectError::NotHere { address }
            }
            Some(error) => ConnectError::Tls { address, source: error.clone() },
            None => ConnectError::NotTls { address, source },
        }
    })
}

/// All addresses of all names, families by turns within one name; names behind a proxy as they are.
async fn resolve(ways: Vec<Way>) -> Result<Vec<Target>, ConnectError> {
    let mut found: Vec<Target> = Vec::new();
    let mut known = HashSet::new();
    let mut failed = ConnectError::NoAddress;
    for (address, proxy) in ways {
        if let Some(proxy) = proxy {
            found.push(Target::ByProxy(proxy, address));
            continue;
        }
        let resolved = lookup_host(address.as_str()).await.map(Vec::from_iter);
        match resolved {
            Ok(resolved) => {
                let new = by_turns(resolved).into_iter().filter(|one| known.insert(*one));
                found.extend(new.map(Target::Address));
            }
            Err(source) => failed = ConnectError::Unresolved { address, source },
        }
    }
    found.truncate(ATTEMPTS);
    if found.is_empty() { Err(failed) } else { Ok(found) }
}

fn by_turns(resolved: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = resolved.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        resolved.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let longest = preferred.len().max(other.len());
    (0..longest).flat_map(|i| [preferred.get(i), other.get(i)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_tried_by_turns_beginning_with_the_resolvers_choice() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (six, seven) = (address("[2001:db8::6]:1"), address("[2001:db8::7]:1"));
        let four = address("192.0.2.4:1");
        assert_eq!(by_turns(vec![six, seven, four]), [six, four, seven]);
        assert_eq!(by_turns(vec![four, six, seven]), [four, six, seven]);
    }
}
