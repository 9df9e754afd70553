//! One node, driven by hand: what it does in each state, and what takes it to the next.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod crowd;
mod driver;
mod proof;

use std::time::Duration;

use crate::driver::{Driver, LSN, OWN, accepted, address, claim, join, network, tenure, version};
use muster_overlay::claim::Tenure;
use muster_overlay::input::Network;
use muster_overlay::intent::{LossReason, Presence, Station};
use muster_overlay::message::{Beat, Discovery, LsnQuery, Message, Part, PartCode, Ping, Pong};
use muster_overlay::standing::Uptime;
use muster_overlay::timing::{
    BEAT_GRACE, BEAT_INTERVAL, BEATS_MISSED, LATE, LEASE, MASTER_PATIENCE, PING_INTERVAL, PROBE_PATIENCE,
    RECEIPT_ATTEMPT, RECEIPT_PATIENCE, RECEIPT_TURN, RIVAL_PAUSE, SLEPT, SUSPICION, WORD_HOLDS,
    WORD_HOLDS_MAX,
};
use muster_overlay::{Claim, Input, Intent};
use muster_types::NodeId;

#[test]
fn a_lone_host_becomes_its_own_lsn_after_asking_lan_memory_and_topology_in_this_order() {
    let mut driver = Driver::connected();
    driver.pass(MASTER_PATIENCE * 2);
    let asked: Vec<_> = driver
        .wanted
        .iter()
        .filter_map(|intent| match intent {
            Intent::Multicast(Discovery::Query(_)) => Some("lan"),
            Intent::Recall => Some("memory"),
            Intent::AskMaster => Some("topology"),
            Intent::AttachMaster(Some(_)) => Some("attach"),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["lan", "lan", "lan", "memory", "topology", "attach"]);
    assert!(matches!(driver.node.station(), Station::IsLsn { epoch: 1, .. }));
}

#[test]
fn who_hears_a_claim_asks_its_claimant_and_becomes_its_child() {
    let driver = Driver::deputy();
    assert_eq!(driver.node.station(), Station::HasLsn { lsn: LSN, lineage: 7, epoch: 1 });
}

#[test]
fn a_refusal_that_names_a_better_lsn_leads_there() {
    let mut driver = Driver::connected();
    driver.input(Input::Heard {
        from: address(1).udp().expect("it has a UDP port"),
        discovery: Discovery::Claim(claim(LSN, 7, 1)),
    });
    driver.open(LSN);
    let better = NodeId([2; 20]);
    let refusal =
        Part { code: PartCode::NOT_LSN, description: String::new(), better: Some(claim(better, 7, 2)) };
    driver.receive(LSN, Message::Refused(refusal));
    assert_eq!(driver.node.station(), Station::Joining { lsn: better });
}

#[test]
fn an_lsn_refuses_a_version_below_the_minimum_and_says_which_it_is() {
    let mut driver = Driver::lsn();
    let child = NodeId([9; 20]);
    join(&mut driver, child, version(0));
    let Some(Message::Refused(part)) = driver.sent(child).next() else { panic!("no refusal") };
    assert_eq!(part.code, PartCode::TOO_OLD);
    assert_eq!(part.description, "version 0.0.0 is below the minimum, 1.0.0");
    assert!(driver.node.children().is_empty());
}

#[test]
fn an_lsn_tells_topology_of_a_child_and_of_its_silent_death_within_its_lease() {
    let mut driver = Driver::lsn();
    driver.input(Input::MasterAttached { known_update: 0, resync: false });
    let child = NodeId([9; 20]);
    join(&mut driver, child, version(1));
    driver.pass(Duration::from_secs(10));
    let told: Vec<_> = driver
        .wanted
        .iter()
        .filter_map(|intent| match intent {
            Intent::Update(update) => Some(&update.changes),
            _ => None,
        })
        .flatten()
        .map(|change| (change.node, matches!(change.presence, Presence::Attached { .. })))
        .collect();
    assert_eq!(told, [(child, true), (child, false)]);
}

#[test]
fn a_child_that_others_do_not_reach_is_asked_and_kept_if_it_answers_or_else_struck_off_sooner() {
    let mut driver = Driver::lsn();
    let (alive, gone) = (NodeId([8; 20]), NodeId([9; 20]));
    for child in [alive, gone] {
        join(&mut driver, child, version(1));
        driver.input(Input::Suspected(child));
        assert!(driver.sent(child).any(|message| matches!(message, Message::Ping(_))));
    }
    driver.receive(
        alive,
        Message::Pong(Pong { sequence: 0, load_percent: 0, lsn: None, without_master: false }),
    );
    driver.pass(SUSPICION + Duration::from_secs(2));
    assert!(SUSPICION + Duration::from_secs(2) < LEASE);
    assert_eq!(driver.node.children(), [alive]);
    // A stranger is nobody's to ask.
    driver.wanted.clear();
    driver.input(Input::Suspected(LSN));
    assert!(driver.wanted.is_empty(), "{:?}", driver.wanted);
}

#[test]
fn a_child_that_is_revoked_is_struck_off_at_once_and_topology_hears_why() {
    let mut driver = Driver::lsn();
    driver.input(Input::MasterAttached { known_update: 0, resync: false });
    let child = NodeId([9; 20]);
    join(&mut driver, child, version(1));
    driver.pass(Duration::from_secs(1));
    driver.wanted.clear();
    driver.input(Input::Barred(child));
    assert!(driver.node.children().is_empty());
    driver.input(Input::UpdateAcknowledged { number: 1 });
    driver.pass(Duration::from_millis(250));
    let told = driver.wanted.iter().find_map(|intent| match intent {
        Intent::Update(update) => update.changes.first(),
        _ => None,
    });
    let Some(Presence::Departed(Some(part))) = told.map(|change| &change.presence) else {
        panic!("topology is not told: {:?}", driver.wanted)
    };
    assert_eq!((part.code, part.description.as_str()), (PartCode::REFUSED, "revoked"));
}

#[test]
fn only_the_lsn_answers_discovery_at_once_a_deputy_later_and_another_child_never() {
    let query = LsnQuery { node: NodeId([8; 20]), subnet_keys: vec![], uptime: Uptime(0), nonce: 1 };
    let heard = Input::Heard {
        from: address(8).udp().expect("it has a UDP port"),
        discovery: Discovery::Query(query),
    };
    let answers = |driver: &Driver| {
        driver.wanted.iter().filter(|intent| matches!(intent, Intent::Answer { .. })).count()
    };
    let mut lsn = Driver::lsn();
    lsn.input(heard.clone());
    assert_eq!(answers(&lsn), 1);

    let mut child = Driver::deputy();
    child.input(heard.clone());
    child.pass(Duration::from_millis(200));
    assert_eq!(answers(&child), 0, "without beats it is no deputy");
    child.beat(1);
    child.input(heard);
    assert_eq!(answers(&child), 0);
    child.pass(Duration::from_millis(150));
    assert_eq!(answers(&child), 1);
}

#[test]
fn three_beats_missed_and_two_probes_unanswered_make_the_deputy_claim_the_next_epoch() {
    let mut driver = Driver::deputy();
    driver.beat(5);
    assert!(matches!(driver.wanted.pop(), Some(Intent::SendBeat { beat: Beat { answer: true, .. }, .. })));
    driver.pass(BEAT_INTERVAL * BEATS_MISSED + BEAT_GRACE);
    assert!(driver.sent(LSN).any(|message| matches!(message, Message::Ping(_))), "a probe by the session");
    assert!(driver.wanted.iter().any(|intent| matches!(intent, Intent::Answer { .. })), "and one beside it");
    driver.pass(PROBE_PATIENCE);
    assert_eq!(driver.node.station(), Station::IsLsn { lineage: 7, epoch: 2 });
    let claimed = driver.wanted.iter().find_map(|intent| match intent {
        Intent::Multicast(Discovery::Claim(claim)) => Some(claim),
        _ => None,
    });
    assert_eq!(claimed.and_then(|claim| claim.predecessor), Some(LSN));
}

#[test]
fn a_probe_that_is_answered_leaves_the_lsn_in_office() {
    let mut driver = Driver::deputy();
    driver.beat(1);
    driver.pass(BEAT_INTERVAL * BEATS_MISSED + BEAT_GRACE);
    driver
        .receive(LSN, Message::Pong(Pong { sequence: 1, load_percent: 0, lsn: None, without_master: false }));
    driver.pass(PROBE_PATIENCE);
    assert!(matches!(driver.node.station(), Station::HasLsn { .. }));
}

#[test]
fn whose_own_timers_ran_late_accuses_nobody() {
    let mut driver = Driver::deputy();
    driver.beat(1);
    driver.now += BEAT_INTERVAL * BEATS_MISSED + BEAT_GRACE + LATE * 2;
    driver.node.handle_timeout(driver.now, &mut driver.rng);
    driver.pass(PROBE_PATIENCE * 2);
    assert!(matches!(driver.node.station(), Station::HasLsn { .. }));
}

#[test]
fn who_stalled_looks_for_its_lsn_anew_and_remembers_why() {
    let mut driver = Driver::deputy();
    driver.now += SLEPT + PING_INTERVAL + Duration::from_secs(1);
    driver.node.handle_timeout(driver.now, &mut driver.rng);
    assert_eq!(driver.node.station(), Station::LookingForLsn);
    driver.input(Input::Heard {
        from: address(1).udp().expect("it has a UDP port"),
        discovery: Discovery::Claim(claim(LSN, 7, 1)),
    });
    driver.open(LSN);
    driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 7, 1))));
    let reasons: Vec<_> = driver
        .wanted
        .iter()
        .filter_map(|intent| match intent {
            Intent::Disconnected(loss) => Some(loss.reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [LossReason::Stalled]);
}

#[test]
fn who_is_told_that_its_host_slept_says_so_and_not_that_it_stalled() {
    let mut driver = Driver::deputy();
    driver.now += Duration::from_secs(3 * 24 * 3_600);
    driver.input(Input::WokeUp);
    driver.input(Input::Heard {
        from: address(1).udp().expect("it has a UDP port"),
        discovery: Discovery::Claim(claim(LSN, 7, 1)),
    });
    driver.open(LSN);
    driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 7, 1))));
    let slept =
        |intent: &Intent| matches!(intent, Intent::Disconnected(loss) if loss.reason == LossReason::Slept);
    assert!(driver.wanted.iter().any(slept), "{:?}", driver.wanted);
}

