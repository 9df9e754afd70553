//! The translator against a reference that keeps a plain log of everything that ever went out.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

fn inside(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, host], port))
}

fn outside(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}

fn udp(source: SocketAddr, destination: SocketAddr) -> Flow {
    Flow { protocol: Protocol::Udp, source, destination }
}

fn at(seconds: u64) -> Instant {
    Instant::from_elapsed(Duration::from_secs(seconds))
}

struct Bench {
    nat: Nat,
    rng: ChaCha8Rng,
}

impl Bench {
    fn new(behaviour: Behaviour) -> Self {
        Self { nat: Nat::new(PUBLIC, behaviour), rng: ChaCha8Rng::seed_from_u64(1) }
    }

    fn external(&mut self, seconds: u64, flow: Flow) -> SocketAddr {
        match self.nat.outbound(at(seconds), flow, Signal::Carries, &mut self.rng) {
            Ok(Outbound::Forward(out)) => out.source,
            other => panic!("{flow:?} was not forwarded: {other:?}"),
        }
    }
}

#[test]
fn a_mapping_depends_on_what_its_kind_names() {
    for mapping in Dependence::ALL {
        let mut bench = Bench::new(Behaviour { mapping, ports: Ports::Random, ..Behaviour::home() });
        let first = bench.external(0, udp(inside(11, 27431), outside(1, 1000)));
        let other_port = bench.external(0, udp(inside(11, 27431), outside(1, 2000)));
        let other_host = bench.external(0, udp(inside(11, 27431), outside(2, 1000)));
        assert_eq!(first == other_port, mapping != Dependence::AddressAndPort, "{mapping:?}");
        assert_eq!(first == other_host, mapping == Dependence::None, "{mapping:?}");
    }
}

#[test]
fn a_preserving_translator_keeps_a_free_port_and_gives_the_next_for_a_taken_one() {
    let mut bench = Bench::new(Behaviour::home());
    assert_eq!(bench.external(0, udp(inside(11, 27431), outside(1, 1))).port(), 27431);
    assert_eq!(bench.external(0, udp(inside(12, 27431), outside(1, 1))).port(), 27432);
}

#[test]
fn two_hosts_behind_one_translator_meet_only_where_it_turns_packets_back() {
    for hairpin in [false, true] {
        let mut bench = Bench::new(Behaviour { hairpin, ..Behaviour::full_cone() });
        let callee = bench.external(0, udp(inside(11, 5000), outside(1, 1)));
        let call = udp(inside(12, 6000), callee);
        let result = bench.nat.outbound(at(1), call, Signal::Carries, &mut bench.rng);
        let expected = udp(SocketAddr::from((PUBLIC, 6000)), inside(11, 5000));
        match hairpin {
            true => assert_eq!(result, Ok(Outbound::Hairpin(expected))),
            false => assert_eq!(result, Err(Refusal::NoHairpin)),
        }
    }
}

#[test]
fn an_answer_prolongs_a_mapping_only_where_the_translator_says_so() {
    for (refresh, alive) in [(Refresh::Outbound, false), (Refresh::BothWays, true)] {
        let mut bench = Bench::new(Behaviour { refresh, ..Behaviour::home() });
        let flow = udp(inside(11, 5000), outside(1, 1));
        let external = bench.external(0, flow);
        let answer = udp(outside(1, 1), external);
        assert!(bench.nat.inbound(at(100), answer, Signal::Carries).is_ok());
        assert_eq!(bench.nat.inbound(at(200), answer, Signal::Carries).is_ok(), alive, "{refresh:?}");
    }
}

#[test]
fn tcp_lives_long_once_answered_and_briefly_after_its_end() {
    let mut bench = Bench::new(Behaviour::home());
    let flow = Flow { protocol: Protocol::Tcp, ..udp(inside(11, 5000), outside(1, 443)) };
    let answer = Flow { destination: bench.external(0, flow), ..flow.reversed() };
    assert!(bench.nat.inbound(at(1), answer, Signal::Carries).is_ok());
    assert!(bench.nat.inbound(at(7_000), answer, Signal::Carries).is_ok());
    assert!(bench.nat.inbound(at(7_000), answer, Signal::Ends).is_ok());
    assert!(bench.nat.inbound(at(7_241), answer, Signal::Carries).is_err());
}

