//! The payload types of signed envelopes: one for each purpose, so that no signature serves two.

pub const NODE_TICKET: &str = "application/vnd.muster.node-ticket.v1";
pub const UPTIME_TICKET: &str = "application/vnd.muster.uptime-ticket.v1";
pub const CLAIM: &str = "application/vnd.muster.claim.v1";
pub const ATTACH: &str = "application/vnd.muster.attach.v1";
pub const PRESENCE_RECEIPT: &str = "application/vnd.muster.presence-receipt.v1";
pub const TASK: &str = "application/vnd.muster.task.v1";
pub const TASK_CANCELLATION: &str = "application/vnd.muster.task-cancellation.v1";
pub const TASK_REPORT: &str = "application/vnd.muster.task-report.v1";
pub const REVOCATION_LIST: &str = "application/vnd.muster.revocation-list.v1";
pub const OPERATOR_POLICY: &str = "application/vnd.muster.operator-policy.v1";
pub const AUDIT_HEADS: &str = "application/vnd.muster.audit-heads.v1";
pub const RELAY_TICKET: &str = "application/vnd.muster.relay-ticket.v1";
pub const RECORD: &str = "application/vnd.muster.record.v1";
pub const CALL: &str = "application/vnd.muster.call.v1";
pub const LETTER: &str = "application/vnd.muster.letter.v1";
pub const LETTER_RECEIPT: &str = "application/vnd.muster.letter-receipt.v1";
pub const LIFE: &str = "application/vnd.muster.life.v1";
