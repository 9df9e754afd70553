//! What is made to happen while it is measured.

pub(crate) mod command;
pub(crate) mod dht;
pub(crate) mod healing;
pub(crate) mod idle;
pub(crate) mod load;
pub(crate) mod poller;
pub(crate) mod revocation;

use std::time::Duration;

use anyhow::Result;
use muster_lab::{Fleet, Lab};

/// A fleet that has not found together by then will not.
const GATHERING: Duration = Duration::from_secs(60);

/// After it has found together: deputies have their warm connections, nobody is about to take over.
const SETTLING: Duration = Duration::from_secs(5);

/// A lab of so many places and agents, whole and settled.
async fn settled(places: usize, agents: usize) -> Result<Fleet> {
    let fleet = Fleet::start(Lab::builder().places(places).agents(agents).build().await?).await?;
    settle(&fleet).await?;
    Ok(fleet)
}

async fn settle(fleet: &Fleet) -> Result<()> {
    fleet.until_whole(GATHERING).await?;
    tokio::time::sleep(SETTLING).await;
    Ok(())
}
