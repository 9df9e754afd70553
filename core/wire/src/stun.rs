//! STUN (RFC 8489): the Binding request and its answer, which is all that "how do you see me?" needs. Own code rather than
//! a crate: four message fields and one attribute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

/// Section 5.
const MAGIC: u32 = 0x2112_A442;
const HEADER: usize = 20;
const BINDING: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;

/// Section 14.2.
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Section 14.1: of servers that know nothing newer.
const MAPPED_ADDRESS: u16 = 0x0001;
/// RFC 5780, section 7.6: lets a request be as long as its answer.
const PADDING: u16 = 0x0026;

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;

/// Of the longest answer, which names an IPv6 address.
pub const ANSWER_BYTES: usize = HEADER + 4 + 20;

/// Tells answers apart; drawn by whoever asks.
pub type Transaction = [u8; 12];

/// A STUN message, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Request(Transaction),
    Answer(Transaction, SocketAddr),
}

/// "How do you see me?", as long as the answer will be.
pub fn request(transaction: &Transaction) -> Bytes {
    let padding = [0; ANSWER_BYTES - HEADER - 4];
    message(BINDING, transaction, PADDING, &padding)
}

/// "I see you there."
pub fn answer(transaction: &Transaction, seen: SocketAddr) -> Bytes {
    let port = seen.port() ^ (MAGIC >> 16) as u16;
    let mut value = vec![0, FAMILY_V4];
    value.extend_from_slice(&port.to_be_bytes());
    match seen.ip().to_canonical() {
        IpAddr::V4(ip) => value.extend_from_slice(&(ip.to_bits() ^ MAGIC).to_be_bytes()),
        IpAddr::V6(ip) => {
            value[1] = FAMILY_V6;
            value.extend_from_slice(&(ip.to_bits() ^ mask(transaction)).to_be_bytes());
        }
    }
    message(SUCCESS, transaction, XOR_MAPPED_ADDRESS, &value)
}

/// Section 14.2: the cookie, then the transaction.
fn mask(transaction: &Transaction) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[4..].copy_from_slice(transaction);
    u128::from_be_bytes(bytes)
}

fn message(kind: u16, transaction: &Transaction, attribute: u16, value: &[u8]) -> Bytes {
    let length = (4 + value.len()) as u16;
    let mut bytes = Vec::with_capacity(HEADER + usize::from(length));
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&MAGIC.to_be_bytes());
    bytes.extend_from_slice(transaction);
    bytes.extend_from_slice(&attribute.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.into()
}

/// Reads a datagram. `None`: it is neither request nor answer, or malformed.
pub fn decode(datagram: &[u8]) -> Option<Message> {
    let (header, attributes) = datagram.split_first_chunk::<HEADER>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let magic = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if magic != MAGIC || usize::from(word(2)) != attributes.len() || attributes.len() % 4 != 0 {
        return None;
    }
    let mut transaction = Transaction::default();
    transaction.copy_from_slice(&header[8..]);
    match word(0) {
        BINDING => Some(Message::Request(transaction)),
        SUCCESS => Some(Message::Answer(transaction, mapped(attributes, &transaction)?)),
        _ => None,
    }
}

fn mapped(mut attributes: &[u8], transaction: &Transaction) -> Option<SocketAddr> {
    let mut plain = None;
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        let (kind, length) =
            (u16::from_be_bytes([head[0], head[1]]), usize::from(u16::from_be_bytes([head[2], head[3]])));
        let value = rest.get(..length)?;
        match kind {
            XOR_MAPPED_ADDRESS => return address(value, MAGIC, mask(transaction)),
            MAPPED_ADDRESS => plain = address(value, 0, 0),
            _ => {}
        }
        // Values are padded to whole words (section 14).
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    plain
}

fn address(value: &[u8], magic: u32, mask: u128) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]) ^ (magic >> 16) as u16;
    let ip = match head[1] {
        FAMILY_V4 => Ipv4Addr::from_bits(u32::from_be_bytes(ip.try_into().ok()?) ^ magic).into(),
        FAMILY_V6 => Ipv6Addr::from_bits(u128::from_be_bytes(ip.try_into().ok()?) ^ mask).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769, section 2.2 and 2.3: transaction, and addresses as they stand in the attribute.
    const TRANSACTION: Transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    #[test]
    fn addresses_are_written_as_the_test_vectors_of_rfc_5769_say() {
        let v4 = answer(&TRANSACTION, "192.0.2.1:32853".parse().unwrap());
        assert_eq!(v4[HEADER..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let v6 = answer(&TRANSACTION, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
        let expected = [
            0, 2, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe,
            0xd2, 0xb9, 0xd9,
        ];
        assert_eq!(v6[HEADER + 4..], expected);
    }

    #[test]
    fn requests_and_answers_are_what_they_were_and_no_answer_is_longer_than_our_request() {
        let asked = request(&TRANSACTION);
        assert_eq!(decode(&asked), Some(Message::Request(TRANSACTION)));
        for seen in ["192.0.2.1:32853", "[2001:db8::1]:9"] {
            let seen = seen.parse().unwrap();
            let answered = answer(&TRANSACTION, seen);
            assert_eq!(decode(&answered), Some(Message::Answer(TRANSACTION, seen)));
            assert!(answered.len() <= asked.len());
            for end in 0..answered.len() {
                assert_eq!(decode(&answered[..end]), None);
            }
        }
    }

    #[test]
    fn an_older_servers_plain_address_is_read_too() {
        let value = [0, 1, 0x80, 0x55, 192, 0, 2, 1];
        let answered = message(SUCCESS, &TRANSACTION, MAPPED_ADDRESS, &value);
        assert_eq!(decode(&answered), Some(Message::Answer(TRANSACTION, "192.0.2.1:32853".parse().unwrap())));
    }
}
