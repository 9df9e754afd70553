//! Tells when the interfaces that lead out change: at once when an address comes or goes, and within seconds when
//! only a route did.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use if_watch::tokio::IfWatcher;
use tokio::time::{sleep, timeout};

use super::default_route;
use crate::endpoint::Shared;
use crate::event::NetEvent;

/// The system tells of an address before its route exists; so it is looked at again, for a while.
const SETTLING: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

/// Routes change without a word; reading them takes a fraction of a millisecond.
const ROUTES_READ: Duration = Duration::from_secs(5);

/// Until the endpoint is dropped.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut watcher = IfWatcher::new()
        .inspect_err(|error| tracing::warn!(%error, "changes of addresses are noticed late"))
        .ok();
    let mut known = default_route();
    loop {
        let changed = async {
            match &mut watcher {
                Some(watcher) => poll_fn(|cx| watcher.poll_if_event(cx)).await.is_ok(),
                None => std::future::pending().await,
            }
        };
        // An error of the watcher or silence: look by oneself.
        let told = timeout(ROUTES_READ, changed).await == Ok(true);
        let looks = if told { &SETTLING[..] } else { &SETTLING[..1] };
        for pause in looks {
            sleep(*pause).await;
            let now = default_route();
            if now != known {
                known = now;
                tracing::info!(interfaces = known.len(), "the network changed");
                shared.network_changed();
                if shared.events.send(NetEvent::NetworkChanged).await.is_err() {
                    return;
                }
            }
        }
    }
}
