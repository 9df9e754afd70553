//! A few of the hash table's machines in one room, five milliseconds apart: what they promise their shells.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_overlay::dht::{
    Answer, ById, CallId, Care, Dht, Input, Intent, Kind, OpId, Record, Refusal, Request, Sender, Service,
    Settings, Standing, Ticket, Turn, Wish,
};
use muster_types::{Instant, Key, NodeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DELAY: Duration = Duration::from_millis(5);
const MINUTE: Duration = Duration::from_secs(60);
const OP: OpId = OpId(1);

enum Packet {
    Request(CallId, Request),
    Answer(CallId, Answer<NodeId>),
}

struct Room {
    settings: Settings,
    now: Instant,
    sent: u64,
    machines: BTreeMap<NodeId, Dht<NodeId>>,
    dead: BTreeSet<NodeId>,
    on_the_way: BTreeMap<(Instant, u64), (NodeId, NodeId, Service, Packet)>,
    told: Vec<(NodeId, Intent<NodeId>)>,
    rng: ChaCha8Rng,
}

impl Room {
    /// The first node is everybody's bootstrap node.
    fn of(offices: usize) -> (Self, Vec<NodeId>) {
        Self::with(Settings::default(), offices)
    }

    fn with(settings: Settings, offices: usize) -> (Self, Vec<NodeId>) {
        let mut room = Self {
            settings,
            now: Instant::ZERO,
            sent: 0,
            machines: BTreeMap::new(),
            dead: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            told: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(7),
        };
        let nodes: Vec<_> =
            (0..offices).map(|_| room.enter(Standing { reachable: true, office: true, lsn: None })).collect();
        room.run_for(10 * MINUTE);
        (room, nodes)
    }

    fn enter(&mut self, standing: Standing<NodeId>) -> NodeId {
        let node = NodeId(self.rng.random());
        let bootstrap = self.machines.keys().next().copied();
        self.machines.insert(node, Dht::new(node.into(), &self.settings));
        self.input(node, Input::Bootstrap(bootstrap.into_iter().collect()));
        self.input(node, Input::Standing(standing));
        self.run_for(Duration::from_secs(1));
        node
    }

    fn turn(&mut self, node: NodeId, act: impl FnOnce(&mut Dht<NodeId>, &mut Turn<'_, NodeId, ById>)) {
        let (now, mut intents) = (self.now, Vec::new());
        let machine = self.machines.get_mut(&node).unwrap();
        let mut turn =
            Turn { now, settings: &self.settings, names: &ById, rng: &mut self.rng, intents: &mut intents };
        act(machine, &mut turn);
        let service = machine.service();
        for intent in intents {
            match intent {
                Intent::Ask { to, call, request } => {
                    self.send(node, to, service, Packet::Request(call, request))
                }
                Intent::Reply { to, ticket, answer } => {
                    self.send(node, to, service, Packet::Answer(CallId(ticket.0 as u32), answer));
                }
                told => self.told.push((node, told)),
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, service: Service, packet: Packet) {
        self.sent += 1;
        self.on_the_way.insert((self.now + DELAY, self.sent), (from, to, service, packet));
    }

    fn input(&mut self, node: NodeId, input: Input<NodeId>) {
        self.turn(node, |machine, turn| machine.handle(input, turn));
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let timers = self.machines.iter().filter(|(node, _)| !self.dead.contains(node));
            let timer = timers.filter_map(|(&node, machine)| Some((machine.poll_timeout()?, node))).min();
            let arrival = self.on_the_way.keys().next().copied();
            let next = arrival.map(|(at, _)| at).into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            match arrival.filter(|&(at, _)| at <= self.now) {
                Some(place) => self.arrive(place),
                None => self.turn(timer.unwrap().1, |machine, turn| machine.handle_timeout(turn)),
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, place: (Instant, u64)) {
        let (from, to, service, packet) = self.on_the_way.remove(&place).unwrap();
        if self.dead.contains(&to) {
            return;
        }
        let from = Sender { contact: from, service };
        self.input(
            to,
            match packet {
                Packet::Request(call, request) => {
                    Input::Asked { from, ticket: Ticket(u64::from(call.0)), request }
                }
                Packet::Answer(call, answer) => Input::Answered { from, call, answer },
            },
        );
    }

    fn record(&mut self, publisher: NodeId, sequence: u64) -> Record {
        let expires = self.now + 60 * MINUTE;
        Record {
            key: Key([9; 20]),
            kind: Kind::Opaque,
            publisher,
            sequence,
            expires,
            bytes: Arc::from([1; 200]),
        }
    }

    fn put(&mut self, node: NodeId, record: Record) -> usize {
        self.input(node, Input::Put { op: OP, record, care: Care::Plain });
        self.run_for(Duration::from_secs(10));
        let kept =
            self.take(|intent| if let Intent::Put { kept, .. } = intent { Some(kept.count()) } else { None });
        kept[0]
    }

    fn get(&mut self, node: NodeId) -> Vec<Record> {
        let (key, kind) = (Key([9; 20]), Kind::Opaque);
        self.input(node, Input::Get { op: OP, key, kind, wish: Wish::First, care: Care::OnMiss });
        self.run_for(Duration::from_secs(10));
        let got =
            self.take(
                |intent| if let Intent::Got { records, .. } = intent { Some(records.clone()) } else { None },
            );
        got[0].clone()
    }

    fn take<T>(&mut self, wanted: impl Fn(&Intent<NodeId>) -> Option<T>) -> Vec<T> {
        std::mem::take(&mut self.told).iter().filter_map(|(_, intent)| wanted(intent)).collect()
    }

    fn holders(&self) -> usize {
        let alive = self.machines.iter().filter(|(node, _)| !self.dead.contains(node));
        alive.filter(|(_, machine)| machine.records().next().is_some()).count()
    }
}

#[test]
fn a_record_is_acknowledged_by_twenty_and_found_by_everybody() {
    let (mut room, nodes) = Room::of(40);
    let record = room.record(nodes[3], 1);
    assert_eq!(room.put(nodes[3], record.clone()), 20);
    assert_eq!(room.holders(), 20);
    for node in nodes {
        assert_eq!(room.get(node), vec![record.clone()]);
    }
}

#[test]
fn a_key_that_nobody_has_put_is_said_to_be_missing() {
    let (mut room, nodes) = Room::of(5);
    assert_eq!(room.get(nodes[0]), vec![]);
}

#[test]
fn a_lonely_node_keeps_its_own_record_and_knows_that_nobody_else_does() {
    let (mut room, nodes) = Room::of(1);
    let record = room.record(nodes[0], 1);
    assert_eq!(room.put(nodes[0], record.clone()), 1);
    assert_eq!(room.get(nodes[0]), vec![record]);
}

#[test]
fn an_older_record_is_refused_by_all_who_hold_a_newer_one() {
    let (mut room, nodes) = Room::of(10);
    let (newer, older) = (room.record(nodes[1], 5), room.record(nodes[1], 4));
    room.put(nodes[1], newer.clone());
    room.input(nodes[2], Input::Put { op: OP, record: older, care: Care::Plain });
    room.run_for(MINUTE);
    let kept =
        room.take(|intent| if let Intent::Put { kept, .. } = intent { Some(kept.clone()) } else { None });
    assert_eq!(kept[0].count(), 0);
    assert!(
        !kept[0].refused.is_empty() && kept[0].refused.iter().all(|&(_, refusal)| refusal == Refusal::Older)
    );
    assert_eq!(room.get(nodes[3]), vec![newer]);
}

#[test]
fn who_listens_is_told_at_once_what_was_there_and_what_changes() {
    let (mut room, nodes) = Room::of(30);
    let first = room.record(nodes[1], 1);
    room.put(nodes[1], first);
    room.input(nodes[2], Input::Listen { op: OpId(9), key: Key([9; 20]), kind: Kind::Opaque });
    room.run_for(MINUTE);
    let second = room.record(nodes[1], 2);
    room.input(nodes[1], Input::Put { op: OP, record: second, care: Care::Plain });
    room.run_for(Duration::from_secs(1));
    let heard = |intent: &Intent<NodeId>| match intent {
        Intent::Changed { op: OpId(9), record } => Some(record.sequence),
        _ => None,
    };
    assert_eq!(room.take(heard), [1, 2], "each once, though three holders tell");
    room.input(nodes[2], Input::Cancel { op: OpId(9) });
    let third = room.record(nodes[1], 3);
    room.input(nodes[1], Input::Put { op: OP, record: third, care: Care::Plain });
    room.run_for(MINUTE);
    assert_eq!(room.take(heard), Vec::<u64>::new());
}

#[test]
fn who_leaves_hands_over_what_it_held() {
    let (mut room, nodes) = Room::of(40);
    let record = room.record(nodes[0], 1);
    room.put(nodes[0], record);
    let holds = |room: &Room, node| room.machines[node].records().next().is_some();
    let leaving: Vec<_> = nodes.iter().filter(|node| holds(&room, node)).take(6).copied().collect();
    for node in leaving {
        room.input(node, Input::Leave);
        room.run_for(Duration::from_secs(2));
        room.dead.insert(node);
    }
    let parted = room.take(|intent| matches!(intent, Intent::Parted).then_some(()));
    assert_eq!(parted.len(), 6);
    assert!(room.holders() >= 20, "{} holders", room.holders());
}

#[test]
fn a_newcomer_that_is_closer_is_given_what_it_is_to_hold() {
    let (mut room, nodes) = Room::of(30);
    let record = room.record(nodes[0], 1);
    room.put(nodes[0], record.clone());
    let newcomer = NodeId([9; 20]);
    room.machines.insert(newcomer, Dht::new(newcomer.into(), &room.settings));
    room.input(newcomer, Input::Bootstrap(vec![nodes[0]]));
    room.input(newcomer, Input::Standing(Standing { reachable: true, office: true, lsn: None }));
    room.run_for(MINUTE);
    assert_eq!(room.machines[&newcomer].records().collect::<Vec<_>>(), [&record]);
}

#[test]
fn holders_that_die_are_replaced_by_a_sweep() {
    let (mut room, nodes) = Room::with(Settings { sweep: 10 * MINUTE, ..Settings::default() }, 40);
    let record = room.record(nodes[0], 1);
    room.put(nodes[0], record);
    let holds = |room: &Room, node| room.machines[node].records().next().is_some();
    let dying: Vec<_> = nodes.iter().filter(|node| holds(&room, node)).take(10).copied().collect();
    room.dead.extend(dying);
    room.run_for(45 * MINUTE);
    assert!(room.holders() >= 18, "{} holders", room.holders());
}

#[test]
fn a_client_asks_its_lsn_and_spends_nothing_when_it_wants_nothing() {
    let (mut room, nodes) = Room::of(70);
    let record = room.record(nodes[0], 1);
    room.put(nodes[0], record.clone());
    let client = room.enter(Standing { reachable: true, office: false, lsn: Some(nodes[5]) });
    assert_eq!(room.machines[&client].service(), Service::Client, "seventy LSNs are enough");
    assert_eq!(room.machines[&client].poll_timeout(), None);
    assert_eq!(room.get(client), vec![record.clone()]);
    room.dead.insert(nodes[5]);
    assert_eq!(room.get(client), vec![record], "without its LSN it asks whom it has met");
}

#[test]
fn while_there_are_few_lsns_everybody_reachable_serves() {
    let (mut room, nodes) = Room::of(5);
    let reachable = room.enter(Standing { reachable: true, office: false, lsn: Some(nodes[1]) });
    let hidden = room.enter(Standing { reachable: false, office: false, lsn: Some(nodes[1]) });
    assert_eq!(room.machines[&reachable].service(), Service::Volunteer);
    assert_eq!(room.machines[&hidden].service(), Service::Client);
    for _ in 0..130 {
        room.enter(Standing { reachable: true, office: true, lsn: None });
    }
    room.run_for(30 * MINUTE);
    assert_eq!(
        room.machines[&reachable].service(),
        Service::Client,
        "a hundred and thirty-five LSNs are enough"
    );
}

#[test]
fn who_fails_its_pings_is_reported_and_not_handed_on_until_it_is_back() {
    let (mut room, nodes) = Room::of(8);
    room.dead.insert(nodes[4]);
    room.run_for(30 * MINUTE);
    let reported =
        room.take(|intent| if let Intent::Unreachable(node) = intent { Some(*node) } else { None });
    assert!(reported.contains(&nodes[4]));
    let known =
        |room: &Room| room.machines[&nodes[0]].closest(nodes[4].into(), 20, &ById).contains(&nodes[4]);
    assert!(!known(&room));
    assert!(room.machines[&nodes[0]].reliability(nodes[4], room.now, &ById).unwrap().away);
    room.dead.remove(&nodes[4]);
    room.input(nodes[4], Input::WokeUp);
    room.run_for(MINUTE);
    assert!(known(&room));
}

#[test]
fn a_publisher_is_asked_to_renew_its_record_before_it_expires() {
    let (mut room, nodes) = Room::of(5);
    let record = room.record(nodes[0], 1);
    room.put(nodes[0], record);
    room.run_for(45 * MINUTE);
    let renewals = room.take(|intent| matches!(intent, Intent::Renew { .. }).then_some(()));
    assert_eq!(renewals.len(), 1);
    room.run_for(20 * MINUTE);
    assert_eq!(room.get(nodes[1]), vec![], "expired");
}
