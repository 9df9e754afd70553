//! Proof before office: who is LSN where not everybody can be reached.

use std::time::Duration;

use crate::driver::{Driver, LSN, accepted, claim, join, version};
use muster_overlay::intent::Station;
use muster_overlay::message::{Knock, Message, PartCode, Ping};
use muster_overlay::standing::Uptime;
use muster_overlay::timing::{REACHED_LATELY, RIVAL_PAUSE, WITNESS_PATIENCE};
use muster_overlay::{Claim, Input, Intent};
use muster_types::NodeId;

const CHILD: NodeId = NodeId([9; 20]);
const OTHER: NodeId = NodeId([8; 20]);

impl Driver {
    /// It has met [`LSN`], whose claim is the better one or not, by a session that the other one dialled.
    fn met(mut self, uptime: u16) -> Self {
        self.input(Input::Rival(Claim {
            uptime: Uptime(uptime),
            settled: uptime > 5_000,
            ..claim(LSN, 99, 1)
        }));
        self.open(LSN);
        self
    }

    fn knocks(&self, peer: NodeId) -> usize {
        let at = |intent: &&Intent| matches!(intent, Intent::Knock(contact) if contact.node == peer);
        self.wanted.iter().filter(at).count()
    }

    fn said(&self, to: NodeId) -> Vec<Knock> {
        let word = |message: &Message| if let Message::Knock(word) = message { Some(*word) } else { None };
        self.sent(to).filter_map(word).collect()
    }

    fn asks_to_join(&self, lsn: NodeId) -> bool {
        self.sent(lsn).any(|message| matches!(message, Message::Join(_)))
    }

    /// An LSN with two deputies that has met a worse one.
    fn doubted() -> Self {
        let mut driver = Self::lsn();
        for child in [CHILD, OTHER] {
            join(&mut driver, child, version(1));
        }
        driver.pass(Duration::from_millis(200));
        let mut driver = driver.met(1);
        driver.wanted.clear();
        driver.receive(LSN, Message::Knock(Knock::Unanswered));
        driver
    }
}

#[test]
fn an_lsn_gives_in_to_a_better_one_only_after_an_uninvited_packet_has_reached_it() {
    let mut driver = Driver::lsn().met(6_000);
    assert!(driver.knocks(LSN) == 1 && !driver.asks_to_join(LSN));
    driver.knocked(LSN, true);
    assert!(driver.asks_to_join(LSN));
}

#[test]
fn a_better_lsn_that_is_not_reached_is_told_so_and_followed_if_others_reach_it() {
    let mut driver = Driver::lsn().met(6_000);
    driver.knocked(LSN, false);
    assert_eq!(driver.said(LSN), [Knock::Unanswered]);
    assert!(!driver.asks_to_join(LSN));
    driver.receive(LSN, Message::Knock(Knock::Answered));
    assert!(driver.asks_to_join(LSN));
}

#[test]
fn a_lone_lsn_that_is_not_reached_goes_under_a_worse_one_and_a_strangers_word_is_not_enough() {
    let mut driver = Driver::lsn();
    driver.open(LSN);
    driver.receive(LSN, Message::Knock(Knock::Unanswered));
    assert!(!driver.asks_to_join(LSN), "it has no quarrel with that one");
    let mut driver = driver.met(1);
    driver.receive(LSN, Message::Knock(Knock::Unanswered));
    assert!(driver.knocks(LSN) == 1 && !driver.asks_to_join(LSN), "it has to be reached itself");
    driver.knocked(LSN, true);
    assert!(driver.asks_to_join(LSN));
    driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 99, 1))));
    assert_eq!(driver.node.station(), Station::HasLsn { lsn: LSN, lineage: 99, epoch: 1 });
}

