use muster_types::limits::ADDRESSES;

use super::timing::{ANSWERS, FORESEEN, GUESSING_ROUNDS, MET};
use super::*;
use std::time::Duration;

const START: Instant = Instant::from_elapsed(Duration::from_secs(100));

fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number], 27_431))
}

fn whereabouts(addresses: &[(u8, Kind)]) -> Whereabouts {
    let candidates = addresses.iter().map(|(number, kind)| Candidate { at: at(*number), kind: *kind });
    Whereabouts { candidates: candidates.collect(), ports: Ports::Kept }
}

fn drain(meeting: &mut Meeting) -> Vec<Intent> {
    std::iter::from_fn(|| meeting.poll_intent()).collect()
}

fn asks(intents: &[Intent]) -> Vec<(SocketAddr, u32)> {
    let ask = |intent: &Intent| match intent {
        Intent::Probe { to, probe: Probe::Ask(number) } => Some((*to, *number)),
        _ => None,
    };
    intents.iter().filter_map(ask).collect()
}

fn told(peer: Whereabouts) -> Input {
    Input::Told { peer, answer: true }
}

/// Runs its timers until `until`, and says what it wanted.
fn run(meeting: &mut Meeting, until: Instant) -> Vec<Intent> {
    let mut wanted = drain(meeting);
    while let Some(due) = meeting.poll_timeout().filter(|due| *due <= until) {
        meeting.handle_timeout(due);
        wanted.extend(drain(meeting));
    }
    wanted
}

#[test]
fn the_better_kind_wins_although_the_other_answered_first() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    meeting.handle(told(whereabouts(&[(1, Kind::Host), (2, Kind::Reflexive)])), START);
    let asks = asks(&drain(&mut meeting));
    for (after, number) in [(10, 2), (30, 1)] {
        let (from, number) = *asks.iter().find(|(to, _)| *to == at(number)).unwrap();
        let now = START + Duration::from_millis(after);
        meeting.handle(Input::Probed { from, probe: Probe::Answer(number) }, now);
    }
    let wanted = run(&mut meeting, START + Duration::from_millis(100));
    assert!(wanted.contains(&Intent::Use(Some(Way::Direct(at(1))))), "{wanted:?}");
    assert!(!meeting.is_searching());
}

#[test]
fn a_probe_from_an_unexpected_port_is_answered_and_asked_there() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    drain(&mut meeting);
    meeting.handle(Input::Probed { from: at(9), probe: Probe::Ask(77) }, START);
    let wanted = drain(&mut meeting);
    assert!(wanted.contains(&Intent::Probe { to: at(9), probe: Probe::Answer(77) }));
    assert_eq!(asks(&wanted).len(), 1);
}

#[test]
fn an_answer_from_elsewhere_or_to_nothing_proves_nothing() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    meeting.handle(told(whereabouts(&[(1, Kind::Host)])), START);
    let (_, number) = asks(&drain(&mut meeting))[0];
    for (from, number) in [(at(2), number), (at(1), number + 1)] {
        meeting.handle(Input::Probed { from, probe: Probe::Answer(number) }, START);
    }
    let wanted = run(&mut meeting, START + Duration::from_secs(5));
    assert!(!wanted.iter().any(|intent| matches!(intent, Intent::Use(Some(_)))), "{wanted:?}");
}

#[test]
fn the_relay_carries_until_the_direct_way_is_there_and_again_when_it_is_gone() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    meeting.handle(Input::Relay(true), START);
    assert!(drain(&mut meeting).contains(&Intent::Use(Some(Way::Relay))));
    meeting.handle(told(whereabouts(&[(1, Kind::Host)])), START);
    let (from, number) = asks(&drain(&mut meeting))[0];
    meeting.handle(Input::Probed { from, probe: Probe::Answer(number) }, START);
    run(&mut meeting, START + SETTLE);
    assert_eq!(meeting.way(), Some(Way::Direct(from)));

    meeting.handle(Input::DirectLost, START + SETTLE + CARRIED);
    let wanted = drain(&mut meeting);
    assert!(wanted.contains(&Intent::Use(Some(Way::Relay))));
    assert!(wanted.iter().any(|intent| matches!(intent, Intent::Tell { answer: false, .. })));
}

