//! The client and server of old, rebuilt from their description: every host asks its server by HTTPS once an hour whether
//! there is something to do; a task takes two connections more; who knows the host's address may wake it by a TCP port.

mod client;
mod http;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde::{Deserialize, Serialize};

pub(crate) use client::Client;
pub(crate) use server::Server;

/// The port on which hosts can be woken.
pub(crate) const WAKE_PORT: u16 = 32_227;

/// Where the server listens.
pub(crate) const PORT: u16 = 443;

/// The server's name in its certificate.
const NAME: &str = "poll.test";

/// Bodies of a poll and of its answer in bytes: with HTTP's own heads and the connection some 3,400 on the wire by plain
/// HTTP, as the description has it.
const POLL_BODY: usize = 1_200;
const ANSWER_BODY: usize = 1_000;

/// What became of an order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Whether the host's port could be reached.
    pub(crate) woken: bool,
    /// Until its result was there; none if it was to be woken and could not be.
    pub(crate) millis: Option<f64>,
}

/// What the server has counted.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) polls: u64,
    pub(crate) tasks: u64,
}

/// Asks the server as its operator: `/counts`, `/order/HOST` or `/order/HOST/wake`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Operator {
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    keys: PathBuf,
    paths: Vec<String>,
}

impl Operator {
    pub(crate) async fn run(self) -> Result<()> {
        let connector = http::connector(&self.keys)?;
        for path in &self.paths {
            let answer = http::exchange(&connector, self.server, path, b"").await?;
            println!("{}", std::str::from_utf8(&answer)?);
        }
        Ok(())
    }
}

/// Writes a server's key and certificate, P-256, into a directory.
pub(crate) fn found(keys: &Path) -> Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
    std::fs::write(keys.join("poll.pem"), cert.pem())?;
    std::fs::write(keys.join("poll.key"), signing_key.serialize_pem()).context("write the poll server's key")
}
