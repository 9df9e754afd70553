//! Just enough of IPv4, IPv6, UDP, TCP and ICMP to name a packet's flow and to write another one into its headers.
//! Checksums are computed anew. Fragments have no flow: they are not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::flow::{Flow, Protocol, Signal};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const UDP_HEADER: usize = 8;

/// TCP's FIN and RST bits.
const TCP_ENDS: u8 = 0x05;

/// Where the parts of a packet lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Offset of the layer above IP.
    upper: usize,
    /// Offset behind the packet's last byte.
    end: usize,
}

/// What a packet is, as far as a router looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It belongs to a flow of its own.
    Flow(Flow, Signal),
    /// An ICMP error about a packet that the error's receiver had sent.
    ErrorAbout(Flow),
    /// Nothing that a translator can follow.
    Other,
}

/// The packet's IP ends, if it is one.
pub fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let layout = layout(packet)?;
    Some((layout.source, layout.destination))
}

/// What the packet is.
pub fn kind(packet: &[u8]) -> Kind {
    let Some(layout) = layout(packet) else {
        return Kind::Other;
    };
    let body = &packet[layout.upper..layout.end];
    if is_icmp_error(layout.protocol, body) {
        return body.get(ICMP_HEADER..).and_then(inner_flow).map_or(Kind::Other, Kind::ErrorAbout);
    }
    let signal = match (layout.protocol, body.get(13)) {
        (TCP, Some(flags)) if flags & TCP_ENDS != 0 => Signal::Ends,
        _ => Signal::Carries,
    };
    flow_at(&layout, body).map_or(Kind::Other, |flow| Kind::Flow(flow, signal))
}

/// What a UDP datagram or a TCP segment carries; nothing, if the packet is neither.
pub fn payload(packet: &[u8]) -> Option<(Protocol, &[u8])> {
    let layout = layout(packet)?;
    let body = packet.get(layout.upper..layout.end)?;
    match layout.protocol {
        UDP => Some((Protocol::Udp, body.get(UDP_HEADER..)?)),
        TCP => {
            let header = usize::from(body.get(12)? >> 4) * 4;
            Some((Protocol::Tcp, body.get(header..)?))
        }
        _ => None,
    }
}

/// Writes `flow`'s ends into the packet's headers. The protocol stays what it is.
pub fn rewrite(packet: &mut [u8], flow: Flow) {
    let Some(layout) = layout(packet) else {
        return;
    };
    write_ends(packet, &layout, flow);
    finish(packet);
}

/// Writes an ICMP error's outer ends and the flow of the packet that it quotes.
pub fn rewrite_error(packet: &mut [u8], outer: (IpAddr, IpAddr), quoted: Flow) {
    let Some(layout) = layout(packet) else {
        return;
    };
    let start = layout.upper + ICMP_HEADER;
    if let Some(inner) = packet.get_mut(start..layout.end)
        && let Some(inner_layout) = truncated_layout(inner)
    {
        write_ends(inner, &inner_layout, quoted);
        finish_ipv4_header(inner);
    }
    write_addresses(packet, outer.0, outer.1);
    finish(packet);
}

fn layout(packet: &[u8]) -> Option<Layout> {
    let layout = truncated_layout(packet)?;
    (layout.end <= packet.len()).then_some(layout)
}

/// As [`layout`], for a packet whose end may be missing, as ICMP errors quote them.
fn truncated_layout(packet: &[u8]) -> Option<Layout> {
    match packet.first()? >> 4 {
        4 => ipv4_layout(packet),
        6 => ipv6_layout(packet),
        _ => None,
    }
}

fn ipv4_layout(packet: &[u8]) -> Option<Layout> {
    let header = packet.get(..IPV4_HEADER)?;
    let upper = usize::from(header[0] & 0x0f) * 4;
    let fragmented = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let whole = upper >= IPV4_HEADER && upper <= end && upper <= packet.len() && !fragmented;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    whole.then(|| Layout {
        source: IpAddr::V4(address(12)),
        destination: IpAddr::V4(address(16)),
        protocol: header[9],
        upper,
        end,
    })
}

