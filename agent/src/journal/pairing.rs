//! Whether the journal is the one this device last wrote.
//!
//! At every start a number rises in the journal first and in a marker file beside it second. A journal whose number
//! is behind the marker's is an older copy; one of another identity, or none at all, replaced the lost one.

use std::path::{Path, PathBuf};

use muster_kit::files;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, SqliteConnection};

use crate::journal::writer::JournalError;

/// File of the marker in the state directory.
const FILE: &str = "journal.marker";

/// Whether what the journal does not know can be believed to be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The journal is complete.
    Complete,
    /// It was lost or rolled back: ask the master what was begun before starting anything.
    AskMaster,
}

/// The marker beside a journal.
#[derive(Debug, Clone)]
pub struct Pairing {
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// Drawn when the journal was made.
    journal: i64,
    /// Starts of the agent with this journal.
    starts: i64,
    /// The master has been asked since the journal was last found wanting.
    complete: bool,
}

impl Pairing {
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Compares journal and marker and raises the number in both.
    pub(crate) async fn renew(&self, db: &mut SqliteConnection) -> Result<Trust, JournalError> {
        let marker = self.read()?;
        let journal = read_journal(db).await?;
        let trust = judge(marker, journal);
        let starts = marker.map_or(0, |m| m.starts).max(journal.map_or(0, |(_, starts)| starts)) + 1;
        let identity = journal.map_or_else(rand::random::<i64>, |(identity, _)| identity);
        write_journal(db, identity, starts).await?;
        self.write(Marker { journal: identity, starts, complete: trust == Trust::Complete })?;
        Ok(trust)
    }

    /// The master was asked: from now on the journal is complete.
    ///
    /// # Errors
    /// The marker cannot be written; the master will be asked again at the next start.
    pub fn confirm(&self) -> Result<(), JournalError> {
        match self.read()? {
            Some(marker) => self.write(Marker { complete: true, ..marker }),
            None => Ok(()),
        }
    }

    /// The master has to be asked before the journal is believed again.
    pub(crate) fn doubt(&self) -> Result<(), JournalError> {
        match self.read()? {
            Some(marker) => self.write(Marker { complete: false, ..marker }),
            None => Ok(()),
        }
    }

    fn read(&self) -> Result<Option<Marker>, JournalError> {
        match std::fs::read(&self.path) {
            // A marker that cannot be read pairs with nothing.
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or(Marker {
                journal: 0,
                starts: 0,
                complete: false,
            }))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(JournalError::Marker { path: self.path.clone(), source }),
        }
    }

    fn write(&self, marker: Marker) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(&marker)
            .map_err(|error| JournalError::Marker { path: self.path.clone(), source: error.into() })?;
        Ok(files::write_private(&self.path, &bytes)?)
    }
}

fn judge(marker: Option<Marker>, journal: Option<(i64, i64)>) -> Trust {
    match (marker, journal) {
        (None, None) => Trust::Complete,
        // The journal's number rises first: a crash between the two writes leaves it one ahead.
        (Some(marker), Some((identity, starts)))
            if marker.complete && marker.journal == identity && starts >= marker.starts =>
        {
            Trust::Complete
        }
        // The first start of all ended between the two writes, before anything could be accepted.
        (None, Some((_, 1))) => Trust::Complete,
        _ => Trust::AskMaster,
    }
}

async fn read_journal(db: &mut SqliteConnection) -> Result<Option<(i64, i64)>, JournalError> {
    let value = |name: &'static str| {
        sqlx::query_scalar::<_, i64>("SELECT value FROM meta WHERE name = $1").bind(name)
    };
    let identity = value("identity").fetch_optional(&mut *db).await?;
    let starts = value("starts").fetch_optional(&mut *db).await?;
    Ok(identity.zip(starts))
}

async fn write_journal(db: &mut SqliteConnection, identity: i64, starts: i64) -> Result<(), JournalError> {
    let mut transaction = db.begin().await?;
    for (name, value) in [("identity", identity), ("starts", starts)] {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
        )
        .bind(name)
        .bind(value)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}
