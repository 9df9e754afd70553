//! Two hosts of different places want to talk: each kind of translator against each, with the real programs. What comes
//! about is compared with what theory allows, and printed as a table.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use muster_sim::meeting::theory;
use muster_sim::model::{Behaviour, Loss, Shape};
use serde::Deserialize;

use crate::dns::MASTER_PORT;
use crate::fleet::Fleet;
use crate::gateway::Passage;
use crate::lab::Lab;
use crate::plan::{PlacePlan, Translation};

/// What people call a translator, and how it is made; nothing: there is none.
type Translator = (&'static str, Option<fn() -> Behaviour>);

/// The kinds that people know, and no translator at all; that one not among the first two places, whose prefix is the same.
const KINDS: [Translator; 5] = [
    ("full cone", Some(Behaviour::full_cone)),
    ("address-restricted", Some(Behaviour::address_restricted)),
    ("none", None),
    ("port-restricted", Some(Behaviour::home)),
    ("symmetric", Some(Behaviour::symmetric)),
];

/// For the last word of one meeting: a search of 2.5 s, and a busy computer.
const PATIENCE: &str = "15s";

/// Until every host has an LSN and is shown.
const GATHERING: Duration = Duration::from_secs(60);

/// What else lies in the way of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    Nothing,
    /// The left place's router drops UDP.
    NoUdpLeft,
    NoUdpBoth,
    /// Nothing leaves the left place but TCP to the master's port.
    OneTcpPort,
}

impl Obstacle {
    fn passages(self) -> [Passage; 2] {
        let (open, no_udp) = (Passage::default(), Passage { udp: false, ..Passage::default() });
        match self {
            Self::Nothing => [open.clone(), open],
            Self::NoUdpLeft => [no_udp, open],
            Self::NoUdpBoth => [no_udp.clone(), no_udp],
            Self::OneTcpPort => [Passage { tcp_ports: Some(vec![MASTER_PORT]), ..no_udp }, open],
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::NoUdpLeft => ", no UDP there",
            Self::NoUdpBoth => ", no UDP at both",
            Self::OneTcpPort => ", one TCP port there",
        }
    }
}

/// One meeting.
#[derive(Debug)]
pub struct Cell {
    left: &'static str,
    right: &'static str,
    obstacle: Obstacle,
    delay: Duration,
    /// What theory allows.
    direct: bool,
    outcome: Result<Outcome>,
}

/// What the calling host's agent says.
#[derive(Debug)]
struct Outcome {
    path: String,
    first: Option<f64>,
    direct: Option<f64>,
}

#[derive(Deserialize)]
struct Ping {
    path: String,
    stages: Vec<Stage>,
}

#[derive(Deserialize)]
struct Stage {
    path: String,
    elapsed_millis: Option<f64>,
}

#[derive(Deserialize)]
struct Status {
    node: String,
}

/// All meetings of one run.
#[derive(Debug, Default)]
pub struct Grid(Vec<Cell>);

impl Grid {
    /// Every kind of translator against every kind. Each pair meets for the first time: places are as many as there are
    /// kinds, twice, with one host each.
    ///
    /// # Errors
    /// The lab cannot be built, or its hosts do not gather.
    pub async fn fill(delay: Duration, both_orders: bool) -> Result<Self> {
        let mut builder = Lab::builder();
        for (_, kind) in KINDS.iter().chain(&KINDS) {
            let translation = kind.map_or(Translation::None, |kind| Translation::Model(kind()));
            builder = builder.place(PlacePlan { agents: 1, translation, ..PlacePlan::default() });
        }
        let fleet = Fleet::start(builder.build().await?).await?;
        fleet.until_whole(GATHERING).await?;
        slow_down(&fleet, delay)?;
        let mut grid = Self::default();
        for left in 0..KINDS.len() {
            for right in (0..KINDS.len()).filter(|right| both_orders || *right >= left) {
                grid.0
                    .push(Cell::try_out(&fleet, (left, KINDS.len() + right), Obstacle::Nothing, delay).await);
            }
        }
        // Places of the first half have not met each other.
        for (pair, obstacle) in
            [((3, 0), Obstacle::NoUdpLeft), ((1, 4), Obstacle::NoUdpBoth), ((0, 1), Obstacle::OneTcpPort)]
        {
            grid.0.push(Cell::try_out(&fleet, pair, obstacle, delay).await);
        }
        fleet.kill_all().await?;
        Ok(grid)
    }

    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What is not as it must be.
    pub fn complaints(&self) -> Vec<String> {
        self.0.iter().filter_map(Cell::complaint).collect()
    }
}

