//! One control stream from Hello to its end: frames up become commands, what the store holds for its nodes goes down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use muster_proto::control::v1::attach_request::Frame as Up;
use muster_proto::control::v1::attach_response::Frame as Down;
use muster_proto::control::v1::{
    AttachRequest, AttachResponse, Downstream, Heartbeat, NewIdentity, Part, Probe, RivalLsn, SendTo,
    Summons, Suspicion, TrafficClass, UsageReport, downstream,
};
use muster_types::{NodeId, Timestamp};
use muster_wire::pack;
use muster_wire::revocation::Reason;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::admit::{self, Admitted, code, part};
use super::presence::{self, Sender};
use super::{down, grants, up, uptime};
use crate::clones;
use crate::domain::attachment::SILENT_AFTER;
use crate::domain::cell::CellId;
use crate::domain::deed::Refusal;
use crate::domain::departure::Detach;
use crate::domain::ledger::Wake;
use crate::grpc::render;
use crate::hub::{Hub, MAIL, Mail, StreamHandle};
use crate::metrics;

/// From the stream's opening to its Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Commits that one stream waits for; then it reads no further frame.
const IN_FLIGHT: usize = 64;

/// Offers and uptime tickets are looked at this often even if nothing wakes the stream.
const POLL: Duration = Duration::from_secs(10);

/// Looked at less often: each time the whole cell is read.
const UPTIME_POLL: Duration = Duration::from_secs(60);

/// An LSN that does not believe in the one that topology has, because it knows of a revocation that topology does not,
/// has so long to say so; then its claim is judged anew.
const OVERRULED: Duration = Duration::from_secs(3);

/// A node that does not take a frame for so long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(30);

type Frames = mpsc::Sender<Result<AttachResponse, Status>>;

/// How a stream ended.
enum End {
    /// The node said so.
    Parted(String),
    /// Nobody said anything.
    Lost,
}

struct Session {
    hub: Arc<Hub>,
    shutdown: Shutdown,
    node: NodeId,
    id: u64,
    life: u64,
    frames: Frames,
    cell: Option<CellId>,
    /// It claims a cell whose LSN another node is: by then it has believed that, or comes again.
    overruled: Option<Instant>,
    lost: bool,
    held: bool,
    /// The node was told every revocation up to here.
    told_revocation: u64,
    /// Version of the trust bundle that the node was told last.
    told_bundle: u64,
    /// Keys of which the node was told that they were withdrawn.
    told_withdrawals: usize,
    keys: up::Keys,
    sent: down::Sent,
    told: uptime::Told,
    granted: grants::Told,
    heard: Timestamp,
    last_frame: Instant,
    commits: FuturesOrdered<BoxFuture<'static, Vec<Down>>>,
}

/// Serves the stream; whatever ends it, the store learns of it.
#[tracing::instrument(name = "attach", skip_all, fields(node = %node.short()))]
pub(super) async fn run(
    hub: Arc<Hub>,
    node: NodeId,
    source: IpAddr,
    mut inbound: Streaming<AttachRequest>,
    frames: Frames,
    shutdown: Shutdown,
) {
    let hello = match timeout(HELLO_LIMIT, inbound.message()).await {
        Ok(Ok(Some(AttachRequest { frame: Some(Up::Hello(hello)) }))) => hello,
        Ok(Ok(Some(_))) => return refuse(&frames, part(code::MISBEHAVED, "the first frame is Hello")).await,
        _ => return,
    };
    let (id, life) = (rand::random::<u64>() >> 1, hello.boot_nonce);
    let (mail, mailbox) = mpsc::channel(MAIL);
    let superseded = CancellationToken::new();
    let wakes = hub.bus.subscribe();
    // From here on: what comes while the node is admitted is not missed.
    let revoked = hub.revoked.subscribe();
    let mut admitted = match admit::admit(&hub, node, source, id, hello).await {
        Ok(admitted) => admitted,
        Err(part) => {
            note_refusal(&hub, node, &part).await;
            return refuse(&frames, part).await;
        }
    };
    hub.register(node, StreamHandle { session: id, life, mail, superseded: superseded.clone() });
    match admitted.suspicion.take() {
        Some(suspicion) => clones::look_into(&hub, &shutdown, suspicion, Some(id)),
        None if admitted.held => {}
        None => hub.retire_others(node, id),
    }
    metrics::stream_opened();
    let mut session = Session::new(hub.clone(), node, (id, life), frames, shutdown.clone());
    let end = match session.welcome(admitted).await {
        Ok(()) => session.serve(inbound, mailbox, (wakes, revoked), superseded, shutdown).await,
        Err(end) => end,
    };
    metrics::stream_closed();
    hub.unregister(node, id);
    let parted = match end {
        End::Parted(reason) => Some(reason),
        End::Lost => None,
    };
    tracing::info!(parted = parted.as_deref().unwrap_or("no"), "control stream ended");
    if let Err(error) =
        hub.writer.submit(Detach { node, session: id, parted, heard: session.heard, life }).await
    {
        tracing::warn!(%error, "the end of a stream is not recorded; its replica's lease tells");
    }
}

