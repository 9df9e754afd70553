//! This host's own letters: those it writes, until their receipts are here, and those it gets.

use muster_overlay::post::{Kept, Name, Origin, Verdict};
use muster_proto::trust::v1::Envelope;
use muster_types::{LetterId, NodeId, Timestamp, limits};
use muster_wire::Verifier;
use muster_wire::letter::{self, Content, Letter, Word};
use tokio::sync::mpsc;

use super::desk::Desk;
use super::shelf::{Draft, Received, ShelfError};
use super::{Done, Progress};

/// After so many letters the file of their names is written anew, without those that have run out.
const NOTED: u64 = 1_024;

/// Somebody waits for the letter's end, and is told what stood in its way last.
pub(super) struct Wanted {
    progress: mpsc::Sender<Progress>,
    trouble: String,
}

impl Desk {
    /// Those of an earlier life.
    pub(super) fn take_drafts(&mut self) -> Result<(), ShelfError> {
        for draft in self.shelf.drafts()? {
            let kept = self.kept(&draft);
            if self.outbox.take(kept, self.boot.now()).is_err() {
                tracing::warn!(letter = %draft.id, "a letter of an earlier life finds no room");
            }
        }
        Ok(())
    }

    fn kept(&self, draft: &Draft) -> Kept {
        let left = draft.expires().since(self.around.clock.now());
        Kept { id: draft.id, to: draft.to, expires: self.boot.now() + left }
    }

    /// On disk first: what is answered is not forgotten.
    pub(super) fn on_draft(&mut self, super::Draft { to, content, life, progress }: super::Draft) {
        let now = self.around.clock.now();
        let draft = Draft::new(to, now, now + life.min(limits::LETTER_LIFETIME), &content);
        if self.here.apart {
            let reason = "this device stands apart from the network".to_owned();
            // Who wrote it may have gone.
            let _ = progress.try_send(Progress::Failed(reason));
            return;
        }
        let (kept, shelf) = (self.kept(&draft), self.shelf.clone());
        self.beside.spawn_blocking(move || {
            let shelved = shelf.keep_draft(&draft);
            Done::Shelved { kept, progress, shelved }
        });
    }

    pub(super) fn on_shelved(
        &mut self,
        kept: Kept,
        progress: mpsc::Sender<Progress>,
        shelved: Result<(), ShelfError>,
    ) {
        let take = |()| self.outbox.take(kept, self.boot.now()).map_err(|full| full.to_string());
        match shelved.map_err(|error| error.to_string()).and_then(take) {
            Ok(()) => {
                let trouble = "nobody has acknowledged it".to_owned();
                self.wanted.insert(kept.id, Wanted { progress, trouble });
                self.tell(kept.id, Progress::Kept(kept.id));
                self.say_due();
            }
            Err(reason) => {
                tracing::warn!(reason, "a letter is not taken");
                self.shelf.drop_draft(kept.id);
                // Who wrote it may have gone.
                let _ = progress.try_send(Progress::Failed(reason));
            }
        }
    }

    /// Who wrote it may have gone.
    fn tell(&self, id: LetterId, progress: Progress) {
        if let Some(wanted) = self.wanted.get(&id) {
            let _ = wanted.progress.try_send(progress);
        }
    }

    pub(super) fn say_due(&mut self) {
        let now = self.boot.now();
        for kept in self.outbox.due(now) {
            let keyring = self.around.keyring.clone();
            self.beside.spawn(async move {
                let found = keyring.find(kept.to).await;
                Done::Keyed(kept.id, found.map(|(ticket, _)| ticket.sealing_key).map_err(|it| it.to_string()))
            });
        }
        for kept in self.outbox.expired(now) {
            tracing::info!(letter = %kept.id, to = %kept.to.short(), "a letter has not arrived within its time");
            self.shelf.drop_draft(kept.id);
            if let Some(wanted) = self.wanted.remove(&kept.id) {
                let _ = wanted.progress.try_send(Progress::Failed(wanted.trouble));
            }
        }
    }