fn slow_down(fleet: &Fleet, delay: Duration) -> Result<()> {
    for place in fleet.lab().places() {
        let shape = Shape { delay: delay / 2, loss: Loss::None, ..Shape::default() };
        place.router().gateway().reshape(shape, shape);
    }
    Ok(())
}

impl Cell {
    /// `pair`: indexes of two places.
    async fn try_out(fleet: &Fleet, pair: (usize, usize), obstacle: Obstacle, delay: Duration) -> Self {
        let [left, right] = [pair.0, pair.1].map(|place| KINDS[place % KINDS.len()]);
        let translators = [left.1.map(|kind| kind()), right.1.map(|kind| kind())];
        let direct = obstacle == Obstacle::Nothing && theory::allows(translators);
        let outcome = meet(fleet, (pair.0 + 1, pair.1 + 1), obstacle).await;
        Self { left: left.0, right: right.0, obstacle, delay, direct, outcome }
    }

    fn complaint(&self) -> Option<String> {
        let what = format!("{} and {}{}", self.left, self.right, self.obstacle.as_str());
        match &self.outcome {
            Err(error) => Some(format!("{what}: {error:#}")),
            Ok(outcome) if outcome.direct.is_some() != self.direct => {
                let expected = if self.direct { "directly" } else { "by relay" };
                Some(format!("{what}: expected {expected}, and got {}", outcome.path))
            }
            Ok(outcome) if outcome.first.is_none() => Some(format!("{what}: nothing came through")),
            Ok(_) => None,
        }
    }
}

/// The first host of one place calls that of another.
async fn meet(fleet: &Fleet, (left, right): (usize, usize), obstacle: Obstacle) -> Result<Outcome> {
    for (place, passage) in [left, right].into_iter().zip(obstacle.passages()) {
        fleet.lab().place(place)?.router().gateway().restrict(passage);
    }
    let host = |place: usize| format!("p{place}a1");
    let status: Status =
        serde_json::from_str(&fleet.agent_says(&host(right), &["status", "--output", "json"]).await?)?;
    let ping = ["ping", status.node.as_str(), "--timeout", PATIENCE, "--output", "json"];
    let said = fleet.agent_says(&host(left), &ping).await;
    for place in [left, right] {
        fleet.lab().place(place)?.router().gateway().restrict(Passage::default());
    }
    let ping: Ping = serde_json::from_str(&said?).context("what the agent printed")?;
    if ping.path == "none" {
        bail!("not reached");
    }
    let elapsed = |wanted: &dyn Fn(&str) -> bool| {
        ping.stages.iter().find(|stage| wanted(&stage.path)).and_then(|stage| stage.elapsed_millis)
    };
    let first = elapsed(&|path| path != "none");
    let direct = elapsed(&|path| path.starts_with("udp") || path.starts_with("tcp"));
    Ok(Outcome { path: ping.path, first, direct })
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| caller | called | delay | theory | path | first byte | direct |")?;
        writeln!(f, "|---|---|---:|---|---|---:|---:|")?;
        for cell in &self.0 {
            let expected = if cell.direct { "direct" } else { "relayed" };
            let millis =
                |millis: Option<f64>| millis.map_or("-".to_owned(), |millis| format!("{millis:.0} ms"));
            let (path, first, direct) = match &cell.outcome {
                Ok(outcome) => (outcome.path.as_str(), millis(outcome.first), millis(outcome.direct)),
                Err(_) => ("failed", "-".to_owned(), "-".to_owned()),
            };
            writeln!(
                f,
                "| {}{} | {} | {:?} | {expected} | {path} | {first} | {direct} |",
                cell.left,
                cell.obstacle.as_str(),
                cell.right,
                cell.delay
            )?;
        }
        Ok(())
    }
}
