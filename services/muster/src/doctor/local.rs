//! What a master has near: its folder, its secret, its stores, its bus, its port for metrics.

use std::path::Path;
use std::time::{Duration, Instant};

use muster_auth::domain::custody::TokenError;
use muster_auth::token::{Pkcs11Token, Settings};
use muster_kit::bus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Check;
use crate::config::{BUS_VARIABLE, DATABASE_VARIABLE, MasterConfig};
use crate::database;

/// Below this much room the master warns, and below a tenth of it fails: SQLite needs some to go on at all.
const ROOM: u64 = 1 << 30;

/// A store on the same network answers within this.
const SLOW: Duration = Duration::from_millis(100);

/// Clocks of replicas and database this far apart confuse leases.
const SKEW: Duration = Duration::from_secs(1);

/// A port on this host answers at once or not at all.
const LOCAL_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn check(config: &MasterConfig) -> Vec<Check> {
    let mut checks = vec![folder(&config.data_dir), room(&config.data_dir), secret(config), token(config)];
    match &config.database_url {
        Some(url) => checks.push(postgres(url).await),
        None => {
            checks.push(file("store.auth", &config.data_dir.join("auth.db")).await);
            checks.push(file("store.topology", &config.data_dir.join("topology.db")).await);
        }
    }
    checks.push(match &config.nats_url {
        Some(url) => nats(url).await,
        None if config.database_url.is_some() => Check::warns(
            "bus",
            "there is none: this can be the only replica",
            format!("set {BUS_VARIABLE}=nats://host:4222"),
        ),
        None => Check::skipped("bus", "one process needs none"),
    });
    checks.push(ready(config).await);
    checks
}

fn folder(folder: &Path) -> Check {
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Err(error) => {
            Check::fails("data.folder", format!("{shown}: {error}"), "muster up, or --data-dir DIR")
        }
        #[cfg(unix)]
        Ok(found) if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o007 != 0 => {
            Check::fails(
                "data.folder",
                format!("{shown} is open to everybody"),
                format!("chmod 0700 {shown}"),
            )
        }
        Ok(_) => Check::well("data.folder", format!("{shown}, private")),
    }
}

fn room(folder: &Path) -> Check {
    let Ok(disk) = rustix::fs::statvfs(folder) else {
        return Check::skipped("data.room", "there is no folder");
    };
    let free = disk.f_bavail * disk.f_frsize;
    let said = format!("{} MiB free", free >> 20);
    match free {
        free if free < ROOM / 10 => {
            Check::fails("data.room", said, "make room on that disk, or move --data-dir")
        }
        free if free < ROOM => Check::warns("data.room", said, "make room on that disk, or move --data-dir"),
        _ => Check::well("data.room", said),
    }
}

fn secret(config: &MasterConfig) -> Check {
    let file = config.secret_file.clone().unwrap_or_else(|| config.data_dir.join("auth.secret"));
    let shown = file.display();
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() == 64 => Check::well("authority.secret", format!("{shown}")),
        Ok(_) => Check::fails(
            "authority.secret",
            format!("{shown} does not hold 64 hexadecimal digits"),
            "restore it from a backup; a new network gets one from: openssl rand -hex 32",
        ),
        Err(error) => {
            Check::fails("authority.secret", format!("{shown}: {error}"), "restore it from a backup")
        }
    }
}

/// Logs in to the token, as `muster up` would.
fn token(config: &MasterConfig) -> Check {
    const ID: &str = "authority.token";
    let Some(settings) = &config.pkcs11 else {
        return Check::skipped(ID, "none is set: the authority's keys are sealed in the store");
    };
    let asked = Instant::now();
    match Pkcs11Token::open(settings) {
        Ok(_) => Check::well(ID, format!("{:?} lets us in after {:.0?}", settings.token, asked.elapsed())),
        Err(error) => Check::fails(ID, error.to_string(), token_fix(settings, &error)),
    }
}

fn token_fix(settings: &Settings, error: &TokenError) -> String {
    let (module, file) = (settings.module.display(), settings.pin_file.display());
    match error {
        TokenError::Module { .. } => {
            "install the maker's module, and name it: --pkcs11-module FILE".to_owned()
        }
        TokenError::NoToken { .. } | TokenError::Ambiguous { .. } => {
            format!("pkcs11-tool --module {module} --list-slots; then --pkcs11-token LABEL")
        }
        TokenError::PinFile { .. } => {
            format!("put the token's PIN into {file}, which the master can read, or --pkcs11-pin-file FILE")
        }
        TokenError::WrongPin { .. } => format!("put the token's own PIN into {file}"),
        TokenError::PinLocked => {
            format!(
                "pkcs11-tool --module {module} --init-pin --login --login-type so, with its officer's PIN"
            )
        }
        TokenError::LastTry => format!("pkcs11-tool --module {module} --login --test, with the right PIN"),
        _ => format!("look after the token: pkcs11-tool --module {module} --list-slots"),
    }
}

async fn file(id: &'static str, file: &Path) -> Check {
    let shown = file.display();
    if !file.exists() {
        return Check::fails(
            id,
            format!("{shown} is not there"),
            "muster up begins a network; muster restore brings one back",
        );
    }
    match database::verify(file).await {
        Ok(()) => Check::well(id, format!("{shown} is whole")),
        Err(error) => {
            Check::fails(id, format!("{shown}: {error}"), "muster restore FOLDER, from the last backup")
        }
    }
}

async fn postgres(url: &str) -> Check {
    let begin = Instant::now();
    let fix = format!("check {DATABASE_VARIABLE}, the server, and the way to it");
    match database::ask_postgres(url).await {
        Err(error) => Check::fails("store.postgres", error.to_string(), fix),
        Ok((_, skew)) if skew > SKEW => Check::fails(
            "store.postgres",
            format!("its clock and ours are {skew:.1?} apart"),
            "let both hosts follow the same time servers",
        ),
        Ok((version, _)) if begin.elapsed() > SLOW => Check::warns(
            "store.postgres",
            format!("version {version}, answers after {:.0?}", begin.elapsed()),
            "put the database nearer",
        ),
        Ok((version, _)) => {
            Check::well("store.postgres", format!("version {version}, answers after {:.0?}", begin.elapsed()))
        }
    }
}

async fn nats(url: &str) -> Check {
    match bus::probe(url).await {
        Ok(version) => Check::well("bus", format!("NATS {version} lets us in")),
        Err(error) => Check::fails(
            "bus",
            error.to_string(),
            format!("check {BUS_VARIABLE}, the server, and the way to it"),
        ),
    }
}

/// The probe that an orchestrator would ask.
async fn ready(config: &MasterConfig) -> Check {
    let asked = tokio::time::timeout(LOCAL_LIMIT, async {
        let mut stream = TcpStream::connect(config.observe).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    });
    let place = config.observe;
    match asked.await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => {
            Check::well("master.ready", format!("it says so on {place}"))
        }
        Ok(Ok(_)) => Check::warns(
            "master.ready",
            format!("{place} says: not ready"),
            "wait; then read the master's log",
        ),
        _ => Check::fails(
            "master.ready",
            format!("nobody answers on {place}"),
            "muster up, or --observe IP:PORT as the master has it",
        ),
    }
}
