//! A router's body: two TUN devices, one in the router's own machine and one in the internet, and a task that carries
//! packets between them as its gateway decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use muster_types::Instant;
use tokio::task::JoinHandle;
use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::gateway::{Gateway, Side};
use crate::machine::Machine;

/// The largest packet on any of the lab's links.
pub const MTU: u16 = 1_500;

/// How long an idle router sleeps between looks at its orders.
const IDLE: Duration = Duration::from_secs(3_600);

/// A running router. Dropping it removes its devices.
#[derive(Debug)]
pub struct Router {
    gateway: Arc<Mutex<Gateway>>,
    carrier: JoinHandle<()>,
}

impl Router {
    /// Makes the device `inside` on the router's machine and `outside` on the internet, and carries packets between.
    pub async fn start(
        gateway: Gateway,
        inside: (&Machine, &str),
        outside: (&Machine, &str),
    ) -> Result<Self> {
        let (inside, outside) = (device(inside.0, inside.1).await?, device(outside.0, outside.1).await?);
        let gateway = Arc::new(Mutex::new(gateway));
        let carrier = tokio::spawn(carry(gateway.clone(), inside, outside));
        Ok(Self { gateway, carrier })
    }

    /// The router's mind, to look at or to change between two packets.
    pub fn gateway(&self) -> MutexGuard<'_, Gateway> {
        lock(&self.gateway)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

async fn device(machine: &Machine, name: &str) -> Result<AsyncDevice> {
    let wanted = name.to_owned();
    let made = machine.run(move || DeviceBuilder::new().name(wanted).mtu(MTU).build_async()).await?;
    let device = made.with_context(|| format!("make the TUN device {name} on {}", machine.name()))?;
    machine.ip(&format!("link set dev {name} up")).await?;
    Ok(device)
}

async fn carry(gateway: Arc<Mutex<Gateway>>, inside: AsyncDevice, outside: AsyncDevice) {
    let started = std::time::Instant::now();
    let now = || Instant::from_elapsed(started.elapsed());
    let (mut from_inside, mut from_outside) = ([0; MTU as usize], [0; MTU as usize]);
    loop {
        loop {
            let due = lock(&gateway).poll(now());
            let sent = match due {
                Some((Side::Inside, packet)) => inside.send(&packet).await,
                Some((Side::Outside, packet)) => outside.send(&packet).await,
                None => break,
            };
            // A device that is down takes no packets, as a cable that is out.
            let _ = sent;
        }
        let wait = lock(&gateway).next_due().map_or(IDLE, |due| due.since(now()));
        tokio::select! {
            Ok(length) = inside.recv(&mut from_inside) => {
                lock(&gateway).on_packet(now(), Side::Inside, from_inside[..length].to_vec());
            }
            Ok(length) = outside.recv(&mut from_outside) => {
                lock(&gateway).on_packet(now(), Side::Outside, from_outside[..length].to_vec());
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// A panic elsewhere leaves the gateway as it was between two packets.
fn lock(gateway: &Mutex<Gateway>) -> MutexGuard<'_, Gateway> {
    gateway.lock().unwrap_or_else(PoisonError::into_inner)
}
