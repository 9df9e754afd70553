//! `muster backup` and `muster restore`: a master's truth in a folder, and back.
//!
//! A backup is taken while the master works. A restored store has another past than the one that devices and CMDBs
//! remember, so it opens a new epoch: links that were open are void, watches begin anew, every LSN tells its whole table,
//! hosts report again what they did, and nodes and hash table tell which revocations were lost.

use std::path::{Path, PathBuf};

use muster_auth::Auth;
use muster_auth::store::Cursor;
use muster_kit::{clock, files};
use muster_topology::domain::opaque::Opaque;
use muster_topology::store::Store;
use muster_topology::store::postgres::PostgresStore;
use muster_topology::store::sqlite::SqliteStore;
use muster_types::{Identity, Role};
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::cli::{Backup, Output, Place, Restore};
use crate::config::{DATABASE_VARIABLE, MasterConfig};
use crate::database;
use crate::exit::{Exit, Failure};
use crate::master;
use crate::render::json;

/// The services' stores, in a data directory and in a backup alike.
const STORES: [&str; 2] = ["auth.db", "topology.db"];

/// Opens the authority's keys; without it the stores are worth nothing.
const SECRET: &str = "auth.secret";

const MANIFEST: &str = "manifest.json";

/// A backup's form; a reader refuses others.
const SCHEMA: &str = "muster.backup/v1";

/// Links read at once while open ones are made void.
const LINKS: u32 = 200;

/// Bytes of a token that nobody has.
const TOKEN_BYTES: usize = 16;

/// Written last: a folder without it is no backup.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    schema: String,
    version: String,
    taken_micros: i64,
    /// Name and size.
    files: Vec<(String, u64)>,
}

pub async fn take(place: &Place, output: Output, backup: Backup) -> Result<Exit, Failure> {
    let config = backup.settings.resolve(place, "warn")?;
    if config.database_url.is_some() {
        return Err(Failure::usage("the truth is in PostgreSQL", "muster backup copies SQLite").next(
            "pg_dump --format=custom, and a copy of the authority's secret; after pg_restore: muster restore --reopen",
        ));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::internal("the backup was not taken", error);
    if backup.folder.join(MANIFEST).exists() {
        return Err(Failure::usage(
            format!("{} holds a backup", backup.folder.display()),
            "none is overwritten",
        )
        .next("another folder, as in backup/2026-11-22"));
    }
    files::create_private_dir(&backup.folder).map_err(|error| failed(&error))?;
    let mut kept = Vec::new();
    for name in STORES {
        let (from, to) = (config.data_dir.join(name), backup.folder.join(name));
        if !from.exists() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no {}", from.display()),
                "nothing to back up",
            )
            .next("--data-dir DIR, the folder of a master"));
        }
        database::copy(&from, &to).await.map_err(|error| failed(&error))?;
        kept.push((name.to_owned(), size(&to)?));
    }
    let secret = config.secret_file.clone().unwrap_or_else(|| config.data_dir.join(SECRET));
    let secret = std::fs::read(&secret).map_err(|error| failed(&error))?;
    files::write_private(&backup.folder.join(SECRET), &secret).map_err(|error| failed(&error))?;
    kept.push((SECRET.to_owned(), secret.len() as u64));
    let manifest = Manifest {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_micros: clock::wall().as_micros(),
        files: kept,
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(&error))?;
    files::write_private(&backup.folder.join(MANIFEST), &text).map_err(|error| failed(&error))?;
    let bytes: u64 = manifest.files.iter().map(|(_, bytes)| bytes).sum();
    match output {
        Output::Json => json::print(
            "Backup",
            [("folder", backup.folder.display().to_string().into()), ("bytes", bytes.into())],
        ),
        Output::Table => {
            eprintln!(
                "{} holds the whole master, its keys and their secret too: {bytes} bytes. Keep it as you keep a password.",
                backup.folder.display()
            );
            if let Some(token) = &config.pkcs11 {
                eprintln!(
                    "But for what is in the token {:?}: back that up by its maker's means.",
                    token.token
                );
            }
        }
    }
    Ok(Exit::Ok)
}

pub async fn restore(place: &Place, output: Output, restore: Restore) -> Result<Exit, Failure> {
    let config = restore.settings.resolve(place, "warn")?;
    let _lock = master::lock(&config.data_dir)?;
    if let Some(folder) = &restore.folder {
        if config.database_url.is_some() {
            return Err(Failure::usage(
                "the truth is in PostgreSQL",
                format!("{DATABASE_VARIABLE} is set, and the backup is of SQLite"),
            )
            .next("pg_restore, then: muster restore --reopen"));
        }
        put_back(&config, folder).await?;
    }
    let void = void_links(&config).await?;
    let epoch = open_epoch(&config).await?;
    match output {
        Output::Json => json::print("Restore", [("epoch", epoch.into()), ("voidLinks", void.into())]),
        Output::Table => eprintln!(
            "Restored: epoch {epoch}, {void} open links are void. Devices that joined after the backup was taken must \
             join again; then: muster up"
        ),
    }
    Ok(Exit::Ok)
}

