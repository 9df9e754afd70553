//! Pages, tokens and resource names (Google AIP-122, AIP-158).

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use muster_kit::status::{Fault, fault};
use muster_types::NodeId;
use tonic::Code;

use crate::domain::task::TaskId;
use crate::grpc::refusal::invalid;
use crate::metrics;
use crate::store::Position;

/// Rows of a page that asks for none in particular.
const DEFAULT_PAGE: i64 = 50;

/// Rows of a page at most; a larger wish is cut to it.
const LARGEST_PAGE: i64 = 1_000;

pub(super) fn size(wanted: i32) -> Result<i64, Fault> {
    match i64::from(wanted) {
        0 => Ok(DEFAULT_PAGE),
        negative if negative < 0 => Err(invalid("BAD_PAGE_SIZE", "page_size is not negative")),
        wanted => Ok(wanted.min(LARGEST_PAGE)),
    }
}

/// Nodes of a page that is read by programs only, at most and by default: below 4 MiB, which is what a client takes.
const MANY: usize = 2_000;

pub(super) fn many(wanted: i32) -> Result<usize, Fault> {
    match usize::try_from(wanted) {
        Ok(0) => Ok(MANY),
        Ok(wanted) => Ok(wanted.min(MANY)),
        Err(_) => Err(invalid("BAD_PAGE_SIZE", "page_size is not negative")),
    }
}

fn opaque(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

fn reveal(token: &str) -> Result<String, Fault> {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad_token)
}

fn bad_token() -> Fault {
    invalid("BAD_TOKEN", "the token is none of ours, or of another call")
}

/// A page token that is the last row's key.
pub(super) fn token(key: impl ToString) -> String {
    opaque(&key.to_string())
}

pub(super) fn key<T: FromStr>(token: &str) -> Result<Option<T>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    reveal(token)?.parse().map(Some).map_err(|_| bad_token())
}

/// A resume token: a place in a feed that any replica knows, in one epoch of the store.
pub(super) fn resume_token(epoch: i64, position: Position) -> String {
    opaque(&format!("{epoch}.{}.{}", position.transaction, position.number))
}

pub(super) fn position(epoch: i64, token: &str) -> Result<Option<Position>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = reveal(token)?;
    let parts: Vec<i64> = text.split('.').map_while(|part| part.parse().ok()).collect();
    match parts[..] {
        [then, transaction, number] if then == epoch => Ok(Some(Position { transaction, number })),
        [_, _, _] => Err(expired("the master's store was restored from a backup since")),
        _ => Err(bad_token()),
    }
}

/// Whoever resumes here would miss something without knowing.
pub(super) fn expired(why: &str) -> Fault {
    metrics::watch_reset();
    let message = format!("{why}: begin anew, with the initial state");
    fault(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", message)
}

pub(super) fn node_id(name: &str) -> Result<NodeId, Fault> {
    let id = name.strip_prefix("nodes/").and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        invalid("BAD_NAME", format!("{name:?} is not of the form nodes/{{40 hexadecimal digits}}"))
    })
}

pub(super) fn task_id(name: &str) -> Result<TaskId, Fault> {
    let id = name.strip_prefix("tasks/").and_then(|id| id.parse().ok());
    id.ok_or_else(|| invalid("BAD_NAME", format!("{name:?} is not of the form tasks/{{uuid}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_is_read_back_and_a_foreign_one_refused() {
        let there = Position { transaction: 7, number: 42 };
        assert_eq!(position(3, &resume_token(3, there)).unwrap(), Some(there));
        assert_eq!(position(3, "").unwrap(), None);
        assert_eq!(position(3, "x y").unwrap_err().reason, "BAD_TOKEN");
        assert_eq!(position(3, &token("no position")).unwrap_err().reason, "BAD_TOKEN");
    }

    #[test]
    fn a_token_from_before_a_restore_leads_nowhere() {
        let there = Position { transaction: 7, number: 42 };
        assert_eq!(position(4, &resume_token(3, there)).unwrap_err().reason, "RESUME_TOKEN_EXPIRED");
    }

    #[test]
    fn a_page_has_fifty_rows_unless_told_and_never_more_than_a_thousand() {
        assert_eq!((size(0).unwrap(), size(7).unwrap(), size(5_000).unwrap()), (50, 7, 1_000));
        assert_eq!(size(-1).unwrap_err().reason, "BAD_PAGE_SIZE");
    }
}
