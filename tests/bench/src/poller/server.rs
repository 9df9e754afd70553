//! The server of old: keeps tasks until their host asks, and may knock at the host's port so that it asks now.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::{ANSWER_BODY, Counts, Outcome, PORT, WAKE_PORT, http};

/// A host that does not answer at its port by then cannot be woken.
const KNOCK: Duration = Duration::from_secs(3);

/// Serves polls until it is killed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Where its key and certificate lie
    #[arg(long)]
    keys: PathBuf,
}

#[derive(Default)]
struct State {
    counts: Counts,
    waiting: BTreeMap<String, VecDeque<u64>>,
    results: HashMap<u64, oneshot::Sender<()>>,
    /// Where each host polled from last: the only address the server knows.
    seen: BTreeMap<String, IpAddr>,
}

#[derive(Clone, Default)]
struct Office(Arc<Mutex<State>>);

impl Server {
    pub(crate) async fn run(self) -> Result<()> {
        let (acceptor, office) = (http::acceptor(&self.keys)?, Office::default());
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        loop {
            let (stream, from) = listener.accept().await?;
            let (office, acceptor) = (office.clone(), acceptor.clone());
            tokio::spawn(async move {
                if let Err(error) = office.serve(&acceptor, stream, from).await {
                    eprintln!("{from}: {error:#}");
                }
            });
        }
    }
}

impl Office {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, acceptor: &TlsAcceptor, stream: TcpStream, from: SocketAddr) -> Result<()> {
        let mut stream = acceptor.accept(stream).await?;
        let (first, _) = http::read(&mut stream).await?;
        let path = first.split(' ').nth(1).context("a path")?;
        let body = self.decide(path, from.ip()).await?;
        http::answer(&mut stream, &body).await
    }

    async fn decide(&self, path: &str, from: IpAddr) -> Result<Vec<u8>> {
        let parts: Vec<_> = path.split('/').skip(1).collect();
        if !matches!(parts[0], "order" | "counts") {
            self.lock().counts.connections += 1;
        }
        match parts[..] {
            ["poll", host] => Ok(self.polled(host, from)),
            ["task", _] => Ok(padded("run true")),
            ["result", task] => {
                let mut state = self.lock();
                state.counts.tasks += 1;
                if let Some(done) = state.results.remove(&task.parse()?) {
                    // Who ordered it may have gone.
                    let _ = done.send(());
                }
                Ok(padded("thanks"))
            }
            ["order", host] => self.order(host, false).await,
            ["order", host, "wake"] => self.order(host, true).await,
            ["counts"] => Ok(serde_json::to_vec(&self.lock().counts)?),
            _ => bail!("nothing is at {path}"),
        }
    }

    fn polled(&self, host: &str, from: IpAddr) -> Vec<u8> {
        let mut state = self.lock();
        state.counts.polls += 1;
        state.seen.insert(host.to_owned(), from);
        let task = state.waiting.get_mut(host).and_then(VecDeque::pop_front);
        padded(&task.map_or("nothing".to_owned(), |task| format!("task {task}")))
    }

    async fn order(&self, host: &str, wake: bool) -> Result<Vec<u8>> {
        let began = Instant::now();
        let (done, result) = oneshot::channel();
        let seen = {
            let mut state = self.lock();
            let task = rand::random();
            state.results.insert(task, done);
            state.waiting.entry(host.to_owned()).or_default().push_back(task);
            state.seen.get(host).copied()
        };
        let woken = wake && knock(seen).await;
        if wake && !woken {
            // Who asked for a wake-up is told at once; the task does not wait for the next poll.
            self.lock().waiting.remove(host);
            return Ok(serde_json::to_vec(&Outcome { woken, millis: None })?);
        }
        result.await?;
        let millis = Some(began.elapsed().as_secs_f64() * 1e3);
        Ok(serde_json::to_vec(&Outcome { woken, millis })?)
    }
}

async fn knock(host: Option<IpAddr>) -> bool {
    let Some(host) = host else { return false };
    tokio::time::timeout(KNOCK, TcpStream::connect((host, WAKE_PORT)))
        .await
        .is_ok_and(|stream| stream.is_ok())
}

fn padded(text: &str) -> Vec<u8> {
    format!("{text:ANSWER_BODY$}").into_bytes()
}
