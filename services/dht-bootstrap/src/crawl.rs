//! Walks the table: asks every server whom it knows nearest to itself, until nobody new is named.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use muster_net::dht::{Dht, Kind};
use muster_overlay::dht::{Answer, Request};
use muster_types::{Key, NodeId};
use muster_wire::datagram::PeerAddress;
use tokio::task::JoinSet;

use crate::domain::health::{Health, Survey};

/// Servers that one crawl visits.
const VISITED: usize = 10_000;

/// Servers that are asked at once.
const AT_ONCE: usize = 16;

/// Beyond this a crawl tells what it has seen.
const LIMIT: Duration = Duration::from_secs(50);

/// What a crawl found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) health: Health,
    pub(crate) root_holders: usize,
    pub(crate) lasted: Duration,
    pub(crate) truncated: bool,
}

/// Begins with whom this service knows.
pub(crate) async fn crawl(dht: &Dht, begin: Vec<PeerAddress>, root: Key) -> Found {
    let started = Instant::now();
    let mut seen: BTreeMap<NodeId, PeerAddress> = begin.iter().map(|at| (at.node, *at)).collect();
    let mut waiting: VecDeque<PeerAddress> = begin.into();
    let (mut survey, mut root_holders, mut underway) = (Survey::default(), BTreeSet::new(), JoinSet::new());
    let mut truncated = false;
    loop {
        while underway.len() < AT_ONCE
            && let Some(next) = waiting.pop_front()
        {
            underway.spawn(visit(dht.clone(), next, root));
        }
        let Some(visited) = underway.join_next().await else { break };
        let Ok((node, answer)) = visited else { continue };
        let Some(Visited { named, holds_root }) = answer else {
            survey.dead.insert(node);
            continue;
        };
        if holds_root {
            root_holders.insert(node);
        }
        for address in &named {
            truncated |= seen.len() >= VISITED || started.elapsed() >= LIMIT;
            if !truncated && seen.insert(address.node, *address).is_none() {
                waiting.push_back(*address);
            }
        }
        survey.named.insert(node, named.iter().map(|address| address.node).collect());
    }
    let (health, root_holders) = (survey.health(), root_holders.len());
    Found { health, root_holders, lasted: started.elapsed(), truncated }
}

struct Visited {
    named: Vec<PeerAddress>,
    holds_root: bool,
}

async fn visit(dht: Dht, at: PeerAddress, root: Key) -> (NodeId, Option<Visited>) {
    let target = at.node.into();
    let Some(Answer::Nodes { closest }) = dht.ask_one(at, Request::FindNode { target }).await else {
        return (at.node, None);
    };
    let named = dht.locate(closest).await.into_iter().filter(|other| other.node != at.node).collect();
    let wanted = Request::FindValue { key: root, kind: Kind::Root };
    let holds_root = matches!(
        dht.ask_one(at, wanted).await,
        Some(Answer::Value { records, .. }) if !records.is_empty()
    );
    (at.node, Some(Visited { named, holds_root }))
}
