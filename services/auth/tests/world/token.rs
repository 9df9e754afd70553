//! A SoftHSM of one's own: a module reads its folder from the environment, once a process, so each test runs itself again with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use muster_auth::token::Settings;
use tempfile::TempDir;

/// Debian's, of any architecture.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// Where SoftHSM looks for its settings.
const SETTINGS: &str = "SOFTHSM2_CONF";
const LABEL: &str = "muster test";
pub const PIN: &str = "2718";

/// The folder of this process's SoftHSM.
pub struct SoftHsm {
    folder: PathBuf,
}

impl SoftHsm {
    /// The one of this process; nothing in the first, which makes it and runs `test` again in a process that has it.
    pub fn of(test: &str) -> Option<Self> {
        if let Ok(settings) = std::env::var(SETTINGS) {
            return Some(Self { folder: Path::new(&settings).parent().unwrap().to_owned() });
        }
        let folder = TempDir::new().unwrap();
        let settings = folder.path().join("softhsm2.conf");
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(&settings, text).unwrap();
        std::fs::write(folder.path().join("pin"), format!("{PIN}\n")).unwrap();
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", "31415", "--pin", PIN])
            .env(SETTINGS, &settings)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(SETTINGS, &settings)
            .output()
            .unwrap();
        print!("{}", String::from_utf8_lossy(&run.stdout));
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        None
    }

    pub fn settings(&self) -> Settings {
        Settings {
            module: MODULE.into(),
            token: LABEL.into(),
            pin_file: self.pin_file(),
            key_label: "test".into(),
        }
    }

    pub fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// The token as another program would use it, in this process.
    pub fn beside(&self) -> Beside {
        let module = Pkcs11::new(MODULE).unwrap();
        // Whoever comes second is told that it is initialised already.
        let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let labelled = |slot: &Slot| module.get_token_info(*slot).unwrap().label() == LABEL;
        let slot = module.get_slots_with_token().unwrap().into_iter().find(labelled).unwrap();
        Beside { module, slot }
    }
}

pub struct Beside {
    module: Pkcs11,
    slot: Slot,
}

/// A private key in the token, as people see it.
#[derive(Debug)]
pub struct Shown {
    pub label: String,
    pub sensitive: bool,
    pub extractable: bool,
}

impl Beside {
    /// Every session of this process ends, as when the token is pulled out.
    pub fn pull_out(&self) {
        self.module.clone().finalize().unwrap();
        self.module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    }

    fn session(&self) -> Session {
        let session = self.module.open_rw_session(self.slot).unwrap();
        let _ = session.login(UserType::User, Some(&AuthPin::from(PIN)));
        session
    }

    pub fn private_keys(&self) -> Vec<Shown> {
        let session = self.session();
        let wanted = [AttributeType::Label, AttributeType::Sensitive, AttributeType::Extractable];
        let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
        let shown = keys.into_iter().map(|key| {
            let mut shown = Shown { label: String::new(), sensitive: false, extractable: true };
            for attribute in session.get_attributes(key, &wanted).unwrap() {
                match attribute {
                    Attribute::Label(label) => shown.label = String::from_utf8(label).unwrap(),
                    Attribute::Sensitive(sensitive) => shown.sensitive = sensitive,
                    Attribute::Extractable(extractable) => shown.extractable = extractable,
                    other => panic!("not asked for: {other:?}"),
                }
            }
            shown
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| a.label.cmp(&b.label));
        shown
    }

    pub fn destroy(&self, label: &str) {
        let session = self.session();
        for object in session.find_objects(&[Attribute::Label(label.as_bytes().to_vec())]).unwrap() {
            session.destroy_object(object).unwrap();
        }
    }

    /// Whether a wrong PIN was entered since the last right one.
    pub fn a_wrong_pin_was_tried(&self) -> bool {
        self.module.get_token_info(self.slot).unwrap().user_pin_count_low()
    }
}
