//! What an LSN carries for its nodes without haste, packed together: hosts of one cell are alike, and zstd with a window
//! longer than one host's inventory finds that out.

use muster_proto::control::v1::{PackedUpstreams, Upstream, UpstreamBatch};
use prost::Message;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter};

use crate::WireError;

/// Bytes of a batch before it is packed, which bounds what unpacking may take.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Upstreams of one batch.
pub const BATCH_UPSTREAMS: usize = 4_096;
/// 2^22: a whole batch is in view, and whoever unpacks needs no more memory than that.
const WINDOW_LOG: u32 = 22;
/// Beyond it packing takes four times as long for a tenth less (measured on inventories).
const LEVEL: i32 = 9;

/// Packs upstreams of at most [`BATCH_BYTES`] together.
///
/// # Errors
/// They are too large, or zstd fails, which is our fault.
pub fn pack(upstreams: Vec<Upstream>) -> Result<PackedUpstreams, WireError> {
    let batch = UpstreamBatch { upstreams }.encode_to_vec();
    if batch.len() > BATCH_BYTES {
        return Err(WireError::invalid("packed", "more than a batch holds"));
    }
    let unpacked_bytes = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    let packed = (|| {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        compressor.compress(&batch)
    })();
    let zstd = packed.map_err(|_| WireError::invalid("packed", "what zstd cannot pack"))?.into();
    Ok(PackedUpstreams { zstd, unpacked_bytes })
}

/// The upstreams in the order in which they were packed.
///
/// # Errors
/// It claims or holds more than a batch may, or is no batch.
pub fn unpack(packed: &PackedUpstreams) -> Result<Vec<Upstream>, WireError> {
    let capacity = usize::try_from(packed.unpacked_bytes).unwrap_or(usize::MAX);
    if capacity > BATCH_BYTES {
        return Err(WireError::invalid("packed.unpacked_bytes", "more than a batch holds"));
    }
    let batch = (|| {
        let mut decompressor = Decompressor::new()?;
        decompressor.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        decompressor.decompress(&packed.zstd, capacity)
    })();
    let batch = batch.map_err(|_| WireError::invalid("packed.zstd", "bytes that are not what they claim"))?;
    let batch: UpstreamBatch = crate::field::parse("packed upstreams", &batch)?;
    crate::field::at_most("packed.upstreams", &batch.upstreams, BATCH_UPSTREAMS)?;
    Ok(batch.upstreams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn upstreams(ids: &[u8]) -> Vec<Upstream> {
        ids.iter().map(|&id| Upstream { node_id: Bytes::from(vec![id; 20]), items: Vec::new() }).collect()
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_in_its_order(ids in prop::collection::vec(any::<u8>(), 0..200)) {
            let packed = pack(upstreams(&ids)).unwrap();
            prop_assert_eq!(unpack(&packed).unwrap(), upstreams(&ids));
        }

        #[test]
        fn rubbish_is_refused(zstd: Vec<u8>, unpacked_bytes: u32) {
            let _ = unpack(&PackedUpstreams { zstd: zstd.into(), unpacked_bytes });
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 8 * BATCH_BYTES], 1).unwrap();
        for claimed in [u32::MAX, BATCH_BYTES as u32] {
            let packed = PackedUpstreams { zstd: bomb.clone().into(), unpacked_bytes: claimed };
            assert!(unpack(&packed).is_err());
        }
    }
}
