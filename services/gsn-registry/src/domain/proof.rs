//! What shows that anybody may write to one address: probes that were sent there from where it has sent nothing to.
//!
//! A NAT that filters by address or port lets in whom one has written to, and nobody else (RFC 4787, section 5). So what a
//! candidate hears from a quiet address only endpoint-independent filtering lets through.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use muster_types::Timestamp;
use muster_wire::probe::Token;

/// A probe that was not heard within this is lost: a round trip of two slow paths.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Without a counted probe for so long an address counts no more: two rounds may be lost, and who fails is out within a
/// minute.
pub const FRESH: Duration = Duration::from_secs(40);

/// Between two rounds to an address that is proven, or was within [`EVIDENCE`].
const ROUND: Duration = Duration::from_secs(15);

/// After so many rounds without an answer, rounds are rare: nobody is written to for long because another said so.
const EAGER_ROUNDS: u32 = 4;
const EAGER: Duration = Duration::from_secs(5);
const RARE: Duration = Duration::from_secs(600);

/// An address that hears but was not quiet is asked again, until its NAT has forgotten us.
const TAINTED: Duration = Duration::from_secs(60);

/// Sources that have to be heard before an address counts at all.
const SOURCES: usize = 2;

/// For how long a source counts towards [`SOURCES`]; as long as candidates remember whom they wrote to.
const EVIDENCE: Duration = Duration::from_secs(600);

/// Sources that are remembered of one address.
const REMEMBERED: usize = 16;

/// Probes to one address at once.
const UNDERWAY: usize = 8;

/// What one repeated probe is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Counted,
    /// Heard, but from where the candidate had sent something before.
    Tainted,
    /// Heard from another address than the probe was sent from.
    Elsewhere,
    /// Nobody sent it, or long ago.
    Unknown,
}

#[derive(Debug, Clone)]
struct Underway {
    /// Where it left from, if that is known as the candidate sees it.
    from: Option<IpAddr>,
    sent: Timestamp,
}

/// The probes of one address.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    underway: BTreeMap<Token, Underway>,
    counted: BTreeMap<SocketAddr, Timestamp>,
    due: Timestamp,
    silent_rounds: u32,
    /// When a probe was last heard that did not count.
    tainted: Option<Timestamp>,
}

impl Proof {
    /// Whether it is time to probe; the round is begun then.
    pub fn begin_round(&mut self, now: Timestamp) -> bool {
        if now < self.due {
            return false;
        }
        self.silent_rounds = self.silent_rounds.saturating_add(1);
        let pause = match self.silent_rounds {
            // Proven, or a while ago: whoever failed may be back.
            _ if !self.counted.is_empty() => ROUND,
            _ if self.is_tainted(now) => TAINTED,
            rounds if rounds <= EAGER_ROUNDS => EAGER,
            _ => RARE,
        };
        self.due = now + pause;
        true
    }

    /// Asks for a round at once, as when others did not reach the address.
    pub fn hurry(&mut self, now: Timestamp) {
        self.due = self.due.min(now);
    }

    /// Whether own probes have not been enough so far: others are asked to send some.
    pub fn wants_others(&self, now: Timestamp) -> bool {
        self.is_tainted(now) || !self.is_proven(now)
    }

    fn is_tainted(&self, now: Timestamp) -> bool {
        self.tainted.is_some_and(|at| now.since(at) < EVIDENCE)
    }

    /// A probe leaves. `false`: too many are underway.
    pub fn sent(&mut self, token: Token, from: Option<IpAddr>, now: Timestamp) -> bool {
        let free = self.underway.len() < UNDERWAY;
        if free {
            self.underway.insert(token, Underway { from, sent: now });
        }
        free
    }

    /// The candidate repeats a probe. `sent_ago`: when it last wrote to that address, if it did within its memory.
    pub fn heard(
        &mut self,
        token: &Token,
        source: SocketAddr,
        sent_ago: Option<Duration>,
        now: Timestamp,
    ) -> Verdict {
        let Some(probe) = self.underway.remove(token) else { return Verdict::Unknown };
        if probe.from.is_some_and(|from| from != source.ip()) {
            return Verdict::Elsewhere;
        }
        self.silent_rounds = 0;
        if sent_ago.is_some_and(|ago| ago < EVIDENCE) {
            self.tainted = Some(now);
            return Verdict::Tainted;
        }
        self.counted.insert(source, now);
        if self.counted.len() > REMEMBERED {
            let oldest = self.counted.iter().min_by_key(|(_, at)| **at).map(|(source, _)| *source);
            oldest.map(|source| self.counted.remove(&source));
        }
        Verdict::Counted
    }

