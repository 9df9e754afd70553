//! Pairs that the grid of single translators does not have: two translators, one behind the other, as carriers have them.

use std::time::Duration;

use anyhow::{Result, ensure};
use muster_sim::meeting::theory;
use muster_sim::model::{Behaviour, Dependence};

use crate::fleet::Fleet;
use crate::lab::Lab;
use crate::plan::PlacePlan;
use crate::super_node::{node, ping};

/// Until every host has an LSN and is shown.
const GATHERING: Duration = Duration::from_secs(60);

/// What each place's home router stands behind.
const CARRIERS: [Option<fn() -> Behaviour>; 4] =
    [Some(Behaviour::home), None, Some(Behaviour::home), Some(Behaviour::symmetric)];

/// Places whose hosts meet, the first calls; each pair for the first time.
const PAIRS: [(usize, usize); 4] = [(1, 2), (1, 3), (4, 2), (3, 4)];

/// # Errors
/// Two hosts meet otherwise than theory says.
pub async fn meet_through_two_translators() -> Result<()> {
    let mut builder = Lab::builder();
    for carrier in CARRIERS {
        let carrier = carrier.map(|carrier| carrier());
        builder = builder.place(PlacePlan { agents: 1, carrier, ..PlacePlan::default() });
    }
    let fleet = Fleet::start(builder.build().await?).await?;
    fleet.until_whole(GATHERING).await?;
    for (left, right) in PAIRS {
        let direct = theory::allows([left, right].map(|place| Some(as_one(CARRIERS[place - 1]))));
        let (from, to) = (format!("p{left}a1"), format!("p{right}a1"));
        let met = ping(&fleet, &from, &node(&fleet, &to).await?).await?;
        let expected = if direct { "udp4" } else { "relay" };
        println!("{from} and {to}: {}, as theory says {expected}", met["path"]);
        ensure!(met["path"] == expected, "{from} and {to}: expected {expected}: {met:#}");
    }
    fleet.kill_all().await
}

/// Two translators in a row map and filter as the stricter of them does.
fn as_one(carrier: Option<fn() -> Behaviour>) -> Behaviour {
    let home = Behaviour::home();
    let rank = |dependence: Dependence| match dependence {
        Dependence::None => 0,
        Dependence::Address => 1,
        Dependence::AddressAndPort => 2,
    };
    let stricter = |one, other| if rank(one) >= rank(other) { one } else { other };
    let Some(carrier) = carrier.map(|carrier| carrier()) else { return home };
    Behaviour {
        mapping: stricter(home.mapping, carrier.mapping),
        filtering: stricter(home.filtering, carrier.filtering),
        ..home
    }
}
