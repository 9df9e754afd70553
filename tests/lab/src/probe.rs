//! Measuring what the network really does, with UDP packets of our own: no impairment is relied on unmeasured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use muster_sim::model::{Loss, Shape};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::machine::Machine;

/// The port of the lab's echo.
pub const ECHO_PORT: u16 = 7;

/// Probes are sent this far apart.
const SPACING: Duration = Duration::from_millis(3);

/// An answer may come this much later than the delay alone explains: timers of a millisecond, and a busy machine.
const SLACK: Duration = Duration::from_millis(25);

/// Probes for one measurement.
const PROBES: u32 = 200;

/// Standard deviations that a measured loss may be away from what was set.
const SIGMAS: f64 = 4.5;

/// Longest wait for a burst to show itself.
const BURST_WAIT: Duration = Duration::from_secs(30);

/// Answers every packet with itself. Dropping it ends it.
#[derive(Debug)]
pub struct Echo(JoinHandle<()>);

impl Echo {
    pub async fn start(machine: &Machine, address: SocketAddr) -> Result<Self> {
        let socket = bind(machine, address).await?;
        Ok(Self(tokio::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                // A lost answer is what the probe measures.
                let _ = socket.send_to(&buffer[..length], from).await;
            }
        })))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A UDP socket that lives on `machine` and is used from here.
pub async fn bind(machine: &Machine, address: SocketAddr) -> Result<UdpSocket> {
    let socket = machine.run(move || -> std::io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    socket.await?.with_context(|| format!("bind {address} on {}", machine.name()))
}

/// What a series of probes found.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub sent: u32,
    pub round_trips: Vec<Duration>,
}

impl Sample {
    pub fn lost(&self) -> u32 {
        self.sent - self.round_trips.len() as u32
    }

    pub fn shortest(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }

    /// The middle round trip.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Sends `probes` packets from `machine` to the echo at `target`, and waits `patience` for the last answers.
pub async fn measure(
    machine: &Machine,
    target: SocketAddr,
    probes: u32,
    patience: Duration,
) -> Result<Sample> {
    let local: SocketAddr = if target.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = bind(machine, local).await?;
    let started = Instant::now();
    let send = async {
        for number in 0..probes {
            let stamp = [number.to_be_bytes(), (started.elapsed().as_micros() as u32).to_be_bytes()].concat();
            // A refusal by a firewall is a loss.
            let _ = socket.send_to(&stamp, target).await;
            tokio::time::sleep(SPACING).await;
        }
        tokio::time::sleep(patience).await;
    };
    let mut sample = Sample { sent: probes, round_trips: Vec::new() };
    let receive = async {
        let mut answer = [0; 8];
        loop {
            if let Ok(8) = socket.recv(&mut answer).await {
                let sent_at = u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]]);
                let now = started.elapsed().as_micros() as u32;
                sample.round_trips.push(Duration::from_micros(u64::from(now.wrapping_sub(sent_at))));
            }
            if sample.round_trips.len() as u32 == probes {
                break;
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
    Ok(sample)
}

/// Fails unless a link with these shapes, up and down, does between `machine` and `target` what they say.
pub async fn verify(machine: &Machine, target: SocketAddr, up: Shape, down: Shape) -> Result<Sample> {
    let delay = up.delay + down.delay;
    let latest = delay + up.jitter + down.jitter + SLACK;
    let sample = measure(machine, target, PROBES, latest * 2).await?;
    if let (Loss::Bursts { .. }, _) | (_, Loss::Bursts { .. }) = (up.loss, down.loss) {
        await_burst(machine, target, latest).await?;
    } else {
        verify_loss(&sample, arrival(up.loss) * arrival(down.loss))?;
    }
    let (Some(shortest), Some(median)) = (sample.shortest(), sample.median()) else {
        bail!("the impairment did not apply: none of {} probes came back", sample.sent);
    };
    ensure!(
        shortest >= delay,
        "the impairment did not apply: a round trip of {shortest:?} where {delay:?} is the least"
    );
    ensure!(
        median <= latest,
        "the impairment did not apply: a median round trip of {median:?} where {latest:?} is the most"
    );
    Ok(sample)
}

fn verify_loss(sample: &Sample, arrives: f64) -> Result<()> {
    let sent = f64::from(sample.sent);
    let expected = sent * (1.0 - arrives);
    let tolerance = SIGMAS * (sent * arrives * (1.0 - arrives)).sqrt();
    let lost = f64::from(sample.lost());
    ensure!(
        (lost - expected).abs() <= tolerance,
        "the impairment did not apply: {lost} of {sent} probes lost where {expected:.0} ± {tolerance:.0} were expected"
    );
    Ok(())
}

/// Bursts are rare: it is enough that one shows itself.
async fn await_burst(machine: &Machine, target: SocketAddr, latest: Duration) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < BURST_WAIT {
        if measure(machine, target, PROBES, latest).await?.lost() > 0 {
            return Ok(());
        }
    }
    bail!("the impairment did not apply: no burst of loss within {BURST_WAIT:?}")
}

fn arrival(loss: Loss) -> f64 {
    match loss {
        Loss::Independent(probability) => 1.0 - probability,
        Loss::None | Loss::Bursts { .. } => 1.0,
    }
}