    /// Forgets probes that were not heard; says how many.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let before = self.underway.len();
        self.underway.retain(|_, probe| now.since(probe.sent) < PATIENCE);
        self.counted.retain(|_, at| now.since(*at) < EVIDENCE);
        before - self.underway.len()
    }

    /// Whether anybody may write to the address, as far as is known at `now`.
    pub fn is_proven(&self, now: Timestamp) -> bool {
        self.counted.len() >= SOURCES && self.counted.values().any(|at| now.since(*at) < FRESH)
    }

    /// For people.
    pub fn missing(&self) -> &'static str {
        if self.tainted.is_some() && self.counted.is_empty() {
            "it has written to every address that probes it; such probes prove nothing"
        } else if self.counted.is_empty() {
            "no probe from an address that it has not written to comes through"
        } else {
            "probes from more addresses are awaited"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn source(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], port))
    }

    fn hear(proof: &mut Proof, number: u8, from: SocketAddr, ago: Option<u64>, now: Timestamp) -> Verdict {
        assert!(proof.sent([number; 16], Some(from.ip()), now));
        proof.heard(&[number; 16], from, ago.map(Duration::from_secs), now)
    }

    #[test]
    fn two_sources_prove_an_address_and_silence_ends_it_within_a_minute() {
        let mut proof = Proof::default();
        assert_eq!(hear(&mut proof, 1, source(1, 1), None, START), Verdict::Counted);
        assert!(!proof.is_proven(START), "one source is not enough");
        assert_eq!(hear(&mut proof, 2, source(1, 2), None, START), Verdict::Counted);
        assert!(proof.is_proven(START));
        assert!(!proof.is_proven(START + Duration::from_secs(60)));
        assert!(hear(&mut proof, 3, source(1, 1), None, START + FRESH) == Verdict::Counted);
        assert!(proof.is_proven(START + FRESH), "one that comes back has its evidence still");
    }

    #[test]
    fn what_comes_from_where_the_candidate_wrote_to_proves_nothing() {
        let mut proof = Proof::default();
        for number in 1..=4 {
            let verdict = hear(&mut proof, number, source(number, 9), Some(599), START);
            assert_eq!(verdict, Verdict::Tainted);
        }
        assert!(!proof.is_proven(START) && proof.wants_others(START));
        assert_eq!(hear(&mut proof, 5, source(5, 9), Some(600), START), Verdict::Counted);
    }

    #[test]
    fn a_made_up_or_a_repeated_probe_counts_nothing() {
        let mut proof = Proof::default();
        assert_eq!(proof.heard(&[9; 16], source(1, 1), None, START), Verdict::Unknown);
        assert_eq!(hear(&mut proof, 1, source(1, 1), None, START), Verdict::Counted);
        assert_eq!(proof.heard(&[1; 16], source(2, 1), None, START), Verdict::Unknown);
        assert!(proof.sent([2; 16], Some(source(1, 1).ip()), START));
        assert_eq!(proof.heard(&[2; 16], source(7, 1), None, START), Verdict::Elsewhere);
        assert!(!proof.is_proven(START));
    }

    #[test]
    fn who_never_answers_is_written_to_a_few_times_and_then_rarely() {
        let (mut proof, mut now, mut rounds) = (Proof::default(), START, 0);
        for _ in 0..3_600 {
            rounds += u32::from(proof.begin_round(now));
            now = now + Duration::from_secs(1);
        }
        assert!((EAGER_ROUNDS..=EAGER_ROUNDS + 7).contains(&rounds), "{rounds} rounds in an hour");
    }

    #[test]
    fn what_is_underway_is_bounded_and_ends() {
        let mut proof = Proof::default();
        let sent = (0..=u8::MAX).filter(|number| proof.sent([*number; 16], None, START)).count();
        assert_eq!(sent, UNDERWAY);
        assert_eq!(proof.expire(START + PATIENCE), UNDERWAY);
        assert!(proof.sent([1; 16], None, START + PATIENCE));
    }
}
