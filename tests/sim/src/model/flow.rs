//! A flow names one packet's protocol and its two ends; it is all that a translator or a firewall looks at.

use std::net::SocketAddr;

use thiserror::Error;

/// Protocols that a translator can follow. An ICMP echo's identifier stands in for both ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Udp,
    Tcp,
    Icmp,
}

/// One packet's ends, as they stand in its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Flow {
    /// The flow of an answer to this packet.
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// What a packet says about its connection's life; everything but TCP only ever carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Carries,
    /// TCP FIN or RST: from now on the short time-out holds.
    Ends,
}

/// Why a packet was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    #[error("nothing inside is mapped to that port")]
    NoMapping,
    #[error("nothing inside has written to that sender lately")]
    Filtered,
    #[error("this translator does not turn packets back inside")]
    NoHairpin,
    #[error("every external port is taken")]
    TableFull,
}
