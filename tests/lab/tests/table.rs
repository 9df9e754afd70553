//! The hash table in the master's place: an LSN is found by it, and the keys of a node that was never met.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_lab::scenario::GATHERING_LIMIT;
use muster_lab::testing::in_lab;
use muster_lab::{Fleet, Host, Lab};
use serde_json::Value;

/// For what an agent learns and does by itself on a busy computer.
const PATIENCE: Duration = Duration::from_secs(40);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Drops what is not for one host alone: discovery.
const DEAF: &str = "table inet deaf {\nchain input {\ntype filter hook input priority filter\n\
    meta pkttype { multicast, broadcast } udp dport 27432 drop\n}\n\
    chain output {\ntype filter hook output priority filter\n\
    ip daddr { 224.0.0.0/4, 255.255.255.255 } drop\nip daddr 10.0.0.0/8 fib daddr type broadcast drop\n\
    ip daddr 192.168.0.0/16 fib daddr type broadcast drop\nip6 daddr ff02::/16 udp dport 27432 drop\n}\n}\n";

/// What an agent has learnt and keeps.
const LEARNED: &str = "/var/lib/muster-agent/learned.json";

#[test]
fn without_discovery_memory_and_master_a_node_finds_its_lsn_and_a_strangers_keys_in_the_hash_table() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(3).build().await?;
        let fleet = Fleet::start(lab).await?;
        fleet.until_whole(GATHERING_LIMIT).await?;
        let lsn = fleet.lsn_of(1)?;
        let others: Vec<_> = fleet.lab().hosts_in(1).map(Host::name).filter(|name| *name != lsn).collect();
        let [stranger, newcomer] = others[..] else { anyhow::bail!("not two children: {others:?}") };
        until(&fleet, newcomer, "knows nodes of the table", |_, learned| {
            learned["table_contacts"].as_array().is_some_and(|contacts| !contacts.is_empty())
                && learned["subnet_keys"].as_array().is_some_and(|keys| !keys.is_empty())
        })
        .await?;

        fleet.agent(newcomer)?.kill().await?;
        forget_lsns(&fleet, newcomer).await?;
        fleet.lab().host(newcomer)?.machine().nft(DEAF).await?;
        fleet.master().kill().await?;
        fleet.start_agent(newcomer).await?;
        until(&fleet, newcomer, "has its LSN", |status, _| status["state"] == "HasLsn").await?;

        let named = status(&fleet, stranger).await?["node"].as_str().context("a name")?.to_owned();
        let keys = fleet.agent_says(newcomer, &["dht", "keys", &named]).await?;
        ensure!(keys.contains("known from   table"), "{keys}");
        let unknown = format!("nodes/{}", "0".repeat(40));
        let refused = fleet.agent_says(newcomer, &["dht", "keys", &unknown]).await;
        ensure!(refused.is_err(), "keys of a node that there is not: {refused:?}");
        Ok(())
    });
}

/// The host's agent, which does not run, loses what it knows of LSNs.
async fn forget_lsns(fleet: &Fleet, host: &str) -> Result<()> {
    let mut learned = learned(fleet, host).await?;
    learned["claims"] = Value::Array(Vec::new());
    let script = format!("cat > {LEARNED} <<'END'\n{learned}\nEND\n");
    fleet.lab().host(host)?.machine().exec("sh", &["-c", &script]).await?;
    Ok(())
}

async fn learned(fleet: &Fleet, host: &str) -> Result<Value> {
    Ok(serde_json::from_str(&fleet.lab().host(host)?.machine().exec("cat", &[LEARNED]).await?)?)
}

async fn status(fleet: &Fleet, host: &str) -> Result<Value> {
    Ok(serde_json::from_str(&fleet.agent_says(host, &["status", "--output", "json"]).await?)?)
}

/// Waits until what the agent says and keeps is as wanted.
async fn until(fleet: &Fleet, host: &str, what: &str, wanted: impl Fn(&Value, &Value) -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let status = status(fleet, host).await.unwrap_or_default();
        let learned = learned(fleet, host).await.unwrap_or_default();
        if wanted(&status, &learned) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{host}, not {what}: {status} {learned}");
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
