//! The lab's DNS server: Debian's dnsmasq on a host of its own, knowing the master's name and service.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::machine::Machine;
use crate::plan::{DNS, DOMAIN};

/// Muster's default port (design: 27431 on UDP and TCP).
pub const MASTER_PORT: u16 = 27_431;

/// The server answers within this, or it is not coming; a busy computer takes seconds to start a program.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How often a starting server is asked.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The service under which an agent looks for its master.
const SERVICE: &str = "_muster._tcp";

/// What agents write into /etc/resolv.conf.
pub fn resolver() -> String {
    format!("search {DOMAIN}\nnameserver {}\nnameserver {}\noptions timeout:1\n", DNS.v4(), DNS.v6())
}

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub struct NameServer(Child);

impl NameServer {
    /// Starts the server; it says that the master is at these addresses.
    pub async fn start(machine: &Machine, master_v4: Ipv4Addr, master_v6: Ipv6Addr) -> Result<Self> {
        let mut command = Command::new("dnsmasq");
        // "No daemon" leaves the user as it is: a user namespace of one user has nobody to change to.
        command.args(["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"]);
        command.arg(format!("--local=/{DOMAIN}/"));
        command.arg(format!("--host-record=master.{DOMAIN},{master_v4},{master_v6}"));
        command.arg(format!("--srv-host={SERVICE}.{DOMAIN},master.{DOMAIN},{MASTER_PORT}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = machine.spawn(command).await.context("dnsmasq is in Debian's dnsmasq-base")?;
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if machine.exec("getent", &["ahosts", &format!("master.{DOMAIN}")]).await.is_ok() {
                return Ok(Self(server));
            }
            if let Some(status) = server.try_wait()? {
                bail!("dnsmasq ended at once: {status}");
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        bail!("dnsmasq does not answer on {}", machine.name())
    }

    /// Ends the server.
    pub async fn stop(mut self) -> Result<()> {
        Ok(self.0.kill().await?)
    }
}
