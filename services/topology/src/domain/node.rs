//! A node as the master sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use muster_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::cell::CellId;
use super::clone::Life;
use super::opaque::Opaque;
use super::uptime::Uptime;

/// The label that names a node's place; without it the place is the cell's name.
pub const PLACE_LABEL: &str = "place";

/// Operator's labels of one node.
pub const LABELS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Online,
    /// Parted, or lost within a place that is alive.
    Offline,
    /// Its whole place went dark: it may well be running.
    Unreachable,
    /// Enrolled, and not once attached since.
    NeverSeen,
    /// Alive more than once: no part of anything until an operator has decided.
    Held,
}

impl Presence {
    pub const ALL: [Self; 5] = [Self::Online, Self::Offline, Self::Unreachable, Self::NeverSeen, Self::Held];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Unreachable => "unreachable",
            Self::NeverSeen => "never_seen",
            Self::Held => "held",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    Child,
    Lsn,
    /// Attached to topology itself, without an LSN.
    Direct,
}

impl Position {
    pub const ALL: [Self; 3] = [Self::Child, Self::Lsn, Self::Direct];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Lsn => "lsn",
            Self::Direct => "direct",
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Profile {
    pub host_name: String,
    pub software_version: String,
    pub addresses: Vec<String>,
    pub path: String,
    pub os: String,
    pub architecture: String,
    pub wired: bool,
    pub mains_powered: bool,
    pub round_trip_micros: u64,
    pub boot_nonce: u64,
}

/// What auth attested of a node in its ticket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attested {
    /// Ed25519 public key that its reports and claims are signed with.
    pub signing_key: Opaque,
    /// X25519 public key that what only it may read is sealed to.
    #[serde(default)]
    pub sealing_key: Opaque,
    /// The ticket itself, for nodes that ask for this one's keys.
    #[serde(default)]
    pub ticket: Opaque,
    pub labels: BTreeMap<String, String>,
    pub generation: u32,
    pub issued: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub presence: Presence,
    /// Of the presence.
    pub since: Timestamp,
    /// Why it is not online.
    pub reason: String,
    pub position: Position,
    /// Of a child.
    pub lsn: Option<NodeId>,
    pub cell: Option<CellId>,
    /// When the node consented to be shown where it is; older consents are replays.
    pub attach_time: Timestamp,
    pub observed: Option<IpAddr>,
    pub profile: Profile,
    pub attested: Attested,
    /// Set by operators over the attested ones; `None` hides one.
    pub labels: BTreeMap<String, Option<String>>,
    pub enrolled: Timestamp,
    pub last_seen: Timestamp,
    pub uptime: Uptime,
    /// Of a held node, the devices that live under its identity.
    #[serde(default)]
    pub lives: Vec<Life>,
}

impl Node {
    /// A node that nobody has seen yet.
    pub fn new(id: NodeId, attested: Attested, now: Timestamp) -> Self {
        Self {
            id,
            presence: Presence::NeverSeen,
            since: now,
            reason: String::new(),
            position: Position::Direct,
            lsn: None,
            cell: None,
            attach_time: Timestamp::default(),
            observed: None,
            profile: Profile::default(),
            enrolled: attested.issued,
            attested,
            labels: BTreeMap::new(),
            last_seen: now,
            uptime: Uptime::default(),
            lives: Vec::new(),
        }
    }

    /// Whose control stream leads to it: its LSN's or its own.
    pub fn carrier(&self) -> NodeId {
        self.lsn.unwrap_or(self.id)
    }

    /// Whom its presence came by, the node first.
    pub fn route(&self) -> Vec<NodeId> {
        std::iter::once(self.id).chain(self.lsn).collect()
    }

    pub fn is_online(&self) -> bool {
        self.presence == Presence::Online
    }

    pub fn is_held(&self) -> bool {
        self.presence == Presence::Held
    }

    /// Attested labels with the operator's over them.
    pub fn effective_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.attested.labels.clone();
        for (key, value) in &self.labels {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        labels
    }

    /// It is connected, at this position.
    pub fn appear(&mut self, position: Position, lsn: Option<NodeId>, cell: Option<CellId>, now: Timestamp) {
        if !self.is_online() {
            self.presence = Presence::Online;
            self.since = now;
            self.reason.clear();
        }
        self.position = position;
        self.lsn = lsn;
        self.cell = cell;
        self.last_seen = now;
        self.uptime.begin(now);
    }

    /// It is not connected any more; it was last heard of at `heard`.
    pub fn vanish(&mut self, presence: Presence, reason: String, heard: Timestamp, now: Timestamp) {
        if self.presence == presence || self.is_held() {
            return;
        }
        self.uptime.end(heard.min(now));
        self.presence = presence;
        self.since = now;
        self.reason = reason;
    }

    /// Takes over what auth attested, unless it is older than what is known.
    pub fn attest(&mut self, attested: &Attested) {
        if attested.issued >= self.attested.issued {
            self.attested = attested.clone();
        }
    }

    /// Names of the fields of the API that differ and are worth an event.
    pub fn changed_fields(&self, before: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        let mut note = |name: &str, differs: bool| {
            if differs {
                changed.push(name.to_owned());
            }
        };
        let (new, old) = (&self.profile, &before.profile);
        note("state", self.presence != before.presence);
        note("lives", self.lives != before.lives);
        note("role", self.position != before.position);
        note("lsn", self.lsn != before.lsn);
        note("cell", self.cell != before.cell);
        note("observed_address", self.observed != before.observed);
        note("labels", self.effective_labels() != before.effective_labels());
        note("host_name", new.host_name != old.host_name);
        note("software_version", new.software_version != old.software_version);
        note("addresses", new.addresses != old.addresses);
        note("path", new.path != old.path);
        note("os", new.os != old.os);
        note("architecture", new.architecture != old.architecture);
        note("wired", new.wired != old.wired);
        note("mains_powered", new.mains_powered != old.mains_powered);
        changed
    }
}
