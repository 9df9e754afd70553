//! Who sits at a relay, and what each one's channels lead to.

use muster_types::NodeId;

use super::pair::PairId;
use super::{ByNode, Channel};

/// A node's place; never given twice, so that what is late for an old one finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    slot: u32,
    generation: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    guest: Option<Guest>,
}

#[derive(Debug)]
struct Guest {
    node: NodeId,
    /// By channel number.
    channels: Vec<Option<PairId>>,
}

#[derive(Debug, Default)]
pub(super) struct Seats {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_node: ByNode<Seat>,
}

impl Seats {
    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    pub(super) fn of(&self, node: NodeId) -> Option<Seat> {
        self.by_node.get(&node).copied()
    }

    pub(super) fn node(&self, seat: Seat) -> Option<NodeId> {
        self.guest(seat).map(|guest| guest.node)
    }

    pub(super) fn take(&mut self, node: NodeId) -> Seat {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.guest = Some(Guest { node, channels: Vec::new() });
        let seat = Seat { slot, generation: place.generation };
        self.by_node.insert(node, seat);
        seat
    }

    pub(super) fn free(&mut self, seat: Seat) -> Option<NodeId> {
        let node = self.guest(seat)?.node;
        self.slots[seat.slot as usize].guest = None;
        self.free.push(seat.slot);
        if self.by_node.get(&node) == Some(&seat) {
            self.by_node.remove(&node);
        }
        Some(node)
    }

    /// The lowest channel that is free leads to `pair` from now on. `None`: nobody sits there.
    pub(super) fn open(&mut self, seat: Seat, pair: PairId) -> Option<Channel> {
        let channels = &mut self.guest_mut(seat)?.channels;
        let free = channels.iter().position(Option::is_none).unwrap_or(channels.len());
        let channel = u16::try_from(free).ok()?;
        if free == channels.len() {
            channels.push(None);
        }
        channels[free] = Some(pair);
        Some(Channel(channel))
    }

    pub(super) fn close(&mut self, seat: Seat, channel: Channel) {
        let guest = self.guest_mut(seat);
        if let Some(place) = guest.and_then(|guest| guest.channels.get_mut(usize::from(channel.0))) {
            *place = None;
        }
    }

    pub(super) fn pair(&self, seat: Seat, channel: Channel) -> Option<PairId> {
        *self.guest(seat)?.channels.get(usize::from(channel.0))?
    }

    fn guest(&self, seat: Seat) -> Option<&Guest> {
        let slot = self.slots.get(seat.slot as usize)?;
        slot.guest.as_ref().filter(|_| slot.generation == seat.generation)
    }

    fn guest_mut(&mut self, seat: Seat) -> Option<&mut Guest> {
        let slot = self.slots.get_mut(seat.slot as usize)?;
        slot.guest.as_mut().filter(|_| slot.generation == seat.generation)
    }
}