fn ipv6_layout(packet: &[u8]) -> Option<Layout> {
    let header = packet.get(..IPV6_HEADER)?;
    let address = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).map(Ipv6Addr::from);
    Some(Layout {
        source: IpAddr::V6(address(8).ok()?),
        destination: IpAddr::V6(address(24).ok()?),
        protocol: header[6],
        upper: IPV6_HEADER,
        end: IPV6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]])),
    })
}

fn is_icmp_error(protocol: u8, body: &[u8]) -> bool {
    match (protocol, body.first()) {
        (ICMP, Some(kind)) => matches!(kind, 3 | 11 | 12),
        (ICMP6, Some(kind)) => *kind < 128,
        _ => false,
    }
}

fn inner_flow(quoted: &[u8]) -> Option<Flow> {
    let layout = truncated_layout(quoted)?;
    flow_at(&layout, quoted.get(layout.upper..)?)
}

fn flow_at(layout: &Layout, body: &[u8]) -> Option<Flow> {
    let number = |at: usize| body.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (protocol, ports) = match layout.protocol {
        UDP => (Protocol::Udp, (number(0)?, number(2)?)),
        TCP => (Protocol::Tcp, (number(0)?, number(2)?)),
        ICMP if matches!(body.first()?, 0 | 8) => (Protocol::Icmp, (number(4)?, number(4)?)),
        ICMP6 if matches!(body.first()?, 128 | 129) => (Protocol::Icmp, (number(4)?, number(4)?)),
        _ => return None,
    };
    Some(Flow {
        protocol,
        source: SocketAddr::new(layout.source, ports.0),
        destination: SocketAddr::new(layout.destination, ports.1),
    })
}

fn write_ends(packet: &mut [u8], layout: &Layout, flow: Flow) {
    write_addresses(packet, flow.source.ip(), flow.destination.ip());
    let (source, destination) = (flow.source.port().to_be_bytes(), flow.destination.port().to_be_bytes());
    let upper = layout.upper;
    match flow.protocol {
        Protocol::Udp | Protocol::Tcp => {
            put(packet, upper, &source);
            put(packet, upper + 2, &destination);
        }
        Protocol::Icmp => put(packet, upper + 4, &source),
    }
}

fn write_addresses(packet: &mut [u8], source: IpAddr, destination: IpAddr) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(packet, 12, &source.octets());
            put(packet, 16, &destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            put(packet, 8, &source.octets());
            put(packet, 24, &destination.octets());
        }
        _ => {}
    }
}

/// Writes what fits; a quoted packet may be cut short.
fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = packet.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn finish(packet: &mut [u8]) {
    finish_ipv4_header(packet);
    let Some(layout) = layout(packet) else {
        return;
    };
    let (offset, pseudo) = match layout.protocol {
        UDP => (6, true),
        TCP => (16, true),
        ICMP => (2, false),
        ICMP6 => (2, true),
        _ => return,
    };
    let body = &mut packet[layout.upper..layout.end];
    if body.len() < offset + 2 {
        return;
    }
    put(body, offset, &[0, 0]);
    let start = if pseudo { pseudo_sum(&layout, body.len()) } else { 0 };
    let sum = match checksum(start, body) {
        // A UDP checksum of zero means "none" (RFC 768).
        0 if layout.protocol == UDP => 0xffff,
        sum => sum,
    };
    put(body, offset, &sum.to_be_bytes());
}

fn finish_ipv4_header(packet: &mut [u8]) {
    let is_ipv4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
    if !is_ipv4 || packet.len() < IPV4_HEADER {
        return;
    }
    let header = (usize::from(packet[0] & 0x0f) * 4).clamp(IPV4_HEADER, packet.len());
    put(packet, 10, &[0, 0]);
    let sum = checksum(0, &packet[..header]);
    put(packet, 10, &sum.to_be_bytes());
}

fn pseudo_sum(layout: &Layout, length: usize) -> u64 {
    let addresses = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    addresses(layout.source) + addresses(layout.destination) + u64::from(layout.protocol) + length as u64
}

fn sum(bytes: &[u8]) -> u64 {
    let pairs =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low)));
    pairs.sum()
}

/// The internet checksum (RFC 1071).
fn checksum(start: u64, bytes: &[u8]) -> u16 {
    let mut total = start + sum(bytes);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[cfg(test)]
mod tests;
