//! A NATS server of one's own for one test, on a free port of loopback, ended on drop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian's package puts it.
const PROGRAM: &str = "/usr/sbin/nats-server";
/// It listens within milliseconds.
const START_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Why there is no bus to test with.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("cannot start {PROGRAM}, of Debian's package nats-server: {0}")]
    NotStarted(#[from] io::Error),
    #[error("it did not listen on {0} within {START_LIMIT:?}")]
    NotUp(SocketAddr),
}

/// A running server.
pub struct Nats {
    address: SocketAddr,
    server: Option<Child>,
}

impl Nats {
    /// Starts a server and waits until it listens. Blocks for some milliseconds.
    pub fn start() -> Result<Self, NatsError> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut nats = Self { address, server: None };
        nats.resume()?;
        Ok(nats)
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Starts it again at the same address.
    pub fn resume(&mut self) -> Result<(), NatsError> {
        self.kill();
        let mut command = Command::new(PROGRAM);
        command.args(["--addr", "127.0.0.1", "--port", &self.address.port().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(command.spawn()?);
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if begin.elapsed() > START_LIMIT {
                return Err(NatsError::NotUp(self.address));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
