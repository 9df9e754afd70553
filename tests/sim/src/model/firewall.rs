//! A stateful firewall that translates nothing, as IPv6 routers have it (RFC 6092): who was written to may answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::Instant;

use super::flow::{Flow, Protocol, Refusal, Signal};
use super::nat::Dependence;
use super::permits::{Permits, Refresh, Timeouts};

/// Dead states are swept at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Inside ends remembered; beyond it new ones get no answers, as in a real box whose table is full.
const INSIDE_MAX: usize = 65_536;

/// The firewall. Feed it every packet's flow.
#[derive(Debug, Clone)]
pub struct Firewall {
    filtering: Dependence,
    timeouts: Timeouts,
    states: BTreeMap<(Protocol, SocketAddr), Permits>,
    next_sweep: Instant,
}

impl Firewall {
    pub fn new(filtering: Dependence, timeouts: Timeouts) -> Self {
        Self { filtering, timeouts, states: BTreeMap::new(), next_sweep: Instant::ZERO }
    }

    /// Forgets every state, as a reboot does.
    pub fn reboot(&mut self) {
        self.states.clear();
    }

    /// A packet from inside: it always passes, and its destination may answer.
    pub fn outbound(&mut self, now: Instant, flow: Flow, signal: Signal) -> Result<(), Refusal> {
        if now >= self.next_sweep {
            self.states.retain(|_, permits| permits.alive(now));
            self.next_sweep = now + SWEEP_EVERY;
        }
        let inside = (flow.protocol, flow.source);
        if self.states.len() >= INSIDE_MAX && !self.states.contains_key(&inside) {
            return Err(Refusal::TableFull);
        }
        let permits = self.states.entry(inside).or_default();
        permits.on_outbound(now, flow.protocol, flow.destination, signal, &self.timeouts);
        Ok(())
    }

    /// A packet from outside.
    pub fn inbound(&mut self, now: Instant, flow: Flow, signal: Signal) -> Result<(), Refusal> {
        let permits = self.states.get_mut(&(flow.protocol, flow.destination)).ok_or(Refusal::NoMapping)?;
        let rules = (self.filtering, Refresh::BothWays, &self.timeouts);
        match permits.admit_inbound(now, flow.protocol, flow.source, signal, rules) {
            true => Ok(()),
            false => Err(Refusal::Filtered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source: &str, destination: &str) -> Flow {
        Flow {
            protocol: Protocol::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn only_who_was_written_to_may_answer_and_only_in_time() {
        let mut firewall = Firewall::new(Dependence::AddressAndPort, Timeouts::default());
        let out = flow("[2001:db8:1::11]:27431", "[2001:db8:ff::10]:443");
        let stranger = flow("[2001:db8:2::11]:27431", "[2001:db8:1::11]:27431");
        let at = |seconds| Instant::from_elapsed(Duration::from_secs(seconds));
        assert_eq!(firewall.inbound(at(0), out.reversed(), Signal::Carries), Err(Refusal::NoMapping));
        firewall.outbound(at(0), out, Signal::Carries).unwrap();
        assert_eq!(firewall.inbound(at(1), out.reversed(), Signal::Carries), Ok(()));
        assert_eq!(firewall.inbound(at(1), stranger, Signal::Carries), Err(Refusal::Filtered));
        assert_eq!(firewall.inbound(at(122), out.reversed(), Signal::Carries), Err(Refusal::Filtered));
    }
}
