//! Sending a connection away by name: before its TLS handshake, which is what a crowd costs most, and with the time at
//! which there will be room. A client that speaks no HTTP still sees at once that it was answered.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For the answer to go out, and for the client to close.
const LIMIT: Duration = Duration::from_secs(1);
/// A ClientHello. What has come and is not read would turn the close into a reset, and the answer might be lost with it.
const HELLO_BYTES: usize = 4 * 1024;

/// Answers 503 with the seconds to wait (RFC 9110, section 10.2.3), and closes.
pub(super) async fn send_away(mut stream: TcpStream, retry_after: Duration) -> io::Result<()> {
    let seconds = retry_after.as_millis().div_ceil(1_000);
    let body = "this master admits no more connections now\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut hello = [0; HELLO_BYTES];
        // Whatever it says, and however much of it, the answer is the same.
        let _ = stream.read(&mut hello).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        while stream.read(&mut hello).await? > 0 {}
        Ok(())
    };
    timeout(LIMIT, exchange).await?
}
