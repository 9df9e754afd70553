//! Whom one inside port has written to, and how long each of them may answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::Instant;

use super::flow::{Protocol, Signal};
use super::nat::Dependence;

/// Remote ends remembered for one inside port; beyond it the one nearest to expiry is forgotten.
const REMOTES_MAX: usize = 4_096;

/// How long a silent flow is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub udp: Duration,
    /// TCP after both sides have spoken.
    pub tcp_established: Duration,
    /// TCP that is opening or has seen FIN or RST.
    pub tcp_transitory: Duration,
    pub icmp: Duration,
}

impl Default for Timeouts {
    /// The shortest that RFC 4787 REQ-5, RFC 5382 REQ-5 and RFC 5508 REQ-2 allow.
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(120),
            tcp_established: Duration::from_secs(7_440),
            tcp_transitory: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
        }
    }
}

/// Which packets prolong a flow. Outbound ones must (RFC 4787 REQ-6), inbound ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    Outbound,
    BothWays,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    until: Instant,
    answered: bool,
    ending: bool,
}

/// The remote ends that one inside port has written to.
#[derive(Debug, Clone, Default)]
pub(super) struct Permits {
    remotes: BTreeMap<SocketAddr, Lease>,
}

impl Permits {
    pub(super) fn on_outbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        remote: SocketAddr,
        signal: Signal,
        timeouts: &Timeouts,
    ) {
        self.remotes.retain(|_, lease| lease.until > now);
        if self.remotes.len() >= REMOTES_MAX && !self.remotes.contains_key(&remote) {
            self.forget_oldest();
        }
        let lease =
            self.remotes.entry(remote).or_insert(Lease { until: now, answered: false, ending: false });
        lease.ending |= signal == Signal::Ends;
        lease.until = now + span(protocol, lease, timeouts);
    }

    /// Whether `remote` may write in; an answer that may prolong the flow does so.
    pub(super) fn admit_inbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        remote: SocketAddr,
        signal: Signal,
        rules: (Dependence, Refresh, &Timeouts),
    ) -> bool {
        let (filtering, refresh, timeouts) = rules;
        let mut admitted = false;
        for (known, lease) in self.remotes.iter_mut().filter(|(_, lease)| lease.until > now) {
            if filtering.part(*known) != filtering.part(remote) {
                continue;
            }
            admitted = true;
            let first_answer = protocol == Protocol::Tcp && !lease.answered && *known == remote;
            lease.answered |= *known == remote;
            lease.ending |= signal == Signal::Ends && *known == remote;
            if refresh == Refresh::BothWays || first_answer || lease.ending {
                lease.until = now + span(protocol, lease, timeouts);
            }
        }
        admitted
    }

    pub(super) fn alive(&self, now: Instant) -> bool {
        self.remotes.values().any(|lease| lease.until > now)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.remotes.iter().min_by_key(|(_, lease)| lease.until).map(|(remote, _)| *remote);
        if let Some(remote) = oldest {
            self.remotes.remove(&remote);
        }
    }
}

fn span(protocol: Protocol, lease: &Lease, timeouts: &Timeouts) -> Duration {
    match protocol {
        Protocol::Udp => timeouts.udp,
        Protocol::Icmp => timeouts.icmp,
        Protocol::Tcp if lease.answered && !lease.ending => timeouts.tcp_established,
        Protocol::Tcp => timeouts.tcp_transitory,
    }
}
