//! Letters on disk: those to be sent until they have arrived, those that came until somebody on this host has read them, and
//! the names of those that may come again.
//!
//! `letters/out/ID`, `letters/in/TIME-SENDER-ID`, `letters/seen` with a line for each letter that came.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::BASE64;
use muster_kit::files::{self, FileError};
use muster_overlay::post::{Name, Seen};
use muster_types::{LetterId, NodeId, Timestamp, limits};
use serde::{Deserialize, Serialize};

/// Letters that wait to be read: 16 MiB of the largest. Beyond it none is acknowledged, and their senders keep them.
const INBOX: usize = 1_024;

/// Why letters cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error("{path} cannot be used: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{INBOX} letters wait to be read already")]
    Full,
}

/// A letter of this host's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) id: LetterId,
    pub(crate) to: NodeId,
    sent_micros: i64,
    expires_micros: i64,
    content: String,
}

/// A letter that came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) id: LetterId,
    pub(crate) from: NodeId,
    sent_micros: i64,
    received_micros: i64,
    content: String,
}

/// Clones share the folder.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    folder: PathBuf,
}

impl Draft {
    pub(crate) fn new(to: NodeId, sent: Timestamp, expires: Timestamp, content: &[u8]) -> Self {
        let (sent_micros, expires_micros) = (sent.as_micros(), expires.as_micros());
        let id = LetterId(rand::random());
        Self { id, to, sent_micros, expires_micros, content: BASE64.encode(content) }
    }

    pub(crate) fn sent(&self) -> Timestamp {
        Timestamp::from_micros(self.sent_micros)
    }

    pub(crate) fn expires(&self) -> Timestamp {
        Timestamp::from_micros(self.expires_micros)
    }

    pub(crate) fn content(&self) -> Bytes {
        BASE64.decode(self.content.as_bytes()).unwrap_or_default().into()
    }
}

impl Received {
    pub(crate) fn new((from, id): Name, sent: Timestamp, received: Timestamp, content: &[u8]) -> Self {
        let (sent_micros, received_micros) = (sent.as_micros(), received.as_micros());
        Self { id, from, sent_micros, received_micros, content: BASE64.encode(content) }
    }

    pub(crate) fn sent(&self) -> Timestamp {
        Timestamp::from_micros(self.sent_micros)
    }

    pub(crate) fn received(&self) -> Timestamp {
        Timestamp::from_micros(self.received_micros)
    }

    pub(crate) fn content(&self) -> Bytes {
        BASE64.decode(self.content.as_bytes()).unwrap_or_default().into()
    }

    /// The same letter has the same file, whenever it comes.
    fn file(&self) -> String {
        format!("{:016x}-{}-{}", self.sent_micros, self.from, self.id)
    }
}

impl Shelf {
    /// # Errors
    /// The folders cannot be made.
    pub(crate) fn open(state: &Path) -> Result<Self, ShelfError> {
        let shelf = Self { folder: state.join("letters") };
        for folder in [shelf.outbox(), shelf.inbox()] {
            files::create_private_dir(&folder)?;
        }
        Ok(shelf)
    }

    fn outbox(&self) -> PathBuf {
        self.folder.join("out")
    }

    fn inbox(&self) -> PathBuf {
        self.folder.join("in")
    }

    fn seen(&self) -> PathBuf {
        self.folder.join("seen")
    }

    /// Letters of this host's that have not arrived; a damaged one is left out, and said.
    pub(crate) fn drafts(&self) -> Result<Vec<Draft>, ShelfError> {
        Ok(self.names(&self.outbox())?.iter().filter_map(|path| read(path)).collect())
    }

    pub(crate) fn keep_draft(&self, draft: &Draft) -> Result<(), ShelfError> {
        let bytes = serde_json::to_vec(draft).unwrap_or_default();
        Ok(files::write_private(&self.outbox().join(draft.id.to_string()), &bytes)?)
    }

    pub(crate) fn draft(&self, id: LetterId) -> Option<Draft> {
        read(&self.outbox().join(id.to_string()))
    }

    pub(crate) fn drop_draft(&self, id: LetterId) {
        remove(&self.outbox().join(id.to_string()));
    }

    /// Makes a letter that came durable, and its name.
    ///
    /// # Errors
    /// Too many wait to be read, or the disk takes nothing.
    pub(crate) fn keep_received(&self, letter: &Received, until: Timestamp) -> Result<(), ShelfError> {
        if self.names(&self.inbox())?.len() >= INBOX {
            return Err(ShelfError::Full);
        }
        let bytes = serde_json::to_vec(letter).unwrap_or_default();
        files::write_private(&self.inbox().join(letter.file()), &bytes)?;
        let path = self.seen();
        let appended = File::options().create(true).append(true).open(&path).and_then(|mut file| {
            file.write_all(line((letter.from, letter.id), until).as_bytes())?;
            file.sync_data()
        });
        appended.map_err(|source| ShelfError::Io { path, source })
    }

