//! Where nodes are: the key and address behind each id. What a session proved is not overwritten by what others say.

use std::collections::{BTreeSet, HashMap};

use muster_types::NodeId;
use muster_wire::datagram::PeerAddress;

/// Contacts that others named and the machine has not taken; swept when there are so many.
const ENTRIES: usize = 8_192;

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: PeerAddress,
    /// A session with this key proved the id, and its last request was not lost.
    proven: bool,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<NodeId, Entry>,
}

impl Book {
    pub(super) fn address(&self, node: NodeId) -> Option<PeerAddress> {
        self.entries.get(&node).map(|entry| entry.address)
    }

    /// Somebody says that a node is there.
    pub(super) fn hear_of(&mut self, address: PeerAddress) {
        let entry = self.entries.entry(address.node).or_insert(Entry { address, proven: false });
        if !entry.proven {
            entry.address = address;
        }
    }

    /// The node itself spoke from there.
    pub(super) fn proven(&mut self, address: PeerAddress) {
        self.entries.insert(address.node, Entry { address, proven: true });
    }

    /// It did not answer: whoever knows better may say so.
    pub(super) fn doubt(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.proven = false;
        }
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.entries.remove(&node);
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() > ENTRIES
    }

    pub(super) fn keep_only(&mut self, wanted: &BTreeSet<NodeId>) {
        self.entries.retain(|node, _| wanted.contains(node));
    }
}
