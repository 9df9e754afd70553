//! A managed host: a machine with one network card, which can be unplugged, moved, cut off, firewalled and renumbered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::counters::{Counters, read_counters};
use crate::machine::Machine;
use crate::place::{Place, cable};
use crate::plan::{Family, GATEWAY_NUMBER, PlaceNumber};

/// The host's network card.
const CARD: &str = "eth0";

/// Where a host hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    pub place: PlaceNumber,
    /// The last part of its addresses.
    pub number: usize,
    pub family: Family,
}

impl Attachment {
    pub fn v4(self) -> Option<Ipv4Addr> {
        self.family.has_v4().then(|| self.place.v4(self.number))
    }

    pub fn v6(self) -> Option<Ipv6Addr> {
        self.family.has_v6().then(|| self.place.v6(self.number))
    }

    /// The address by which its place reaches it: v6 only where there is no v4.
    pub fn address(self) -> IpAddr {
        match self.v4() {
            Some(v4) => v4.into(),
            None => self.place.v6(self.number).into(),
        }
    }

    /// The `ip` commands that give the card this attachment's addresses and routes.
    fn addressing(self) -> String {
        let mut batch = format!("link set dev {CARD} up\n");
        if let Some(v4) = self.v4() {
            batch += &format!("addr add {v4}/24 broadcast + dev {CARD}\n");
            batch += &format!("route replace default via {}\n", self.place.v4(GATEWAY_NUMBER));
        }
        if let Some(v6) = self.v6() {
            batch += &format!("addr add {v6}/64 dev {CARD} nodad\n");
            batch += &format!("route replace ::/0 via {}\n", self.place.v6(GATEWAY_NUMBER));
        }
        batch
    }
}

/// Which of a host's UDP packets its own firewall drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpBlock {
    Inbound,
    Outbound,
    Both,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    machine: Machine,
    attachment: Mutex<Attachment>,
}

impl Host {
    /// Plugs a machine into a place.
    pub(crate) async fn plug_in(machine: Machine, place: &Place, attachment: Attachment) -> Result<Self> {
        place.switch().ip(&cable(machine.name(), CARD, &machine)).await?;
        machine.ip(&attachment.addressing()).await?;
        Ok(Self { machine, attachment: Mutex::new(attachment) })
    }

    pub fn name(&self) -> &str {
        self.machine.name()
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn attachment(&self) -> Attachment {
        *self.locked()
    }

    /// Unplugs the host from `from` and plugs it into `to`, where it gets new addresses as `guest`.
    pub(crate) async fn move_to(&self, from: &Place, to: &Place, guest: usize) -> Result<()> {
        let attachment = Attachment { place: to.number(), number: guest, family: to.plan().family };
        let (port, switch) = (self.name(), to.switch());
        let unplug = format!(
            "link set dev {port} down\nlink set dev {port} nomaster\nlink set dev {port} netns {}",
            switch.thread_id()
        );
        from.switch().ip(&unplug).await.with_context(|| format!("unplug {port}"))?;
        self.machine.ip(&format!("addr flush dev {CARD}")).await?;
        switch.ip(&format!("link set dev {port} master br0\nlink set dev {port} up")).await?;
        self.machine.ip(&attachment.addressing()).await?;
        *self.locked() = attachment;
        Ok(())
    }

    /// Gives the host other addresses in its place.
    pub async fn renumber(&self, number: usize) -> Result<()> {
        let attachment = Attachment { number, ..self.attachment() };
        self.machine.ip(&format!("addr flush dev {CARD} scope global\n{}", attachment.addressing())).await?;
        *self.locked() = attachment;
        Ok(())
    }

    /// Takes the network card down, or up again with its addresses and routes.
    pub async fn set_link(&self, up: bool) -> Result<()> {
        match up {
            false => self.machine.ip(&format!("link set dev {CARD} down\naddr flush dev {CARD}")).await,
            true => self.machine.ip(&self.attachment().addressing()).await,
        }
    }

    /// Makes the switch drop everything from and to the host: nobody sees a packet, nor a link that goes down.
    pub(crate) async fn set_cut_off(&self, place: &Place, cut_off: bool) -> Result<()> {
        // States of a bridge port: 0 is disabled, 3 is forwarding.
        let state = if cut_off { "0" } else { "3" };
        place.switch().exec("bridge", &["link", "set", "dev", self.name(), "state", state]).await?;
        Ok(())
    }

    /// Puts up a host firewall that drops UDP but for DNS, silently inbound, with an error to the sender outbound.
    pub async fn block_udp(&self, block: UdpBlock) -> Result<()> {
        let chain = |hook: &str, dns: &str| {
            format!(
                "chain {hook} {{\ntype filter hook {hook} priority filter\n{dns} accept\nmeta l4proto udp drop\n}}\n"
            )
        };
        let (input, output) = (chain("input", "udp sport 53"), chain("output", "udp dport 53"));
        let chains = match block {
            UdpBlock::Inbound => input,
            UdpBlock::Outbound => output,
            UdpBlock::Both => input + &output,
        };
        self.machine.nft(&format!("table inet blocked {{\n{chains}}}\n")).await
    }

    /// Puts up a host firewall as desktop systems have it: only what the host has asked for comes in, by UDP and TCP alike, and
    /// IPv6's neighbor discovery.
    pub async fn keep_strangers_out(&self) -> Result<()> {
        let accepted = "ct state established,related accept\niif lo accept\nmeta l4proto ipv6-icmp accept";
        let chain =
            format!("chain input {{\ntype filter hook input priority filter; policy drop;\n{accepted}\n}}\n");
        self.machine.nft(&format!("table inet walled {{\n{chain}}}\n")).await
    }

    /// Takes that one down again.
    pub async fn let_strangers_in(&self) -> Result<()> {
        self.machine.nft("delete table inet walled\n").await
    }

    /// Takes the host firewall down again.
    pub async fn unblock_udp(&self) -> Result<()> {
        self.machine.nft("delete table inet blocked\n").await
    }

    /// What went over the host's network card.
    pub async fn traffic(&self) -> Result<Counters> {
        read_counters(&self.machine, CARD).await
    }

    fn locked(&self) -> MutexGuard<'_, Attachment> {
        self.attachment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
