//! The paths of one connection (draft-ietf-quic-multipath): it begins by a relay, gets a direct path beside it, and goes back
//! when that one falls silent. What was under way is sent again by the path that is left; nothing is lost.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use noq::{PathEvent, PathId, PathStatus};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Connection;
use crate::path::{VirtualAddress, canonical, mapped};

/// For a further path to be proven: QUIC asks three times.
const OPEN_WAY: Duration = Duration::from_secs(3);

/// How often a direct path beside a relay is looked at. It costs no packet.
const LOOK: Duration = Duration::from_millis(250);

/// A path that is sent to and brings nothing for so long is given up: five round trips across a continent, and a
/// sixtieth of what sessions wait.
const SILENCE: Duration = Duration::from_millis(1_000);

/// Packets that went unanswered meanwhile: one is an accident, and what needs no answer is not counted against a path.
const UNANSWERED: u64 = 3;

/// Keeps the translators' entries of a direct path alive ([`crate::config::KEEP_ALIVE`]).
const KEEP_ALIVE: Duration = crate::config::KEEP_ALIVE;

/// Paths that stand, oldest first.
#[derive(Debug)]
pub(super) struct Ways(Mutex<Vec<PathId>>);

/// What is known of a direct path's last sign of life.
struct Pulse {
    path: PathId,
    sent: u64,
    received: u64,
    since: Instant,
}

impl Default for Ways {
    fn default() -> Self {
        Self(Mutex::new(vec![PathId::ZERO]))
    }
}

impl Ways {
    fn lock(&self) -> MutexGuard<'_, Vec<PathId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: PathId) {
        let mut paths = self.lock();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }

    fn remove(&self, path: PathId) {
        self.lock().retain(|known| *known != path);
    }

    fn all(&self) -> Vec<PathId> {
        self.lock().clone()
    }
}

impl Connection {
    fn paths(&self) -> impl Iterator<Item = (noq::Path, SocketAddr)> {
        self.ways.all().into_iter().filter_map(|id| {
            let path = self.inner.path(id)?;
            let remote = canonical(path.remote_address().ok()?);
            Some((path, remote))
        })
    }

    fn direct(&self) -> Option<(noq::Path, SocketAddr)> {
        self.paths().find(|(_, remote)| is_direct(*remote))
    }

    /// The one that carries: direct before relayed, else the newest.
    pub(super) fn current(&self) -> Option<(PathId, SocketAddr)> {
        let current = self.direct().or_else(|| self.paths().last());
        current.map(|(path, remote)| (path.id(), remote))
    }

    /// Opens one more path; only who dialled can. It carries from then on, if it is the better one.
    pub(crate) async fn open_way(&self, to: SocketAddr) -> Result<(), String> {
        let opening = self.inner.open_path_ensure(mapped(to), PathStatus::Available);
        let unproven = opening.path_id();
        let path = match timeout(OPEN_WAY, opening).await {
            Ok(opened) => opened.map_err(|error| error.to_string())?,
            Err(_) => {
                self.give_up(unproven);
                return Err(format!("no answer within {OPEN_WAY:?}"));
            }
        };
        if is_direct(to) && path.set_keep_alive_interval(Some(KEEP_ALIVE)).is_err() {
            return Err("it was closed at once".to_owned());
        }
        self.ways.add(path.id());
        if !is_direct(to) {
            self.close_relays_but(to);
        }
        self.prefer();
        Ok(())
    }

    /// A path that is not proven in time would be carried by as soon as it is, unasked.
    fn give_up(&self, unproven: Option<PathId>) {
        if let Some(path) = unproven.and_then(|path| self.inner.path(path))
            && path.close().is_ok()
        {
            self.ways.remove(path.id());
        }
        self.prefer();
    }

    /// Gives a path up; the last one stays, and waits for another.
    fn close_way(&self, remote: SocketAddr) {
        for (path, _) in self.paths().filter(|(_, known)| *known == canonical(remote)) {
            if path.close().is_ok() {
                self.ways.remove(path.id());
            }
        }
        self.prefer();
    }

    /// A relay's path falls silent without a word when the relay does: two of them would share what is to be carried.
    fn close_relays_but(&self, to: SocketAddr) {
        for (path, remote) in self.paths().filter(|(_, remote)| !is_direct(*remote) && *remote != to) {
            tracing::debug!(%remote, "gives way to another relay's path");
            if path.close().is_ok() {
                self.ways.remove(path.id());
            }
        }
    }

    /// Packets go by the direct path while there is one.
    fn prefer(&self) {
        let direct = self.direct().is_some();
        for (path, remote) in self.paths() {
            let wanted =
                if direct && !is_direct(remote) { PathStatus::Backup } else { PathStatus::Available };
            // An error: it has just been closed.
            let _ = path.set_status(wanted);
        }
    }

    /// Follows the paths until the connection ends; `changed` whenever another one may carry.
    pub(crate) async fn follow_ways(&self, changed: impl Fn()) {
        let mut news = self.inner.path_events();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulse = None;
        loop {
            let watched = self.ways.lock().len() > 1;
            tokio::select! {
                event = news.next() => match event {
                    Some(Ok(event)) => if self.on_event(&event) { changed() },
                    Some(Err(_)) => {}
                    None => return,
                },
                _ = looks.tick(), if watched => if self.is_silent(&mut pulse) { changed() },
            }
        }
    }

    fn on_event(&self, event: &PathEvent) -> bool {
        match event {
            PathEvent::Established { id, .. } => self.ways.add(*id),
            PathEvent::Abandoned { id, .. } => self.ways.remove(*id),
            _ => return false,
        }
        self.prefer();
        true
    }

    /// Gives up a direct path that no longer answers. `true`: it did.
    fn is_silent(&self, pulse: &mut Option<Pulse>) -> bool {
        let Some((path, remote)) = self.direct() else {
            *pulse = None;
            return false;
        };
        let stats = path.stats();
        let (sent, received) = (stats.udp_tx.datagrams, stats.udp_rx.datagrams);
        let fresh = Pulse { path: path.id(), sent, received, since: Instant::now() };
        let last = pulse.get_or_insert(Pulse { ..fresh });
        if last.path != fresh.path || last.received != received || sent == last.sent {
            *pulse = Some(fresh);
            return false;
        }
        if sent - last.sent < UNANSWERED || last.since.elapsed() < SILENCE {
            return false;
        }
        tracing::debug!(%remote, "a direct path has fallen silent");
        *pulse = None;
        self.close_way(remote);
        true
    }
}

fn is_direct(remote: SocketAddr) -> bool {
    VirtualAddress::from_socket_address(remote).is_none()
}
