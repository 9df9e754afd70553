//! Finding the cell and the master where the usual way is blocked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use muster_lab::plan::MASTER_MOVED;
use muster_lab::scenario::GATHERING_LIMIT;
use muster_lab::testing::in_lab;
use muster_lab::{Fleet, Lab, UdpBlock};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Auth is told of LSNs every ten seconds, and this computer is busy.
const PATIENCE: Duration = Duration::from_secs(40);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Exits well if the kept credentials hold the claim of an LSN.
const HAS_CONTACTS: &str = r#"sed -n 's/.*"credentials": *"\([^"]*\)".*/\1/p' /var/lib/muster-agent/identity.json | tr -d '\n' |
    base64 -d | grep -q -a vnd.muster.claim"#;

#[test]
fn a_new_device_whose_discovery_fails_and_whose_master_is_away_joins_by_the_contacts_of_its_enrollment() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(2).build().await?;
        let fleet = Fleet::start(lab).await?;
        fleet.until_whole(GATHERING_LIMIT).await?;
        let lsn = fleet.lsn_of(1)?;
        let mut others = fleet.lab().hosts_in(1).map(muster_lab::Host::name).filter(|name| *name != lsn);
        let newcomer = others.next().context("a second host")?.to_owned();
        enroll_anew(&fleet, &newcomer).await?;

        fleet.lab().host(&newcomer)?.block_udp(UdpBlock::Both).await?;
        fleet.master().kill().await?;
        fleet.start_agent(&newcomer).await?;
        let began = Instant::now();
        loop {
            let status = status(&fleet, &newcomer).await.unwrap_or_default();
            if status["state"] == "HasLsn" {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{newcomer} says {status}");
            tokio::time::sleep(ASK_AGAIN).await;
        }
    });
}

/// The host's agent forgets everything and is enrolled again, with contacts.
async fn enroll_anew(fleet: &Fleet, host: &str) -> Result<()> {
    fleet.agent_says(host, &["uninstall"]).await?;
    fleet.agent(host)?.reap().await?;
    let began = Instant::now();
    loop {
        let link = fleet.muster(&["link", "create"]).await?;
        fleet.agent_says(host, &["enroll", "--no-service", link.trim()]).await?;
        let machine = fleet.lab().host(host)?.machine();
        if machine.exec("sh", &["-c", HAS_CONTACTS]).await.is_ok() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("auth tells of no LSN");
        }
        fleet.agent_says(host, &["uninstall"]).await?;
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn status(fleet: &Fleet, host: &str) -> Result<Value> {
    Ok(serde_json::from_str(&fleet.agent_says(host, &["status", "--output", "json"]).await?)?)
}

#[test]
fn an_operator_elsewhere_finds_a_master_that_has_moved_by_dns() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(1).build().await?;
        let fleet = Fleet::start(lab).await?;
        let link = fleet.muster(&["link", "create", "--role", "operator", "--name", "ada"]).await?;
        let binaries = muster_lab::program::Binaries::find()?;
        let muster = binaries.muster.display().to_string();
        let operator = async |words: &[&str]| {
            let words = [&["XDG_CONFIG_HOME=/run/ada", "HOME=/run/ada", &muster], words].concat();
            fleet.lab().host("p1a1")?.machine().exec("env", &words).await
        };
        operator(&["login", "--name", "far", link.trim()]).await?;
        operator(&["--context", "far", "nodes"]).await?;
        fleet.lab().move_master(MASTER_MOVED).await?;
        let nodes = operator(&["--context", "far", "nodes"]).await?;
        ensure!(nodes.contains("p1a1"), "{nodes}");
        fleet.master().end(Signal::SIGTERM).await?;
        Ok(())
    });
}
