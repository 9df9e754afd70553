//! Where the master is: what is set, what worked before, what DNS says, what enrollment said, what the link said.

use std::sync::{Arc, Mutex, PoisonError};

use muster_kit::connect;

/// Addresses that are tried in all.
const TRIED: usize = 16;

/// The sources, in the order in which they are believed to be fresh. Clones share what they learn.
#[derive(Debug, Clone)]
pub struct Addresses {
    known: Arc<Mutex<Known>>,
    domain: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    set: Vec<String>,
    /// They worked before, best first.
    cached: Vec<String>,
    /// From enrollment; the link's own last.
    enrolled: Vec<String>,
    /// What the last lookup gave.
    found: Vec<String>,
}

impl Addresses {
    pub fn new(set: Vec<String>, cached: Vec<String>, enrolled: Vec<String>, domain: Option<String>) -> Self {
        let known = Known { set, cached, enrolled, found: Vec::new() };
        Self { known: Arc::new(Mutex::new(known)), domain: domain.filter(|domain| !domain.is_empty()) }
    }

    /// What to try now, best first. Asks DNS if a domain is known.
    pub async fn current(&self) -> Vec<String> {
        if let Some(domain) = &self.domain {
            match connect::by_domain(domain).await {
                Ok(found) => self.with(|known| known.found = found),
                Err(reason) => tracing::debug!(domain, reason, "DNS does not name the master"),
            }
        }
        self.with(|known| known.in_order())
    }

    /// What is known without asking anybody, best first.
    pub fn known(&self) -> Vec<String> {
        self.with(|known| known.in_order())
    }

    /// The addresses last given out led to the master.
    pub fn worked(&self) {
        self.with(|known| {
            let mut cached: Vec<_> = known.found.clone();
            cached.extend(known.cached.iter().filter(|old| !known.found.contains(old)).cloned());
            cached.truncate(TRIED);
            known.cached = cached;
        });
    }

    /// New credentials name the master's addresses anew.
    pub fn enrolled(&self, addresses: Vec<String>) {
        self.with(|known| known.enrolled = addresses);
    }

    /// What to keep for the next start.
    pub fn cached(&self) -> Vec<String> {
        self.with(|known| known.cached.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        // Nothing panics while it is held, and the lists are whole at any moment.
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn in_order(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for address in [&self.set, &self.found, &self.cached, &self.enrolled].into_iter().flatten() {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all.truncate(TRIED);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_is_set_comes_first_and_the_link_last_and_nothing_twice() {
        let addresses =
            Addresses::new(owned(&["set:1"]), owned(&["old:1"]), owned(&["old:1", "link:1"]), None);
        assert_eq!(addresses.current().await, owned(&["set:1", "old:1", "link:1"]));
    }

    #[tokio::test]
    async fn what_dns_said_is_remembered_once_it_worked() {
        let addresses = Addresses::new(vec![], owned(&["old:1"]), owned(&["link:1"]), None);
        addresses.with(|known| known.found = owned(&["srv:1"]));
        assert_eq!(addresses.cached(), owned(&["old:1"]));
        addresses.worked();
        assert_eq!(addresses.cached(), owned(&["srv:1", "old:1"]));
    }
}
