//! Beats in QUIC datagrams.

use bytes::Bytes;
use muster_overlay::message::Beat;
use muster_proto::overlay::v1;
use prost::Message;

use crate::error::WireError;
use crate::field;

/// Three fixed or full-length numbers, a flag, and room for fields to come.
const BEAT_BYTES: usize = 128;

pub fn encode(beat: &Beat) -> Bytes {
    let Beat { lineage, epoch, sequence, answer } = *beat;
    v1::Beat { lineage, epoch, sequence, answer }.encode_to_vec().into()
}

/// # Errors
/// Too large, or no beat.
pub fn decode(bytes: &[u8]) -> Result<Beat, WireError> {
    if bytes.len() > BEAT_BYTES {
        return Err(WireError::TooLarge { what: "a beat", actual: bytes.len(), limit: BEAT_BYTES });
    }
    let v1::Beat { lineage, epoch, sequence, answer } = field::parse("beat", bytes)?;
    Ok(Beat { lineage, epoch, sequence, answer })
}
