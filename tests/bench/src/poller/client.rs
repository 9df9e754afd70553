//! The client of old on one host.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::{POLL_BODY, WAKE_PORT, http};

/// Polls until it is killed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Client {
    #[arg(long)]
    server: SocketAddr,
    /// Where the server's certificate lies
    #[arg(long)]
    keys: PathBuf,
    #[arg(long)]
    host: String,
    /// Seconds between polls
    #[arg(long, default_value_t = 3600.0)]
    every: f64,
    /// Seconds until the first
    #[arg(long, default_value_t = 0.0)]
    first: f64,
}

impl Client {
    pub(crate) async fn run(self) -> Result<()> {
        let connector = http::connector(&self.keys)?;
        let door = TcpListener::bind((Ipv4Addr::UNSPECIFIED, WAKE_PORT)).await?;
        let mut due = Instant::now() + Duration::from_secs_f64(self.first);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => due += Duration::from_secs_f64(self.every),
                knock = door.accept() => drop(knock?),
            }
            if let Err(error) = self.poll(&connector).await {
                eprintln!("{}: {error:#}", self.host);
            }
        }
    }

    /// Asks, and does what there is to do.
    async fn poll(&self, connector: &TlsConnector) -> Result<()> {
        let ask = async |path: &str, body: &[u8]| {
            let answer = http::exchange(connector, self.server, path, body).await?;
            anyhow::Ok(String::from_utf8(answer)?.trim_end().to_owned())
        };
        let answer = ask(&format!("/poll/{}", self.host), &[b' '; POLL_BODY]).await?;
        let Some(task) = answer.strip_prefix("task ") else { return Ok(()) };
        let line = ask(&format!("/task/{task}"), b"").await?;
        let program = line.strip_prefix("run ").unwrap_or("false");
        let status = Command::new(program).status().await?;
        ensure!(status.success(), "{program}: {status}");
        ask(&format!("/result/{task}"), &[b' '; POLL_BODY]).await?;
        Ok(())
    }
}
