//! The little plain HTTP that the TLS port understands: `GET /root.der`, for a device that wants to say why TLS failed,
//! and pages that are signed and public.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Pages;

/// Where the root's certificate is served, in DER.
pub const ROOT_PATH: &str = "/root.der";

/// A request's head, which is all that is read of it.
const HEAD_BYTES: usize = 4096;

/// Answers one request and closes. Bytes that are no request get no answer.
pub(super) async fn answer(
    mut stream: TcpStream,
    root_der: Option<&Bytes>,
    pages: Option<&Pages>,
) -> io::Result<()> {
    let Some(target) = read_target(&mut stream).await? else {
        return Ok(());
    };
    let root = root_der.filter(|_| target == ROOT_PATH).map(|der| ("application/pkix-cert", der.clone()));
    let page = root.or_else(|| pages.and_then(|find| find(&target)));
    let (status, kind, body) = match page {
        Some((kind, body)) => ("200 OK", kind, body),
        None => {
            let text = Bytes::from_static(b"This port speaks gRPC over TLS.\n");
            ("421 Misdirected Request", "text/plain", text)
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// The path of a GET request.
async fn read_target(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    Ok((words.next() == Some("GET")).then(|| words.next().map(str::to_owned)).flatten())
}
