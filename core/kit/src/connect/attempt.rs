//! Attempts to connect, one after another with a head start, until the first stands (RFC 8305, "happy eyeballs").

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::overheard::Overheard;

/// What an attempt has before the next begins (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
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
    Tls { address: SocketAddr, source: rustls::Error },
    #[error("{address} is a Muster master without this service")]
    NotHere { address: SocketAddr },
    #[error("{address} answers, but does not speak TLS as the master does: {source}")]
    NotTls { address: SocketAddr, source: io::Error },
    #[error("{address} admits no more connections now; it asks to be tried again in {retry_after:?}")]
    Busy { address: SocketAddr, retry_after: Duration },
    #[error("no answer from {addresses} within {limit:?}")]
    Slow { addresses: String, limit: Duration },
}

impl ConnectError {
    /// What somebody answered says more than silence does.
    fn weight(&self) -> u8 {
        match self {
            Self::Busy { .. } => 4,
            Self::Tls { .. } => 3,
            Self::NotTls { .. } => 2,
            Self::Unreachable { .. } => 1,
            _ => 0,
        }
    }
}

/// The first connection that stands, TLS included.
pub(super) async fn connect(
    addresses: Arc<[String]>,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    limit: Duration,
) -> Result<TlsStream<Overheard>, ConnectError> {
    let slow = || ConnectError::Slow { addresses: addresses.join(", "), limit };
    let race = async {
        let targets = resolve(&addresses).await?;
        race(targets, name, tls).await
    };
    tokio::time::timeout(limit, race).await.unwrap_or_else(|_| Err(slow()))
}

async fn race(
    targets: Vec<SocketAddr>,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<Overheard>, ConnectError> {
    let mut waiting = targets.into_iter();
    let mut running = FuturesUnordered::new();
    let mut worst = ConnectError::NoAddress;
    let mut exhausted = false;
    loop {
        if !exhausted {
            match waiting.next() {
                Some(target) => running.push(attempt(target, name.clone(), tls.clone())),
                None => exhausted = true,
            }
        }
        tokio::select! {
            finished = running.next() => match finished {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) if error.weight() >= worst.weight() => worst = error,
                Some(Err(_)) => {}
                None => return Err(worst),
            },
            () = tokio::time::sleep(HEAD_START), if !exhausted => {}
        }
    }
}

async fn attempt(
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<Overheard>, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { address, source };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let handshake = TlsConnector::from(tls).connect(name, Overheard::new(stream));
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

/// All addresses of all names, families by turns within one name.
async fn resolve(addresses: &[String]) -> Result<Vec<SocketAddr>, ConnectError> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut failed = ConnectError::NoAddress;
    for address in addresses {
        match lookup_host(address.as_str()).await {
            Ok(resolved) => {
                for one in by_turns(resolved.collect()) {
                    if !found.contains(&one) {
                        found.push(one);
                    }
                }
            }
            Err(source) => failed = ConnectError::Unresolved { address: address.clone(), source },
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
