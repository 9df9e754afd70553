//! What is sealed to topology itself: the key, and the reports of confidential tasks.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use muster_kit::files::{self, FileError};
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{Finished, Progress, TaskReport};
use muster_proto::trust::v1::{Envelope, Sealed};
use muster_types::NodeId;
use muster_wire::sealing::{KEY_BYTES, REPORTS, SealingError, SealingKey, place_of_report};
use prost::Message;
use rand::RngCore;

/// The key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path} cannot be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{0} is no X25519 secret: it has not 32 bytes")]
    Damaged(String),
    #[error(transparent)]
    Write(#[from] FileError),
}

/// The kept key, or a new one that is kept before it is used.
pub(crate) fn own_key(file: &Path) -> Result<SealingKey, KeyFileError> {
    let path = || file.display().to_string();
    match std::fs::read(file) {
        Ok(bytes) => {
            let secret = bytes.try_into().map_err(|_| KeyFileError::Damaged(path()))?;
            Ok(SealingKey::new(secret))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut secret = [0; KEY_BYTES];
            rand::rng().fill_bytes(&mut secret);
            files::write_private(file, &secret)?;
            Ok(SealingKey::new(secret))
        }
        Err(source) => Err(KeyFileError::Read { path: path(), source }),
    }
}

/// The operators' policy that this master hands to nodes. They judge it, so it is not judged here.
pub(crate) fn operator_policy(file: &Path) -> Option<Envelope> {
    let bytes = std::fs::read(file).ok()?;
    Envelope::decode(&bytes[..])
        .inspect_err(
            |error| tracing::warn!(%error, "the operators' policy cannot be read; nodes keep theirs"),
        )
        .ok()
}

/// Opens what of a report is sealed to topology. What is sealed to somebody else stays sealed.
pub(crate) fn open_report(
    key: &SealingKey,
    node: NodeId,
    report: &mut TaskReport,
) -> Result<(), SealingError> {
    let place = place_of_report(&report.task_id, &report.occurrence, node, report.sequence);
    let open = |sealed: &Option<Sealed>| -> Result<Option<Bytes>, SealingError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let ours = sealed.key_id == muster_wire::envelope::key_id(key.public());
        ours.then(|| key.open(REPORTS, &place, sealed)).transpose()
    };
    match &mut report.step {
        Some(Step::Output(output)) => {
            if let Some(data) = open(&output.sealed)? {
                (output.data, output.sealed) = (data, None);
            }
        }
        Some(Step::Progress(progress)) => {
            if let Some(plain) = open(&progress.sealed)? {
                *progress = Progress::decode(plain).map_err(|_| SealingError::NotForUs)?;
            }
        }
        Some(Step::Finished(finished)) => {
            if let Some(plain) = open(&finished.sealed)? {
                let state = finished.state;
                *finished = Finished::decode(plain).map_err(|_| SealingError::NotForUs)?;
                finished.state = state;
            }
        }
        _ => {}
    }
    Ok(())
}
