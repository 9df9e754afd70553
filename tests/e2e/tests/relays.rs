//! The services that let hosts meet which cannot reach each other, as an operator sees them.

use anyhow::{Context, Result, ensure};
use muster_e2e::Master;
use serde_json::Value;

/// Where auth leaves, below its data directory, the link by which a relay joins.
const JOIN: &str = "join/relay.link";

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
