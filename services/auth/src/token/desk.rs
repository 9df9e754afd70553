//! The sessions with a token: a few, lent out one at a time, opened when needed and again after the token was away.
//!
//! A PIN that was refused is never tried again by itself: tokens lock after three.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::Settings;
use crate::domain::custody::{KeyId, TokenError};
use crate::domain::request::sha256;

/// Sessions at most: a network's HSM that takes 10 ms for a signature still makes 800 a second, and small tokens have as many.
const SESSIONS: usize = 8;

/// How long a caller waits for a session before it is told that the token is busy; shorter than callers' own patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session, logged in, with the handles that are known in it.
pub(super) struct Place {
    pub(super) session: Session,
    pub(super) keys: BTreeMap<KeyId, ObjectHandle>,
}

#[derive(Default)]
struct Places {
    free: Vec<Place>,
    /// Free or lent.
    open: usize,
    /// SHA-256 of the PIN that the token refused.
    refused: Option<[u8; 32]>,
}

/// Where sessions are lent.
pub(super) struct Desk {
    module: Pkcs11,
    token: String,
    pin_file: PathBuf,
    places: Mutex<Places>,
    returned: Condvar,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Desk {
    pub(super) fn new(module: Pkcs11, settings: &Settings) -> Self {
        Self {
            module,
            token: settings.token.clone(),
            pin_file: settings.pin_file.clone(),
            places: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Lets `work` have a session. What fails is tried once more in a new session: the token may have been away.
    pub(super) fn with<T>(&self, work: impl Fn(&mut Place) -> Result<T, Error>) -> Result<T, TokenError> {
        let mut place = self.take()?;
        let failed = match work(&mut place) {
            Ok(done) => {
                self.put(Some(place));
                return Ok(done);
            }
            Err(failed) => failed,
        };
        tracing::debug!(error = %failed, "the token failed in this session; trying in a new one");
        drop(place);
        self.forget();
        let mut place = self.take()?;
        let done = work(&mut place);
        self.put(done.is_ok().then_some(place));
        done.map_err(|error| TokenError::Failed(error.to_string()))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // A panic while it was locked leaves at worst one session uncounted.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Place, TokenError> {
        let until = Instant::now() + PATIENCE;
        let mut places = self.places();
        loop {
            if let Some(place) = places.free.pop() {
                return Ok(place);
            }
            if places.open < SESSIONS {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TokenError::Busy { seconds: PATIENCE.as_secs() });
            }
            let waited = self.returned.wait_timeout(places, left);
            places = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Opened under the lock: two callers must not try a wrong PIN twice.
        let session = self.open(&mut places)?;
        places.open += 1;
        Ok(Place { session, keys: BTreeMap::new() })
    }

    fn put(&self, place: Option<Place>) {
        let mut places = self.places();
        match place {
            Some(place) => places.free.push(place),
            None => places.open -= 1,
        }
        self.returned.notify_one();
    }

    /// One lent session is closed, and the free ones with it: they are of the same past.
    fn forget(&self) {
        let mut places = self.places();
        places.open -= 1 + places.free.len();
        places.free.clear();
        self.returned.notify_all();
    }

    fn open(&self, places: &mut Places) -> Result<Session, TokenError> {
        let failed = |error: Error| TokenError::Failed(error.to_string());
        let (slot, info) = self.slot()?;
        let session = self.module.open_rw_session(slot).map_err(failed)?;
        let pin = self.pin()?;
        let hash = sha256(pin.as_bytes());
        may_try(&info, places.refused == Some(hash), || self.wrong_pin())?;
        match session.login(UserType::User, Some(&AuthPin::from(pin))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                places.refused = None;
                Ok(session)
            }
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                places.refused = Some(hash);
                Err(self.wrong_pin())
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked),
            Err(error) => Err(failed(error)),
        }
    }

    fn wrong_pin(&self) -> TokenError {
        TokenError::WrongPin { file: self.pin_file.display().to_string() }
    }

    fn pin(&self) -> Result<String, TokenError> {
        let text = fs::read_to_string(&self.pin_file).map_err(|error| TokenError::PinFile {
            file: self.pin_file.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Where the token is now.
    fn slot(&self) -> Result<(Slot, TokenInfo), TokenError> {
        let failed = |error: Error| TokenError::Failed(error.to_string());
        let slots = self.module.get_slots_with_token().map_err(failed)?;
        // A slot whose token is just being pulled out has no label.
        let known: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, self.module.get_token_info(slot).ok()?)))
            .filter(|(_, info)| info.token_initialized())
            .collect();
        let labels = known.iter().map(|(_, info)| format!("{:?}", info.label())).collect::<Vec<_>>();
        let mut ours = known.into_iter().filter(|(_, info)| info.label() == self.token);
        let wanted = || self.token.clone();
        let Some(first) = ours.next() else {
            let found = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
            return Err(TokenError::NoToken { wanted: wanted(), found });
        };
        match ours.count() {
            0 => Ok(first),
            more => Err(TokenError::Ambiguous { wanted: wanted(), count: more + 1 }),
        }
    }
}

/// Whether a login may be tried: never with a PIN that was refused, and never as the last try before the token locks.
fn may_try(
    info: &TokenInfo,
    refused: bool,
    wrong_pin: impl FnOnce() -> TokenError,
) -> Result<(), TokenError> {
    if info.user_pin_locked() {
        Err(TokenError::PinLocked)
    } else if refused {
        Err(wrong_pin())
    } else if info.user_pin_final_try() {
        Err(TokenError::LastTry)
    } else {
        Ok(())
    }
}
