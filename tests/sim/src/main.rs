//! `muster-sim`: the overlay under churn, seed after seed.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use muster_sim::measure::{Measure, Sample};
use muster_sim::scale::{
    Alone, Crowd, Day, Decapitation, Detections, Liars, Outage, Revocation, Revocations, Victims, Weather,
};
use muster_sim::{Churn, Outcome};

/// Runs the overlay's real state machines in a simulated world and judges what the world shows.
///
/// One seed is one run: the same seed gives the same events in the same order, on every machine.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "EXAMPLES:\n  muster-sim churn --seeds 100 --nodes 1000 --places 50\n  \
    muster-sim churn --seed 17 --nodes 1000 --places 50    # replay one run"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hosts boot, crash, leave, sleep, stall and move; places fall apart and go dark; the master goes away.
    Churn(ChurnArgs),
    /// One calm place: its quiet traffic, and how long it takes to get over the loss of its LSN.
    Calm(CalmArgs),
    /// What befalls a whole fleet at once.
    Scale(ScaleArgs),
    /// The hash table, up to a million nodes.
    #[command(subcommand)]
    Dht(muster_sim::dht::command::Command),
}

#[derive(Debug, Args)]
struct ScaleArgs {
    #[arg(value_enum)]
    scenario: Scenario,
    /// Hosts, spread evenly over the places.
    #[arg(long, default_value_t = 30_000)]
    nodes: usize,
    #[arg(long, default_value_t = 1_000)]
    places: usize,
    /// Of `outage`, `alone` and `detections`.
    #[arg(long, default_value_t = 1)]
    hours: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Scenario {
    /// Half of the hosts go home in the evening and come back in the morning.
    Day,
    /// The power comes back while the master is away, then the master does.
    Outage,
    /// 70 % of all LSNs are killed at once.
    Decapitation,
    /// The best connected 95 % of all LSNs are killed at once.
    BestConnected,
    /// One host of a hundred is revoked at once.
    Revocation,
    /// Hosts and LSNs are revoked one after another, some while the LSN of their place changes.
    Revocations,
    /// LSNs drop, delay, forge, equivocate and boast.
    Liars,
    /// No master, for so many hours.
    Alone,
    /// One place with more nodes than a cell takes.
    Crowd,
    /// False detections at 1 % independent loss, everything simulated.
    Detections,
    /// The same under bursts of 300 ms, once in ten minutes.
    Bursts,
}

#[derive(Debug, Args)]
struct CalmArgs {
    /// Hosts of the place.
    #[arg(long, default_value_t = 30)]
    nodes: usize,
    /// LSNs killed, and LSNs that take their leave.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ChurnArgs {
    /// Runs, with the seeds 1, 2, 3, ...
    #[arg(long, default_value_t = 10, conflicts_with = "seed")]
    seeds: u64,
    /// Replay this one run.
    #[arg(long)]
    seed: Option<u64>,
    /// Hosts, spread evenly over the places.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Places, each one local network; at most 256.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=256))]
    places: u64,
    /// Simulated seconds in which things happen.
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// The network drops UDP: sessions go by TCP, and nobody hears discovery.
    #[arg(long)]
    tcp: bool,
    /// Tell on stderr what befalls these hosts.
    #[arg(long, value_delimiter = ',', requires = "seed")]
    watch: Vec<usize>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Churn(args) => churn(args),
        Command::Calm(args) => calm(&args),
        Command::Scale(args) => scale(&args),
        Command::Dht(command) => {
            let met = command.run(&mut std::io::stdout().lock())?;
            Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn scale(args: &ScaleArgs) -> anyhow::Result<ExitCode> {
    let &ScaleArgs { nodes, places, hours, seed, .. } = args;
    let away = Duration::from_secs(3_600) * hours;
    let bursts = Weather::Bursts { every: Duration::from_secs(600) };
    let began = std::time::Instant::now();
    let report = match args.scenario {
        Scenario::Day => Day { nodes, places }.run(seed),
        Scenario::Outage => Outage { nodes, places, away }.run(seed),
        Scenario::Decapitation => Decapitation { nodes, places, victims: Victims::AnyPercent(70) }.run(seed),
        Scenario::BestConnected => {
            Decapitation { nodes, places, victims: Victims::BestConnectedPercent(95) }.run(seed)
        }
        Scenario::Revocation => Revocation { nodes, places }.run(seed),
        Scenario::Revocations => Revocations { nodes, places }.run(seed),
        Scenario::Liars => Liars { nodes, places, span: away }.run(seed),
        Scenario::Alone => Alone { nodes, places, hours }.run(seed),
        Scenario::Crowd => Crowd { nodes, morning: Duration::from_secs(600) }.run(seed),
        Scenario::Detections => {
            Detections { nodes, places, hours, weather: Weather::Independent(0.01) }.run(seed)
        }
        Scenario::Bursts => Detections { nodes, places, hours, weather: bursts }.run(seed),
    };
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:?}: {nodes} nodes in {places} places, seed {seed}, simulated in {:.0} s",
        args.scenario,
        began.elapsed().as_secs_f64()
    )?;
    report.lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    report.failures.iter().for_each(|failure| eprintln!("FAILED: {failure}"));
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn calm(args: &CalmArgs) -> anyhow::Result<ExitCode> {
    let calm = muster_sim::calm::run(args.nodes, args.rounds, args.seed);
    let mut out = std::io::stdout().lock();
    writeln!(out, "one place of {} nodes, simulated, bytes estimated", args.nodes)?;
    let node_seconds = calm.quiet.as_secs_f64() * args.nodes as f64;
    writeln!(out, "quiet LAN: {:.0} B/s a node", calm.lan.bytes as f64 / node_seconds)?;
    writeln!(out, "quiet WAN: {:.0} B/h a node", calm.wan.bytes as f64 / node_seconds * 3_600.0)?;
    durations(&mut out, &calm.measure)?;
    Ok(ExitCode::SUCCESS)
}

fn churn(args: ChurnArgs) -> anyhow::Result<ExitCode> {
    let churn = Churn {
        nodes: args.nodes,
        places: usize::try_from(args.places)?,
        span: Duration::from_secs(args.seconds),
        datagrams: !args.tcp,
        watch: args.watch,
    };
    let seeds: Vec<u64> = args.seed.map_or_else(|| (1..=args.seeds).collect(), |seed| vec![seed]);
    let outcomes = run_all(&churn, &seeds, args.jobs.max(1));
    let failed = report(&churn, &outcomes, args.seconds)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_all(churn: &Churn, seeds: &[u64], jobs: usize) -> Vec<Outcome> {
    let (sender, results) = mpsc::channel();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if sender.send(churn.run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut outcomes: Vec<_> = results.iter().inspect(progress).collect();
        outcomes.sort_by_key(|outcome| outcome.seed);
        outcomes
    })
}

fn progress(outcome: &Outcome) {
    let verdict = if outcome.violations.is_empty() { "ok" } else { "FAILED" };
    eprintln!("seed {:>4}  {verdict}  {} events  trace {:016x}", outcome.seed, outcome.events, outcome.trace);
}

/// Figures to stdout, failures with the command that replays them to stderr.
fn report(churn: &Churn, outcomes: &[Outcome], seconds: u64) -> anyhow::Result<bool> {
    let mut all = Measure::default();
    let mut node_seconds = 0.0;
    for outcome in outcomes {
        all.merge(&outcome.measure);
        node_seconds += outcome.simulated.as_secs_f64() * churn.nodes as f64;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} runs, {} nodes in {} places, simulated", outcomes.len(), churn.nodes, churn.places)?;
    durations(&mut out, &all)?;
    let (bytes, messages) = (all.lan.bytes as f64 / node_seconds, all.lan.messages as f64 / node_seconds);
    writeln!(
        out,
        "LAN: {bytes:.0} B/s and {messages:.2} messages/s a node (bytes estimated from encoded sizes)"
    )?;
    for (kind, traffic) in &all.by_kind {
        writeln!(out, "  {kind:<18}{:>9.1} B/s a node", traffic.bytes as f64 / node_seconds)?;
    }
    let wan = all.wan.bytes as f64 / node_seconds * 3_600.0;
    writeln!(out, "WAN: {wan:.0} B/h a node, under churn")?;
    writeln!(out, "takeovers {}, false detections {}", all.takeovers, all.false_detections)?;
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).collect();
    for outcome in &failed {
        eprintln!(
            "seed {} FAILED; replay: cargo run -p muster-sim -- churn --seed {} --nodes {} --places {} --seconds {seconds}",
            outcome.seed, outcome.seed, churn.nodes, churn.places
        );
        for violation in outcome.violations.iter().take(5) {
            eprintln!("  {:?} {}", violation.at, violation.what);
        }
    }
    Ok(!failed.is_empty())
}

fn durations(out: &mut impl Write, measure: &Measure) -> std::io::Result<()> {
    writeln!(out, "{:<44}{:>8}{:>9}{:>9}{:>9}{:>9}", "ms", "n", "mean", "p50", "p95", "worst")?;
    for (name, sample) in [
        ("LSN crashed -> child under the next LSN", &measure.attached_after_crash),
        ("LSN crashed -> last child of the cell", &measure.all_after_crash),
        ("LSN crashed -> master shows the child there", &measure.shown_after_crash),
        ("LSN parted  -> child under the next LSN", &measure.attached_after_part),
        ("LSN parted  -> master shows the child there", &measure.shown_after_part),
        ("network up  -> has or is LSN", &measure.network_to_lsn),
        ("disconnections, as nodes report them", &measure.disconnections),
    ] {
        row(out, name, sample)?;
    }
    Ok(())
}

fn row(out: &mut impl Write, name: &str, sample: &Sample) -> std::io::Result<()> {
    let millis = |span: Duration| span.as_secs_f64() * 1_000.0;
    let [mean, p50, p95, worst] =
        [sample.mean(), sample.percentile(50), sample.percentile(95), sample.worst()].map(millis);
    writeln!(out, "{name:<44}{:>8}{mean:>9.1}{p50:>9.1}{p95:>9.1}{worst:>9.1}", sample.len())
}
