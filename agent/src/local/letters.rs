//! Letters, for people and programs on this host.

use std::time::Duration;

use bytes::Bytes;
use muster_kit::status::{Fault, fault};
use muster_proto::agent::v1::{
    ReadLettersRequest, ReadLettersResponse, ReceivedLetter, SendLetterRequest, SendLetterResponse,
};
use muster_types::{LetterId, NodeId, limits};
use muster_wire::time::{span_from_wire, span_to_wire, to_wire};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::post::{Draft, Post, Progress, Received, Shelf, ShelfError};

/// If the writer names none: for a recipient that is there.
const LIFE: Duration = Duration::from_secs(10);

/// Letters of one answer: 1.6 MiB of the largest, below gRPC's 4 MiB.
const PAGE: usize = 100;

/// Ids of one request.
const FORGOTTEN: usize = 1_000;

/// The longest wait for a letter.
const WAIT: Duration = Duration::from_secs(3_600);

fn invalid(reason: &'static str, error: impl ToString) -> Fault {
    fault(Code::InvalidArgument, reason, error.to_string())
}

/// Answers when the letter has arrived or its time is over; a detached one, when it is kept.
pub(super) async fn send(post: &Post, request: SendLetterRequest) -> Result<SendLetterResponse, Fault> {
    let began = Instant::now();
    let to = NodeId::try_from(&request.node_id[..]).map_err(|error| invalid("NODE_INVALID", error))?;
    if to == post.node() {
        return Err(invalid("NODE_INVALID", format!("{to}: that is this host")));
    }
    let (actual, limit) = (request.content.len(), limits::LETTER_BYTES);
    if actual > limit {
        return Err(invalid("LETTER_TOO_LARGE", format!("a letter has at most {limit} bytes, not {actual}")));
    }
    let life = request.lifetime.and_then(span_from_wire).filter(|life| !life.is_zero()).unwrap_or(LIFE);
    if life > limits::LETTER_LIFETIME {
        return Err(invalid("LIFETIME_INVALID", "a letter waits for at most 7 days"));
    }
    let (progress, mut told) = mpsc::channel(2);
    post.send(Draft { to, content: request.content, life, progress }).await;
    let mut answer = SendLetterResponse::default();
    while let Some(progress) = told.recv().await {
        match progress {
            Progress::Kept(id) => {
                answer.letter_id = Bytes::copy_from_slice(id.as_bytes());
                if request.detach {
                    break;
                }
            }
            Progress::Arrived(id) => {
                answer.letter_id = Bytes::copy_from_slice(id.as_bytes());
                answer.arrived = true;
                break;
            }
            Progress::Failed(reason) => {
                answer.reason = reason;
                break;
            }
        }
    }
    if answer.letter_id.is_empty() && answer.reason.is_empty() {
        return Err(fault(Code::Unavailable, "AGENT_ENDING", "the agent is about to end"));
    }
    answer.elapsed = Some(span_to_wire(began.elapsed()));
    Ok(answer)
}

/// Forgets what was read, then shows what is there, or waits for it.
pub(super) async fn read(post: &Post, request: ReadLettersRequest) -> Result<ReadLettersResponse, Fault> {
    if request.forget_ids.len() > FORGOTTEN {
        return Err(invalid("TOO_MANY_IDS", format!("at most {FORGOTTEN} letters are forgotten at once")));
    }
    let ids: Result<Vec<LetterId>, _> =
        request.forget_ids.iter().map(|id| LetterId::try_from(&id[..])).collect();
    let ids = ids.map_err(|error| invalid("LETTER_INVALID", error))?;
    let page = match usize::try_from(request.page_size) {
        Ok(0) | Err(_) => PAGE,
        Ok(page) => page.min(PAGE),
    };
    let wait = request.wait.and_then(span_from_wire).unwrap_or_default().min(WAIT);
    let (mut arrivals, deadline) = (post.arrivals(), Instant::now() + wait);
    let mut letters = look(post.shelf(), ids, page).await?;
    while letters.is_empty() && timeout_at(deadline, arrivals.changed()).await.is_ok_and(|it| it.is_ok()) {
        letters = look(post.shelf(), Vec::new(), page).await?;
    }
    Ok(ReadLettersResponse { letters: letters.iter().map(wire).collect() })
}

async fn look(shelf: Shelf, forget: Vec<LetterId>, page: usize) -> Result<Vec<Received>, Fault> {
    let broken = |error: &dyn std::fmt::Display| fault(Code::Internal, "LETTERS_BROKEN", error.to_string());
    let looked = tokio::task::spawn_blocking(move || -> Result<_, ShelfError> {
        if !forget.is_empty() {
            shelf.forget(&forget)?;
        }
        shelf.received(page)
    });
    looked.await.map_err(|error| broken(&error))?.map_err(|error| broken(&error))
}

fn wire(letter: &Received) -> ReceivedLetter {
    ReceivedLetter {
        letter_id: Bytes::copy_from_slice(letter.id.as_bytes()),
        from_id: Bytes::copy_from_slice(letter.from.as_bytes()),
        send_time: Some(to_wire(letter.sent())),
        receive_time: Some(to_wire(letter.received())),
        content: letter.content(),
    }
}
