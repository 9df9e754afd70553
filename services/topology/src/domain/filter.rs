//! Which nodes an operator means.

use std::collections::{BTreeMap, BTreeSet};

use muster_types::NodeId;

use super::node::{Node, PLACE_LABEL, Presence};

/// All that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFilter {
    /// Names resolved to ids; `None`: any.
    pub ids: Option<BTreeSet<NodeId>>,
    pub states: Vec<Presence>,
    pub places: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

impl NodeFilter {
    pub fn matches(&self, node: &Node, place: &str) -> bool {
        let labels = node.effective_labels();
        self.ids.as_ref().is_none_or(|ids| ids.contains(&node.id))
            && (self.states.is_empty() || self.states.contains(&node.presence))
            && (self.places.is_empty() || self.places.iter().any(|wanted| wanted == place))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Where a node is: its label, else its cell's name, else nowhere.
pub fn place_of(node: &Node, cell_name: Option<&str>) -> String {
    node.effective_labels().remove(PLACE_LABEL).or_else(|| cell_name.map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use muster_types::Timestamp;

    use super::super::node::Attested;
    use super::*;

    fn node() -> Node {
        let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned())]);
        let attested = Attested { labels, ..Attested::default() };
        Node::new(NodeId([3; 20]), attested, Timestamp::default())
    }

    #[test]
    fn an_empty_filter_matches_and_each_condition_can_refuse() {
        let node = node();
        assert!(NodeFilter::default().matches(&node, ""));
        let by = |filter: NodeFilter| filter.matches(&node, "Turku");
        assert!(by(NodeFilter { places: vec!["Turku".to_owned()], ..NodeFilter::default() }));
        assert!(!by(NodeFilter { places: vec!["Oulu".to_owned()], ..NodeFilter::default() }));
        assert!(!by(NodeFilter { states: vec![Presence::Online], ..NodeFilter::default() }));
        assert!(!by(NodeFilter { ids: Some(BTreeSet::new()), ..NodeFilter::default() }));
        let labels = BTreeMap::from([("os".to_owned(), "macos".to_owned())]);
        assert!(!by(NodeFilter { labels, ..NodeFilter::default() }));
    }

    #[test]
    fn an_operators_label_covers_the_attested_one_and_can_hide_it() {
        let mut node = node();
        node.labels.insert("os".to_owned(), None);
        node.labels.insert(PLACE_LABEL.to_owned(), Some("Turku".to_owned()));
        assert_eq!(place_of(&node, Some("192.168.1.0/24")), "Turku");
        assert!(!node.effective_labels().contains_key("os"));
    }
}
