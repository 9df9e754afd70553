//! By which way this node speaks with the master. Nothing else cares which it is.

/// The way of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// There is none; why, for people.
    None { why: String },
    /// Over this node's own control channel.
    Direct,
}

impl Route {
    pub(super) fn none(why: &str) -> Self {
        Self::None { why: why.to_owned() }
    }

    /// As `muster-agent status` says it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::None { why } => format!("none: {why}"),
            Self::Direct => "attached".to_owned(),
        }
    }
}
