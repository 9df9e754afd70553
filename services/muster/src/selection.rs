//! Which hosts are meant: `--on`, `--all`, `--place`, `--label`, as the Fleet API takes them.

use std::convert::Infallible;
use std::str::FromStr;

use clap::Args;
use muster_proto::fleet::v1::NodeFilter;

use crate::exit::Failure;

/// All that is given must match.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// A host: id, the beginning of an id, or host name; may be given more than once
    #[arg(long = "on", value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Every host that is enrolled
    #[arg(long, conflicts_with_all = ["nodes", "places", "labels"])]
    pub all: bool,
    /// Hosts in this place; may be given more than once
    #[arg(long = "place", value_name = "PLACE")]
    pub places: Vec<String>,
    /// Hosts with this label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
}

impl Selection {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.places.is_empty() && self.labels.is_empty()
    }

    pub fn filter(&self) -> NodeFilter {
        NodeFilter {
            names: self.nodes.clone(),
            states: Vec::new(),
            places: self.places.clone(),
            labels: self.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        }
    }

    /// For commands that change hosts: nobody means every host by saying nothing.
    pub fn require(&self) -> Result<(), Failure> {
        if self.all || !self.is_empty() {
            return Ok(());
        }
        Err(Failure::usage("no host is named", "this command wants to know where")
            .next("add --on NODE, --place PLACE, --label KEY=VALUE or --all"))
    }

    /// In words, for messages.
    pub fn describe(&self) -> String {
        let labels = self.labels.iter().map(|Label { key, value }| format!("{key}={value}"));
        let parts: Vec<String> = self.nodes.iter().chain(&self.places).cloned().chain(labels).collect();
        if parts.is_empty() { "all hosts".to_owned() } else { parts.join(", ") }
    }
}

/// `KEY=VALUE`; without `=` the value is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saying_nothing_is_not_saying_all() {
        assert!(Selection::default().require().is_err());
        assert!(Selection { all: true, ..Selection::default() }.require().is_ok());
        assert!(Selection { nodes: vec!["a".into()], ..Selection::default() }.require().is_ok());
    }

    #[test]
    fn a_label_keeps_what_follows_its_first_equals_sign() {
        assert_eq!("a=b=c".parse(), Ok(Label { key: "a".into(), value: "b=c".into() }));
    }
}
