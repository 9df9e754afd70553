//! The contracts between Muster's programs, as generated from `proto/muster/<area>/v1`.
//!
//! Nothing is written by hand here but the module tree and [`payload_type`].

pub mod payload_type;

macro_rules! areas {
    ($($area:ident $package:literal),+ $(,)?) => {$(
        pub mod $area {
            #[allow(clippy::all, missing_docs, unreachable_pub, rustdoc::all)]
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    )+};
}

areas! {
    trust "muster.trust.v1",
    overlay "muster.overlay.v1",
    task "muster.task.v1",
    control "muster.control.v1",
    fleet "muster.fleet.v1",
    auth "muster.auth.v1",
    agent "muster.agent.v1",
    relay "muster.relay.v1",
    dht "muster.dht.v1",
    gsn "muster.gsn.v1",
}

/// Every file above as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
