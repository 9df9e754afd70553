//! What the audit log is told: who had what done to whom. A deed is written with the change that it tells of, so that
//! neither is there without the other.

use muster_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::ledger::{Command, Ledger, Wanted};

/// Characters of a deed's texts (contract of AuditDeed).
const TEXT_CHARS: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    CreateTask,
    CancelTask,
    ApproveTask,
    /// Somebody asked for what a rule does not allow.
    Refuse,
    /// A node became LSN, or ceased to be one.
    ChangeRole,
    ChangeLabels,
    DeleteNode,
    /// Deeds of hosts that are not told: too many waited.
    Omit,
    /// Several devices live under one identity.
    HoldNode,
    ResolveClone,
}

impl Action {
    /// A person or program wanted it; the others follow from what hosts do.
    pub fn is_asked_for(self) -> bool {
        !matches!(self, Self::Refuse | Self::ChangeRole)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    pub at: Timestamp,
    pub action: Action,
    /// Resource names of who did it, and of what it was done to.
    pub actor: String,
    pub subject: String,
    pub detail: String,
}

impl Deed {
    /// Texts that people or hosts wrote are cut and cleared of what no log should show.
    pub fn new(at: Timestamp, action: Action, actor: &str, subject: &str, detail: &str) -> Self {
        let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS).collect();
        Self { at, action, actor: plain(actor), subject: plain(subject), detail: plain(detail) }
    }

    /// What stands for deeds that found no room.
    pub fn omission(at: Timestamp, count: u64) -> Self {
        let detail = format!("{count} refusals and changes of LSN before this are not told: too many waited");
        Self::new(at, Action::Omit, "services/topology", "audit", &detail)
    }
}

/// Somebody was refused: nothing changes but the log.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub actor: String,
    pub subject: String,
    pub detail: String,
}

impl Command for Refusal {
    type Answer = ();

    fn wants(&self, _: &mut Wanted) {}

    fn apply(&self, ledger: &mut Ledger) {
        ledger.note(Action::Refuse, &self.actor, &self.subject, &self.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_carries_no_control_characters_and_no_more_than_the_log_takes() {
        let text = "a\nb".repeat(TEXT_CHARS);
        let deed = Deed::new(Timestamp::default(), Action::Refuse, "nodes/1", "tasks/2", &text);
        assert_eq!((deed.detail.chars().count(), deed.detail.contains('\n')), (TEXT_CHARS, false));
    }
}
