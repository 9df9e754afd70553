//! What the two messages of a handshake carry besides keys: the opener's ticket and request, the answerer's ticket
//! (unless the opener has it) and answer.

use std::ops::Range;

use super::frame::{MAC_BYTES, TAG_BYTES};
use super::peer::Mark;
use super::reader::Reader;

use muster_types::limits::DATAGRAM_BYTES;

/// Of the payloads in this file; another one is ignored.
const VERSION: u8 = 1;

/// NoiseKey and encrypted key of Noise IK's first message, with the payload's tag.
const OPENING_NOISE: usize = 32 + 32 + 2 * TAG_BYTES;

/// NoiseKey and the payload's tag of its second.
const REPLY_NOISE: usize = 32 + TAG_BYTES;

/// Openings are as long as any answer, so that an answer never exceeds what an unproven source sent.
pub(super) const OPENING_PAYLOAD: usize = DATAGRAM_BYTES - 5 - OPENING_NOISE - 2 * MAC_BYTES;

const REPLY_PAYLOAD: usize = DATAGRAM_BYTES - 9 - REPLY_NOISE - MAC_BYTES;

/// Version, stamp, mark, and the two lengths with the request's number.
const OPENING_FIELDS: usize = 1 + 8 + 8 + 2 + 4 + 2;

/// The ticket's length, whether there is an answer, and to which request.
const REPLY_FIELDS: usize = 2 + 1 + 4;

/// What an opener says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Rises with every opening of a node, so that none is taken twice.
    pub(super) stamp: u64,
    /// The answerer's ticket that the opener has already.
    pub(super) known: Mark,
    pub(super) ticket: Range<usize>,
    pub(super) request: Option<(u32, Range<usize>)>,
}

/// The payload of an opening; a request that does not fit stays out. `None`: the ticket itself is too large.
pub(super) fn opening(
    stamp: u64,
    known: Mark,
    ticket: &[u8],
    request: Option<(u32, &[u8])>,
) -> Option<Vec<u8>> {
    let request = request.filter(|(_, body)| fits_opening(ticket.len(), body.len()));
    let (number, body) = request.unwrap_or_default();
    let mut payload = vec![VERSION];
    payload.extend(stamp.to_be_bytes());
    payload.extend(known);
    payload.extend(u16::try_from(ticket.len()).ok()?.to_be_bytes());
    payload.extend(ticket);
    payload.extend(number.to_be_bytes());
    payload.extend(u16::try_from(body.len()).ok()?.to_be_bytes());
    payload.extend(body);
    if payload.len() > OPENING_PAYLOAD {
        return None;
    }
    payload.resize(OPENING_PAYLOAD, 0);
    Some(payload)
}

pub(super) fn fits_opening(ticket: usize, body: usize) -> bool {
    body > 0 && OPENING_FIELDS + ticket + body <= OPENING_PAYLOAD
}

pub(super) fn parse_opening(payload: &[u8]) -> Option<Opening> {
    let mut reader = Reader::new(payload);
    (reader.u8()? == VERSION).then_some(())?;
    let (stamp, known, ticket) = (reader.u64()?, reader.array()?, reader.counted()?);
    let (number, body) = (reader.u32()?, reader.counted()?);
    // Without one the body is empty.
    let request = (!body.is_empty()).then_some((number, body));
    Some(Opening { stamp, known, ticket, request })
}

/// What an answerer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Empty: the opener has it.
    pub(super) ticket: Range<usize>,
    pub(super) answer: Option<(u32, Range<usize>)>,
}

pub(super) fn answer(ticket: &[u8], answer: Option<(u32, &[u8])>) -> Option<Vec<u8>> {
    let mut payload = u16::try_from(ticket.len()).ok()?.to_be_bytes().to_vec();
    payload.extend(ticket);
    payload.push(answer.is_some().into());
    let (number, body) = answer.unwrap_or_default();
    payload.extend(number.to_be_bytes());
    payload.extend(body);
    (payload.len() <= REPLY_PAYLOAD).then_some(payload)
}

/// What an answer may have, beside a ticket of this size.
pub(super) fn answer_room(ticket: usize) -> usize {
    REPLY_PAYLOAD.saturating_sub(REPLY_FIELDS + ticket)
}

pub(super) fn parse_answer(payload: &[u8]) -> Option<Answer> {
    let mut reader = Reader::new(payload);
    let ticket = reader.counted()?;
    let present = reader.u8()? != 0;
    let number = reader.u32()?;
    let answer = present.then(|| (number, reader.rest()));
    Some(Answer { ticket, answer })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn openings_survive_and_are_all_of_one_length(
            stamp: u64,
            ticket in prop::collection::vec(any::<u8>(), 0..600),
            number: u32,
            body in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            let payload = opening(stamp, [3; 8], &ticket, Some((number, &body))).unwrap();
            prop_assert_eq!(payload.len(), OPENING_PAYLOAD);
            let parsed = parse_opening(&payload).unwrap();
            prop_assert_eq!(parsed.stamp, stamp);
            prop_assert_eq!(&payload[parsed.ticket], &ticket[..]);
            let request = parsed.request.map(|(number, range)| (number, payload[range].to_vec()));
            prop_assert_eq!(request, fits_opening(ticket.len(), body.len()).then_some((number, body)));
        }

        #[test]
        fn answers_survive_up_to_their_room(
            ticket in prop::collection::vec(any::<u8>(), 0..600),
            number: u32,
            over in 0usize..2,
        ) {
            let body = vec![5; answer_room(ticket.len()) + over];
            let payload = answer(&ticket, Some((number, &body)));
            prop_assert_eq!(payload.is_some(), over == 0);
            if let Some(payload) = payload {
                let parsed = parse_answer(&payload).unwrap();
                prop_assert_eq!(&payload[parsed.ticket.clone()], &ticket[..]);
                let answer = parsed.answer.map(|(number, range)| (number, payload[range].to_vec()));
                prop_assert_eq!(answer, Some((number, body)));
            }
        }

        #[test]
        fn any_payload_is_parsed_or_refused(payload in prop::collection::vec(any::<u8>(), 0..1_200)) {
            let _ = (parse_opening(&payload), parse_answer(&payload));
        }
    }
}