    /// Those that wait to be read, the oldest first.
    pub(crate) fn received(&self, most: usize) -> Result<Vec<Received>, ShelfError> {
        Ok(self.names(&self.inbox())?.iter().filter_map(|path| read(path)).take(most).collect())
    }

    pub(crate) fn forget(&self, ids: &[LetterId]) -> Result<(), ShelfError> {
        let wanted = |path: &&PathBuf| named(path).is_some_and(|(_, id)| ids.contains(&id));
        self.names(&self.inbox())?.iter().filter(wanted).for_each(|path| remove(path));
        Ok(())
    }

    /// Those that may come again; the file is written anew without those that may not.
    pub(crate) fn load_seen(&self, now: Timestamp) -> Result<Seen, ShelfError> {
        let path = self.seen();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ShelfError::Io { path, source }),
        };
        let mut seen = Seen::default();
        for (name, until) in text.lines().filter_map(parsed).filter(|(_, until)| *until > now) {
            seen.remember(name, until);
        }
        // A life may have ended between a letter and its line.
        for name in self.names(&self.inbox())?.iter().filter_map(|path| named(path)) {
            seen.remember(name, now + limits::LETTER_LIFETIME);
        }
        self.keep_seen(&seen)?;
        Ok(seen)
    }

    pub(crate) fn keep_seen(&self, seen: &Seen) -> Result<(), ShelfError> {
        let text: String = seen.remembered().map(|(name, until)| line(name, until)).collect();
        Ok(files::write_private(&self.seen(), text.as_bytes())?)
    }

    fn names(&self, folder: &Path) -> Result<Vec<PathBuf>, ShelfError> {
        let failed = |source| ShelfError::Io { path: folder.to_owned(), source };
        let entries = fs::read_dir(folder).map_err(failed)?;
        let mut names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // Half-written ones of a life that ended.
        names.retain(|path| path.extension().is_none());
        names.sort_unstable();
        Ok(names)
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a letter is damaged"))
        .ok()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a letter cannot be removed");
    }
}

/// Whose letter a file of [`Received::file`] is.
fn named(path: &Path) -> Option<Name> {
    let mut parts = path.file_name()?.to_str()?.split('-').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn line((from, id): Name, until: Timestamp) -> String {
    format!("{from} {id} {}\n", until.as_micros())
}

fn parsed(line: &str) -> Option<(Name, Timestamp)> {
    let mut words = line.split(' ');
    let name = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((name, Timestamp::from_micros(words.next()?.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_overlay::post::Verdict;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn received(number: u8) -> Received {
        let name = (NodeId([1; 20]), LetterId([number; 16]));
        Received::new(name, NOW + Duration::from_secs(number.into()), NOW, b"hello")
    }

    #[test]
    fn a_letter_that_came_is_read_oldest_first_and_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        let until = NOW + Duration::from_secs(60);
        for number in [2, 1] {
            shelf.keep_received(&received(number), until).unwrap();
        }
        let shelf = Shelf::open(folder.path()).unwrap();
        let ids: Vec<_> = shelf.received(9).unwrap().iter().map(|it| it.id).collect();
        assert_eq!(ids, [LetterId([1; 16]), LetterId([2; 16])]);
        shelf.forget(&[LetterId([1; 16])]).unwrap();
        assert_eq!(shelf.received(9).unwrap().len(), 1);
        let mut seen = shelf.load_seen(NOW).unwrap();
        let name = (NodeId([1; 20]), LetterId([1; 16]));
        assert_eq!(seen.look(name, NOW), Verdict::Again, "what was read is not new");
        assert_eq!(shelf.load_seen(until).unwrap().look(name, until), Verdict::New);
    }

    #[test]
    fn a_letter_whose_name_was_not_noted_before_the_end_is_known_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        shelf.keep_received(&received(1), NOW + Duration::from_secs(60)).unwrap();
        fs::remove_file(shelf.seen()).unwrap();
        let name = (NodeId([1; 20]), LetterId([1; 16]));
        assert_eq!(shelf.load_seen(NOW).unwrap().look(name, NOW), Verdict::Again);
    }

    #[test]
    fn a_full_inbox_takes_no_more_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        for number in 0..INBOX {
            fs::write(shelf.inbox().join(number.to_string()), b"{}").unwrap();
        }
        assert!(matches!(shelf.keep_received(&received(1), NOW), Err(ShelfError::Full)));
    }

    #[test]
    fn a_draft_survives_and_a_damaged_one_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        let draft = Draft::new(NodeId([2; 20]), NOW, NOW + Duration::from_secs(9), b"hello");
        shelf.keep_draft(&draft).unwrap();
        fs::write(shelf.outbox().join("damaged"), b"{").unwrap();
        let drafts = shelf.drafts().unwrap();
        assert_eq!(
            drafts.iter().map(|it| (it.id, it.content())).collect::<Vec<_>>(),
            [(draft.id, "hello".into())]
        );
        shelf.drop_draft(draft.id);
        assert!(shelf.draft(draft.id).is_none());
    }
}
