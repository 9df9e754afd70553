//! Keys in a PKCS#11 token: the module is loaded, the token found by its label, logged in to with the PIN of a file.
//!
//! [`crate::domain`] -> [`Pkcs11Token`] -> a free session of the `desk` -> the module. Calls block; on the runtime's own threads they
//! make room for others first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use serde::Deserialize;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::domain::custody::{KeyId, POINT_BYTES, Token, TokenError};

mod desk;

use desk::{Desk, Place};

/// secp256r1 as CKA_EC_PARAMS has it: the DER of its object identifier (RFC 5480, section 2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// How CKA_EC_POINT begins: a DER octet string of 65 bytes (PKCS#11 2.40, section 2.3.3). Some modules leave it out.
const POINT_HEAD: [u8; 2] = [0x04, 0x41];

/// What keys in the token are called, unless it is set.
pub const KEY_LABEL: &str = "muster";

/// Which token, and how to get in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The maker's library, as in `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: PathBuf,
    /// The token's label. Numbers of slots change, labels do not.
    pub token: String,
    /// The file with the user's PIN.
    pub pin_file: PathBuf,
    /// What the labels of our keys begin with, as in `muster issuing/1`.
    pub key_label: String,
}

/// A token, logged in to when it is needed.
#[derive(Debug)]
pub struct Pkcs11Token {
    desk: Desk,
    key_label: String,
}

impl Pkcs11Token {
    /// Loads the module and logs in once, so that whatever is wrong is said now.
    ///
    /// # Errors
    /// The module cannot be loaded, has no such token, or that one refuses the PIN.
    pub fn open(settings: &Settings) -> Result<Self, TokenError> {
        let desk = Desk::new(load(&settings.module)?, settings);
        off_the_loop(|| desk.with(|_| Ok(())))?;
        Ok(Self { desk, key_label: settings.key_label.clone() })
    }

    fn work<T>(&self, work: impl Fn(&mut Place) -> Result<T, Error>) -> Result<T, TokenError> {
        let done = off_the_loop(|| self.desk.with(work));
        if let Err(error) = &done {
            tracing::warn!(%error, "the token that holds the authority's keys does not work");
        }
        done
    }
}

/// Loads and initialises a module, once a process (PKCS#11 2.40, section 5.4). It stays: modules have threads of their own.
fn load(module: &Path) -> Result<Pkcs11, TokenError> {
    static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let failed =
        |error: Error| TokenError::Module { module: module.display().to_string(), reason: error.to_string() };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = loaded.get(module) {
        return Ok(known.clone());
    }
    let fresh = Pkcs11::new(module).map_err(failed)?;
    match fresh.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(error)),
    }
    loaded.insert(module.to_owned(), fresh.clone());
    Ok(fresh)
}

/// Does what blocks; a thread that serves other tasks hands them on first.
fn off_the_loop<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

impl Token for Pkcs11Token {
    fn make(&self, id: KeyId, label: &str) -> Result<[u8; POINT_BYTES], TokenError> {
        let name = || [Attribute::Id(id.0.to_vec()), Attribute::Label(self.label(label))];
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(P256.to_vec()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sign(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        let (public, private) = ([&name()[..], &public].concat(), [&name()[..], &private].concat());
        let made = self.work(|place| {
            let (public, private) =
                place.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
            place.keys.insert(id, private);
            point(&place.session, public)
        })?;
        tracing::info!(key = %id, label, "made a key in the token");
        made.ok_or(TokenError::ForeignKey(id))
    }

    fn point(&self, id: KeyId) -> Result<[u8; POINT_BYTES], TokenError> {
        let found = self.work(|place| {
            let private = private_key(place, id)?;
            let public = find(&place.session, ObjectClass::PUBLIC_KEY, id)?;
            match (private, public) {
                (Some(_), Some(public)) => Ok(Some(point(&place.session, public)?)),
                _ => Ok(None),
            }
        })?;
        found.ok_or(TokenError::NoKey(id))?.ok_or(TokenError::ForeignKey(id))
    }

    fn sign(&self, id: KeyId, hash: &[u8]) -> Result<[u8; 64], TokenError> {
        let signed = self.work(|place| {
            let Some(key) = private_key(place, id)? else { return Ok(None) };
            place.session.sign(&Mechanism::Ecdsa, key, hash).map(Some)
        })?;
        let signature = signed.ok_or(TokenError::NoKey(id))?;
        signature.try_into().map_err(|_| TokenError::ForeignKey(id))
    }

    fn destroy(&self, id: KeyId) -> Result<(), TokenError> {
        self.work(|place| {
            place.keys.remove(&id);
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                if let Some(object) = find(&place.session, class, id)? {
                    place.session.destroy_object(object)?;
                }
            }
            Ok(())
        })
    }
}

impl Pkcs11Token {
    fn label(&self, of: &str) -> Vec<u8> {
        format!("{} {of}", self.key_label).into_bytes()
    }
}

/// The private key's handle, found once a session.
fn private_key(place: &mut Place, id: KeyId) -> Result<Option<ObjectHandle>, Error> {
    if let Some(known) = place.keys.get(&id) {
        return Ok(Some(*known));
    }
    let found = find(&place.session, ObjectClass::PRIVATE_KEY, id)?;
    if let Some(found) = found {
        place.keys.insert(id, found);
    }
    Ok(found)
}

fn find(session: &Session, class: ObjectClass, id: KeyId) -> Result<Option<ObjectHandle>, Error> {
    let wanted = [Attribute::Class(class), Attribute::KeyType(KeyType::EC), Attribute::Id(id.0.to_vec())];
    Ok(session.find_objects(&wanted)?.first().copied())
}

/// A public key's point; nothing if it is of another curve.
fn point(session: &Session, public: ObjectHandle) -> Result<Option<[u8; POINT_BYTES]>, Error> {
    let read = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let Some(Attribute::EcPoint(point)) = read.first() else { return Ok(None) };
    let bare = if point.len() > POINT_BYTES { point.strip_prefix(&POINT_HEAD) } else { Some(&point[..]) };
    Ok(bare.and_then(|bare| bare.try_into().ok()))
}
