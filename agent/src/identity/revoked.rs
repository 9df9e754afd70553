//! The list of revocations as this device keeps it: signed increments, one behind the other, each made durable before
//! the next. A half-written last one is left out, and comes again.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use muster_kit::files;
use muster_proto::trust::v1::Envelope;
use muster_wire::Revocations;
use prost::Message;

use super::StateError;

const FILE: &str = "revocations";

/// Where the list lies.
#[derive(Debug, Clone)]
pub struct KeptRevocations {
    path: PathBuf,
}

impl KeptRevocations {
    pub(super) fn of(state: &Path) -> Self {
        Self { path: state.join(FILE) }
    }

    /// What earlier lives knew.
    pub fn load(&self) -> Revocations {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::error!(%error, path = %self.path.display(), "kept revocations cannot be read");
                }
                return Revocations::default();
            }
        };
        let mut rest = &bytes[..];
        let mut kept = Vec::new();
        while !rest.is_empty()
            && let Ok(envelope) = Envelope::decode_length_delimited(&mut rest)
        {
            kept.push(envelope);
        }
        Revocations::restored(&kept)
    }

    /// Keeps what a list has behind `before`, beside what is kept already; all that it has, in its place, for 0.
    ///
    /// # Errors
    /// It cannot be written, or made durable.
    pub fn keep(&self, list: &Revocations, before: u64) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        for increment in list.after(before) {
            bytes.extend(increment.encode_length_delimited_to_vec());
        }
        if before == 0 {
            return Ok(files::write_private(&self.path, &bytes)?);
        }
        let written = self.open().and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_data()
        });
        written.map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use muster_types::NodeId;
    use muster_wire::revocation::Reason;
    use muster_wire::testing::TestNetwork;

    use super::*;

    #[test]
    fn the_list_survives_a_restart_and_a_torn_last_increment() {
        let network = TestNetwork::new();
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptRevocations::of(folder.path());
        assert!(kept.load().is_empty());
        let (first, second) = (network.node(NodeId([1; 20])), network.node(NodeId([2; 20])));
        let mut trust = network.trust();
        trust.revoke([&network.revocations(0, 3, &[first.revocation(3, Reason::Revoked)])]).unwrap();
        kept.keep(trust.revocations(), 0).unwrap();
        trust.revoke([&network.revocations(3, 5, &[second.revocation(5, Reason::Lost)])]).unwrap();
        kept.keep(trust.revocations(), 3).unwrap();
        let list = kept.load();
        assert_eq!((list.number(), list.len()), (5, 2));
        assert_eq!(list.of_node(second.id).unwrap().reason, Reason::Lost);

        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        assert_eq!(kept.load().number(), 3);
        kept.keep(&Revocations::default(), 0).unwrap();
        assert!(kept.load().is_empty());
    }
}