/// Copies a backup into an empty data directory, once every file of it is found whole.
async fn put_back(config: &MasterConfig, folder: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::NotFound, format!("{} is no backup that can be restored", folder.display()), error)
    };
    let text = std::fs::read(folder.join(MANIFEST)).map_err(|error| failed(&error))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    if manifest.schema != SCHEMA {
        return Err(failed(&format!("it is of schema {}, this version reads {SCHEMA}", manifest.schema)));
    }
    for (name, bytes) in &manifest.files {
        if size(&folder.join(name))? != *bytes {
            return Err(failed(&format!("{name} has another size than when it was taken")));
        }
    }
    for name in STORES {
        database::verify(&folder.join(name)).await.map_err(|error| failed(&format!("{name}: {error}")))?;
        let there = config.data_dir.join(name);
        if there.exists() {
            return Err(Failure::usage(
                format!("{} holds a master", config.data_dir.display()),
                "it is not overwritten",
            )
            .next("move that folder away, or restore into another: --data-dir DIR"));
        }
    }
    let write = |name: &str, to: PathBuf| -> Result<(), Failure> {
        let bytes = std::fs::read(folder.join(name)).map_err(|error| failed(&error))?;
        files::write_private(&to, &bytes).map_err(|error| failed(&error))
    };
    for name in STORES {
        write(name, config.data_dir.join(name))?;
    }
    write(SECRET, config.secret_file.clone().unwrap_or_else(|| config.data_dir.join(SECRET)))
}

fn size(file: &Path) -> Result<u64, Failure> {
    let found = std::fs::metadata(file);
    found
        .map(|found| found.len())
        .map_err(|error| Failure::new(Exit::NotFound, format!("cannot read {}", file.display()), error))
}

/// Whoever holds a link from before may have used it already, in a past that this store does not know.
async fn void_links(config: &MasterConfig) -> Result<usize, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        // The files are back by now, and must not be used as they are.
        Failure::internal("open links cannot be made void", error)
            .next("mend that; then, before any muster up: muster restore --reopen")
    };
    let auth = muster_auth::open(&master::auth_config(config, vec!["restore:1".to_owned()]))
        .await
        .map_err(|error| failed(&error))?;
    let ourselves =
        Identity { network: auth.authority().network(), role: Role::Service, name: "auth".to_owned() };
    let void = revoke_open(&auth, &ourselves).await.map_err(|error| failed(&error))?;
    auth.open_past(&ourselves.resource_name()).await.map_err(|error| failed(&error))?;
    Ok(void)
}

async fn revoke_open(auth: &Auth, ourselves: &Identity) -> Result<usize, muster_auth::AuthError> {
    let (mut after, mut void) = (None, 0);
    loop {
        let page = auth.links(after.as_ref(), LINKS).await?;
        let Some(last) = page.last() else { return Ok(void) };
        after = Some(Cursor { create_time: last.create_time, id: last.id.clone() });
        for link in &page {
            let revoked = auth.revoke_link(ourselves, &link.id).await?;
            void += usize::from(revoked != *link);
        }
    }
}

async fn open_epoch(config: &MasterConfig) -> Result<i64, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::internal("a new epoch cannot be opened", error);
    let store: Box<dyn Store> = match &config.database_url {
        None => Box::new(
            SqliteStore::open(&config.data_dir.join(STORES[1])).await.map_err(|error| failed(&error))?,
        ),
        Some(url) => {
            let options = url.parse().map_err(|error: sqlx::Error| failed(&error))?;
            Box::new(PostgresStore::connect(options).await.map_err(|error| failed(&error))?)
        }
    };
    let now = clock::wall();
    // Leases came with the copied rows: only one that was renewed after the copy is of a replica at work.
    let before = clock::wall();
    if config.database_url.is_some() {
        tokio::time::sleep(muster_topology::LEASE_RENEWAL).await;
    }
    let others = store.others("", now).await.map_err(|error| failed(&error))?;
    if others.iter().any(|(_, renewed)| *renewed > before) {
        return Err(Failure::usage(
            "replicas are at work on this database",
            "a new epoch would lose what they know",
        )
        .next("stop them first: kubectl scale --replicas=0"));
    }
    let mut token = vec![0; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut token);
    store.open_epoch(&Opaque(token), now).await.map_err(|error| failed(&error))
}