#[test]
fn a_deputy_whose_session_breaks_opens_it_again_and_claims_only_when_it_cannot() {
    let mut driver = Driver::deputy();
    driver.beat(1);
    driver.input(Input::Closed { peer: LSN });
    assert!(driver.wanted.iter().any(|intent| matches!(intent, Intent::Open(to) if to.node == LSN)));
    assert_eq!(driver.node.station(), Station::HasLsn { lsn: LSN, lineage: 7, epoch: 1 });
    driver.input(Input::OpenFailed { peer: LSN });
    assert_eq!(driver.node.station(), Station::IsLsn { lineage: 7, epoch: 2 });
}

#[test]
fn a_child_whose_session_stands_again_joins_anew_and_was_never_without_an_lsn() {
    let mut driver = Driver::deputy();
    driver.input(Input::Closed { peer: LSN });
    driver.open(LSN);
    assert!(driver.sent(LSN).any(|message| matches!(message, Message::Join(_))));
    driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 7, 1))));
    driver.pass(Duration::from_secs(4));
    assert_eq!(driver.node.station(), Station::HasLsn { lsn: LSN, lineage: 7, epoch: 1 });
    assert!(!driver.wanted.iter().any(|intent| matches!(intent, Intent::Disconnected(_))));
}

#[test]
fn a_rival_that_is_not_reached_is_tried_again_without_a_reminder() {
    let mut driver = Driver::lsn();
    driver.input(Input::Rival(claim(LSN, 99, 4)));
    driver.input(Input::OpenFailed { peer: LSN });
    driver.wanted.clear();
    driver.pass(RIVAL_PAUSE);
    assert!(driver.wanted.iter().any(|intent| matches!(intent, Intent::Open(to) if to.node == LSN)));
}

