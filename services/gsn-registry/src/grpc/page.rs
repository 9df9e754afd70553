//! Pages: how many rows, and where they begin.

use muster_kit::status::{Fault, fault};
use tonic::Code;

pub(super) fn invalid() -> Fault {
    fault(Code::InvalidArgument, "PAGE_TOKEN_INVALID", "the page token is none of this list's")
}

/// Zero: `usual`. Never more than `most`.
pub(super) fn size(asked: i32, usual: i32, most: i32) -> Result<usize, Fault> {
    let asked = if asked == 0 { usual } else { asked.min(most) };
    usize::try_from(asked)
        .map_err(|_| fault(Code::InvalidArgument, "PAGE_SIZE_INVALID", "a page cannot be smaller than empty"))
}

/// The place that a token names; an empty one is the beginning.
pub(super) fn start(token: &str) -> Result<usize, Fault> {
    if token.is_empty() { Ok(0) } else { token.parse().map_err(|_| invalid()) }
}
