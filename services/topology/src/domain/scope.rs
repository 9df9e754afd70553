//! Who may have what done on which hosts, and how many hosts want a second person's word.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::node::Node;

/// What an administrator has laid down, in one file. Without it every operator may do everything alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskPolicy {
    /// A task on more hosts than this waits for the word of a second person.
    pub approval_above: Option<u32>,
    pub scope: Vec<Scope>,
}

/// What somebody may do. Who is named in no scope is not limited; who is named in some may do what one of them allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Resource names: "operators/ada", "cmdbs/ledger", "admins/eve".
    pub who: Vec<String>,
    /// Types of tasks; empty: all.
    pub types: Vec<String>,
    /// Labels that a host must have, all of them; empty: every host.
    pub labels: BTreeMap<String, String>,
}

/// Why a task is not made, approved or cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{who} has no say in {kind:?} on nodes/{node}")]
pub struct OutOfScope {
    pub who: String,
    pub kind: String,
    pub node: muster_types::NodeId,
}

/// Why a host's labels are not changed, or the host is not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelRefused {
    #[error("{who} has no say about nodes/{node}")]
    Outside { who: String, node: muster_types::NodeId },
    #[error("a scope goes by the label {key:?}, which {who}, who is limited by one, may not change")]
    Named { who: String, key: String },
}

impl TaskPolicy {
    /// # Errors
    /// One of the hosts lies outside what `who` may do.
    pub fn check<'a>(
        &self,
        who: &str,
        kind: &str,
        nodes: impl IntoIterator<Item = &'a Node>,
    ) -> Result<(), OutOfScope> {
        if !self.limits(who) {
            return Ok(());
        }
        let own: Vec<_> = self.of(who).collect();
        let outside = nodes.into_iter().find(|node| !own.iter().any(|scope| scope.allows(kind, node)));
        outside.map_or(Ok(()), |node| {
            Err(OutOfScope { who: who.to_owned(), kind: kind.to_owned(), node: node.id })
        })
    }

    /// Whether `who` may change these labels of `node`, or, with none, remove it. A scope goes by labels: whoever is
    /// limited by some changes none that any of them names, and nothing of a host outside their own.
    ///
    /// # Errors
    /// The host lies outside, or a scope names one of `keys`.
    pub fn check_labels<'a>(
        &self,
        who: &str,
        node: &Node,
        keys: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), LabelRefused> {
        if !self.limits(who) {
            return Ok(());
        }
        if !self.of(who).any(|scope| scope.covers(node)) {
            return Err(LabelRefused::Outside { who: who.to_owned(), node: node.id });
        }
        let named = keys.into_iter().find(|key| self.scope.iter().any(|it| it.labels.contains_key(*key)));
        named.map_or(Ok(()), |key| Err(LabelRefused::Named { who: who.to_owned(), key: key.clone() }))
    }

    /// Whether a scope names `who`.
    pub fn limits(&self, who: &str) -> bool {
        self.of(who).next().is_some()
    }

    fn of(&self, who: &str) -> impl Iterator<Item = &Scope> {
        self.scope.iter().filter(move |scope| scope.who.iter().any(|name| name == who))
    }

    pub fn wants_approval(&self, hosts: usize) -> bool {
        self.approval_above.is_some_and(|most| hosts > most as usize)
    }
}

impl Scope {
    fn allows(&self, kind: &str, node: &Node) -> bool {
        (self.types.is_empty() || self.types.iter().any(|it| it == kind)) && self.covers(node)
    }

    fn covers(&self, node: &Node) -> bool {
        let labels = node.effective_labels();
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use muster_types::{NodeId, Timestamp};

    use super::super::node::Attested;
    use super::*;

    fn node(role: &str) -> Node {
        let labels = BTreeMap::from([("role".to_owned(), role.to_owned())]);
        Node::new(NodeId([1; 20]), Attested { labels, ..Attested::default() }, Timestamp::default())
    }

    #[test]
    fn who_is_named_in_a_scope_may_do_what_it_allows_and_nothing_else() {
        let scope = Scope {
            who: vec!["operators/ada".to_owned()],
            types: vec!["run".to_owned()],
            labels: BTreeMap::from([("role".to_owned(), "till".to_owned())]),
        };
        let policy = TaskPolicy { approval_above: None, scope: vec![scope] };
        let (till, desk) = (node("till"), node("desk"));
        assert!(policy.check("operators/ada", "run", [&till]).is_ok());
        assert!(policy.check("operators/ada", "run", [&till, &desk]).is_err());
        assert!(policy.check("operators/ada", "erase", [&till]).is_err());
        assert!(policy.check("operators/bob", "erase", [&desk]).is_ok());
    }

    #[test]
    fn who_is_limited_by_labels_does_not_change_them() {
        let scope = |who: &str, role: &str| Scope {
            who: vec![who.to_owned()],
            types: Vec::new(),
            labels: BTreeMap::from([("role".to_owned(), role.to_owned())]),
        };
        let scope = vec![scope("operators/ada", "till"), scope("operators/eve", "desk")];
        let policy = TaskPolicy { approval_above: None, scope };
        let (role, floor) = ("role".to_owned(), "floor".to_owned());
        let (till, desk) = (node("till"), node("desk"));
        let outside = policy.check_labels("operators/ada", &desk, [&floor]);
        assert!(matches!(outside, Err(LabelRefused::Outside { .. })), "{outside:?}");
        let named = policy.check_labels("operators/ada", &till, [&floor, &role]);
        assert!(matches!(named, Err(LabelRefused::Named { .. })), "{named:?}");
        assert_eq!(policy.check_labels("operators/ada", &till, [&floor]), Ok(()));
        assert_eq!(policy.check_labels("operators/bob", &desk, [&role]), Ok(()));
    }

    #[test]
    fn more_hosts_than_the_policy_names_want_a_second_person() {
        let policy = TaskPolicy { approval_above: Some(2), scope: Vec::new() };
        assert!(!policy.wants_approval(2) && policy.wants_approval(3));
        assert!(!TaskPolicy::default().wants_approval(100_000));
    }
}
