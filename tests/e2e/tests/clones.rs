//! A copied disk, with the real programs: two agents run with one state directory's files.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Master};
use muster_proto::fleet::v1::{Node, NodeState};
use muster_proto::task::v1::TaskState;

/// Between two looks at what an agent keeps.
const LOOK: Duration = Duration::from_millis(50);

/// Longer than any wait here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Copies what an agent keeps, as a disk image does.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn is_held(node: &Node) -> bool {
    node.state() == NodeState::Held
}

/// Which of the devices goes by a name of its own.
async fn renewed(devices: &[&Agent; 2], name: &str) -> Result<usize> {
    let begun = Instant::now();
    loop {
        let own = |device: &&Agent| device.name().is_ok_and(|its| its != name);
        if let Some(at) = devices.iter().position(own) {
            return Ok(at);
        }
        ensure!(begun.elapsed() < PATIENCE, "nobody has an identity of its own");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn a_copied_disk_is_held_with_its_original_until_one_of_them_gets_an_identity_of_its_own() -> Result<()>
{
    let master = Master::up().await?;
    let mut original = Agent::of(&master).await?;
    let (name, fleet) = (original.name()?, master.fleet()?);
    // Stopped and started again, killed and started again, it is the same device.
    original.stop().await?;
    let mut image = Agent::new()?;
    copy(&original.state_dir(), &image.state_dir())?;
    original.start(&[])?;
    original.until_online(&master).await?;
    original.kill().await?;
    original.start(&[])?;
    original.program()?.says("attached to the master").await?;
    let task = fleet.create(&command(&[&name], &["true"], "alone")).await?;
    ensure!(fleet.until_ended(&task, &name).await?.state() == TaskState::Succeeded);

    image.start(&[])?;
    let held = fleet.until_node(&name, |node| is_held(node) && node.lives.len() == 2).await?;
    ensure!(held.offline_reason.starts_with("alive twice"), "{held:#?}");
    for device in [&original, &image] {
        device.program()?.says("both wait for an operator").await?;
    }
    let listed = master.muster(&["nodes", "--state", "held"]).await?.expect(0)?;
    ensure!(listed.stdout.contains("held"), "{}", listed.stdout);

    // The image came last.
    let held =
        fleet.until_node(&name, |node| node.lives.iter().filter(|life| !life.gone).count() == 2).await?;
    let life = held.lives.iter().filter(|life| !life.gone).map(|life| life.id.clone()).collect::<Vec<_>>();
    master.muster(&["clone", &name, "--renew", life.last().context("no life")?]).await?.expect(0)?;
    let devices = [&original, &image];
    let renewed = renewed(&devices, &name).await?;
    let other = devices[renewed].name()?;
    ensure!(devices[1 - renewed].name()? == name, "both have changed");
    fleet.until_node(&name, is_online).await?;
    fleet.until_node(&other, is_online).await?;
    let task = fleet.create(&command(&[&name, &other], &["true"], "both")).await?;
    for node in [&name, &other] {
        ensure!(fleet.until_ended(&task, node).await?.state() == TaskState::Succeeded, "{node}");
    }
    master.until_audited(&["hold-node", "resolve-clone"]).await.map(drop)
}
