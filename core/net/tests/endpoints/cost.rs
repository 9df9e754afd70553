//! What sessions cost, measured and bounded: time to open, bytes while idle, memory.

use std::time::{Duration, Instant};

use muster_wire::testing::TestNetwork;

use crate::house::{self, V4, guest, id};

/// The specification's budget on the LAN, as a mean.
const LAN_BYTES_PER_SECOND: f64 = 200.0;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn an_idle_session_stays_far_below_the_lans_budget() {
    let network = TestNetwork::new();
    let mut config = house::config(&network, &network.node(id(1)), 1);
    // A hundred times the product's pace, so that a quarter of a second shows what 25 s cost.
    config.keep_alive = config.keep_alive.map(|interval| interval / 100);
    let alice = house::open(config, id(1)).await;
    let mut bob = guest(&network, 2).await;
    let session = alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    bob.opened().await;
    let (handshake_sent, handshake_received) = session.traffic();
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (sent, received) = session.traffic();
    const HEADERS: f64 = 28.0; // IPv4 and UDP, for some 24 packets in all
    let payload = (sent + received - handshake_sent - handshake_received) as f64;
    let per_second = payload / begin.elapsed().as_secs_f64() / 100.0;
    let with_headers = per_second + 2.0 * HEADERS / 25.0;
    println!("hello and handshake: {handshake_sent} B sent, {handshake_received} B received");
    println!("idle: {with_headers:.1} B/s on the wire with IPv4 headers, both directions together");
    assert!(with_headers < LAN_BYTES_PER_SECOND / 10.0, "{with_headers:.1} B/s");
}

#[tokio::test]
async fn sessions_open_within_milliseconds_and_stay_small() {
    const SESSIONS: u8 = 100;
    let network = TestNetwork::new();
    let mut lsn = guest(&network, 255).await;
    let mut children = Vec::new();
    for number in 1..=SESSIONS {
        children.push(guest(&network, number).await);
    }
    let before = resident();
    let mut times = Vec::new();
    for child in &children {
        let begin = Instant::now();
        child.endpoint.connect(lsn.contact(V4)).await.unwrap();
        times.push(begin.elapsed());
        lsn.opened().await;
    }
    let per_session = (resident() - before) / u64::from(SESSIONS);
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("opening a session: median {median:?}, worst {worst:?}");
    println!("memory: {} kB a session, both ends together", per_session / 1024);
    assert!(per_session < 512 * 1024, "{per_session} bytes");
}
