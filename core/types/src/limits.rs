//! Bounds that more than one crate must agree on. A bound that only one room obeys stands in that room.

use std::time::Duration;

/// Overlay port, UDP and TCP; any other if it is taken.
pub const DEFAULT_PORT: u16 = 27431;

/// Addresses of one node in a contact.
pub const ADDRESSES: usize = 8;

/// Subnet keys that one node reports: two families, and room for a wired and a wireless network at once.
pub const SUBNET_KEYS: usize = 8;

/// Nodes of one cell; the master splits larger ones.
pub const CELL_NODES: usize = 1_000;

/// A bare datagram of ours: what passes every path without fragmentation (RFC 9000, section 14).
pub const DATAGRAM_BYTES: usize = 1_200;

/// One message of a session, before it is parsed: a neighbor list of a full cell.
pub const MESSAGE_BYTES: usize = 256 * 1024;

/// Arguments or results carried inline.
pub const INLINE_BYTES: usize = 64 * 1024;

/// Content of one letter from node to node: enough for a message, too little for a file.
pub const LETTER_BYTES: usize = 16 * 1024;

/// How long a letter waits at its sender for a recipient that is away: a week's holiday.
pub const LETTER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// One chunk of a program's output.
pub const OUTPUT_CHUNK_BYTES: usize = 32 * 1024;

/// Output kept of one stream: half of it head, half tail.
pub const OUTPUT_KEPT_BYTES: usize = 1024 * 1024;

/// Targets in one signed order.
pub const ORDER_TARGETS: usize = 256;

/// How long a task may live.
pub const TASK_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Contacts that an agent keeps.
pub const KEPT_CONTACTS: usize = 100;

/// A certificate and its ticket.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(14 * 24 * 3600);
