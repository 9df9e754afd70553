use super::*;

const ANNA: NodeId = NodeId([1; 20]);
const BERT: NodeId = NodeId([2; 20]);
const CARL: NodeId = NodeId([3; 20]);

fn relay() -> Relay {
    Relay::new(Limits { seats: 3, channels: 2, bytes_per_second: 1_000_000 })
}

fn at(seconds: u64) -> Instant {
    Instant::from_elapsed(Duration::from_secs(seconds))
}

fn grant() -> Grant {
    Grant { bytes_per_second: 100_000, until: at(600) }
}

fn sit(relay: &mut Relay, node: NodeId) -> Seat {
    relay.join(node).unwrap().0
}

#[test]
fn one_ticket_lets_two_nodes_send_to_each_other_and_a_third_to_neither() {
    let mut relay = relay();
    let (anna, bert, carl) = (sit(&mut relay, ANNA), sit(&mut relay, BERT), sit(&mut relay, CARL));
    let (channel, meeting) = relay.open(anna, BERT, grant(), at(1)).unwrap();
    let met = meeting.unwrap();
    assert_eq!((met.peer, met.end.seat), (ANNA, bert));
    assert_eq!(relay.carry(anna, channel, 100, at(1)), Ok(met.end));
    let back = relay.carry(bert, met.end.channel, 100, at(1));
    assert_eq!(back, Ok(End { seat: anna, channel }));
    assert_eq!(relay.carry(carl, channel, 100, at(1)), Err(Loss::NoChannel));
}

#[test]
fn a_peer_that_comes_later_is_introduced_and_one_that_leaves_is_reported() {
    let mut relay = relay();
    let anna = sit(&mut relay, ANNA);
    let (channel, meeting) = relay.open(anna, BERT, grant(), at(1)).unwrap();
    assert_eq!(meeting, None);
    assert_eq!(relay.carry(anna, channel, 1, at(1)), Err(Loss::Away));
    let (bert, meetings) = relay.join(BERT).unwrap();
    assert_eq!(meetings.len(), 2);
    assert!(relay.carry(anna, channel, 1, at(1)).is_ok());
    assert_eq!(relay.leave(bert), [End { seat: anna, channel }]);
    assert_eq!(relay.carry(anna, channel, 1, at(1)), Err(Loss::Away));
}

#[test]
fn a_seat_that_was_left_leads_nowhere_even_after_somebody_else_has_it() {
    let mut relay = relay();
    let (anna, bert) = (sit(&mut relay, ANNA), sit(&mut relay, BERT));
    let (channel, _) = relay.open(anna, BERT, grant(), at(1)).unwrap();
    relay.leave(anna);
    let carl = sit(&mut relay, CARL);
    assert_ne!(anna, carl);
    assert_eq!(relay.carry(anna, channel, 1, at(1)), Err(Loss::NoChannel));
    assert_eq!(relay.carry(carl, channel, 1, at(1)), Err(Loss::NoChannel));
    assert_eq!(relay.seat_of(BERT), Some(bert));
}

#[test]
fn a_pair_ends_with_its_ticket_unless_another_one_renews_it() {
    let mut relay = relay();
    let (anna, bert) = (sit(&mut relay, ANNA), sit(&mut relay, BERT));
    let (channel, _) = relay.open(anna, BERT, grant(), at(1)).unwrap();
    let longer = Grant { until: at(900), ..grant() };
    relay.open(bert, ANNA, longer, at(500)).unwrap();
    assert!(relay.sweep(at(700)).is_empty());
    assert!(relay.carry(anna, channel, 1, at(700)).is_ok());
    assert_eq!(relay.carry(anna, channel, 1, at(900)), Err(Loss::NoChannel));
    assert_eq!(relay.sweep(at(900)).len(), 2);
    assert_eq!(relay.pairs(), 0);
    assert_eq!(relay.open(anna, BERT, grant(), at(900)), Err(Refusal::Expired));
}

#[test]
fn every_bound_is_kept_and_says_so() {
    let mut relay = relay();
    let anna = sit(&mut relay, ANNA);
    sit(&mut relay, BERT);
    sit(&mut relay, CARL);
    assert_eq!(relay.join(NodeId([4; 20])), Err(Refusal::Full(3)));
    assert_eq!(relay.open(anna, ANNA, grant(), at(1)), Err(Refusal::Oneself));
    relay.open(anna, BERT, grant(), at(1)).unwrap();
    relay.open(anna, CARL, grant(), at(1)).unwrap();
    let refused = relay.open(anna, NodeId([4; 20]), grant(), at(1));
    assert_eq!(refused, Err(Refusal::TooManyPeers { node: ANNA, limit: 2 }));
    relay.open(anna, BERT, grant(), at(2)).unwrap();
}

#[test]
fn a_pair_gets_its_rate_and_all_pairs_together_the_relays() {
    let mut relay = Relay::new(Limits { seats: 3, channels: 2, bytes_per_second: 150_000 });
    let anna = sit(&mut relay, ANNA);
    sit(&mut relay, BERT);
    sit(&mut relay, CARL);
    let channels = [BERT, CARL].map(|peer| relay.open(anna, peer, grant(), at(0)).unwrap().0);
    let mut lost = BTreeMap::<Loss, u64>::new();
    let mut passed = 0;
    for millis in 0..1_000 {
        let now = Instant::from_elapsed(Duration::from_millis(millis));
        for channel in channels {
            match relay.carry(anna, channel, 500, now) {
                Ok(_) => passed += 500,
                Err(loss) => *lost.entry(loss).or_default() += 1,
            }
        }
    }
    assert!((150_000..=190_000).contains(&passed), "{passed}");
    assert!(lost.contains_key(&Loss::PairQuota) && lost.contains_key(&Loss::TotalQuota), "{lost:?}");
}
