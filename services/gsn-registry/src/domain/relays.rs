//! The master's own relays: each replica by its name, for as long as it keeps saying that it is there.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::Timestamp;
use serde::{Deserialize, Serialize};

/// A relay that was not heard of for so long is listed no more: two registrations may be lost.
pub const LEASE: Duration = Duration::from_secs(15);

/// Relays that are listed.
pub const RELAYS: usize = 16;

/// Addresses of one relay.
pub const ADDRESSES: usize = 4;

/// Bytes of a relay's name and of a host's.
pub const NAME_BYTES: usize = 253;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAddress {
    pub host: String,
    pub tcp_port: u16,
    pub udp_port: Option<u16>,
}

/// One replica, as it described itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    pub name: String,
    pub addresses: Vec<RelayAddress>,
    pub draining: bool,
    pub load_percent: u8,
    pub until: Timestamp,
}

/// Those that are there.
#[derive(Debug, Default)]
pub struct Relays {
    known: BTreeMap<String, Relay>,
}

impl Relays {
    /// `false`: there are too many.
    pub fn register(&mut self, relay: Relay, now: Timestamp) -> bool {
        self.known.retain(|_, known| known.until > now);
        let room = self.known.len() < RELAYS || self.known.contains_key(&relay.name);
        if room {
            self.known.insert(relay.name.clone(), relay);
        }
        room
    }

    /// Takes in what other replicas of the registry were told.
    pub fn learn(&mut self, relays: Vec<Relay>, now: Timestamp) {
        for relay in relays {
            let newer = self.known.get(&relay.name).is_none_or(|known| known.until < relay.until);
            if newer {
                self.register(relay, now);
            }
        }
    }

    pub fn has(&self, name: &str, now: Timestamp) -> bool {
        self.known.get(name).is_some_and(|relay| relay.until > now)
    }

    /// Where to go first: those that do not end, by name. The order stays, so that the second is a warm one.
    pub fn list(&self, now: Timestamp) -> Vec<&Relay> {
        let mut there: Vec<_> = self.known.values().filter(|relay| relay.until > now).collect();
        there.sort_by_key(|relay| (relay.draining, &relay.name));
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(name: &str, until: Timestamp) -> Relay {
        Relay { name: name.to_owned(), addresses: Vec::new(), draining: false, load_percent: 0, until }
    }

    #[test]
    fn who_falls_silent_is_listed_no_more_and_who_drains_comes_last() {
        let (mut relays, now) = (Relays::default(), Timestamp::from_micros(5));
        assert!(relays.register(Relay { draining: true, ..relay("a", now + LEASE) }, now));
        assert!(relays.register(relay("b", now + LEASE), now));
        let names = |relays: &Relays, now| -> Vec<String> {
            relays.list(now).iter().map(|relay| relay.name.clone()).collect()
        };
        assert_eq!(names(&relays, now), ["b", "a"]);
        assert!(names(&relays, now + LEASE).is_empty());
        assert!(!relays.has("b", now + LEASE));
    }

    #[test]
    fn there_is_room_for_so_many_and_the_newest_word_counts() {
        let (mut relays, now) = (Relays::default(), Timestamp::from_micros(5));
        let taken = (0..20).filter(|n| relays.register(relay(&n.to_string(), now + LEASE), now)).count();
        assert_eq!(taken, RELAYS);
        relays.learn(vec![Relay { draining: true, ..relay("0", now + LEASE * 2) }], now);
        assert!(relays.list(now).last().is_some_and(|relay| relay.name == "0"));
    }
}
