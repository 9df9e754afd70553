//! One LSN whose cell is full, driven by hand: what becomes of those who find no room.

use muster_overlay::message::{Discovery, Join, LsnQuery, Message, PartCode};
use muster_overlay::office::children::CHILDREN;
use muster_overlay::standing::Uptime;
use muster_overlay::timing::APART_PAUSE;
use muster_overlay::{Input, Intent};
use muster_types::NodeId;

use crate::driver::{Driver, LSN, STEADY, accepted, address, claim, contact, join, tenure, version};

const STRANGER: NodeId = NodeId([9; 20]);
const RIVAL: NodeId = NodeId([2; 20]);

fn child(number: usize) -> NodeId {
    let mut node = NodeId([200; 20]);
    node.0[..8].copy_from_slice(&number.to_be_bytes());
    node
}

fn full() -> Driver {
    let mut driver = Driver::lsn();
    (0..CHILDREN).for_each(|number| join(&mut driver, child(number), version(1)));
    driver.wanted.clear();
    driver
}

/// An LSN asks to be taken in with its children.
fn give_in(driver: &mut Driver, lsn: NodeId, children: u32) {
    let attach = tenure(driver).attach(lsn);
    let join = Join {
        contact: contact(lsn),
        subnet_keys: vec![],
        uptime: Uptime(100),
        standing: STEADY,
        attach,
        version: version(1),
        brings: Some(children),
    };
    driver.open(lsn);
    driver.receive(lsn, Message::Join(join));
}

fn hears(driver: &mut Driver, lsn: NodeId) {
    let from = address(lsn.0[0]).udp().expect("it has a UDP port");
    driver.input(Input::Heard { from, discovery: Discovery::Claim(claim(lsn, 99, 1)) });
}

#[test]
fn who_finds_no_room_is_named_the_lsn_of_another_cell_of_the_place() {
    let mut driver = full();
    give_in(&mut driver, RIVAL, 5);
    hears(&mut driver, RIVAL);
    join(&mut driver, STRANGER, version(1));
    let Some(Message::Refused(part)) = driver.sent(STRANGER).next() else { panic!("no refusal") };
    assert_eq!(part.code, PartCode::FULL);
    assert_eq!(part.better.as_ref().map(|claim| claim.claimant.node), Some(RIVAL));
}

#[test]
fn a_full_lsn_answers_its_own_children_and_leaves_strangers_to_others() {
    let answers = |node| {
        let mut driver = full();
        let query = LsnQuery { node, subnet_keys: vec![], uptime: Uptime(0), nonce: 1 };
        let from = address(8).udp().expect("it has a UDP port");
        driver.input(Input::Heard { from, discovery: Discovery::Query(query) });
        driver.wanted.iter().any(|intent| matches!(intent, Intent::Answer { .. }))
    };
    assert!(answers(child(3)));
    assert!(!answers(STRANGER));
}

#[test]
fn two_lsns_that_do_not_fit_into_one_cell_are_no_rivals_until_their_pause_is_over() {
    let dials = |driver: &Driver, lsn| {
        driver.wanted.iter().any(|intent| matches!(intent, Intent::Open(to) if to.node == lsn))
    };
    // This one has no room.
    let mut driver = full();
    give_in(&mut driver, RIVAL, 5);
    assert!(matches!(driver.sent(RIVAL).next(), Some(Message::Refused(_))));
    hears(&mut driver, RIVAL);
    assert!(!dials(&driver, RIVAL));
    // The other one has none, and is asked again.
    let mut driver = Driver::lsn();
    hears(&mut driver, LSN);
    driver.open(LSN);
    driver.knocked(LSN, true);
    assert!(driver.sent(LSN).any(|message| matches!(message, Message::Join(join) if join.brings == Some(0))));
    let part =
        muster_overlay::message::Part { code: PartCode::FULL, description: String::new(), better: None };
    driver.receive(LSN, Message::Refused(part));
    driver.input(Input::Closed { peer: LSN });
    driver.wanted.clear();
    hears(&mut driver, LSN);
    driver.pass(APART_PAUSE / 2);
    assert!(!dials(&driver, LSN));
    driver.pass(APART_PAUSE / 2);
    assert!(dials(&driver, LSN));
    driver.open(LSN);
    driver.knocked(LSN, true);
    driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 99, 1))));
    assert!(matches!(driver.node.station(), muster_overlay::intent::Station::HasLsn { lsn: LSN, .. }));
}