/// A device that keeps coming is noted once.
async fn note_refusal(hub: &Hub, node: NodeId, part: &Part) {
    if part.code != code::NOT_YOU || !hub.refuses_first(node) {
        return;
    }
    let (actor, subject) = (render::node_name(node), "services/topology".to_owned());
    let refusal = Refusal { actor, subject, detail: part.description.clone() };
    if let Err(error) = hub.writer.submit(refusal).await {
        tracing::warn!(%error, "a refusal is not in the audit log");
    }
}

async fn refuse(frames: &Frames, part: Part) {
    metrics::attach_refused();
    tracing::info!(code = part.code, reason = part.description, "control stream refused");
    let _ = frames.send(Ok(AttachResponse { frame: Some(Down::Part(part)) })).await;
}

impl Session {
    fn new(hub: Arc<Hub>, node: NodeId, (id, life): (u64, u64), frames: Frames, shutdown: Shutdown) -> Self {
        Self {
            hub,
            shutdown,
            node,
            id,
            life,
            frames,
            cell: None,
            overruled: None,
            lost: false,
            held: false,
            told_revocation: 0,
            told_bundle: 0,
            told_withdrawals: 0,
            keys: up::Keys::default(),
            sent: down::Sent::default(),
            told: uptime::Told::default(),
            granted: grants::Told::default(),
            heard: clock::wall(),
            last_frame: Instant::now(),
            commits: FuturesOrdered::new(),
        }
    }

    async fn welcome(&mut self, admitted: Admitted) -> Result<(), End> {
        (self.cell, self.lost, self.held) = (admitted.cell, admitted.lost, admitted.held);
        self.overruled = admitted.overruled.then(|| Instant::now() + OVERRULED);
        self.told_revocation = admitted.known_revocation;
        self.told_bundle = admitted.welcome.trust_bundle.as_ref().map_or(0, |bundle| bundle.version);
        self.keys.learn(self.node, admitted.signing_key.to_vec());
        tracing::info!(lsn = self.cell.is_some(), resync = admitted.welcome.resync, "control stream open");
        self.told_withdrawals = admitted.welcome.trust_bundle.as_ref().map_or(0, |it| it.withdrawals.len());
        self.send(Down::Welcome(admitted.welcome)).await?;
        // What did not fit into the Welcome.
        self.tell_revocations().await?;
        let receipts = admitted.receipts.into_iter().map(downstream::Body::PresenceReceipt);
        self.send_each(receipts.map(|receipt| down::message(&[self.node], receipt)).collect::<Vec<_>>()).await
    }

    async fn send(&mut self, frame: Down) -> Result<(), End> {
        let sent = timeout(SEND_LIMIT, self.frames.send(Ok(AttachResponse { frame: Some(frame) }))).await;
        sent.map_err(|_| End::Lost)?.map_err(|_| End::Lost)
    }

