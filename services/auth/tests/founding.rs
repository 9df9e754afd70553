//! The network is founded once; its keys open with its secret only; what was acknowledged survives a kill.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::path::Path;
use std::process::{Command, Output};

use muster_auth::domain::authority::AuthorityError;
use muster_auth::domain::label::Labels;
use muster_auth::domain::vault::{Vault, VaultError};
use muster_auth::{AuthError, Config, SecretError, StartError, bootstrap, init, open};

/// Tells the child below where to work. Without it, it is a test that has nothing to do.
const FOLDER: &str = "MUSTER_AUTH_TEST_FOLDER";

fn config(folder: &Path) -> Config {
    Config::embedded(folder, vec!["127.0.0.1:27431".to_owned()])
}

#[tokio::test]
async fn a_second_start_resumes_with_the_same_root() {
    let folder = tempfile::tempdir().unwrap();
    let first = init(&config(folder.path())).await.unwrap();
    let (root, network) = (first.authority().root().to_vec(), first.authority().network());
    drop(first);
    for again in [init(&config(folder.path())).await.unwrap(), open(&config(folder.path())).await.unwrap()] {
        assert_eq!(again.authority().root(), root);
        assert_eq!(again.authority().network(), network);
    }
}

#[tokio::test]
async fn a_replica_never_founds_a_network() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(&config(folder.path())).await, Err(StartError::NotFounded(_))));
    init(&config(folder.path())).await.unwrap();
    open(&config(folder.path())).await.unwrap();
}

#[tokio::test]
async fn a_wrong_or_missing_secret_is_refused_by_name_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    init(&config).await.unwrap();
    let wrong = Vault::draw(&mut rand::rng());
    std::fs::write(config.secret_file(), &wrong).unwrap();
    let shut = init(&config).await.unwrap_err();
    assert!(matches!(shut, StartError::Auth(AuthError::Authority(AuthorityError::Vault(VaultError::Shut)))));
    assert_eq!(std::fs::read_to_string(config.secret_file()).unwrap(), wrong);
    std::fs::write(config.secret_file(), "no secret").unwrap();
    assert!(matches!(init(&config).await, Err(StartError::Secret(SecretError::Unusable { .. }))));
    std::fs::remove_file(config.secret_file()).unwrap();
    let missing = init(&config).await.unwrap_err();
    assert!(missing.to_string().contains("auth.secret"), "{missing}");
    assert!(!config.secret_file().exists());
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_are_the_owners_alone_and_no_key_lies_open_in_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let auth = init(&config).await.unwrap();
    bootstrap::write_join_link(&auth, "topology", &config.join_file("topology")).await.unwrap();
    for file in [config.secret_file(), config.join_file("topology")] {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    // What every PKCS#8 P-256 key begins with, after its length: version 0 and the two algorithm identifiers.
    let pkcs8 = [0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    for file in [config.database_file(), config.database_file().with_extension("db-wal")] {
        let bytes = std::fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(pkcs8.len()).any(|window| window == pkcs8));
    }
}

#[tokio::test]
async fn child_that_founds_a_network_and_makes_a_link() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let auth = init(&config(Path::new(&folder))).await.unwrap();
    let link = bootstrap::node_link(&auth, Labels::new()).await.unwrap();
    println!("acknowledged {}", link.token.reveal());
}

/// Runs the child above, perhaps under another program, with a failpoint armed.
fn child(folder: &Path, crash: &str, under: &[&str]) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut command = match under.split_first() {
        Some((tracer, arguments)) => {
            let mut command = Command::new(tracer);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    };
    command
        .args(["--exact", "child_that_founds_a_network_and_makes_a_link", "--nocapture"])
        .env(FOLDER, folder)
        .env(muster_kit::crash::VARIABLE, crash)
        .output()
        .unwrap()
}

/// Links in the store of `folder` after the child ended.
async fn links(folder: &Path) -> usize {
    init(&config(folder)).await.unwrap().links(None, 10).await.unwrap().len()
}

#[tokio::test]
async fn a_kill_before_the_commit_leaves_nothing_and_after_it_everything() {
    // The first commit founds the network, the second makes the link.
    for (crash, expected) in [("auth.store.before-commit:2", 0), ("auth.store.after-commit:2", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let output = child(folder.path(), crash, &[]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && err.contains("crash point"), "{crash}: {err}");
        assert!(!out.contains("acknowledged"), "{crash}");
        assert_eq!(links(folder.path()).await, expected, "{crash}");
    }
}

#[tokio::test]
async fn a_kill_while_founding_leaves_a_network_to_be_founded_or_a_whole_one() {
    for crash in ["auth.store.before-commit:1", "auth.store.after-commit:1"] {
        let folder = tempfile::tempdir().unwrap();
        assert!(!child(folder.path(), crash, &[]).status.success());
        let auth = init(&config(folder.path())).await.unwrap();
        assert_eq!(auth.store().keys().await.unwrap().len(), 7);
    }
}

#[tokio::test]
async fn every_acknowledged_change_was_synced_first() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let strace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", trace.to_str().unwrap()];
    let output = child(&folder.path().join("data"), "", &strace);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = std::fs::read_to_string(trace).unwrap();
    let acknowledged = trace.find("acknowledged").expect("the child's acknowledgement is a write");
    let synced = |line: &&str| line.contains("sync(") && line.contains("auth.db-wal");
    // Founding and the link, each its own commit, each synced to the log before the word is out.
    let syncs = trace[..acknowledged].lines().filter(synced).count();
    assert!(syncs >= 2, "{syncs} syncs of the log before the acknowledgement");
}
