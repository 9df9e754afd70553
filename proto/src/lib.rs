//! The contracts between Muster's programs, as generated from `proto/muster/<area>/v1`.
//!
//! Nothing is written by hand here but the module tree and [`payload_type`].

pub mod payload_type;

macro_rules! areas {
    ($($area:ident),+) => {$(
        pub mod $area {
            #[allow(clippy::all, missing_docs, unreachable_pub)]
            pub mod v1 {
                tonic::include_proto!(concat!("muster.", stringify!($area), ".v1"));
            }
        }
    )+};
}

areas!(trust, overlay, task, control, fleet, auth, agent);

/// Every file above as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
