//! One attached stream: Hello and Welcome, frames both ways, heartbeats that alone prove that the master is there.

use std::time::Duration;

use muster_kit::clock::MasterClock;
use muster_kit::connect::{Master, TOPOLOGY};
use muster_kit::{policy, status};
use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::attach_response::Frame as Answer;
use muster_proto::control::v1::control_service_client::ControlServiceClient;
use muster_proto::control::v1::{AttachRequest, AttachResponse, Heartbeat, Hello, Part, Welcome};
use muster_wire::ticket::STALE_TICKET;
use muster_wire::time::{from_wire, span_from_wire};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Event, Outgoing, Wish};
use crate::control::pulse::Pulse;

/// From Hello to Welcome, connecting included.
const OPENING: Duration = Duration::from_secs(15);

/// If the master names no interval.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// What it may name.
const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);

/// A frame that waits for room in the stream for so long shows that the stream does not move.
const SEND_LIMIT: Duration = Duration::from_secs(30);

/// How long the master may take to read what was said last: a way around the world, and a lost packet.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// Frames handed to HTTP/2 and not yet taken.
const OUTGOING: usize = 32;

/// How a stream ended, or did not begin.
#[derive(Debug)]
pub(super) enum Ended {
    /// The driver wants another one, or none.
    Unwanted,
    /// The way broke under it: nobody ended it.
    Broken {
        reason: String,
    },
    Lost {
        reason: String,
        retry_after: Option<Duration>,
    },
    Failed {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// The master takes the node's ticket no longer.
    Stale {
        reason: String,
    },
    /// The master takes the node's certificate no longer.
    Barred {
        reason: String,
    },
}

impl Ended {
    /// A status that came from the other side has no cause; one that was made here tells what happened to the connection.
    fn of(status: &Status) -> Self {
        let reason = cause(status);
        match std::error::Error::source(status) {
            Some(_) => Self::Broken { reason },
            None => Self::Lost { reason, retry_after: None },
        }
    }
}

pub(super) struct Stream {
    requests: mpsc::Sender<AttachRequest>,
    answers: Streaming<AttachResponse>,
    /// Whether it ends by itself when the way is gone.
    sees_loss: bool,
}

/// Attaches, and learns the master's clock from the Welcome.
pub(super) async fn open(
    master: Master,
    hello: Hello,
    clock: &MasterClock,
) -> Result<(Stream, Welcome), Ended> {
    let failed = |reason: String| Ended::Failed { reason, retry_after: None };
    let sees_loss = master.sees_loss();
    let mut client = ControlServiceClient::new(master.service(TOPOLOGY));
    let (requests, outgoing) = mpsc::channel(OUTGOING);
    let opening = async {
        let asked = Instant::now();
        let hello = AttachRequest { frame: Some(Frame::Hello(hello)) };
        requests.send(hello).await.map_err(|_| failed("the stream closed at once".to_owned()))?;
        let answers = client.attach(ReceiverStream::new(outgoing)).await;
        let mut answers = answers.map_err(|status| refused(&status))?.into_inner();
        let first = answers.message().await.map_err(|status| refused(&status))?;
        match first.and_then(|answer| answer.frame) {
            Some(Answer::Welcome(welcome)) => {
                if let Some(time) = welcome.master_time.and_then(from_wire) {
                    clock.learn(time, asked.elapsed());
                }
                Ok((answers, welcome))
            }
            Some(Answer::Part(part)) => {
                let stale = part.code == STALE_TICKET;
                let (reason, retry_after) = parted(part);
                Err(if stale { Ended::Stale { reason } } else { Ended::Failed { reason, retry_after } })
            }
            _ => Err(failed("the master did not welcome us".to_owned())),
        }
    };
    let limit = tokio::time::timeout(OPENING, opening).await;
    let (answers, welcome) = limit.map_err(|_| failed(format!("no welcome within {OPENING:?}")))??;
    Ok((Stream { requests, answers, sees_loss }, welcome))
}

fn refused(status: &Status) -> Ended {
    let reason = cause(status);
    if status::reason(status).as_deref() == Some(policy::REVOKED) {
        return Ended::Barred { reason };
    }
    Ended::Failed { reason, retry_after: status::retry_after(status) }
}

/// The innermost words of an error, which name the culprit.
fn cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => format!("{}: {}", status.code(), status.message()),
        None => cause.to_string(),
    }
}

