//! Letters from node to node, as people and programs on the two hosts see them.

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use muster_e2e::{Agent, Master};
use serde_json::Value;

/// What came for a host, with its content.
async fn inbox(agent: &Agent, wait: &str) -> Result<Vec<(Value, Vec<u8>)>> {
    let said = agent.says(&["inbox", "--wait", wait, "--output", "json"], "").await?.expect(0)?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    let letters = said["letters"].as_array().context("a list")?;
    let content = |letter: &Value| -> Result<Vec<u8>> {
        Ok(BASE64.decode(letter["content_base64"].as_str().context("text")?.as_bytes())?)
    };
    letters.iter().map(|letter| Ok((letter.clone(), content(letter)?))).collect()
}

#[tokio::test]
async fn a_letter_arrives_once_with_the_master_there_and_away_and_one_for_an_absent_host_waits() -> Result<()>
{
    let mut master = Master::up().await?;
    let (mut sender, mut recipient) = (Agent::of(&master).await?, Agent::of(&master).await?);
    let to = recipient.name()?;
    let large = "x".repeat(16 * 1024);
    let sent = sender.says(&["send", &to, "-", "--for", "30s"], &large).await?.expect(0)?;
    ensure!(sent.stdout.contains("has arrived"), "{sent}");
    let came = inbox(&recipient, "10s").await?;
    let [(letter, content)] = &came[..] else { anyhow::bail!("not one letter: {}", came.len()) };
    ensure!(format!("nodes/{}", letter["from"].as_str().unwrap_or_default()) == sender.name()?, "{letter}");
    ensure!(content == large.as_bytes(), "{} bytes", content.len());
    let taken = recipient.says(&["inbox", "--take"], "").await?.expect(0)?;
    ensure!(taken.stdout == large && inbox(&recipient, "0s").await?.is_empty(), "taken, and not forgotten");

    master.stop().await?;
    sender.says(&["send", &to, "-", "--for", "30s"], "without the master").await?.expect(0)?;
    ensure!(recipient.says(&["inbox", "--take"], "").await?.expect(0)?.stdout == "without the master");

    recipient.kill().await?;
    let kept = sender.says(&["send", &to, "-", "--for", "5m", "--detach"], "later").await?.expect(0)?;
    ensure!(kept.stdout.contains("is on its way"), "{kept}");
    // Neither end's death loses it, nor what is known of the others.
    sender.kill().await?;
    sender.start(&[])?;
    recipient.start(&[])?;
    let came = inbox_once_it_runs(&recipient).await?;
    ensure!(came.len() == 1 && came[0].1 == b"later", "{came:?}");
    Ok(())
}

/// The agent's socket is there once it runs.
async fn inbox_once_it_runs(agent: &Agent) -> Result<Vec<(Value, Vec<u8>)>> {
    agent.program()?.says("the agent runs").await?;
    inbox(agent, "60s").await
}

#[tokio::test]
async fn a_letter_to_nobody_says_why_it_did_not_arrive_and_nonsense_is_refused() -> Result<()> {
    let master = Master::up().await?;
    let sender = Agent::of(&master).await?;
    let nobody = "0".repeat(40);
    let failed = sender.says(&["send", &nobody, "-", "--for", "4s"], "hello").await?.expect(1)?;
    ensure!(failed.stderr.contains("has no keys") && failed.stdout.is_empty(), "{failed}");
    let large = sender.says(&["send", &nobody, "-"], &"x".repeat(16 * 1024 + 1)).await?.expect(1)?;
    ensure!(large.stderr.contains("at most 16384 bytes"), "{large}");
    let own = sender.says(&["send", &sender.name()?, "-"], "hello").await?.expect(1)?;
    ensure!(own.stderr.contains("that is this host"), "{own}");
    let none = sender.says(&["inbox", "--take"], "").await?.expect(1)?;
    ensure!(none.stderr.contains("there is no letter"), "{none}");
    Ok(())
}
