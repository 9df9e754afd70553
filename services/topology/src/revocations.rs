//! Who is not admitted any more: followed at auth, enforced here at once, and passed on by every stream.
//!
//! auth -> [`follow`] -> [`crate::trust`] -> streams (each tells its node, and ends if that is revoked) and the picture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use muster_kit::backoff::Backoff;
use muster_kit::listen::PeerInfo;
use muster_kit::policy::Policy;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::Fault;
use muster_proto::payload_type::REVOCATION_LIST;
use muster_proto::trust::v1::Envelope;
use muster_wire::revocation::{Reason, Revocation, RevocationError};
use muster_wire::{Revocations, record};
use prost::Message;

use crate::domain::expulsion::Expel;
use crate::hub::Hub;
use crate::metrics;

/// What a lost device may call: the rest of the way its lock or erase comes.
const OPEN_TO_THE_LOST: [&str; 2] =
    ["/muster.control.v1.ControlService/Attach", "/muster.control.v1.ControlService/ListOwnTasks"];

/// A node that comes while topology starts waits so long for the list; then it comes again.
const FIRST_READ: Duration = Duration::from_secs(5);

/// A list that a node brings fits into one message of a session.
const LOST_LIST_BYTES: usize = 256 * 1024;

/// Why following broke off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Authority(#[from] crate::authority::AuthorityError),
    #[error(transparent)]
    Trust(#[from] crate::trust::TrustFailure),
    #[error(transparent)]
    List(#[from] RevocationError),
    #[error("the list is read from its beginning")]
    Doubted,
    #[error("the stream ended")]
    Ended,
}

/// Waits a little for the list to be read for the first time; before that nobody is admitted.
pub(crate) async fn are_known(hub: &Hub) -> bool {
    let mut revoked = hub.revoked.subscribe();
    let read = tokio::time::timeout(FIRST_READ, revoked.wait_for(|known| *known > 0)).await;
    matches!(read, Ok(Ok(_)))
}

/// Refuses callers whose certificates were revoked, on connections that still live too.
pub(crate) fn enforced(policy: Policy, hub: &Arc<Hub>) -> Policy {
    let hub = Arc::downgrade(hub);
    policy.welcoming(move |method, peer| {
        let Some(hub) = hub.upgrade() else { return false };
        let trust = hub.trust.current();
        match of_peer(trust.store.revocations(), peer) {
            None => true,
            Some(revoked) => revoked.reason == Reason::Lost && OPEN_TO_THE_LOST.contains(&method),
        }
    })
}

fn of_peer<'a>(revocations: &'a Revocations, peer: &PeerInfo) -> Option<&'a Revocation> {
    let node = peer.identity.as_ref().and_then(muster_types::Identity::node_id);
    match node {
        Some(node) => revocations.of_holder(node, &peer.serial, None),
        None => revocations.of_certificate(&peer.serial, None),
    }
}

/// Returns, with what to say, when this caller's certificate is revoked.
pub(crate) async fn cut(hub: &Hub, peer: Option<&PeerInfo>) -> Fault {
    let mut revoked = hub.revoked.subscribe();
    loop {
        let trust = hub.trust.current();
        if peer.is_some_and(|peer| of_peer(trust.store.revocations(), peer).is_some()) {
            return muster_kit::policy::revoked();
        }
        drop(trust);
        if revoked.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Follows auth's list until the shutdown.
pub(crate) async fn follow(hub: Arc<Hub>, shutdown: Shutdown) {
    let mut backoff = Backoff::new();
    loop {
        let broken = tokio::select! {
            () = shutdown.triggered() => return,
            broken = read(&hub, &mut backoff) => broken,
        };
        if let Err(error) = broken {
            tracing::warn!(%error, "revocations are not followed; trying again");
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(backoff.next_delay(&mut rand::rng())) => {}
        }
    }
}

async fn read(hub: &Hub, backoff: &mut Backoff) -> Result<(), Broken> {
    // The list is signed: whoever signs must be known first.
    hub.trust.refresh(&*hub.authority).await?;
    let known = hub.trust.current().store.revocations().number();
    let mut increments = hub.authority.revocations(known).await?;
    loop {
        let increment = tokio::select! {
            increment = increments.next() => increment.ok_or(Broken::Ended)?,
            () = hub.trust.doubted() => {
                hub.revoked.send_replace(0);
                return Err(Broken::Doubted);
            }
        };
        take(hub, &increment?).await?;
        if hub.trust.current().store.revocations().is_crowded() {
            hub.trust.doubt();
        }
        backoff.reset();
    }
}

/// A list that a node knows and a restored auth has lost: signed by ours, and each passed on once.
pub(crate) async fn adopt(hub: &Hub, list: Envelope) {
    let size = list.encoded_len();
    if size > LOST_LIST_BYTES || hub.trust.current().store.open(&list, REVOCATION_LIST).is_err() {
        return tracing::info!(size, "a list of revocations that a node brings is not believed");
    }
    let hash = record::content_key(&list.payload);
    if !hub.adopts_first(hash) {
        return;
    }
    if let Err(error) = hub.authority.adopt(list).await {
        tracing::warn!(%error, "auth does not take back in what it has lost; the next node tells it again");
        hub.forget_adopted(hash);
    }
}

async fn take(hub: &Hub, increment: &Envelope) -> Result<(), Broken> {
    let before = hub.trust.current().store.revocations().number();
    let known = hub.trust.revoke(increment)?;
    // One more than the number, so that an empty list is known too.
    hub.revoked.send_if_modified(|told| std::mem::replace(told, known + 1) != known + 1);
    if known == before {
        return Ok(());
    }
    let trust = hub.trust.current();
    let news = trust.store.revocations().iter().filter(|it| it.number > before);
    let ended = news.filter(|it| it.reason != Reason::Superseded);
    let nodes: BTreeMap<_, _> = ended.filter_map(|it| Some((it.node?, it.reason.to_string()))).collect();
    tracing::info!(number = known, nodes = nodes.len(), "the list of revocations is longer");
    metrics::revocations(trust.store.revocations().len());
    if let Err(error) = hub.writer.submit(Expel { nodes }).await {
        tracing::warn!(%error, "revoked nodes are shown as they were; their streams have ended all the same");
    }
    Ok(())
}