fn parted(part: Part) -> (String, Option<Duration>) {
    let reason = format!("the master parted us: {} ({})", part.description, part.code);
    (reason, part.retry_after.and_then(span_from_wire))
}

impl Stream {
    /// Carries frames until the stream is lost or another one is wanted.
    pub(super) async fn run(
        mut self,
        beat: Option<prost_types::Duration>,
        outgoing: &Outgoing,
        events: &mpsc::Sender<Event>,
        wants: &mut watch::Receiver<Wish>,
    ) -> Ended {
        let lost = |reason: &str| Ended::Lost { reason: reason.to_owned(), retry_after: None };
        let beat = beat.and_then(span_from_wire).unwrap_or(HEARTBEAT);
        let beat = beat.clamp(*HEARTBEATS.start(), *HEARTBEATS.end());
        let mut pulse = Pulse::begin(beat, self.sees_loss, Instant::now());
        loop {
            let frame = tokio::select! {
                biased;
                () = other_wish(wants) => {
                    let farewell = wants.borrow_and_update().farewell.clone();
                    self.leave(outgoing, farewell).await;
                    return Ended::Unwanted;
                }
                answer = self.answers.message() => {
                    pulse.on_heard(Instant::now());
                    match answer {
                        Ok(Some(answer)) => match self.on_answer(answer, events).await {
                            Ok(frame) => frame,
                            Err(ended) => return ended,
                        },
                        Ok(None) => return lost("the master closed the stream"),
                        Err(status) => return Ended::of(&status),
                    }
                }
                frame = outgoing.next() => match frame {
                    Some(frame) => {
                        pulse.on_said(Instant::now());
                        Some(frame)
                    }
                    None => return Ended::Unwanted,
                },
                () = tokio::time::sleep_until(pulse.next) => match pulse.beat(Instant::now()) {
                    Some(beat) => Some(Frame::Heartbeat(beat)),
                    None => return lost("the master did not answer heartbeats"),
                },
            };
            if let Some(frame) = frame {
                let request = AttachRequest { frame: Some(frame) };
                let sent = tokio::time::timeout(SEND_LIMIT, self.requests.send(request));
                if !matches!(sent.await, Ok(Ok(()))) {
                    return lost("the stream to the master does not move");
                }
            }
        }
    }

    /// Hands over what the driver said last. With a farewell it waits until the master has ended the stream, for it then
    /// has read to the end; a stream that is dropped before is reset, with all that was still on its way.
    async fn leave(mut self, outgoing: &Outgoing, farewell: Option<Part>) {
        let patience = if farewell.is_some() { FAREWELL } else { Duration::ZERO };
        let said = outgoing.frames.take().into_iter().chain(farewell.map(Frame::Part));
        for frame in said {
            if self.requests.send(AttachRequest { frame: Some(frame) }).await.is_err() {
                return;
            }
        }
        drop(self.requests);
        let end = async { while let Ok(Some(_)) = self.answers.message().await {} };
        if tokio::time::timeout(patience, end).await.is_err() {
            tracing::debug!("the master did not end the stream in time");
        }
    }

    /// What to answer, if anything.
    async fn on_answer(
        &self,
        answer: AttachResponse,
        events: &mpsc::Sender<Event>,
    ) -> Result<Option<Frame>, Ended> {
        match answer.frame {
            Some(Answer::Heartbeat(beat)) if !beat.answer => {
                Ok(Some(Frame::Heartbeat(Heartbeat { answer: true, ..beat })))
            }
            Some(Answer::Heartbeat(_)) | None => Ok(None),
            Some(Answer::Part(part)) => {
                let (reason, retry_after) = parted(part);
                Err(Ended::Lost { reason, retry_after })
            }
            Some(frame) => {
                if events.send(Event::Frame(Box::new(frame))).await.is_err() {
                    return Err(Ended::Unwanted);
                }
                Ok(None)
            }
        }
    }
}

/// Until the driver wants something else than this stream; perhaps it already does.
async fn other_wish(wants: &mut watch::Receiver<Wish>) {
    if wants.borrow().farewell.is_none() {
        // An error: the driver is gone, and so is what it wanted.
        let _ = wants.changed().await;
    }
}
