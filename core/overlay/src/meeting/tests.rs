use super::timing::{FORESEEN, GUESSING_ROUNDS};
use super::*;

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

    meeting.handle(Input::DirectLost, START + ROUND);
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