#[test]
fn a_dead_rival_keeps_no_lsn_from_yielding_to_one_that_lives() {
    let mut driver = Driver::lsn();
    let (dead, living) = (NodeId([2; 20]), LSN);
    driver.input(Input::Rival(claim(dead, 98, 1)));
    driver.input(Input::Rival(claim(living, 99, 1)));
    driver.open(living);
    driver.knocked(living, true);
    driver.receive(living, Message::Accepted(accepted(claim(living, 99, 1))));
    assert!(matches!(driver.node.station(), Station::HasLsn { lsn, .. } if lsn == living));
}

#[test]
fn who_gets_another_address_opens_its_session_from_there() {
    let mut driver = Driver::deputy();
    driver.input(Input::Network(Network { addresses: vec![address(77)], ..network() }));
    let closed = driver.wanted.iter().position(|intent| *intent == Intent::Close(LSN));
    let opened = driver.wanted.iter().position(|intent| matches!(intent, Intent::Open(to) if to.node == LSN));
    assert!(closed.is_some() && closed < opened);
    assert!(matches!(driver.node.station(), Station::HasLsn { lsn: LSN, .. }));
}

#[test]
fn who_gets_one_more_address_keeps_its_sessions_and_tells_its_lsn() {
    let mut driver = Driver::deputy();
    driver.input(Input::Network(Network { addresses: vec![address(77), address(5)], ..network() }));
    assert!(!driver.wanted.contains(&Intent::Close(LSN)));
    assert!(driver.sent(LSN).any(|message| matches!(message, Message::Join(_))));
}

