//! What can happen to a fleet, as a generated table: every case on every column, each asserted and timed.

mod cases;
mod table;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

pub use table::{Outcome, Table};

use crate::fleet::Fleet;
use crate::host::UdpBlock;
use crate::lab::Lab;
use crate::plan::Family;

/// From programs that start to a picture that is whole.
pub const GATHERING_LIMIT: Duration = Duration::from_secs(30);

/// Set to anything, it has open cells tried as well, as `tests/prove lab` does.
const TRY_ALL: &str = "MUSTER_LAB_ALL";

/// Why a cell is open: it takes long, or does not hold reliably yet, so it is not tried in every run, and the table says so.
fn open(column: Column, case: Case) -> Option<&'static str> {
    if std::env::var_os(TRY_ALL).is_some() {
        return None;
    }
    match column.carrier {
        Carrier::Udp => None,
        Carrier::Tcp if case == Case::LsnAndDeputiesKilled => {
            Some("in one run of six the master showed a dead deputy for 45 s")
        }
        Carrier::Tcp if case.is_core() => None,
        Carrier::Tcp => Some("tests/prove tries it"),
    }
}

/// Which packets the fleet has to make do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    Udp,
    /// Every host's own firewall drops UDP in both directions.
    Tcp,
}

/// One column: the network that the cases happen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    pub family: Family,
    pub carrier: Carrier,
    pub places: usize,
    pub agents: usize,
}

impl Column {
    /// The whole lab.
    pub const UDP_V4: Self = Self { places: 4, agents: 6, ..Self::SMALL };
    pub const UDP_V6: Self = Self { family: Family::V6, ..Self::SMALL };
    pub const TCP_V4: Self = Self { carrier: Carrier::Tcp, ..Self::SMALL };
    pub const TCP_V6: Self = Self { carrier: Carrier::Tcp, ..Self::UDP_V6 };

    /// As small as the cases allow: an LSN and its two deputies die, and some are left to gather.
    const SMALL: Self = Self { family: Family::V4, carrier: Carrier::Udp, places: 2, agents: 5 };

    /// Builds the column's lab and brings its fleet up. The time is from the first agent's start to the whole picture.
    pub async fn bring_up(self) -> Result<Fleet> {
        let lab = Lab::builder().places(self.places).agents(self.agents).family(self.family).build().await?;
        if self.carrier == Carrier::Tcp {
            drop_udp(&lab).await?;
        }
        let fleet = Fleet::start(lab).await.context("bring the fleet up")?;
        fleet.until_whole(GATHERING_LIMIT).await.context("the fleet does not gather")?;
        Ok(fleet)
    }
}

/// One row: something that happens, and what has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    Gathered,
    TaskReachesAll,
    LsnKilled,
    LsnAndDeputiesKilled,
    NodeKilled,
    AnnouncedPart,
    LsnsMerge,
    HostMoved,
    MasterKilled,
    MasterMoved,
}

impl Case {
    /// In the order in which they happen; the last one moves the master for good.
    pub const ALL: [Self; 10] = [
        Self::Gathered,
        Self::TaskReachesAll,
        Self::LsnKilled,
        Self::LsnAndDeputiesKilled,
        Self::NodeKilled,
        Self::AnnouncedPart,
        Self::LsnsMerge,
        Self::HostMoved,
        Self::MasterKilled,
        Self::MasterMoved,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gathered => "one LSN a cell, the tree is the truth",
            Self::TaskReachesAll => "a task reaches all, each its own output",
            Self::LsnKilled => "LSN killed",
            Self::LsnAndDeputiesKilled => "LSN and both deputies killed",
            Self::NodeKilled => "node killed",
            Self::AnnouncedPart => "LSN parts, announced",
            Self::LsnsMerge => "two LSNs merge",
            Self::HostMoved => "host moved to another place",
            Self::MasterKilled => "master killed and started again",
            Self::MasterMoved => "master moved, found by SRV",
        }
    }

    /// How long it may take at most.
    pub fn limit(self) -> Duration {
        match self {
            Self::Gathered | Self::TaskReachesAll | Self::AnnouncedPart => Duration::from_secs(5),
            Self::LsnKilled | Self::HostMoved => Duration::from_secs(10),
            Self::LsnAndDeputiesKilled | Self::NodeKilled => Duration::from_secs(15),
            Self::LsnsMerge | Self::MasterKilled => Duration::from_secs(45),
            Self::MasterMoved => Duration::from_secs(60),
        }
    }

    /// What a network without UDP has to get over in every run.
    fn is_core(self) -> bool {
        let core = [Self::Gathered, Self::TaskReachesAll, Self::LsnKilled, Self::LsnsMerge, Self::HostMoved];
        core.contains(&self)
    }

    /// Lets it happen; returns how long the fleet took from there. The fleet is whole again afterwards.
    pub async fn happen(self, fleet: &Fleet) -> Result<Duration> {
        let took = cases::happen(self, fleet).await?;
        fleet.until_whole(GATHERING_LIMIT).await.context("the fleet is not whole afterwards")?;
        Ok(took)
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, carrier, places, agents } = self;
        write!(f, "{carrier:?} {family:?}, {places} places with {agents} agents each")
    }
}

/// Lets every host's own firewall drop UDP, in and out.
pub async fn drop_udp(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        host.block_udp(UdpBlock::Both).await?;
    }
    Ok(())
}

/// Fills one column of the table. A case that fails does not keep the others from happening.
pub async fn fill(column: Column) -> Table {
    let mut table = Table::new(column);
    let mut tried = Vec::new();
    for case in Case::ALL {
        match open(column, case) {
            Some(why) => table.enter(case, Outcome::Open(why)),
            None => tried.push(case),
        }
    }
    if tried.is_empty() {
        return table;
    }
    let fleet = match column.bring_up().await {
        Ok(fleet) => fleet,
        Err(error) => {
            table.enter(Case::Gathered, Outcome::Failed(format!("{error:#}")));
            return table;
        }
    };
    for case in tried {
        let outcome = match case.happen(&fleet).await {
            Ok(took) => Outcome::Held(took),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        println!("{column}, {}: {outcome}", case.name());
        table.enter(case, outcome);
    }
    table
}
