//! What this node, and as LSN its children, sent and received since the master was last told: counters that are merged on
//! their way, so that a busy cell costs the master one small message a minute, and a quiet one four an hour.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::control::v1::{ClassUsage, TrafficClass, UsageReport};

/// How often a node looks whether there is something to tell.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// Upkeep alone is told in every so many looks.
const LOOKS: u32 = 15;
/// More than so much that is not upkeep is told at the next look: what a place without tasks sends in an hour is less.
const WORTH_TELLING: u64 = 4 * 1024;
/// Kinds of messages that are told apart; a child that invents more is not heard.
const LINES: usize = 64;

type Key = (i32, String);

#[derive(Debug)]
pub(super) struct Account {
    /// This node's own counters as they were told last.
    told: BTreeMap<Key, ClassUsage>,
    /// What children told and has not gone on yet.
    carried: BTreeMap<Key, ClassUsage>,
    /// Looks in a row after which nothing was told.
    silent: u32,
}

impl Default for Account {
    /// The first look tells.
    fn default() -> Self {
        Self { told: BTreeMap::new(), carried: BTreeMap::new(), silent: LOOKS }
    }
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

    /// A look: everything since the last time, if that is worth telling by now.
    pub(super) fn look(&mut self, own: Vec<ClassUsage>) -> Option<UsageReport> {
        let since = own.iter().map(|line| self.since_told(line));
        let worth = |line: &ClassUsage| match line.class() {
            TrafficClass::Control | TrafficClass::Unspecified => 0,
            _ => line.sent_bytes.saturating_add(line.received_bytes),
        };
        let worth: u64 = since.map(|line| worth(&line)).chain(self.carried.values().map(worth)).sum();
        self.silent += 1;
        if self.silent < LOOKS && worth < WORTH_TELLING {
            return None;
        }
        self.silent = 0;
        self.take(own)
    }

    /// Everything since the last time, if there is anything. If it does not get through it is to be [carried](Self::carry)
    /// again.
    fn take(&mut self, own: Vec<ClassUsage>) -> Option<UsageReport> {
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
    fn upkeep_alone_is_told_in_every_fifteenth_look_and_a_task_in_the_next() {
        let mut account = Account::default();
        let upkeep = |look| ClassUsage { sent_messages: look, ..line("ping", 1_000_000 * look) };
        assert!(account.look(vec![upkeep(1)]).is_some(), "the first look tells");
        let told: Vec<_> = (2..=31).filter(|look| account.look(vec![upkeep(*look)]).is_some()).collect();
        assert_eq!(told, [16, 31]);
        let task = ClassUsage { class: TrafficClass::Task.into(), ..line("upstream", WORTH_TELLING) };
        assert!(account.look(vec![upkeep(32), task]).is_some());
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