#[test]
fn a_revoked_rival_is_not_dialled_again() {
    let mut driver = Driver::lsn();
    driver.input(Input::Rival(claim(LSN, 99, 1)));
    driver.input(Input::Barred(LSN));
    driver.wanted.clear();
    driver.pass(100 * RIVAL_PAUSE);
    assert!(!driver.wanted.iter().any(|intent| matches!(intent, Intent::Open(to) if to.node == LSN)));
}

#[test]
fn a_child_that_topology_does_not_show_attaches_itself_and_lets_go_when_it_does() {
    let mut driver = Driver::deputy();
    driver.pass(RECEIPT_PATIENCE - Duration::from_millis(1));
    assert!(!driver.wanted.contains(&Intent::AttachMaster(None)));
    driver.pass(Duration::from_millis(1));
    assert!(driver.wanted.contains(&Intent::AttachMaster(None)));
    driver.input(Input::Receipt { lsn: LSN });
    assert_eq!(driver.wanted.last(), Some(&Intent::DetachMaster));
}

#[test]
fn a_child_that_cannot_reach_topology_either_lets_go_and_looks_again_later() {
    let mut driver = Driver::deputy();
    driver.pass(RECEIPT_PATIENCE);
    driver.wanted.clear();
    keep_alive(&mut driver, RECEIPT_ATTEMPT);
    assert!(driver.wanted.contains(&Intent::DetachMaster));
    driver.wanted.clear();
    keep_alive(&mut driver, 8 * RECEIPT_TURN);
    assert!(driver.wanted.contains(&Intent::AttachMaster(None)));
}

#[test]
fn nobody_is_hidden_by_an_lsn_that_has_no_master_itself() {
    let mut driver = Driver::deputy();
    pong(&mut driver, true);
    driver.wanted.clear();
    keep_alive(&mut driver, RECEIPT_PATIENCE);
    assert!(!driver.wanted.contains(&Intent::AttachMaster(None)));
    pong(&mut driver, false);
    keep_alive(&mut driver, RECEIPT_PATIENCE);
    assert!(driver.wanted.contains(&Intent::AttachMaster(None)), "it has one now, and still hides its child");
}

#[test]
fn a_child_that_is_said_to_be_gone_shows_itself_to_topology_until_its_lsn_shows_it_again() {
    let mut driver = Driver::deputy();
    driver.input(Input::Receipt { lsn: LSN });
    driver.wanted.clear();
    driver.input(Input::Missed);
    assert!(driver.wanted.contains(&Intent::AttachMaster(None)));
    assert!(driver.sent(LSN).any(|message| matches!(message, Message::Join(_))));
    driver.input(Input::Receipt { lsn: LSN });
    assert_eq!(driver.wanted.last(), Some(&Intent::DetachMaster));
}

#[test]
fn a_child_that_hears_nothing_of_topology_for_half_a_day_asks_itself_whatever_its_lsn_says() {
    let mut driver = Driver::deputy();
    driver.input(Input::Receipt { lsn: LSN });
    keep_alive(&mut driver, WORD_HOLDS - Duration::from_secs(1));
    driver.input(Input::Vouched);
    driver.wanted.clear();
    keep_alive(&mut driver, WORD_HOLDS - Duration::from_secs(1));
    let calls = |driver: &Driver| driver.wanted.contains(&Intent::AttachMaster(None));
    assert!(!calls(&driver), "topology has vouched for it since");
    keep_alive(&mut driver, WORD_HOLDS_MAX - WORD_HOLDS + 2 * RECEIPT_PATIENCE);
    assert!(driver.sent(LSN).any(|message| matches!(message, Message::Join(_))), "its LSN comes first");
    assert!(calls(&driver));
    driver.wanted.clear();
    driver.input(Input::Vouched);
    assert!(
        !driver.wanted.contains(&Intent::DetachMaster),
        "that word may have come by the child's own channel"
    );
    driver.input(Input::Receipt { lsn: LSN });
    assert_eq!(driver.wanted.last(), Some(&Intent::DetachMaster));
}

