//! The lab's DNS server: Debian's dnsmasq on a host of its own, knowing the master's name and service.

use std::process::Stdio;

use anyhow::{Result, ensure};
use tokio::process::{Child, Command};

use crate::machine::Machine;
use crate::plan::{DNS, DOMAIN, MASTER};

/// Muster's default port (design: 27431 on UDP and TCP).
pub const MASTER_PORT: u16 = 27_431;

/// The service under which an agent looks for its master.
const SERVICE: &str = "_muster._tcp";

/// What agents write into /etc/resolv.conf.
pub fn resolver() -> String {
    format!("search {DOMAIN}\nnameserver {}\nnameserver {}\noptions timeout:1\n", DNS.v4(), DNS.v6())
}

/// Starts the server on its machine and waits until it answers.
pub async fn start(machine: &Machine) -> Result<Child> {
    let mut command = Command::new("dnsmasq");
    // "No daemon" leaves the user as it is: a user namespace of one user has nobody to change to.
    command.args(["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"]);
    command.arg(format!("--local=/{DOMAIN}/"));
    command.arg(format!("--host-record=master.{DOMAIN},{},{}", MASTER.v4(), MASTER.v6()));
    command.arg(format!("--srv-host={SERVICE}.{DOMAIN},master.{DOMAIN},{MASTER_PORT}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = machine.spawn(command).await?;
    let ended = tokio::time::timeout(std::time::Duration::from_millis(300), server.wait()).await;
    ensure!(ended.is_err(), "dnsmasq (Debian's dnsmasq-base) ended at once: {ended:?}");
    Ok(server)
}
