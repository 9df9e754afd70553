//! libp2p's Kademlia, over TCP (Noise, Yamux) or QUIC: each node is a swarm in a task of its own.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, GetRecordOk, Mode, QueryId, QueryResult, Quorum, Record, RecordKey};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::load::{Table, VALUE};

const PROTOCOL: &str = "/muster-peers/kad/1";

/// Commands that wait for a swarm.
const COMMANDS: usize = 16;

/// A swarm that does not listen by then will not.
const LISTENING: Duration = Duration::from_secs(10);

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

enum Command {
    Bootstrap,
    Put(RecordKey, Vec<u8>),
    Get(RecordKey),
    Find,
}

/// What an operation brought: a value, or how many nodes; `Err` says why it failed.
type Outcome = Result<(Vec<u8>, usize), String>;
type Asked = (Command, oneshot::Sender<Outcome>);

struct Node {
    commands: mpsc::Sender<Asked>,
    task: AbortHandle,
    address: Multiaddr,
    peer: PeerId,
    port: u16,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Libp2p<const QUIC: bool> {
    nodes: Vec<Node>,
}

impl<const QUIC: bool> Libp2p<QUIC> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    async fn ask(&self, node: usize, command: Command) -> Result<(Vec<u8>, usize)> {
        ask(&self.nodes[node].commands, command).await
    }

    async fn start(&self) -> Result<Node> {
        let mut swarm = swarm()?;
        let listen = if QUIC { "/ip4/127.0.0.1/udp/0/quic-v1" } else { "/ip4/127.0.0.1/tcp/0" };
        swarm.listen_on(listen.parse()?)?;
        let address = tokio::time::timeout(LISTENING, listening(&mut swarm)).await?;
        swarm.add_external_address(address.clone());
        let port = address.iter().find_map(|part| match part {
            Protocol::Udp(port) | Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        if let Some(first) = self.nodes.first() {
            swarm.behaviour_mut().kad.add_address(&first.peer, first.address.clone());
        }
        let (peer, (commands, inbox)) = (*swarm.local_peer_id(), mpsc::channel(COMMANDS));
        let task = tokio::spawn(run(swarm, inbox)).abort_handle();
        Ok(Node { commands, task, address, peer, port: port.context("a port")? })
    }
}

impl<const QUIC: bool> Table for Libp2p<QUIC> {
    type Key = RecordKey;

    const SETTINGS: &'static str = "crate libp2p 0.57.1, kad in server mode with identify, its defaults (k 20, alpha 3, \
        idle connections closed after 10 s); encrypted, peers authenticated, records unsigned; a put by the \
        majority of 20, a get ends with the first record";

    async fn join(&mut self) -> Result<()> {
        let node = self.start().await?;
        if !self.nodes.is_empty() {
            ask(&node.commands, Command::Bootstrap).await?;
        }
        self.nodes.push(node);
        Ok(())
    }

    fn count(&self) -> usize {
        self.nodes.len()
    }

    async fn put(&self, node: usize, value: [u8; VALUE]) -> Result<RecordKey> {
        let key = RecordKey::new(&rand::rng().random::<[u8; 20]>());
        self.ask(node, Command::Put(key.clone(), value.to_vec())).await?;
        Ok(key)
    }

    async fn get(&self, node: usize, key: &RecordKey) -> Result<Vec<u8>> {
        Ok(self.ask(node, Command::Get(key.clone())).await?.0)
    }

    async fn find(&self, node: usize) -> Result<usize> {
        Ok(self.ask(node, Command::Find).await?.1)
    }

    fn port(&self, node: usize) -> u16 {
        self.nodes[node].port
    }

    fn drop_node(&mut self, node: usize) {
        self.nodes.swap_remove(node);
    }
}

async fn ask(commands: &mpsc::Sender<Asked>, command: Command) -> Result<(Vec<u8>, usize)> {
    let (done, outcome) = oneshot::channel();
    commands.send((command, done)).await?;
    match outcome.await? {
        Ok(brought) => Ok(brought),
        Err(error) => bail!(error),
    }
}

fn swarm() -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_behaviour(|key| {
            let peer = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new(PROTOCOL));
            let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
            kad.set_mode(Some(Mode::Server));
            let identify = identify::Behaviour::new(identify::Config::new(PROTOCOL.to_owned(), key.public()));
            Behaviour { kad, identify }
        })?
        .build())
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

async fn run(mut swarm: Swarm<Behaviour>, mut commands: mpsc::Receiver<Asked>) {
    let mut waiting: HashMap<QueryId, oneshot::Sender<Outcome>> = HashMap::new();
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some((command, done)) = command else { return };
                match begin(&mut swarm.behaviour_mut().kad, command) {
                    Ok(query) => {
                        waiting.insert(query, done);
                    }
                    Err(error) => drop(done.send(Err(error))),
                }
            }
            event = swarm.select_next_some() => on_event(&mut swarm, event, &mut waiting),
        }
    }
}

fn begin(kad: &mut kad::Behaviour<MemoryStore>, command: Command) -> Result<QueryId, String> {
    match command {
        Command::Bootstrap => kad.bootstrap().map_err(|error| error.to_string()),
        Command::Put(key, value) => {
            kad.put_record(Record::new(key, value), Quorum::Majority).map_err(|error| error.to_string())
        }
        Command::Get(key) => Ok(kad.get_record(key)),
        Command::Find => Ok(kad.get_closest_peers(PeerId::random())),
    }
}

fn on_event(
    swarm: &mut Swarm<Behaviour>,
    event: SwarmEvent<BehaviourEvent>,
    waiting: &mut HashMap<QueryId, oneshot::Sender<Outcome>>,
) {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id, info, ..
        })) => {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
        }
        SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
            id,
            result,
            step,
            ..
        })) => {
            let outcome = outcome(result, step.last);
            if let Some(outcome) = outcome
                && let Some(done) = waiting.remove(&id)
            {
                if let Some(mut query) = swarm.behaviour_mut().kad.query_mut(&id) {
                    query.finish();
                }
                // Who asked may have given up.
                let _ = done.send(outcome);
            }
        }
        _ => {}
    }
}

/// `None`: more is to come.
fn outcome(result: QueryResult, last: bool) -> Option<Outcome> {
    match result {
        QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => Some(Ok((found.record.value, 0))),
        QueryResult::GetRecord(Ok(GetRecordOk::FinishedWithNoAdditionalRecord { .. })) => {
            last.then(|| Err("no record".to_owned()))
        }
        QueryResult::GetRecord(Err(error)) => Some(Err(error.to_string())),
        QueryResult::PutRecord(done) => {
            Some(done.map(|_| Default::default()).map_err(|error| error.to_string()))
        }
        QueryResult::GetClosestPeers(done) => {
            last.then(|| done.map(|ok| (Vec::new(), ok.peers.len())).map_err(|error| error.to_string()))
        }
        QueryResult::Bootstrap(done) => {
            last.then(|| done.map(|_| Default::default()).map_err(|error| error.to_string()))
        }
        _ => None,
    }
}
