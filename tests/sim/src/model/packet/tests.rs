//! Packets are built here by hand, translated, and read again.

use proptest::prelude::*;

use super::*;

/// A packet of that flow; `payload` follows the header of the layer above IP.
fn build(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (flow.source.port().to_be_bytes(), flow.destination.port().to_be_bytes());
    let v4 = flow.source.is_ipv4();
    let (number, mut upper) = match flow.protocol {
        Protocol::Udp => (
            UDP,
            [source.as_slice(), &destination, &(8 + payload.len() as u16).to_be_bytes(), &[0, 0]].concat(),
        ),
        Protocol::Tcp => (TCP, [source.as_slice(), &destination, &[0; 8], &[0x50, 0x10], &[0; 6]].concat()),
        Protocol::Icmp if v4 => (ICMP, [&[8, 0, 0, 0], source.as_slice(), &[0, 1]].concat()),
        Protocol::Icmp => (ICMP6, [&[128, 0, 0, 0], source.as_slice(), &[0, 1]].concat()),
    };
    upper.extend_from_slice(payload);
    let mut packet = header(v4, number, upper.len());
    packet.extend_from_slice(&upper);
    rewrite(&mut packet, flow);
    packet
}

fn header(v4: bool, protocol: u8, length: usize) -> Vec<u8> {
    if v4 {
        let total = (IPV4_HEADER + length) as u16;
        let mut header = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol];
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header.resize(IPV4_HEADER, 0);
        return header;
    }
    let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    header.resize(IPV6_HEADER, 0);
    header
}

/// A packet whose sums are right sums up to all ones.
fn sums_are_right(packet: &[u8]) -> bool {
    let layout = layout(packet).unwrap();
    let body = &packet[layout.upper..layout.end];
    let pseudo = if layout.protocol == ICMP { 0 } else { pseudo_sum(&layout, body.len()) };
    let header_right = layout.source.is_ipv6() || checksum(0, &packet[..layout.upper]) == 0;
    header_right && checksum(pseudo, body) == 0
}

fn flow() -> impl Strategy<Value = Flow> {
    let ends = |v4: bool| match v4 {
        true => (any::<u32>(), any::<u16>())
            .prop_map(|(ip, port)| SocketAddr::new(Ipv4Addr::from(ip).into(), port))
            .boxed(),
        false => (any::<u128>(), any::<u16>())
            .prop_map(|(ip, port)| SocketAddr::new(Ipv6Addr::from(ip).into(), port))
            .boxed(),
    };
    (any::<bool>(), 0..3).prop_flat_map(move |(v4, protocol)| {
        (ends(v4), ends(v4)).prop_map(move |(source, mut destination)| {
            let protocol = [Protocol::Udp, Protocol::Tcp, Protocol::Icmp][protocol as usize];
            if protocol == Protocol::Icmp {
                destination.set_port(source.port());
            }
            Flow { protocol, source, destination }
        })
    })
}

proptest! {
    #[test]
    fn a_rewritten_packet_has_the_new_flow_the_old_payload_and_right_sums(
        old in flow(), new in flow(), payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let new = Flow { protocol: old.protocol, ..new };
        prop_assume!(old.source.is_ipv4() == new.source.is_ipv4());
        let new = match new.protocol {
            Protocol::Icmp => Flow { destination: SocketAddr::new(new.destination.ip(), new.source.port()), ..new },
            _ => new,
        };
        let mut packet = build(old, &payload);
        prop_assert_eq!(kind(&packet), Kind::Flow(old, Signal::Carries));
        rewrite(&mut packet, new);
        prop_assert_eq!(kind(&packet), Kind::Flow(new, Signal::Carries));
        prop_assert!(packet.ends_with(&payload));
        prop_assert!(sums_are_right(&packet));
    }

    #[test]
    fn garbage_is_read_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..128), new in flow()) {
        let _ = kind(&bytes);
        rewrite(&mut bytes, new);
        rewrite_error(&mut bytes, (new.source.ip(), new.destination.ip()), new);
    }
}

#[test]
fn an_error_names_the_packet_it_quotes_and_is_rewritten_within() {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let sent = Flow {
        protocol: Protocol::Udp,
        source: end("203.0.113.1:27431"),
        destination: end("198.51.100.1:9"),
    };
    let quoted = &build(sent, b"a question")[..28];
    let mut error = header(true, ICMP, ICMP_HEADER + quoted.len());
    error.extend_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
    error.extend_from_slice(quoted);
    assert_eq!(kind(&error), Kind::ErrorAbout(sent));
    let inside = Flow { source: end("192.168.1.11:27431"), ..sent };
    rewrite_error(&mut error, (sent.destination.ip(), inside.source.ip()), inside);
    assert_eq!(kind(&error), Kind::ErrorAbout(inside));
    assert!(sums_are_right(&error));
}

#[test]
fn a_tcp_reset_ends_its_flow() {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let flow = Flow {
        protocol: Protocol::Tcp,
        source: end("192.168.1.11:5000"),
        destination: end("198.51.100.1:443"),
    };
    let mut packet = build(flow, b"");
    packet[IPV4_HEADER + 13] = 0x04;
    assert_eq!(kind(&packet), Kind::Flow(flow, Signal::Ends));
}
