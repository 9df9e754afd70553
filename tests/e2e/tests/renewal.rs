//! A device that lay in a drawer, with the real programs: what it holds is as old as its files say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_e2e::calendar::days_ago;
use muster_e2e::fleet::command;
use muster_e2e::{Agent, Master};
use muster_kit::clock::wall;
use muster_proto::task::v1::TaskState;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates live 14 days; so those of back then ran out 60 days ago.
const BACK_THEN: u32 = 14 + 60;

#[tokio::test]
async fn sixty_days_after_its_certificates_end_a_device_is_back_under_its_name_without_a_link() -> Result<()>
{
    let back_then = days_ago(BACK_THEN)?;
    let back_then = back_then.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut master = Master::nowhere()?;
    master.spawn_words(&["up", "--no-agent"], &back_then)?;
    let line = master.program()?.says("muster-agent enroll '").await?;
    let link = line.split('\'').nth(1).context("the link is quoted")?;
    let mut agent = Agent::new()?;
    let enrolled = agent.says_on(&["enroll", "--no-service", link], &back_then)?.ended().await?;
    ensure!(enrolled.success(), "it was not enrolled: {enrolled}");
    agent.start(&back_then)?;
    agent.program()?.says("attached to the master").await?;
    agent.stop().await?;
    master.stop().await?;

    let (name, ended) = (agent.name()?, agent.certificate_ends()?);
    let ago = wall().since(ended);
    ensure!(ago > 59 * DAY && ago < 61 * DAY, "its certificate ended {} days ago", ago.as_secs() / 86_400);

    master.start(&[]).await?;
    agent.start(&[])?;
    agent.until_online(&master).await?;
    ensure!(agent.name()? == name, "it came back as somebody else");
    ensure!(agent.certificate_ends()?.since(wall()) > 13 * DAY, "it has no new certificate");
    let fleet = master.fleet()?;
    let task = fleet.create(&command(&[&name], &["true"], "")).await?;
    ensure!(fleet.until_ended(&task, &name).await?.state() == TaskState::Succeeded);
    Ok(())
}
