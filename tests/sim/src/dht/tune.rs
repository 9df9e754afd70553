//! The same network with other numbers: what k, alpha and the intervals are worth, as tables.

use std::fmt::Write;

use muster_overlay::dht::Settings;

use super::day::Day;
use super::network::Setup;
use super::scale::{Scale, quiet};

/// k and alpha, where half of a network has died at once.
pub fn by_k_and_alpha(nodes: usize, operations: usize, seed: u64) -> String {
    let mut table = "| k | alpha (most) | found | first value p50 / p95 ms | find p50 / p95 ms | requests a get / a find |\n\
        |---|---|---|---|---|---|\n"
        .to_owned();
    for k in [8, 12, 16, 20, 24] {
        for (alpha, alpha_most) in [(3, 3), (3, 10), (5, 10), (8, 8)] {
            if k != 20 && alpha_most != 10 {
                continue;
            }
            let settings =
                Settings { k, bucket: k, office_bucket: k, alpha, alpha_most, ..Settings::default() };
            let mut scale = Scale::new(nodes, operations);
            scale.setup = Setup { settings: quiet(settings), ..Setup::of(nodes) };
            scale.dead_percent = 50;
            let outcome = scale.run(seed);
            let (get, find) = (&outcome.get, &outcome.find);
            let ms = |span: std::time::Duration| span.as_millis();
            let _ = writeln!(
                table,
                "| {k} | {alpha} ({alpha_most}) | {:.2} % | {} / {} | {} / {} | {:.1} / {:.1} |",
                get.share() * 100.0,
                ms(get.lasted.percentile(50)),
                ms(get.lasted.percentile(95)),
                ms(find.lasted.percentile(50)),
                ms(find.lasted.percentile(95)),
                get.requests,
                find.requests,
            );
        }
    }
    table
}

/// How often a server asks its question, over a day.
pub fn by_interval(nodes: usize, hours: u32, seed: u64) -> String {
    let mut table = "| question every | sweep every | tables with 18 of 20, worst hour / last | holders mean / fewest | gets found | B/s a server |\n\
        |---|---|---|---|---|---|\n"
        .to_owned();
    for (question, sweep) in [(15, 60), (30, 60), (60, 60), (120, 60), (30, 30), (30, 120)] {
        let seconds = std::time::Duration::from_secs;
        let settings =
            Settings { question: seconds(question), sweep: seconds(60 * sweep), ..Settings::default() };
        let outcome = Day { hours, settings, ..Day::new(nodes) }.run(seed);
        let mut healthy = outcome.health.iter().map(|(_, health)| health.healthy * 100.0);
        let _ = writeln!(
            table,
            "| {question} s | {sweep} min | {:.1} % / {:.1} % | {:.1} / {} | {:.1} % | {:.0} |",
            healthy.clone().fold(100.0, f64::min),
            healthy.next_back().unwrap_or_default(),
            outcome.mean_holders,
            outcome.fewest_holders,
            outcome.gets.share() * 100.0,
            outcome.bytes_per_second,
        );
    }
    table
}
