//! How much a node is worth as an LSN.

/// Attested share of the last 14 days that topology saw the node connected, in basis points, 0 to 10,000.
/// A node without a ticket has zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uptime(pub u16);

/// What else speaks for or against a node as LSN; its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Standing {
    pub wired: bool,
    pub mains_powered: bool,
}
