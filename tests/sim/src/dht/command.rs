//! `muster-sim dht ...`: runs, prints what came of it beside what is aimed for, and fails when an aim is missed.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::day::Day;
use super::events;
use super::load::Report;
use super::scale::{self, Scale};
use super::tune;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A settled network: puts, gets and finds; with --dead or --false part of it fails or deceives.
    Scale(ScaleArgs),
    /// LSNs that know each other almost completely, and clients that ask them first.
    Lsns(LsnArgs),
    /// A circadian day with upkeep: how good tables stay, what that costs.
    Day(DayArgs),
    /// A tenth of the places loses power; half of the places loses sight of the other half; nodes join.
    Events(EventArgs),
    /// Sweeps over k and alpha, and over the intervals.
    Tune(TuneArgs),
}

#[derive(Debug, Args)]
pub struct ScaleArgs {
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// Puts, gets and finds, each.
    #[arg(long, default_value_t = 1_000)]
    operations: usize,
    /// Percent that die after the puts.
    #[arg(long, default_value_t = 0)]
    dead: u32,
    /// Percent that are certified and answer only with each other.
    #[arg(long = "false", default_value_t = 0)]
    deceive: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub struct LsnArgs {
    #[arg(long, default_value_t = 10_000)]
    lsns: usize,
    #[arg(long, default_value_t = 2_000)]
    clients: usize,
    #[arg(long, default_value_t = 2_000)]
    operations: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub struct DayArgs {
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    #[arg(long, default_value_t = 24)]
    hours: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub struct EventArgs {
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    #[arg(long, default_value_t = 500)]
    operations: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Of the network that is half dead.
    #[arg(long, default_value_t = 20_000)]
    nodes: usize,
    #[arg(long, default_value_t = 1_000)]
    operations: usize,
    /// Of the network that lives a day.
    #[arg(long, default_value_t = 1_000)]
    day_nodes: usize,
    #[arg(long, default_value_t = 24)]
    hours: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Prints figures; remembers whether all aims were met.
struct Verdict<'a, W> {
    out: &'a mut W,
    met: bool,
}

impl<W: Write> Verdict<'_, W> {
    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    fn at_least(&mut self, what: &str, value: f64, aim: f64) -> io::Result<()> {
        self.judge(what, value, ">=", aim, value >= aim)
    }

    fn at_most(&mut self, what: &str, value: f64, aim: f64) -> io::Result<()> {
        self.judge(what, value, "<=", aim, value <= aim)
    }

    fn judge(&mut self, what: &str, value: f64, sign: &str, aim: f64, met: bool) -> io::Result<()> {
        self.met &= met;
        let word = if met { "" } else { "  MISSED" };
        writeln!(self.out, "{what:<48}{value:>10.2}   aim {sign} {aim}{word}")
    }

    fn report(&mut self, name: &str, report: &Report) -> io::Result<()> {
        let per = |total: u64| total as f64 / report.count.max(1) as f64;
        let ms = |percent: usize| report.lasted.percentile(percent).as_secs_f64() * 1_000.0;
        writeln!(
            self.out,
            "{name:<5} n {:>6}  right {:>7.3} %  hops {:>5.2}  requests {:>6.1}  nodes {:>5.2} (fewest {})  \
             ms p50 {:>6.0} p95 {:>6.0} p99 {:>6.0}  all traffic each: {:>6.1} messages, {:>7.0} bytes",
            report.count,
            report.share() * 100.0,
            report.hops,
            report.requests,
            report.nodes,
            report.fewest_nodes,
            ms(50),
            ms(95),
            ms(99),
            per(report.traffic.messages),
            per(report.traffic.bytes),
        )
    }
}

impl Command {
    /// `false`: an aim was missed.
    pub fn run(&self, out: &mut impl Write) -> io::Result<bool> {
        let mut verdict = Verdict { out, met: true };
        match self {
            Self::Scale(args) => run_scale(args, &mut verdict)?,
            Self::Lsns(args) => {
                let report = scale::with_lsns(args.lsns, args.clients, args.operations, args.seed);
                verdict.report("get", &report)?;
                verdict.at_most("hops beyond the own LSN", report.hops, 1.3)?;
            }
            Self::Day(args) => run_day(args, &mut verdict)?,
            Self::Events(args) => run_events(args, &mut verdict)?,
            Self::Tune(args) => {
                verdict.say(&tune::by_k_and_alpha(args.nodes, args.operations, args.seed))?;
                verdict.say(&tune::by_interval(args.day_nodes, args.hours, args.seed))?;
            }
        }
        Ok(verdict.met)
    }
}

fn run_scale(args: &ScaleArgs, verdict: &mut Verdict<'_, impl Write>) -> io::Result<()> {
    let mut scale = Scale::new(args.nodes, args.operations);
    (scale.dead_percent, scale.false_percent) = (args.dead, args.deceive);
    let outcome = scale.run(args.seed);
    verdict.say(&format!(
        "{} nodes, {} % dead, {} % false, seed {}",
        args.nodes, args.dead, args.deceive, args.seed
    ))?;
    verdict.report("put", &outcome.put)?;
    verdict.report("get", &outcome.get)?;
    verdict.report("find", &outcome.find)?;
    verdict.say(&format!(
        "{} events, {:.0} a second; {:.0} contacts a table; peak memory {} MiB; trace {:016x}",
        outcome.events,
        outcome.events_per_second,
        outcome.contacts,
        peak_memory_mib(),
        outcome.trace
    ))?;
    let right = outcome.get.share() * 100.0;
    match (args.dead, args.deceive) {
        (0, 0) => {
            let aim = if args.nodes > 100_000 { 3.1 } else { 2.5 };
            verdict.at_most("hops to the first value", outcome.get.hops, aim)?;
            verdict.at_least("values found, percent", right, 99.9)
        }
        (_, 1..) => verdict.at_least("right answers among the false, percent", right, 99.0),
        (dead, _) => {
            let aim = if dead > 50 { 99.5 } else { 99.9 };
            verdict.at_least("values found among the dead, percent", right, aim)
        }
    }
}

fn run_day(args: &DayArgs, verdict: &mut Verdict<'_, impl Write>) -> io::Result<()> {
    let outcome = Day { hours: args.hours, ..Day::new(args.nodes) }.run(args.seed);
    verdict.say(&format!(
        "{} nodes for {} hours, {:.0} up in the mean",
        args.nodes, args.hours, outcome.mean_up
    ))?;
    for &(time, health) in &outcome.health {
        verdict.say(&health.at(time))?;
    }
    verdict.report("get", &outcome.gets)?;
    verdict.say(&format!(
        "holders of a record {:.1}, fewest {}; {:.2} messages a second a server; {} events; trace {:016x}",
        outcome.mean_holders,
        outcome.fewest_holders,
        outcome.messages_per_second,
        outcome.events,
        outcome.trace
    ))?;
    let last = outcome.health.last().map_or(0.0, |(_, health)| health.healthy * 100.0);
    verdict.at_least("servers that know 18 of their 20 closest, %", last, 95.0)?;
    verdict.at_most("upkeep, bytes a second a server", outcome.bytes_per_second, 60.0)?;
    verdict.at_least("values found after the day, percent", outcome.gets.share() * 100.0, 99.9)
}

fn run_events(args: &EventArgs, verdict: &mut Verdict<'_, impl Write>) -> io::Result<()> {
    let cut = events::power_cut(args.nodes, 10, args.operations, args.seed);
    verdict.say(&format!("{} nodes; a tenth of the places loses power", args.nodes))?;
    verdict.report("get", &cut.at_once)?;
    verdict.at_least("values found at once, percent", cut.at_once.share() * 100.0, 99.9)?;
    verdict.at_least("tables whole after half an hour, percent", cut.later.healthy * 100.0, 95.0)?;
    verdict.at_least("fewest holders after two hours", cut.fewest_holders as f64, 18.0)?;
    let parted = events::partition(args.nodes, args.operations, args.seed);
    verdict.say("half of the places does not hear the other half for two hours")?;
    verdict.report("put", &parted.apart)?;
    verdict.report("get", &parted.together)?;
    let minutes = parted.whole_after.map_or(f64::INFINITY, |span| span.as_secs_f64() / 60.0);
    verdict.at_most("minutes until 95 % of the tables are whole", minutes, 30.0)?;
    verdict.at_least("values of both halves found, percent", parted.together.share() * 100.0, 99.9)?;
    let joining = events::joining(args.nodes.min(1_000), args.seed);
    verdict.say("nodes join one after the other, knowing one bootstrap node")?;
    verdict.at_most("messages for each that joins", joining.messages, 250.0)?;
    verdict.at_most("kilobytes for each that joins, warm", joining.bytes / 1_000.0, 100.0)?;
    verdict.at_least("tables whole a minute later, percent", joining.health.healthy * 100.0, 95.0)
}

/// Of this process, from the kernel's own book; zero where there is none.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1_024
}