    /// The one loop: ended, then finish what was committed, then mail, then frames, then what the store holds.
    async fn serve(
        &mut self,
        mut inbound: Streaming<AttachRequest>,
        mut mailbox: mpsc::Receiver<Mail>,
        (mut wakes, mut revoked): (crate::wake::Wakes, watch::Receiver<u64>),
        superseded: CancellationToken,
        shutdown: Shutdown,
    ) -> End {
        let node = self.node;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut uptimes = interval(UPTIME_POLL);
        uptimes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut grants = interval_at(Instant::now() + grants::INTERVAL, grants::INTERVAL);
        grants.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let silence = self.last_frame + SILENT_AFTER;
            let overruled = self.overruled.unwrap_or(silence);
            let step = tokio::select! {
                biased;
                () = shutdown.triggered() => self.part(code::UNAVAILABLE, "topology is restarting").await,
                () = superseded.cancelled() => self.part(code::SUPERSEDED, "another stream has taken over").await,
                Ok(()) = revoked.changed() => self.on_revoked().await,
                Some(frames) = self.commits.next(), if !self.commits.is_empty() => self.send_all(frames).await,
                Some(mail) = mailbox.recv() => self.on_mail(mail).await,
                frame = inbound.message(), if self.commits.len() < IN_FLIGHT => match frame {
                    Ok(Some(AttachRequest { frame })) => self.on_frame(frame).await,
                    Ok(None) | Err(_) => Err(End::Lost),
                },
                () = wakes.next(|wake| *wake == Wake::Carrier(node)) => self.send_down().await,
                _ = poll.tick() => self.send_down().await,
                _ = uptimes.tick() => self.send_uptimes().await,
                _ = grants.tick() => self.send_grants().await,
                () = tokio::time::sleep_until(overruled), if self.overruled.is_some() => {
                    self.part(code::SUPERSEDED, "another node is the LSN of this cell").await
                }
                () = tokio::time::sleep_until(silence) => self.part(code::SILENT, "no heartbeat").await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// We end the stream; the node is not gone by its own word.
    async fn part(&mut self, code: u32, description: &str) -> Result<(), End> {
        self.send(Down::Part(part(code, description))).await?;
        Err(End::Lost)
    }

    /// The list of revocations is longer: the node hears what is new, and if that is about itself, the stream ends.
    async fn on_revoked(&mut self) -> Result<(), End> {
        self.tell_bundle().await?;
        self.tell_revocations().await?;
        let trust = self.hub.trust.current();
        match trust.store.revocations().of_node(self.node).map(|it| it.reason) {
            Some(reason) if !(reason == Reason::Lost && self.lost) => {
                self.part(code::NOT_YOU, &format!("this device is {reason}")).await
            }
            // Found again: it comes back as what it was.
            None if self.lost => self.part(code::SUPERSEDED, "this device is not lost any more").await,
            _ => Ok(()),
        }
    }

    async fn tell_revocations(&mut self) -> Result<(), End> {
        let trust = self.hub.trust.current();
        let revocations = trust.store.revocations();
        for increment in revocations.after(self.told_revocation).cloned() {
            let body = downstream::Body::Revocations(increment);
            self.send(Down::Downstream(down::message(&[self.node], body))).await?;
        }
        self.told_revocation = revocations.number();
        Ok(())
    }

    async fn send_all(&mut self, frames: Vec<Down>) -> Result<(), End> {
        for frame in frames {
            let ends = matches!(frame, Down::Part(_));
            self.send(frame).await?;
            if ends {
                return Err(End::Lost);
            }
        }
        Ok(())
    }

    async fn on_frame(&mut self, frame: Option<Up>) -> Result<(), End> {
        self.heard = clock::wall();
        self.last_frame = Instant::now();
        match frame {
            Some(Up::Heartbeat(beat)) if !beat.unanswered && !beat.answer => {
                let answer = Heartbeat { sequence: beat.sequence, answer: true, ..Heartbeat::default() };
                self.send(Down::Heartbeat(answer)).await
            }
            Some(Up::Update(update)) => self.on_update(update).await,
            Some(Up::Upstream(upstream)) => {
                if let Some(sorted) = up::sort(&self.hub, &mut self.keys, upstream).await {
                    self.commits.push_back(Box::pin(up::commit(self.hub.clone(), sorted)));
                }
                Ok(())
            }
            Some(Up::Packed(packed)) => match pack::unpack(&packed) {
                Ok(upstreams) => {
                    for upstream in upstreams {
                        if let Some(sorted) = up::sort(&self.hub, &mut self.keys, upstream).await {
                            self.commits.push_back(Box::pin(up::commit(self.hub.clone(), sorted)));
                        }
                    }
                    Ok(())
                }
                Err(error) => self.part(code::MISBEHAVED, &error.to_string()).await,
            },
            Some(Up::Usage(usage)) => {
                count(&usage);
                Ok(())
            }
            Some(Up::Part(it)) => Err(End::Parted(presence::reason(it.code.max(1), &it.description))),
            Some(Up::Hello(_)) => self.part(code::MISBEHAVED, "Hello comes once").await,
            Some(Up::Heartbeat(_)) | None => Ok(()),
        }
    }

    async fn on_update(&mut self, update: muster_proto::control::v1::PresenceUpdate) -> Result<(), End> {
        let Some(cell) = self.cell else {
            if self.overruled.is_some() {
                return Ok(());
            }
            return self.send_all(vec![Down::Part(part(code::MISBEHAVED, "only an LSN has children"))]).await;
        };
        let sender = Sender { lsn: self.node, session: self.id, cell };
        let command = presence::command(&self.hub, sender, update).await;
        for change in &command.changes {
            self.keys.forget(change.node());
        }
        let hub = self.hub.clone();
        let shutdown = self.shutdown.clone();
        self.commits.push_back(Box::pin(async move { presence::commit(&hub, &shutdown, command).await }));
        Ok(())
    }

    async fn on_mail(&mut self, mail: Mail) -> Result<(), End> {
        match mail {
            Mail::Rival(claim) => match render::envelope(&claim) {
                Some(claim) => self.send(Down::Rival(RivalLsn { claim: Some(claim) })).await,
                None => Ok(()),
            },
            Mail::Probe { nonce, targets, signed } => {
                let probe = downstream::Body::Probe(Probe { nonce, signed });
                self.send(Down::Downstream(down::message(&targets, probe))).await
            }
            Mail::Suspicion { of } => {
                let node_id = Bytes::copy_from_slice(of.as_bytes());
                let suspicion = downstream::Body::Suspicion(Suspicion { node_id });
                self.send(Down::Downstream(down::message(&[self.node], suspicion))).await
            }
            Mail::Call { to, call } => match render::envelope(&call) {
                Some(call) => {
                    let call = downstream::Body::Call(call);
                    self.send(Down::Downstream(down::message(&[to], call))).await
                }
                None => Ok(()),
            },
            Mail::SendTo { to, word } => match SendTo::decode(&word.0[..]) {
                Ok(word) => {
                    let word = downstream::Body::SendTo(word);
                    self.send(Down::Downstream(down::message(&[to], word))).await
                }
                Err(_) => Ok(()),
            },
            Mail::Summon(child) => {
                let summons = downstream::Body::Summons(Summons {});
                self.send(Down::Downstream(down::message(&[child], summons))).await
            }
            Mail::Hold if !self.held => {
                self.part(code::HELD, "another device lives under this identity; an operator decides").await
            }
            Mail::Release { but } if self.held && but != Some(self.life) => {
                self.part(code::SUPERSEDED, "this identity is one device's again").await
            }
            Mail::NewIdentity { life, link } if self.held && life == self.life => {
                self.send(Down::NewIdentity(NewIdentity { enrollment_link: link })).await
            }
            Mail::Hold | Mail::Release { .. } | Mail::NewIdentity { .. } => Ok(()),
        }
    }

    /// Before what new keys signed goes the word that they count.
    async fn tell_bundle(&mut self) -> Result<(), End> {
        let bundle = self.hub.trust.current().bundle.clone();
        if bundle.version == self.told_bundle {
            return Ok(());
        }
        self.told_bundle = bundle.version;
        let withdrawals = std::mem::replace(&mut self.told_withdrawals, bundle.withdrawals.len());
        let body = downstream::Body::TrustBundle(bundle);
        self.send(Down::Downstream(down::message(&[self.node], body))).await?;
        if self.told_withdrawals > withdrawals {
            // Whoever had the list by a withdrawn key wants it from its beginning.
            self.told_revocation = 0;
            self.tell_revocations().await?;
        }
        Ok(())
    }

    /// Orders and cancellations that nodes of this stream have not answered.
    async fn send_down(&mut self) -> Result<(), End> {
        self.tell_bundle().await?;
        match self.sent.due(&self.hub, self.node, self.lost).await {
            Ok(messages) => self.send_each(messages).await,
            Err(error) => {
                tracing::warn!(%error, "cannot read what is due; tried again in the next round");
                Ok(())
            }
        }
    }

    async fn send_grants(&mut self) -> Result<(), End> {
        for grant in self.granted.due(self.hub.stream_count(), Instant::now()) {
            self.send(Down::RateGrant(grant)).await?;
        }
        Ok(())
    }

    async fn send_uptimes(&mut self) -> Result<(), End> {
        let hub = self.hub.clone();
        let tickets = self.told.due(&hub, self.node).await;
        self.send_each(tickets).await
    }

    async fn send_each(&mut self, messages: impl IntoIterator<Item = Downstream>) -> Result<(), End> {
        for message in messages {
            self.send(Down::Downstream(message)).await?;
        }
        Ok(())
    }
}

/// Counts the traffic that nodes report, by class.
pub(super) fn count(usage: &UsageReport) {
    for it in &usage.usage {
        let class = match it.class() {
            TrafficClass::Unspecified => "other",
            TrafficClass::Control => "control",
            TrafficClass::Interactive => "interactive",
            TrafficClass::Task => "task",
            TrafficClass::Telemetry => "telemetry",
            TrafficClass::Bulk => "bulk",
        };
        metrics::overlay_bytes(class, it.sent_bytes, it.received_bytes);
    }
}
