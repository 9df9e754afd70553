//! The one thing that is ever fetched without TLS: the root that a master claims to have. A diagnosis; nothing of it is trusted.

use std::io;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxies::Proxies;
use crate::listen::ROOT_PATH;

const LIMIT: Duration = Duration::from_secs(5);
/// A root's certificate has some 500 bytes.
const ANSWER_BYTES: u64 = 16 * 1024;

/// The root's certificate that `address` (`host:port`) serves in the clear. Tells "another master" from "a proxy that
/// re-signs TLS" after a handshake has failed, and must serve for nothing else.
pub async fn presented_root(address: &str, proxies: &Proxies) -> io::Result<CertificateDer<'static>> {
    tokio::time::timeout(LIMIT, fetch(address, proxies)).await?
}

async fn fetch(address: &str, proxies: &Proxies) -> io::Result<CertificateDer<'static>> {
    let proxy = proxies.to(&[address.to_owned()]).into_iter().flatten().next();
    let mut stream = match &proxy {
        Some(proxy) => proxy.tunnel(address).await.map_err(io::Error::other)?.0,
        None => TcpStream::connect(address).await?,
    };
    let request = format!("GET {ROOT_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    match body {
        Some(body) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(CertificateDer::from(body.to_vec())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no root certificate is served there")),
    }
}
