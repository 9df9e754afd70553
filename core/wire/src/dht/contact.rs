//! One contact in few bytes: node id 20, X25519 key 32, length of the IP, IP, port (proto: `DhtNodes.closest`).

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes};
use muster_types::NodeId;

use crate::datagram::{PeerAddress, Reader};
use crate::error::WireError;

pub(super) fn pack(address: &PeerAddress) -> Bytes {
    let mut bytes = Vec::with_capacity(20 + 32 + 1 + 16 + 2);
    bytes.extend(address.node.as_bytes());
    bytes.extend(address.key);
    match address.at.ip().to_canonical() {
        IpAddr::V4(ip) => {
            bytes.put_u8(4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.put_u8(16);
            bytes.extend(ip.octets());
        }
    }
    bytes.put_u16(address.at.port());
    bytes.into()
}

pub(super) fn unpack(bytes: &[u8]) -> Result<PeerAddress, WireError> {
    read(bytes).ok_or_else(|| WireError::invalid("closest", format!("{} bytes are no contact", bytes.len())))
}

fn read(bytes: &[u8]) -> Option<PeerAddress> {
    let mut reader = Reader::new(bytes);
    let (node, key) = (NodeId(reader.array()?), reader.array()?);
    let ip = match reader.u8()? {
        4 => IpAddr::from(reader.array::<4>()?),
        16 => IpAddr::from(reader.array::<16>()?),
        _ => return None,
    };
    let at = SocketAddr::new(ip, u16::from_be_bytes(reader.array()?));
    (reader.rest().is_empty() && at.port() != 0).then_some(PeerAddress { node, key, at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn contacts_survive(node: [u8; 20], key: [u8; 32], ip: IpAddr, port in 1u16..) {
            let address = PeerAddress { node: NodeId(node), key, at: SocketAddr::new(ip.to_canonical(), port) };
            let packed = pack(&address);
            prop_assert_eq!(unpack(&packed), Ok(address));
            prop_assert!(unpack(&packed[1..]).is_err());
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let _ = unpack(&bytes);
        }
    }
}