#[test]
fn nobody_at_home_is_called_three_times_and_then_later_and_later() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    let tells = |wanted: &[Intent]| wanted.iter().filter(|i| matches!(i, Intent::Tell { .. })).count();
    assert_eq!(tells(&run(&mut meeting, START + Duration::from_secs(10))), 3);
    let hour = run(&mut meeting, START + Duration::from_secs(3_600));
    assert!(tells(&hour) <= 3 * 7, "{} words in an hour", tells(&hour));
    assert!(asks(&hour).is_empty());
}

#[test]
fn a_search_stays_within_its_budget() {
    let mut peer = whereabouts(&[(1, Kind::Host), (2, Kind::Reflexive)]);
    peer.ports = Ports::Counted(1);
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    meeting.handle(told(peer), START);
    let sent = asks(&run(&mut meeting, START + Duration::from_secs(5))).len();
    let budget = 2 * ROUNDS as usize + usize::from(FORESEEN) * GUESSING_ROUNDS as usize;
    assert_eq!(sent, budget);
}

#[test]
fn a_flood_of_authentic_probes_is_answered_at_a_bounded_rate() {
    let mut meeting = Meeting::called(whereabouts(&[]));
    for number in 0..10_000 {
        meeting.handle(Input::Probed { from: at(1), probe: Probe::Ask(number) }, START);
    }
    assert_eq!(drain(&mut meeting).len(), ANSWERS as usize);
}

/// Tells, and is answered at once by whoever it asks; counts its words and direct ways until `until`.
fn meet_and_lose(meeting: &mut Meeting, until: Instant) -> [usize; 2] {
    let (mut now, mut counts) = (START, [0; 2]);
    while now <= until {
        for intent in drain(meeting) {
            match intent {
                Intent::Tell { .. } => {
                    counts[0] += 1;
                    meeting.handle(told(whereabouts(&[(1, Kind::Host)])), now);
                }
                Intent::Probe { to, probe: Probe::Ask(number) } => {
                    meeting.handle(Input::Probed { from: to, probe: Probe::Answer(number) }, now);
                }
                Intent::Use(Some(Way::Direct(_))) => {
                    counts[1] += 1;
                    meeting.handle(Input::DirectLost, now + Duration::from_secs(3));
                }
                _ => {}
            }
        }
        let Some(due) = meeting.poll_timeout() else { break };
        meeting.handle_timeout(due);
        now = due;
    }
    counts
}

#[test]
fn a_way_where_probes_pass_and_sessions_do_not_is_tried_ever_more_seldom() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    let [words, ways] = meet_and_lose(&mut meeting, START + Duration::from_secs(3_600));
    assert!((4..=7).contains(&ways) && words <= 7, "{words} words and {ways} ways in an hour");
}

#[test]
fn a_peer_that_names_no_address_is_not_sought_for_ever() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    meeting.handle(told(whereabouts(&[])), START);
    run(&mut meeting, START + Duration::from_secs(5));
    assert!(!meeting.is_searching());
    assert!(meeting.poll_timeout().is_some(), "it is tried again later");
}

#[test]
fn a_peer_that_names_ever_more_addresses_costs_no_more() {
    let mut meeting = Meeting::call(whereabouts(&[]), START);
    let mut sent = 0;
    for number in 0..=250 {
        let mut peer = whereabouts(&[(number, Kind::Host), (number, Kind::Reflexive)]);
        peer.ports = Ports::Counted(1);
        meeting.handle(told(peer), START);
        meeting.handle(Input::Probed { from: at(number), probe: Probe::Ask(number.into()) }, START);
        sent += asks(&drain(&mut meeting)).len();
    }
    sent += asks(&run(&mut meeting, START + Duration::from_secs(5))).len();
    let steady = (ADDRESSES + MET) * (1 + ROUNDS as usize);
    assert!(sent <= steady + usize::from(FORESEEN) * GUESSING_ROUNDS as usize, "{sent} probes");
}

#[test]
fn a_probe_that_is_repeated_from_elsewhere_sends_nothing_there() {
    let mut meeting = Meeting::called(whereabouts(&[]));
    meeting.handle(Input::Told { peer: whereabouts(&[(1, Kind::Host)]), answer: false }, START);
    drain(&mut meeting);
    for from in [at(1), at(2)] {
        meeting.handle(Input::Probed { from, probe: Probe::Ask(7) }, START);
    }
    let sent = drain(&mut meeting);
    assert_eq!(sent, [Intent::Probe { to: at(1), probe: Probe::Answer(7) }]);
}
