//! Follows auth's feed of admitted nodes, so that the fleet knows who was enrolled and has not come yet; and tells auth
//! of the LSNs that the next ones may meet first.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::shutdown::Shutdown;
use tokio::time::Instant;

use crate::authority::{AuthorityError, Contact};
use crate::domain::admission::{Admissions, Admit};
use crate::hub::Hub;
use crate::store::StoreError;
use crate::writer::WriteError;

/// The feed's name among the cursors.
const FEED: &str = "auth.admissions";

/// A node that was enrolled is listed this soon.
const INTERVAL: Duration = Duration::from_secs(1);

/// Auth hears of new LSNs this soon; it is told again even of the same, as it may have been started anew.
const PUBLISHED_EVERY: Duration = Duration::from_secs(10);

/// LSNs that are told (contract of PublishContactsRequest).
const CONTACTS: usize = 1_000;

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Follows until the shutdown. An auth that does not answer is asked again; it is told once.
pub(crate) async fn follow(hub: Arc<Hub>, shutdown: Shutdown) {
    let mut lost = false;
    let mut publish = Instant::now();
    loop {
        let done = tokio::select! {
            () = shutdown.triggered() => return,
            done = exchange(&hub, &mut publish) => done,
        };
        match done {
            Ok(()) => lost = false,
            Err(error) if !lost => {
                lost = true;
                tracing::warn!(%error, "cannot learn whom auth admits; asking again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn exchange(hub: &Hub, publish: &mut Instant) -> Result<(), FollowError> {
    catch_up(hub).await?;
    if Instant::now() >= *publish {
        *publish = Instant::now() + PUBLISHED_EVERY;
        publish_contacts(hub).await?;
    }
    Ok(())
}

/// To the feed's end. A page that was committed without its cursor is read again, which changes nothing.
async fn catch_up(hub: &Hub) -> Result<(), FollowError> {
    let mut read = hub.store.cursor(FEED).await?;
    loop {
        let Admissions { nodes, last } = hub.authority.admissions(read).await?;
        if last <= read {
            return Ok(());
        }
        hub.writer.submit(Admit { nodes }).await?;
        hub.store.keep_cursor(FEED, last).await?;
        read = last;
    }
}

async fn publish_contacts(hub: &Hub) -> Result<(), FollowError> {
    let cells = hub.store.cells().await?.into_iter().map(|stored| stored.row);
    let contacts = cells
        .filter(|cell| cell.lsn.is_some() && !cell.claim.is_empty())
        .map(|cell| Contact { claim: cell.claim, observed: cell.observed })
        .take(CONTACTS);
    Ok(hub.authority.publish(contacts.collect()).await?)
}