fn pong(driver: &mut Driver, without_master: bool) {
    driver.receive(LSN, Message::Pong(Pong { sequence: 1, load_percent: 0, lsn: None, without_master }));
}

/// The LSN beats for so long.
fn keep_alive(driver: &mut Driver, span: Duration) {
    for sequence in 0..span.div_duration_f64(BEAT_INTERVAL).ceil() as u64 {
        driver.input(Input::BeatReceived {
            from: LSN,
            beat: Beat { lineage: 7, epoch: 1, sequence, answer: false },
        });
        driver.pass(BEAT_INTERVAL);
    }
}

#[test]
fn an_lsn_that_leaves_hands_over_to_its_first_deputy_before_it_parts() {
    let mut driver = Driver::lsn();
    let child = NodeId([9; 20]);
    join(&mut driver, child, version(1));
    driver.input(Input::Leave { code: PartCode::LEAVING, description: String::new() });
    assert!(driver.sent(child).any(|m| matches!(m, Message::Claim(claim) if claim.successor == Some(child))));
    assert!(
        matches!(driver.node.station(), Station::IsLsn { .. }),
        "not before the successor has taken over"
    );
    let Tenure { lineage, epoch, .. } = tenure(&driver);
    driver.receive(child, Message::Claim(claim(child, lineage, epoch + 1)));
    assert_eq!(driver.node.station(), Station::Parted);
}

#[test]
fn the_named_successor_takes_over_at_once() {
    let mut driver = Driver::deputy();
    driver.receive(LSN, Message::Claim(Claim { successor: Some(OWN), ..claim(LSN, 7, 1) }));
    assert_eq!(driver.node.station(), Station::IsLsn { lineage: 7, epoch: 2 });
}

#[test]
fn an_lsn_that_loses_the_contest_hands_its_children_over_once_the_winner_has_taken_it_in() {
    let mut driver = Driver::lsn();
    let child = NodeId([9; 20]);
    join(&mut driver, child, version(1));
    let better = claim(LSN, 99, 4);
    driver.input(Input::Rival(better.clone()));
    assert!(
        driver.sent(child).all(|message| !matches!(message, Message::Part(_))),
        "not before it is reached"
    );
    driver.open(LSN);
    driver.knocked(LSN, true);
    driver.receive(LSN, Message::Accepted(accepted(better.clone())));
    assert!(matches!(driver.node.station(), Station::HasLsn { lsn: LSN, .. }));
    let part = driver.sent(child).find_map(|message| match message {
        Message::Part(part) => Some(part),
        _ => None,
    });
    assert_eq!(part.and_then(|part| part.better.as_ref()), Some(&better));
}

#[test]
fn a_better_lsn_that_cannot_be_reached_unseats_nobody() {
    let mut driver = Driver::lsn();
    driver.input(Input::Rival(claim(LSN, 99, 4)));
    driver.input(Input::OpenFailed { peer: LSN });
    driver.pass(Duration::from_secs(5));
    assert!(matches!(driver.node.station(), Station::IsLsn { .. }));
}

#[test]
fn a_ping_to_the_wrong_node_is_answered_with_its_lsn() {
    let mut driver = Driver::deputy();
    let stranger = NodeId([8; 20]);
    driver.open(stranger);
    driver.receive(stranger, Message::Ping(Ping { sequence: 3, load_percent: 0 }));
    let Some(Message::Pong(pong)) = driver.sent(stranger).next() else { panic!("no answer") };
    assert_eq!(pong.lsn.as_ref().map(Claim::tenure), Some(claim(LSN, 7, 1).tenure()));
}

#[test]
fn an_lsn_that_no_longer_knows_its_child_is_joined_again() {
    let mut driver = Driver::deputy();
    let lsn = Some(claim(LSN, 7, 1));
    driver.receive(LSN, Message::Pong(Pong { sequence: 1, load_percent: 0, lsn, without_master: false }));
    assert_eq!(driver.node.station(), Station::Joining { lsn: LSN });
}

#[test]
fn without_a_network_a_node_waits_and_with_one_it_looks_again() {
    let mut driver = Driver::deputy();
    driver.input(Input::Network(Network::default()));
    assert_eq!(driver.node.station(), Station::NoConnection);
    assert_eq!(driver.node.poll_timeout(), None);
    driver.input(Input::Network(network()));
    assert_eq!(driver.node.station(), Station::LookingForLsn);
}
