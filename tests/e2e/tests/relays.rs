//! The services that let hosts meet which cannot reach each other, as an operator sees them.

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master};
use serde_json::Value;

/// Where auth leaves, below its data directory, the link by which a relay joins.
const JOIN: &str = "join/relay.link";

/// Probes leave from here, and nobody writes there: loopback is 127.0.0.0/8, and everything else is at its first address.
const PROBER: &str = "127.0.0.9";

/// Where an agent says that it is reached.
const OFFERED: &str = "MUSTER_AGENT_SUPER_NODE__ADDRESSES";

async fn relays(master: &Master) -> Result<Vec<Value>> {
    let answer = master.muster(&["relays", "-o", "json"]).await?.expect(0)?;
    let answer: Value = serde_json::from_str(&answer.stdout)?;
    answer["relays"].as_array().cloned().context("a list")
}

/// Once so many are listed; they register as soon as they and the registry serve.
async fn until_listed(master: &Master, count: usize) -> Result<Vec<Value>> {
    let listed = async {
        loop {
            let listed = relays(master).await?;
            if listed.len() == count {
                return anyhow::Ok(listed);
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), listed).await.context("listed in time")?
}

#[tokio::test]
async fn up_runs_all_five_services_and_doctor_finds_each_of_them() -> Result<()> {
    let master = Master::up().await?;
    let listed = until_listed(&master, 1).await?;
    ensure!(listed[0]["addresses"][0]["udpPort"].as_u64().is_some_and(|port| port > 0), "{listed:?}");
    // It looks for the metrics where they are by default, and there may be another master's.
    let doctor = master.muster(&["doctor", "-o", "json"]).await?;
    for service in ["auth", "topology", "dht-bootstrap", "gsn-registry", "relay"] {
        ensure!(doctor.stdout.contains(&format!("serves {service}.muster")), "{service}: {doctor}");
    }
    ensure!(doctor.stdout.contains("1 relays of the master's"), "{doctor}");
    let candidates = master.muster(&["gsn", "list", "-o", "json"]).await?.expect(0)?;
    ensure!(serde_json::from_str::<Value>(&candidates.stdout)?["wanted"] == 3, "{candidates}");
    Ok(())
}

#[tokio::test]
async fn a_relay_in_a_process_of_its_own_joins_is_listed_under_its_name_and_says_when_it_ends() -> Result<()>
{
    let master = Master::up().await?;
    let own = until_listed(&master, 1).await?;
    let mut apart = Master::nowhere()?;
    std::fs::create_dir_all(apart.data_dir().join("join"))?;
    master.muster(&["invite", "relay", "--auth-address", &master.address()]).await?.expect(0)?;
    std::fs::copy(master.data_dir().join(JOIN), apart.data_dir().join(JOIN))?;
    apart.serve(&["--target", "relay", "--relay-name", "zz-second"], &master.address()).await?;
    let both = until_listed(&master, 2).await?;
    ensure!(both[0]["name"] == own[0]["name"] && both[1]["name"] == "zz-second", "{both:?}");
    apart.stop().await?;
    let left = relays(&master).await?;
    ensure!(left[1]["draining"] == true && left[0]["draining"] == false, "{left:?}");
    Ok(())
}

/// As the registry has it; empty while it has nothing.
async fn standing(master: &Master, node: &str) -> Result<String> {
    let answer = master.muster(&["gsn", "list", "-o", "json"]).await?.expect(0)?;
    let answer: Value = serde_json::from_str(&answer.stdout)?;
    let candidates = answer["candidates"].as_array().context("a list")?;
    let found = candidates.iter().find(|it| it["node"] == node);
    Ok(found.and_then(|it| it["state"].as_str()).unwrap_or_default().to_owned())
}

async fn until_standing(master: &Master, node: &str, wanted: &str) -> Result<()> {
    let stands = async {
        while standing(master, node).await? != wanted {}
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), stands).await.context(wanted.to_owned())?
}

#[tokio::test]
async fn a_host_that_anybody_reaches_serves_until_its_agent_ends_and_one_that_only_says_so_never_does()
-> Result<()> {
    let master = Master::up_with(&["--no-agent", "--probe-from", PROBER]).await?;
    let (mut reached, mut boaster) =
        (Agent::enrolled(&master, &[]).await?, Agent::enrolled(&master, &[]).await?);
    reached.start(&[(OFFERED, "[\"127.0.0.1\"]")])?;
    boaster.start(&[(OFFERED, "[\"192.0.2.1\"]")])?;
    until_standing(&master, &reached.name()?, "serving").await?;
    until_standing(&master, &boaster.name()?, "unproven").await?;
    reached.stop().await?;
    until_standing(&master, &reached.name()?, "gone").await?;
    ensure!(standing(&master, &boaster.name()?).await? == "unproven", "nobody answers at 192.0.2.1");
    Ok(())
}
