//! What theory allows between two translators (RFC 4787, sections 4.1 and 5), worked out with names instead of ports:
//! each end sends to every endpoint of the other that it can know of, until nobody learns anything new. Nothing here
//! knows how the machines go about it, and nobody guesses.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Behaviour, Dependence};

/// The server outside that told each end how it is seen.
const SERVER: &str = "S";

/// After so many exchanges everything that can be learnt is: names then only grow longer.
const EXCHANGES: usize = 6;

struct End {
    name: &'static str,
    behaviour: Option<Behaviour>,
    /// Where each of its endpoints has sent to.
    sent: BTreeMap<String, BTreeSet<String>>,
    /// The other end's endpoints.
    known: BTreeSet<String>,
}

/// Whether two ends can talk directly.
pub fn allows(translators: [Option<Behaviour>; 2]) -> bool {
    let [left, right] = translators;
    let mut left = End::new("L", left);
    let mut right = End::new("R", right);
    right.known.insert(left.send(SERVER));
    left.known.insert(right.send(SERVER));
    for _ in 0..EXCHANGES {
        let (from_left, from_right) = (left.send_all(), right.send_all());
        right.receive(&from_left);
        left.receive(&from_right);
    }
    let talks = |from: &End, to: &End| {
        from.sent.iter().any(|(source, destinations)| {
            destinations.iter().any(|destination| {
                to.admits(destination, source)
                    && to.endpoint(source) == *destination
                    && from.admits(source, destination)
            })
        })
    };
    talks(&left, &right)
}

impl End {
    fn new(name: &'static str, behaviour: Option<Behaviour>) -> Self {
        Self { name, behaviour, sent: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Under which name a packet to `destination` leaves.
    fn endpoint(&self, destination: &str) -> String {
        match self.behaviour.map(|behaviour| behaviour.mapping) {
            None | Some(Dependence::None) => self.name.to_owned(),
            Some(Dependence::Address) => format!("{}({})", self.name, address(destination)),
            Some(Dependence::AddressAndPort) => format!("{}({destination})", self.name),
        }
    }

    fn send(&mut self, destination: &str) -> String {
        let endpoint = self.endpoint(destination);
        self.sent.entry(endpoint.clone()).or_default().insert(destination.to_owned());
        endpoint
    }

    fn send_all(&mut self) -> Vec<(String, String)> {
        let known: Vec<_> = self.known.iter().cloned().collect();
        known.into_iter().map(|destination| (self.send(&destination), destination)).collect()
    }

    fn receive(&mut self, packets: &[(String, String)]) {
        for (source, destination) in packets {
            if self.admits(destination, source) {
                self.known.insert(source.clone());
            }
        }
    }

    fn admits(&self, endpoint: &str, source: &str) -> bool {
        let Some(behaviour) = self.behaviour else { return endpoint == self.name };
        let Some(sent) = self.sent.get(endpoint) else { return false };
        match behaviour.filtering {
            Dependence::None => true,
            Dependence::Address => sent.iter().any(|destination| address(destination) == address(source)),
            Dependence::AddressAndPort => sent.contains(source),
        }
    }
}

/// The first letter: each end, and the server, has one address.
fn address(endpoint: &str) -> &str {
    &endpoint[..1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_kinds_meet_as_everybody_knows() {
        let kinds = [
            None,
            Some(Behaviour::full_cone()),
            Some(Behaviour::address_restricted()),
            Some(Behaviour::home()),
            Some(Behaviour::symmetric()),
        ];
        let hopeless = |pair: [usize; 2]| matches!(pair, [4, 3 | 4] | [3, 4]);
        for left in 0..kinds.len() {
            for right in 0..kinds.len() {
                let allowed = allows([kinds[left], kinds[right]]);
                assert_eq!(allowed, !hopeless([left, right]), "{left} x {right}");
            }
        }
    }
}
