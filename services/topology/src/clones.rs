//! A node that was online in one life has been seen in another: started again after a crash, or two devices with one
//! identity. Both lives are asked to sign a number drawn after the later one was seen, which only a running agent can. If
//! both do, both are held, and whoever watches hears of it; else the earlier one's stream has gone stale, and ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_kit::shutdown::Shutdown;
use muster_types::NodeId;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::domain::clone::{Hold, Suspicion};
use crate::hub::{Answered, Hub, Mail};

/// How long both have (design, section 6). A laptop whose old stream is stale is online meanwhile.
const WINDOW: Duration = Duration::from_secs(5);

/// Both are asked so often: devices that drive each other out of one LSN's door are there by turns.
const ROUND: Duration = Duration::from_millis(500);

/// Answers that wait to be read.
const ANSWERS: usize = 16;

/// Looks into it beside its caller. `session`: the later life's own stream, which is the only one if nothing is found.
pub(crate) fn look_into(hub: &Arc<Hub>, shutdown: &Shutdown, suspicion: Suspicion, session: Option<u64>) {
    let nonce = rand::random();
    let (answers, heard) = mpsc::channel(ANSWERS);
    let node = suspicion.node;
    if !hub.expect_answers(nonce, answers) {
        // So many nodes are asked now: a clone that lives on is suspected again.
        if let Some(session) = session {
            hub.retire_others(node, session);
        }
        return;
    }
    let (hub, ended) = (hub.clone(), shutdown.clone());
    shutdown.spawn(async move {
        let both = tokio::select! {
            // Whoever lives on attaches elsewhere, and is suspected there.
            () = ended.triggered() => return,
            both = timeout(WINDOW, both_live(&hub, nonce, &suspicion, heard)) => both.is_ok(),
        };
        hub.forget_probe(nonce);
        if both {
            hold(&hub, suspicion).await;
        } else if let Some(session) = session {
            hub.retire_others(node, session);
        }
    });
}

/// Returns once both lives have signed the number.
async fn both_live(hub: &Hub, nonce: u64, suspicion: &Suspicion, mut heard: mpsc::Receiver<Answered>) {
    let wanted = BTreeSet::from([suspicion.earlier.boot_nonce, suspicion.later.boot_nonce]);
    let mut proven = BTreeSet::new();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !wanted.is_subset(&proven) {
        tokio::select! {
            Some(Answered { life: Some(life), .. }) = heard.recv() => { proven.insert(life); }
            _ = rounds.tick() => ask(hub, nonce, suspicion),
        }
    }
}

fn ask(hub: &Hub, nonce: u64, suspicion: &Suspicion) {
    let targets: Vec<NodeId> = vec![suspicion.node];
    for carrier in &suspicion.carriers {
        hub.mail_every_life(*carrier, Mail::Probe { nonce, targets: targets.clone(), signed: true });
    }
}

async fn hold(hub: &Hub, suspicion: Suspicion) {
    let Suspicion { node, carriers, .. } = suspicion.clone();
    match hub.writer.submit(Hold { suspicion }).await {
        Ok(true) => tracing::warn!(%node, "one identity lives on two devices: both are held"),
        Ok(false) => {}
        // It is suspected again when one of them attaches the next time.
        Err(error) => return tracing::error!(%node, %error, "a clone is not held"),
    }
    for carrier in carriers.into_iter().filter(|carrier| *carrier != node) {
        hub.mail_every_life(carrier, Mail::Summon(node));
    }
    hub.mail_every_life(node, Mail::Hold);
}
