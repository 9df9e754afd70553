//! One LSN's control stream: heartbeats, the hosts below it, and for every task what each of them says of it at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use muster_kit::connect::{Master, MasterChannel, TOPOLOGY};
use muster_kit::tls::ClientTls;
use muster_proto::control::v1::attach_request::Frame as Up;
use muster_proto::control::v1::attach_response::Frame as Down;
use muster_proto::control::v1::control_service_client::ControlServiceClient;
use muster_proto::control::v1::{
    AttachRequest, AttachResponse, Downstream, Heartbeat, PresenceUpdate, downstream,
};
use muster_proto::task::v1::TaskOrder;
use muster_types::NodeId;
use muster_wire::time::span_from_wire;
use prost::Message;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

use super::host::Host;

/// Frames on their way up.
const QUEUE: usize = 64;

/// As agents do: one heartbeat of so many asks for an answer.
const ANSWERED: u64 = 4;

/// The last of [`Host::reports`].
const LAST_REPORT: u64 = 3;

/// The master has acknowledged a host's last word about a task.
pub(super) struct Ended {
    pub(super) host: NodeId,
    /// As the API names it.
    pub(super) task: String,
    pub(super) at: Instant,
}

pub(super) struct Lsn {
    host: Arc<Host>,
    hosts: HashMap<NodeId, Arc<Host>>,
    up: mpsc::Sender<AttachRequest>,
    down: Streaming<AttachResponse>,
    /// The connection lives as long as this.
    _client: ControlServiceClient<MasterChannel>,
    update: u64,
    /// As topology's Welcome asks for.
    beat: Duration,
}

impl Lsn {
    /// Connects and attaches, until the master has acknowledged its empty table.
    pub(super) async fn attach(host: Arc<Host>, subnet: usize, address: String) -> Result<Self> {
        let tls = ClientTls::new(host.material())?;
        let mut client = ControlServiceClient::new(Master::new([address], tls).service(TOPOLOGY));
        let (up, requests) = mpsc::channel(QUEUE);
        up.send(AttachRequest { frame: Some(Up::Hello(host.hello(subnet)?)) }).await?;
        let down = client.attach(ReceiverStream::new(requests)).await?.into_inner();
        let hosts = HashMap::from([(host.id(), host.clone())]);
        let mut lsn = Self { host, hosts, up, down, _client: client, update: 1, beat: Duration::ZERO };
        let welcomed = lsn.next().await?;
        let Down::Welcome(welcome) = welcomed else { bail!("not welcome: {welcomed:?}") };
        lsn.beat = welcome.heartbeat_interval.and_then(span_from_wire).context("no heartbeat is named")?;
        let table = PresenceUpdate { number: lsn.update, snapshot: true, changes: Vec::new() };
        lsn.say(Up::Update(table)).await?;
        while !matches!(lsn.next().await?, Down::UpdateAck(_)) {}
        Ok(lsn)
    }

    /// Lives on; hosts that are named to it come under it.
    pub(super) async fn serve(mut self, mut coming: mpsc::Receiver<Arc<Host>>, ended: mpsc::Sender<Ended>) {
        let first = Instant::now() + self.beat.mul_f64(rand::rng().random());
        let mut beats = interval_at(first.into(), self.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0;
        loop {
            let step = tokio::select! {
                frame = self.next() => match frame {
                    Ok(frame) => self.hear(frame, &ended).await,
                    Err(error) => Err(error),
                },
                Some(host) = coming.recv() => self.show(host).await,
                _ = beats.tick() => {
                    sequence += 1;
                    let unanswered = sequence % ANSWERED != 0;
                    self.say(Up::Heartbeat(Heartbeat { sequence, unanswered, ..Heartbeat::default() })).await
                }
            };
            if let Err(error) = step {
                eprintln!("{}: {error:#}", self.host.name());
                break;
            }
        }
    }

    async fn say(&self, frame: Up) -> Result<()> {
        self.up.send(AttachRequest { frame: Some(frame) }).await.context("the stream has ended")
    }

    async fn next(&mut self) -> Result<Down> {
        let message = self.down.message().await?.context("the master closed the stream")?;
        message.frame.context("an empty frame")
    }

    async fn show(&mut self, host: Arc<Host>) -> Result<()> {
        self.update += 1;
        let changes = vec![host.attached_under(self.host.id())?];
        self.hosts.insert(host.id(), host);
        self.say(Up::Update(PresenceUpdate { number: self.update, snapshot: false, changes })).await
    }

    async fn hear(&mut self, frame: Down, ended: &mpsc::Sender<Ended>) -> Result<()> {
        match frame {
            Down::Heartbeat(beat) if !beat.answer => {
                self.say(Up::Heartbeat(Heartbeat { answer: true, ..beat })).await
            }
            Down::Part(part) => bail!("sent away: {part:?}"),
            Down::Downstream(message) => self.carry(message, ended).await,
            _ => Ok(()),
        }
    }

    async fn carry(&mut self, message: Downstream, ended: &mpsc::Sender<Ended>) -> Result<()> {
        let targets: Vec<_> = message
            .targets
            .iter()
            .filter_map(|id| self.hosts.get(&NodeId::try_from(&id[..]).ok()?))
            .collect();
        match message.body {
            Some(downstream::Body::TaskOffer(offer)) => {
                let order = TaskOrder::decode(offer.order.context("an order")?.payload)?;
                for host in targets {
                    self.say(Up::Upstream(host.reports(&order.task_id))).await?;
                }
            }
            Some(downstream::Body::TaskReportAck(ack)) if ack.sequence >= LAST_REPORT => {
                let at = Instant::now();
                for host in targets {
                    let task = task_name(&ack.task_id)?;
                    ended.send(Ended { host: host.id(), task, at }).await.context("nobody counts")?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn task_name(id: &Bytes) -> Result<String> {
    Ok(format!("tasks/{}", Uuid::from_slice(id)?))
}
