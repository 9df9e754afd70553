//! Two nodes meet wherever theory allows it, and are relayed everywhere else.

use std::time::Duration;

use muster_sim::meeting::{Situation, repeat, run, theory};
use muster_sim::model::{Behaviour, Dependence, Ports};

/// A public address, and every kind of mapping and filtering whose ports cannot be foreseen.
fn kinds() -> Vec<Option<Behaviour>> {
    let mut kinds = vec![None];
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            let ports = if mapping == Dependence::None { Ports::Preserving } else { Ports::Random };
            kinds.push(Some(Behaviour { mapping, filtering, ports, ..Behaviour::home() }));
        }
    }
    kinds
}

/// A symmetric translator that gives the next port to the next destination.
fn counting() -> Behaviour {
    Behaviour { ports: Ports::Preserving, ..Behaviour::symmetric() }
}

#[test]
fn over_all_mappings_and_filterings_two_nodes_meet_exactly_where_theory_allows() {
    let kinds = kinds();
    let (mut direct, mut slowest) = (0, Duration::ZERO);
    for left in &kinds {
        for right in &kinds {
            let outcome = run(Situation::between([*left, *right]), 1);
            let allowed = theory::allows([*left, *right]);
            assert_eq!(outcome.direct.is_some(), allowed, "{left:?}\n{right:?}\n{outcome:?}");
            assert!(outcome.first.is_some(), "nothing carries {left:?} and {right:?}");
            direct += usize::from(allowed);
            slowest = slowest.max(outcome.direct.unwrap_or_default());
        }
    }
    println!("{direct} of {} pairs meet directly, the last after {slowest:?}", kinds.len() * kinds.len());
    assert!(slowest < Duration::from_secs(1), "the slowest pair took {slowest:?}");
}

#[test]
fn a_fifth_of_the_packets_lost_costs_time_and_no_meeting() {
    let home = Some(Behaviour::home());
    let tally = repeat(Situation { loss_percent: 20, ..Situation::between([home, home]) }, 200);
    let p95 = tally.direct[tally.direct.len() * 95 / 100];
    assert_eq!(tally.direct.len(), tally.runs);
    assert!(p95 < Duration::from_secs(1), "p95 {p95:?}");
}

#[test]
fn a_translator_that_counts_its_ports_is_foreseen_and_one_that_draws_them_is_not() {
    let home = Some(Behaviour::home());
    for (translators, least, most) in [
        ([Some(counting()), home], 200, 200),
        ([home, Some(counting())], 200, 200),
        ([Some(Behaviour::symmetric()), home], 0, 2),
    ] {
        let tally = repeat(Situation::between(translators), 200);
        let direct = tally.direct.len();
        assert!((least..=most).contains(&direct), "{direct} of 200 between {translators:?}");
        let datagrams = tally.datagrams.iter().max().unwrap();
        assert!(*datagrams < 1_000, "{datagrams} datagrams");
    }
}

#[test]
fn neighbors_behind_one_router_talk_past_it() {
    for behaviour in [Behaviour::home(), Behaviour::symmetric()] {
        let together = Situation { together: true, ..Situation::between([Some(behaviour), None]) };
        let outcome = run(together, 1);
        assert!(outcome.direct.is_some_and(|took| took < Duration::from_millis(200)), "{outcome:?}");
    }
}

#[test]
fn without_udp_at_one_end_the_relay_stays_and_the_search_ends() {
    for udp in [[false, true], [true, false], [false, false]] {
        let outcome = run(Situation { udp, ..Situation::between([Some(Behaviour::home()); 2]) }, 1);
        assert_eq!((outcome.first.is_some(), outcome.direct), (true, None), "{udp:?}");
        assert!(outcome.datagrams <= 2 * 25 * 4, "{} datagrams", outcome.datagrams);
    }
}
