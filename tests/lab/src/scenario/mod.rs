//! What can happen to a fleet, as a generated table: every case on every column, each asserted and timed.

mod cases;
mod table;
mod weather;

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

/// Set to anything, every case is tried on every column, as `tests/prove lab` does; else those that a change is most likely
/// to break.
const TRY_ALL: &str = "MUSTER_LAB_ALL";

/// Why a case is not tried on this column in this run, if it is not.
fn spared(column: Column, case: Case) -> Option<&'static str> {
    if column.carrier == Carrier::Tcp && case.takes_udp_away() {
        return Some("there is no UDP to lose");
    }
    if std::env::var_os(TRY_ALL).is_some() {
        return None;
    }
    if column.carrier == Carrier::Tcp && case == Case::LsnAndDeputiesKilled {
        return Some("in one run of six the master showed a dead deputy for 45 s");
    }
    let brief = match column {
        Column::UDP_V4 => !case.is_long(),
        _ => case.is_core(),
    };
    (!brief).then_some("tests/prove tries it")
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
    UdpLostInbound,
    UdpLostOutbound,
    UdpLost,
    InterfaceDown,
    AddressChanged,
    LsnAddressChanged,
    Slept10Seconds,
    Slept3Days,
    Stalled,
    LsnCutOff,
    LsnWalledIn,
    AllBoot,
    Bursts,
    RouterGone,
    MasterKilled,
    MasterGone,
    MasterMoved,
}

impl Case {
    /// In the order in which they happen; the last one moves the master for good.
    pub const ALL: [Self; 25] = [
        Self::Gathered,
        Self::TaskReachesAll,
        Self::LsnKilled,
        Self::LsnAndDeputiesKilled,
        Self::NodeKilled,
        Self::AnnouncedPart,
        Self::LsnsMerge,
        Self::HostMoved,
        Self::UdpLostInbound,
        Self::UdpLostOutbound,
        Self::UdpLost,
        Self::InterfaceDown,
        Self::AddressChanged,
        Self::LsnAddressChanged,
        Self::Slept10Seconds,
        Self::Slept3Days,
        Self::Stalled,
        Self::LsnCutOff,
        Self::LsnWalledIn,
        Self::AllBoot,
        Self::Bursts,
        Self::RouterGone,
        Self::MasterKilled,
        Self::MasterGone,
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
            Self::UdpLostInbound => "a child's UDP dropped inbound, and back",
            Self::UdpLostOutbound => "a child's UDP dropped outbound, and back",
            Self::UdpLost => "a child's UDP dropped, and back",
            Self::InterfaceDown => "interface down and up",
            Self::AddressChanged => "a child gets another address",
            Self::LsnAddressChanged => "the LSN gets another address",
            Self::Slept10Seconds => "a child slept 10 s",
            Self::Slept3Days => "a child slept 3 days",
            Self::Stalled => "a child stopped for 10 s: stalled",
            Self::LsnCutOff => "LSN cut off without a packet",
            Self::LsnWalledIn => "strangers kept out of the LSN's host",
            Self::AllBoot => "the whole lab boots at once",
            Self::Bursts => "LSN killed behind 40 ms and bursts of loss",
            Self::RouterGone => "router gone for a minute",
            Self::MasterKilled => "master killed and started again",
            Self::MasterGone => "master gone for a minute",
            Self::MasterMoved => "master moved, found by SRV",
        }
    }

    /// How long it may take at most.
    pub fn limit(self) -> Duration {
        match self {
            Self::Gathered | Self::TaskReachesAll | Self::AnnouncedPart => Duration::from_secs(5),
            Self::LsnKilled | Self::HostMoved | Self::AddressChanged | Self::LsnAddressChanged => {
                Duration::from_secs(10)
            }
            Self::LsnAndDeputiesKilled | Self::NodeKilled | Self::AllBoot => Duration::from_secs(15),
            Self::InterfaceDown | Self::Slept10Seconds | Self::Slept3Days | Self::Stalled => {
                Duration::from_secs(20)
            }
            Self::UdpLostInbound | Self::UdpLostOutbound | Self::UdpLost => Duration::from_secs(40),
            Self::LsnCutOff | Self::LsnWalledIn | Self::Bursts => Duration::from_secs(40),
            Self::LsnsMerge | Self::MasterKilled | Self::MasterMoved => Duration::from_secs(45),
            Self::RouterGone | Self::MasterGone => Duration::from_secs(60),
        }
    }

    /// What every column has to get over in every run.
    fn is_core(self) -> bool {
        let core = [
            Self::Gathered,
            Self::TaskReachesAll,
            Self::LsnKilled,
            Self::LsnAndDeputiesKilled,
            Self::LsnsMerge,
            Self::HostMoved,
        ];
        core.contains(&self)
    }

    /// Mostly waiting.
    fn is_long(self) -> bool {
        let long = [
            Self::UdpLostInbound,
            Self::UdpLostOutbound,
            Self::Slept10Seconds,
            Self::Slept3Days,
            Self::LsnCutOff,
            Self::AllBoot,
            Self::Bursts,
            Self::RouterGone,
            Self::MasterGone,
        ];
        long.contains(&self)
    }

    fn takes_udp_away(self) -> bool {
        matches!(self, Self::UdpLostInbound | Self::UdpLostOutbound | Self::UdpLost)
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
        match spared(column, case) {
            Some(why) => table.enter(case, Outcome::Spared(why)),
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
