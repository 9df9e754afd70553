//! Which methods stream, as the contracts themselves say: those live as long as they like, all others have a deadline.

use std::collections::HashSet;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

static STREAMING: LazyLock<HashSet<String>> = LazyLock::new(|| {
    [muster_proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, REFLECTION]
        .into_iter()
        .filter_map(|descriptors| FileDescriptorSet::decode(descriptors).ok())
        .flat_map(|descriptors| descriptors.file)
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().map(move |service| (package.clone(), service))
        })
        .flat_map(|(package, service)| {
            let name = format!("/{package}.{}", service.name());
            service
                .method
                .into_iter()
                .filter(|method| method.client_streaming() || method.server_streaming())
                .map(move |method| format!("{name}/{}", method.name()))
        })
        .collect()
});

const REFLECTION: &[u8] = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;

/// Whether the method of this path streams, in either direction.
pub(super) fn streams(path: &str) -> bool {
    STREAMING.contains(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_tell_streams_from_single_calls() {
        assert!(streams("/muster.control.v1.ControlService/Attach"));
        assert!(streams("/muster.fleet.v1.FleetService/WatchTask"));
        assert!(streams("/grpc.health.v1.Health/Watch"));
        assert!(streams("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"));
        assert!(!streams("/muster.fleet.v1.FleetService/GetNode"));
        assert!(!streams("/muster.auth.v1.EnrollmentService/Enroll"));
    }
}
