//! Session messages on a stream: four bytes of length in network order, then the message. The length is
//! checked before anything is read or allocated.

use bytes::{BufMut, Bytes, BytesMut};
use muster_types::limits;

use crate::error::WireError;

pub const HEADER_BYTES: usize = 4;

/// The length that a frame's header announces.
///
/// # Errors
/// It is beyond [`limits::MESSAGE_BYTES`].
pub fn length(header: [u8; HEADER_BYTES]) -> Result<usize, WireError> {
    bounded(u32::from_be_bytes(header) as usize)
}

/// A message behind its header.
///
/// # Errors
/// It is beyond [`limits::MESSAGE_BYTES`].
pub fn framed(message: &[u8]) -> Result<Bytes, WireError> {
    let length = bounded(message.len())?;
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    frame.put_u32(length as u32);
    frame.put_slice(message);
    Ok(frame.freeze())
}

pub(crate) fn bounded(length: usize) -> Result<usize, WireError> {
    if length <= limits::MESSAGE_BYTES {
        Ok(length)
    } else {
        Err(WireError::TooLarge { what: "a session message", actual: length, limit: limits::MESSAGE_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_announces_what_it_holds() {
        let frame = framed(b"hello").unwrap();
        assert_eq!(length(frame[..HEADER_BYTES].try_into().unwrap()), Ok(5));
        assert_eq!(&frame[HEADER_BYTES..], b"hello");
    }

    #[test]
    fn an_absurd_length_is_refused_before_anything_is_read() {
        let error = length([0xff; HEADER_BYTES]).unwrap_err();
        assert_eq!(error.to_string(), "a session message has 4294967295 bytes; 262144 are the most");
        assert!(framed(&vec![0; limits::MESSAGE_BYTES + 1]).is_err());
    }
}
