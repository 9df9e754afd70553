//! The inventory is this host's own: compared with what the system's tools say.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master};
use serde_json::Value;

/// What dpkg says is installed: name, version, architecture.
fn installed() -> Result<BTreeSet<(String, String, String)>> {
    let format = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n";
    let output = Command::new("dpkg-query").args(["--show", "--showformat", format]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let fields = text.lines().filter_map(|line| line.strip_prefix("installed\t"));
    let package = |line: &str| -> Option<(String, String, String)> {
        let mut fields = line.split('\t').map(str::to_owned);
        Some((fields.next()?, fields.next()?, fields.next()?))
    };
    Ok(fields.filter_map(package).collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_inventory_has_this_hosts_real_packages_hardware_and_system() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let answer = master.muster(&["inventory", "--all", "--output", "json"]).await?.expect(0)?;
    let document = answer.document("Inventory")?;
    ensure!(document["node"] == agent.name()?.as_str());
    let inventory = &document["inventory"];

    let packages = &inventory["packages"];
    ensure!(packages["source"] == "dpkg", "{}", packages["source"]);
    let list = packages["packages"].as_array().context("packages are a list")?.iter();
    let said: BTreeSet<_> =
        list.map(|it| (text(&it["name"]), text(&it["version"]), text(&it["architecture"]))).collect();
    let real = installed()?;
    ensure!(!real.is_empty() && said == real, "differing: {:?}", said.symmetric_difference(&real));

    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(inventory["host"]["kernel"] == kernel.trim(), "{}", inventory["host"]);
    let cores = std::fs::read_to_string("/proc/cpuinfo")?.matches("processor\t:").count();
    ensure!(inventory["hardware"]["cpuCores"] == cores, "{}", inventory["hardware"]);
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total = meminfo.split_whitespace().nth(1).context("MemTotal")?.parse::<u64>()? * 1024;
    ensure!(inventory["hardware"]["memoryBytes"] == total, "{}", inventory["hardware"]);
    Ok(())
}

#[tokio::test]
async fn only_the_sections_asked_for_are_gathered() -> Result<()> {
    let master = Master::up().await?;
    let _agent = Agent::of(&master).await?;
    let asked = ["inventory", "--all", "--output", "json", "--section", "host"];
    let document = master.muster(&asked).await?.expect(0)?.document("Inventory")?;
    let inventory = &document["inventory"];
    ensure!(inventory["host"].is_object(), "{inventory}");
    ensure!(inventory["packages"].is_null() && inventory["hardware"].is_null(), "{inventory}");
    Ok(())
}

#[tokio::test]
async fn a_cmdb_gets_glpis_format_with_credible_keys_only_and_may_forget_a_host_that_is_gone() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::of(&master).await?;
    let name = agent.name()?;
    let printed = master.muster(&["inventory", "--all", "--glpi"]).await?.expect(0)?.stdout;
    let document: Value = serde_json::from_str(&printed)?;
    ensure!(document["deviceid"] == name.trim_start_matches("nodes/"), "{}", document["deviceid"]);
    let content = &document["content"];
    let software = content["softwares"].as_array().context("softwares are a list")?;
    ensure!(software.len() == installed()?.len() && software.iter().all(|it| it["from"] == "dpkg"));
    let networks = content["networks"].as_array().context("networks are a list")?;
    let states = |it: &Value| matches!(it["status"].as_str(), Some("up" | "down"));
    ensure!(!networks.is_empty() && networks.iter().all(states), "{networks:?}");

    let whole = master.muster(&["inventory", "--all", "--output", "json"]).await?.expect(0)?;
    let keys = whole.document("Inventory")?["inventory"]["hardware"]["keys"].clone();
    let credible = |kind: &str| {
        let is = |key: &&Value| key["kind"] == kind && key["confidence"] != "none";
        keys.as_array().into_iter().flatten().find(is).map(|key| text(&key["value"]))
    };
    ensure!(credible("serial") == content["bios"]["ssn"].as_str().map(str::to_owned), "{keys}");
    ensure!(credible("uuid") == content["hardware"]["uuid"].as_str().map(str::to_owned), "{keys}");

    let early = master.muster(&["forget", &name]).await?;
    ensure!(early.code != 0 && early.stderr.contains("NODE_ONLINE"), "{early}");
    agent.stop().await?;
    agent.until_offline(&master).await?;
    master.muster(&["forget", &name]).await?.expect(0)?;
    let left = master.muster(&["nodes", "--output", "json"]).await?.expect(0)?.document("Nodes")?;
    ensure!(left["nodes"].as_array().is_some_and(Vec::is_empty), "{left}");
    Ok(())
}
