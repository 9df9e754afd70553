//! What replicas of one service say to each other, by NATS core: each word goes to all others, at most once, in any order.
//!
//! Nothing is true because it came by here. Whoever listens is told when words may have been missed, again and again
//! while the bus is away, and looks into the store then.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::shutdown::Shutdown;

/// Words on their way out; further ones are dropped, and readers poll.
const OUTBOUND: usize = 4_096;
/// Words heard and not yet taken; further ones are dropped and reported as missed.
const INBOUND: usize = 4_096;
/// A server that does not answer within this is tried again, or the next one is.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Tried again this often; a server on the same network is back or not.
const RECONNECT: Duration = Duration::from_millis(250);
/// A dead connection is noticed after two of these.
const PING: Duration = Duration::from_secs(5);
/// While the bus is away, readers look into the store this often.
const BLIND_LOOK: Duration = Duration::from_secs(1);

const CONNECTED: &str = "muster_bus_connected";
const SAID: &str = "muster_bus_words_said_total";
const HEARD: &str = "muster_bus_words_heard_total";
const MISSED: &str = "muster_bus_words_missed_total";

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Shown without the address: it may hold a password.
    #[error("the bus's address is not understood, expected nats://host:4222: {0}")]
    Address(String),
    #[error("cannot speak on the bus: {0}")]
    Connect(String),
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Word(Bytes),
    /// Words may have been missed: look at everything.
    Gap,
}

/// One replica's connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Bus {
    outbound: mpsc::Sender<Bytes>,
    connected: watch::Receiver<bool>,
}

impl Bus {
    /// Speaks with all who named the same `subject`. `url` is one server or several, separated by commas; it returns
    /// at once, and connects, again and again, until the shutdown.
    ///
    /// # Errors
    /// The address is not understood.
    pub async fn open(
        url: &str,
        subject: String,
        shutdown: &Shutdown,
    ) -> Result<(Self, mpsc::Receiver<Heard>), BusError> {
        describe();
        let (state, connected) = watch::channel(false);
        let client = connect(url, move |event| note(&state, &event)).await?;
        let (outbound, words) = mpsc::channel(OUTBOUND);
        let (heard, inbound) = mpsc::channel(INBOUND);
        let ended = shutdown.clone();
        let speaking = speak(client.clone(), subject.clone(), words);
        shutdown.spawn(async move {
            tokio::select! {
                () = ended.triggered() => {}
                () = speaking => {}
            }
        });
        let (ended, seen) = (shutdown.clone(), connected.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = ended.triggered() => {}
                () = listen(client, subject, seen, heard) => {}
            }
        });
        Ok((Self { outbound, connected }, inbound))
    }

    /// Says it to all others, if it can be said now.
    pub fn say(&self, word: Bytes) {
        let said = self.outbound.try_send(word).is_ok();
        metrics::counter!(if said { SAID } else { MISSED }).increment(1);
    }

    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

/// Whether a server of this address lets us in, within `CONNECT_LIMIT`.
///
/// # Errors
/// Why it does not.
pub async fn probe(url: &str) -> Result<String, BusError> {
    let options = ConnectOptions::new().connection_timeout(CONNECT_LIMIT);
    let connecting = options.connect(servers(url)?);
    let refused = |error: String| BusError::Connect(error);
    let client = tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .map_err(|_| refused("no answer".to_owned()))?
        .map_err(|error| refused(error.to_string()))?;
    Ok(client.server_info().version)
}

fn servers(url: &str) -> Result<Vec<ServerAddr>, BusError> {
    let parse = |one: &str| one.trim().parse().map_err(|error: std::io::Error| error.to_string());
    url.split(',').map(parse).collect::<Result<_, _>>().map_err(BusError::Address)
}

async fn connect(url: &str, on_event: impl Fn(Event) + Send + Sync + 'static) -> Result<Client, BusError> {
    let options = ConnectOptions::new()
        .name("muster")
        .no_echo()
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_LIMIT)
        .ping_interval(PING)
        .reconnect_delay_callback(|_| RECONNECT)
        .event_callback(move |event| {
            on_event(event);
            std::future::ready(())
        });
    options.connect(servers(url)?).await.map_err(|error| BusError::Connect(error.to_string()))
}

fn note(state: &watch::Sender<bool>, event: &Event) {
    match event {
        Event::Connected => tracing::info!("the bus is there"),
        Event::Disconnected => {
            tracing::warn!(every = ?BLIND_LOOK, "the bus is away: looking into the store instead")
        }
        other => tracing::debug!(event = %other, "bus"),
    }
    if matches!(event, Event::Connected | Event::Disconnected) {
        let connected = matches!(event, Event::Connected);
        metrics::gauge!(CONNECTED).set(f64::from(u8::from(connected)));
        state.send_replace(connected);
    }
}

async fn speak(client: Client, subject: String, mut words: mpsc::Receiver<Bytes>) {
    while let Some(word) = words.recv().await {
        if let Err(error) = client.publish(subject.clone(), word).await {
            metrics::counter!(MISSED).increment(1);
            tracing::debug!(%error, "a word was not said");
        }
    }
}

async fn listen(
    client: Client,
    subject: String,
    mut connected: watch::Receiver<bool>,
    heard: mpsc::Sender<Heard>,
) {
    let mut words = match client.subscribe(subject).await {
        Ok(words) => words,
        Err(error) => {
            tracing::error!(%error, "the bus cannot be heard; readers poll");
            return;
        }
    };
    let mut looks = tokio::time::interval(BLIND_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lagging = false;
    loop {
        let next = tokio::select! {
            word = words.next() => match word {
                Some(word) => {
                    metrics::counter!(HEARD).increment(1);
                    Heard::Word(word.payload)
                }
                None => return,
            },
            changed = connected.changed() => match changed {
                Ok(()) => Heard::Gap,
                Err(_) => return,
            },
            _ = looks.tick() => {
                if *connected.borrow() && !lagging {
                    continue;
                }
                Heard::Gap
            }
        };
        let gap = next == Heard::Gap;
        lagging = match heard.try_send(next) {
            Ok(()) => lagging && !gap,
            Err(_) => true,
        };
    }
}

fn describe() {
    metrics::describe_gauge!(CONNECTED, "Whether this replica hears the others: 1 or 0");
    metrics::describe_counter!(SAID, "Words said to other replicas");
    metrics::describe_counter!(HEARD, "Words heard from other replicas");
    metrics::describe_counter!(MISSED, "Words that could not be said; readers find out by polling");
    metrics::gauge!(CONNECTED).set(0.0);
    for name in [SAID, HEARD, MISSED] {
        metrics::counter!(name).absolute(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_several_servers_and_a_wrong_one_keeps_its_password() {
        assert_eq!(servers("nats://a:4222,nats://user:word@b:4223").unwrap().len(), 2);
        let error = servers("http://user:secret@host").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
