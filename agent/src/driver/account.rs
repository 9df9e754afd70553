//! What this node, and as LSN its children, sent and received since the master was last told: counters that are merged on
//! their way, so that a cell costs the master one small message a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::control::v1::{ClassUsage, UsageReport};

/// How often a node tells.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds of messages that are told apart; a child that invents more is not heard.
const LINES: usize = 64;

type Key = (i32, String);

#[derive(Debug, Default)]
pub(super) struct Account {
    /// This node's own counters as they were told last.
    told: BTreeMap<Key, ClassUsage>,
    /// What children told and has not gone on yet.
    carried: BTreeMap<Key, ClassUsage>,
}

impl Account {
    /// A child's report, to be passed on with the next.
    pub(super) fn carry(&mut self, report: UsageReport) {
        for line in report.usage {
            let key = (line.class, line.message_type.clone());
            if self.carried.len() >= LINES && !self.carried.contains_key(&key) {
                continue;
            }
            let sum = self.carried.entry(key).or_insert_with(|| blank(&line));
            sum.sent_bytes = sum.sent_bytes.saturating_add(line.sent_bytes);
            sum.received_bytes = sum.received_bytes.saturating_add(line.received_bytes);
            sum.sent_messages = sum.sent_messages.saturating_add(line.sent_messages);
            sum.received_messages = sum.received_messages.saturating_add(line.received_messages);
        }
    }

    /// Everything since the last time, if there is anything. If it does not get through it is to be [carried](Self::carry)
    /// again.
    pub(super) fn take(&mut self, own: Vec<ClassUsage>) -> Option<UsageReport> {
        let since: Vec<_> = own.iter().map(|line| self.since_told(line)).collect();
        self.carry(UsageReport { usage: since });
        self.told = own.into_iter().map(|line| ((line.class, line.message_type.clone()), line)).collect();
        let lines = std::mem::take(&mut self.carried).into_values();
        let usage: Vec<_> = lines.filter(|line| line.sent_messages + line.received_messages > 0).collect();
        (!usage.is_empty()).then_some(UsageReport { usage })
    }

    fn since_told(&self, line: &ClassUsage) -> ClassUsage {
        let Some(told) = self.told.get(&(line.class, line.message_type.clone())) else { return line.clone() };
        ClassUsage {
            sent_bytes: line.sent_bytes.saturating_sub(told.sent_bytes),
            received_bytes: line.received_bytes.saturating_sub(told.received_bytes),
            sent_messages: line.sent_messages.saturating_sub(told.sent_messages),
            received_messages: line.received_messages.saturating_sub(told.received_messages),
            ..line.clone()
        }
    }
}

fn blank(line: &ClassUsage) -> ClassUsage {
    ClassUsage { class: line.class, message_type: line.message_type.clone(), ..ClassUsage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, bytes: u64) -> ClassUsage {
        let message_type = kind.to_owned();
        ClassUsage { class: 1, message_type, sent_bytes: bytes, sent_messages: 1, ..ClassUsage::default() }
    }

    fn sent(report: Option<UsageReport>) -> u64 {
        report.into_iter().flat_map(|report| report.usage).map(|line| line.sent_bytes).sum()
    }

    #[test]
    fn what_was_told_is_not_told_again_and_a_cell_is_told_as_one() {
        let mut account = Account::default();
        account.carry(UsageReport { usage: vec![line("ping", 10)] });
        let report = account.take(vec![line("ping", 5), line("beat", 7)]);
        assert_eq!(report.as_ref().map(|report| report.usage.len()), Some(2));
        assert_eq!(sent(report), 22);
        let mut later = line("ping", 9);
        later.sent_messages = 2;
        assert_eq!(sent(account.take(vec![later, line("beat", 7)])), 4);
    }

    #[test]
    fn what_did_not_get_through_is_told_with_the_next() {
        let mut account = Account::default();
        let lost = account.take(vec![line("ping", 5)]).expect("there is something to tell");
        account.carry(lost);
        assert_eq!(sent(account.take(vec![line("ping", 5)])), 5);
        assert_eq!(account.take(vec![line("ping", 5)]), None);
    }

    #[test]
    fn a_child_that_invents_kinds_of_messages_fills_nothing() {
        let mut account = Account::default();
        for kind in 0..1_000 {
            account.carry(UsageReport { usage: vec![line(&kind.to_string(), 1)] });
        }
        assert_eq!(account.carried.len(), LINES);
    }
}