#[test]
fn an_echo_finds_its_way_back_by_its_identifier() {
    let mut bench = Bench::new(Behaviour::symmetric());
    let flow = Flow { protocol: Protocol::Icmp, ..udp(inside(11, 77), outside(1, 77)) };
    let external = bench.external(0, flow);
    let answer = Flow { protocol: Protocol::Icmp, ..udp(outside(1, external.port()), external) };
    let back = bench.nat.inbound(at(1), answer, Signal::Carries).unwrap();
    assert_eq!((back.destination, back.source.port()), (inside(11, 77), 77));
}

#[test]
fn a_reboot_forgets_and_a_new_address_is_used_at_once() {
    let mut bench = Bench::new(Behaviour::home());
    let flow = udp(inside(11, 5000), outside(1, 1));
    let external = bench.external(0, flow);
    bench.nat.reboot();
    let answer = udp(outside(1, 1), external);
    assert_eq!(bench.nat.inbound(at(1), answer, Signal::Carries), Err(Refusal::NoMapping));
    bench.nat.renumber(Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(bench.external(2, flow).ip(), IpAddr::from([203, 0, 113, 9]));
}

#[test]
fn a_translator_without_a_free_port_says_so_and_recovers() {
    let mut bench = Bench::new(Behaviour::symmetric());
    let mut sent = 0_u32;
    let full = loop {
        let flow = udp(inside(11, 5000), SocketAddr::from((Ipv4Addr::from(sent + 0x0100_0000), 9)));
        match bench.nat.outbound(at(0), flow, Signal::Carries, &mut bench.rng) {
            Ok(_) => sent += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((full, sent as usize), (Refusal::TableFull, PORTS.count()));
    bench.external(121, udp(inside(11, 5000), outside(1, 1)));
}

/// One step of a random history.
#[derive(Debug, Clone, Copy)]
enum Step {
    Out { host: u8, port: u16, to: (u8, u16) },
    In { from: (u8, u16), to_sent: usize },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let remote = (1_u8..4, 1_u16..4);
    prop_oneof![
        3 => (11_u8..14, 5000_u16..5003, remote.clone())
            .prop_map(|(host, port, to)| Step::Out { host, port, to }),
        3 => (remote, any::<usize>()).prop_map(|(from, to_sent)| Step::In { from, to_sent }),
        1 => (0_u64..70).prop_map(Step::Wait),
    ]
}

/// One packet that went out, as the reference remembers it.
struct Sent {
    at: u64,
    inside: SocketAddr,
    external: SocketAddr,
    to: SocketAddr,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// An inbound packet passes if and only if something went out through that port, to a sender the filter takes
    /// for the same, within the time-out; and it reaches the host that sent it.
    #[test]
    fn what_comes_in_is_what_the_log_of_what_went_out_allows(
        steps in prop::collection::vec(step(), 1..120), mapping in 0_usize..3, filtering in 0_usize..3, random: bool,
    ) {
        let behaviour = Behaviour {
            mapping: Dependence::ALL[mapping],
            filtering: Dependence::ALL[filtering],
            ports: if random { Ports::Random } else { Ports::Preserving },
            refresh: Refresh::Outbound,
            ..Behaviour::home()
        };
        let mut bench = Bench::new(behaviour);
        let (mut now, mut log): (u64, Vec<Sent>) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Out { host, port, to } => {
                    let (inside, to) = (inside(host, port), outside(to.0, to.1));
                    let external = bench.external(now, udp(inside, to));
                    log.push(Sent { at: now, inside, external, to });
                }
                Step::In { from, to_sent } if !log.is_empty() => {
                    let (from, external) = (outside(from.0, from.1), log[to_sent % log.len()].external);
                    let allowed = log.iter().rev().find(|sent| {
                        sent.external == external
                            && now - sent.at < 120
                            && behaviour.filtering.part(sent.to) == behaviour.filtering.part(from)
                    });
                    let result = bench.nat.inbound(at(now), udp(from, external), Signal::Carries);
                    prop_assert_eq!(result.ok().map(|flow| flow.destination), allowed.map(|sent| sent.inside));
                }
                Step::In { .. } => {}
            }
        }
    }
}
