//! As much HTTP/1.1 over TLS as polls need: one request and its answer a connection.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::NAME;

/// Heads and bodies beyond this are nobody's we know.
const LIMIT: usize = 64 * 1024;

/// An order is answered when its host has polled: in an hour and a little.
const ANSWER_LIMIT: Duration = Duration::from_secs(4_000);

pub(super) fn connector(keys: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(keys.join("poll.pem"))?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The old client made every connection anew.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) fn acceptor(keys: &Path) -> Result<TlsAcceptor> {
    let chain = vec![CertificateDer::from_pem_file(keys.join("poll.pem"))?];
    let key = PrivateKeyDer::from_pem_file(keys.join("poll.key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// One request and its answer over a connection of their own.
pub(super) async fn exchange(
    connector: &TlsConnector,
    server: SocketAddr,
    path: &str,
    body: &[u8],
) -> Result<Vec<u8>> {
    let stream = TcpStream::connect(server).await?;
    let mut stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: Client/1.0\r\nContent-Type: text/xml\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let (head, answer) = tokio::time::timeout(ANSWER_LIMIT, read(&mut stream)).await??;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    // The other end may have closed already.
    let _ = stream.shutdown().await;
    Ok(answer)
}

/// The first line, and the body.
pub(super) async fn read(stream: impl AsyncRead + Unpin) -> Result<(String, Vec<u8>)> {
    let mut stream = BufReader::new(stream).take(LIMIT as u64);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            bail!("it ended within a head");
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().context("a length")?,
            Some(_) => {}
            None => break,
        }
    }
    ensure!(length <= LIMIT, "a body of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((first.trim_end().to_owned(), body))
}

pub(super) async fn answer(mut stream: impl AsyncWrite + Unpin, body: &[u8]) -> Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: Poll/1.0\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    Ok(stream.shutdown().await?)
}
