//! How often one caller may do one thing.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use muster_types::Timestamp;

/// Callers that are told apart within one span; who comes beyond them waits for the next.
const CALLERS: usize = 100_000;

/// Counts within spans that all callers share.
#[derive(Debug)]
pub struct Quota<K> {
    span: Duration,
    most: u32,
    began: Timestamp,
    used: HashMap<K, u32>,
}

impl<K: Eq + Hash> Quota<K> {
    pub fn new(most: u32, span: Duration) -> Self {
        Self { span, most, began: Timestamp::default(), used: HashMap::new() }
    }

    /// Whether `caller` may once more.
    pub fn take(&mut self, caller: K, now: Timestamp) -> bool {
        if now.since(self.began) >= self.span {
            self.used.clear();
            self.began = now;
        }
        if self.used.len() >= CALLERS && !self.used.contains_key(&caller) {
            return false;
        }
        let used = self.used.entry(caller).or_default();
        *used = used.saturating_add(1);
        *used <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_its_share_of_every_span_and_no_other_ones() {
        let (mut quota, start) = (Quota::new(2, Duration::from_secs(60)), Timestamp::from_micros(9));
        let took: Vec<_> = (0..3).map(|_| quota.take(1, start)).collect();
        assert_eq!(took, [true, true, false]);
        assert!(quota.take(2, start));
        assert!(quota.take(1, start + Duration::from_secs(61)));
    }
}