#[test]
fn a_doubted_lsn_asks_its_deputies_and_abdicates_when_none_of_them_reaches_it() {
    let mut driver = Driver::doubted();
    for child in [CHILD, OTHER] {
        assert_eq!(driver.said(child), [Knock::Please]);
        assert_eq!(driver.knocks(LSN), 0);
        driver.receive(child, Message::Knock(Knock::Unanswered));
    }
    driver.knocked(LSN, true);
    assert!(driver.asks_to_join(LSN));
    driver.receive(LSN, Message::Accepted(accepted(claim(LSN, 99, 1))));
    for child in [CHILD, OTHER] {
        let parted =
            |message: &Message| matches!(message, Message::Part(part) if part.code == PartCode::BETTER_LSN);
        assert!(driver.sent(child).any(parted), "its children follow");
    }
}

#[test]
fn one_deputy_that_reaches_its_lsn_keeps_it_in_office_and_speaks_for_it_for_a_minute() {
    let mut driver = Driver::doubted();
    driver.receive(CHILD, Message::Knock(Knock::Unanswered));
    driver.receive(OTHER, Message::Knock(Knock::Answered));
    assert_eq!(driver.said(LSN), [Knock::Answered]);
    driver.receive(LSN, Message::Knock(Knock::Unanswered));
    assert_eq!(driver.said(LSN).len(), 2);
    assert_eq!(driver.said(CHILD).len() + driver.said(OTHER).len(), 2, "nobody is asked again so soon");
    for _ in 0..=REACHED_LATELY.as_secs() {
        driver.receive(CHILD, Message::Ping(Ping { sequence: 1, load_percent: 0 }));
        driver.pass(Duration::from_secs(1));
    }
    driver.receive(LSN, Message::Knock(Knock::Unanswered));
    assert_eq!(driver.said(CHILD), [Knock::Please, Knock::Please]);
    assert_eq!(driver.knocks(LSN), 0);
}

#[test]
fn deputies_that_say_nothing_prove_nothing_and_one_that_got_nowhere_is_enough() {
    let mut driver = Driver::doubted();
    driver.pass(WITNESS_PATIENCE);
    assert_eq!(driver.knocks(LSN), 0);
    let mut driver = Driver::doubted();
    driver.receive(CHILD, Message::Knock(Knock::Unanswered));
    driver.pass(WITNESS_PATIENCE);
    assert_eq!(driver.knocks(LSN), 1);
}

#[test]
fn two_whom_nobody_reaches_stay_cells_of_one() {
    for uptime in [1, 6_000] {
        let mut driver = Driver::lsn().met(uptime);
        driver.receive(LSN, Message::Knock(Knock::Unanswered));
        driver.knocked(LSN, false);
        driver.pass(RIVAL_PAUSE - Duration::from_millis(1));
        assert!(!driver.asks_to_join(LSN));
    }
}

#[test]
fn a_child_that_its_lsn_asks_knocks_at_it_once_at_a_time_and_says_what_came_of_it() {
    let mut driver = Driver::deputy();
    for _ in 0..2 {
        driver.receive(LSN, Message::Knock(Knock::Please));
    }
    assert_eq!(driver.knocks(LSN), 1);
    driver.knocked(LSN, false);
    assert_eq!(driver.said(LSN), [Knock::Unanswered]);
    driver.receive(LSN, Message::Knock(Knock::Please));
    driver.knocked(LSN, true);
    assert_eq!(driver.said(LSN), [Knock::Unanswered, Knock::Answered]);
}

#[test]
fn deputies_are_knocked_at_and_who_is_out_of_reach_neither_takes_over_nor_comes_first() {
    let mut driver = Driver::lsn();
    // The lower id is the better of equals.
    for child in [OTHER, CHILD] {
        join(&mut driver, child, version(1));
    }
    driver.pass(Duration::from_millis(200));
    assert_eq!((driver.knocks(OTHER), driver.knocks(CHILD)), (1, 1));
    assert_eq!(driver.node.children(), [OTHER, CHILD]);
    driver.knocked(OTHER, false);
    driver.knocked(CHILD, true);
    assert_eq!(driver.node.children(), [CHILD, OTHER]);
    driver.receive(OTHER, Message::Ping(Ping { sequence: 1, load_percent: 0 }));
    assert_eq!(driver.node.children(), [CHILD, OTHER], "it lives, and cannot be reached for all that");
}
