//! A way from one replica to its store or its bus that can be cut: then nothing gets through, not even an end, as when a
//! network drops packets.

use std::path::Path;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// PostgreSQL's socket in its folder.
pub(crate) const SOCKET: &str = ".s.PGSQL.5432";

/// What is on its way at once.
const BUFFER: usize = 16 * 1024;

pub(crate) struct Cable {
    whole: watch::Sender<bool>,
    work: JoinHandle<()>,
}

impl Cable {
    /// A folder to connect to in place of the server's.
    pub(crate) fn to_store(here: &Path, server: &Path) -> Result<Self> {
        let listener = UnixListener::bind(here.join(SOCKET))?;
        let (whole, state) = watch::channel(true);
        let server = server.join(SOCKET);
        let work = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (state, server) = (state.clone(), server.clone());
                tokio::spawn(async move { join(near, UnixStream::connect(server), state).await });
            }
        });
        Ok(Self { whole, work })
    }

    /// With the address to connect to in place of the server's.
    pub(crate) async fn to_bus(server: String) -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (whole, state) = watch::channel(true);
        let work = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (state, server) = (state.clone(), server.clone());
                tokio::spawn(async move { join(near, TcpStream::connect(server), state).await });
            }
        });
        Ok((Self { whole, work }, address))
    }

    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// What was on its way arrives.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.work.abort();
    }
}

async fn join<Near, Far>(
    near: Near,
    connect: impl Future<Output = std::io::Result<Far>>,
    mut whole: watch::Receiver<bool>,
) where
    Near: AsyncRead + AsyncWrite,
    Far: AsyncRead + AsyncWrite,
{
    if whole.wait_for(|whole| *whole).await.is_err() {
        return;
    }
    let Ok(far) = connect.await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    tokio::join!(carry(near_read, far_write, whole.clone()), carry(far_read, near_write, whole));
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut whole: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if whole.wait_for(|whole| *whole).await.is_err() || read == 0 {
            break;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // Whoever has gone already needs no end.
    let _ = to.shutdown().await;
}