    /// Sealed anew each time: tickets and keys are renewed while a letter waits.
    pub(super) fn on_keyed(&mut self, id: LetterId, key: Result<[u8; 32], String>) {
        let Some(draft) = self.shelf.draft(id) else { return };
        let sealed = key.and_then(|key| {
            let (sent, expires) = (draft.sent(), draft.expires());
            let letter = Letter { id, to: draft.to, sent, expires, content: draft.content() };
            letter.seal(&self.around.hand.load().signer, &key).map_err(|error| error.to_string())
        });
        match sealed {
            Ok(sealed) => self.on_word(Origin::Here, Word::new(draft.to, Content::Letter(sealed))),
            Err(reason) => {
                tracing::info!(letter = %id, reason, "a letter waits");
                if let Some(wanted) = self.wanted.get_mut(&id) {
                    wanted.trouble = reason;
                }
            }
        }
    }

    /// What is for this node.
    pub(super) fn deliver(&mut self, from: NodeId, content: Content) {
        match content {
            Content::Letter(sealed) => self.on_letter(&sealed),
            Content::Receipt(sealed) => self.on_receipt(&sealed),
            Content::Call(sealed) => {
                tracing::debug!(from = %from.short(), "a call by super nodes");
                self.around.meetings.called(sealed);
            }
        }
    }

    fn on_letter(&mut self, sealed: &Envelope) {
        let (trust, now) = (self.around.trust.load_full(), self.around.clock.now());
        let verifier = Verifier { trust: &trust, now };
        let own = self.around.endpoint.node();
        let opened = Letter::open(sealed, own, &self.around.hand.load().sealing, &verifier);
        let (from, letter) = match opened {
            Ok(opened) => opened,
            Err(error) => return tracing::info!(%error, "a letter is not believed"),
        };
        let name = (from, letter.id);
        match self.seen.look(name, now) {
            Verdict::Again => self.acknowledge(name),
            Verdict::Full => tracing::warn!(from = %from.short(), "a letter is not taken: too many came"),
            Verdict::New => {
                // It may come by two ways at once.
                if self.storing.insert(name) {
                    let received = Received::new(name, letter.sent, now, &letter.content);
                    let (shelf, until) = (self.shelf.clone(), letter.expires);
                    self.beside.spawn_blocking(move || {
                        let stored = shelf.keep_received(&received, until);
                        Done::Stored { name, until, stored }
                    });
                }
            }
        }
    }

    pub(super) fn on_stored(&mut self, name: Name, until: Timestamp, stored: Result<(), ShelfError>) {
        self.storing.remove(&name);
        match stored {
            Ok(()) => {
                tracing::info!(from = %name.0.short(), letter = %name.1, "a letter");
                self.seen.remember(name, until);
                self.arrived.send_modify(|arrived| *arrived += 1);
                self.acknowledge(name);
                if self.arrived.borrow().is_multiple_of(NOTED)
                    && let Err(error) = self.shelf.keep_seen(&self.seen)
                {
                    tracing::warn!(%error, "the names of letters that came are not written anew");
                }
            }
            Err(error) => tracing::warn!(from = %name.0.short(), %error, "a letter is not taken"),
        }
    }

    fn acknowledge(&mut self, (from, id): Name) {
        let sealed = letter::receipt(id, from, &self.around.hand.load().signer);
        self.on_word(Origin::Here, Word::new(from, Content::Receipt(sealed)));
    }

    fn on_receipt(&mut self, sealed: &Envelope) {
        let trust = self.around.trust.load_full();
        let verifier = Verifier { trust: &trust, now: self.around.clock.now() };
        match letter::open_receipt(sealed, self.around.endpoint.node(), &verifier) {
            Ok((by, id)) if self.outbox.acknowledged(id, by) => {
                tracing::info!(to = %by.short(), letter = %id, "a letter has arrived");
                self.shelf.drop_draft(id);
                self.tell(id, Progress::Arrived(id));
                self.wanted.remove(&id);
            }
            Ok(_) => tracing::debug!("a receipt for what does not wait"),
            Err(error) => tracing::info!(%error, "a receipt is not believed"),
        }
    }
}
