//! What goes wrong with bytes: bits flip, ends are cut, pieces are doubled, dropped, exchanged or made up.

use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

/// Mutations piled on one input.
const PILED: usize = 4;
/// Bytes of one made-up piece.
const PIECE: usize = 16;
/// Values at which lengths and tags turn over.
const EDGES: [u8; 6] = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff];

/// A relative of one of the seeds.
pub fn mutate(seeds: &[Vec<u8>], rng: &mut impl RngCore) -> Vec<u8> {
    let mut bytes = seeds.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=PILED) {
        change(&mut bytes, seeds, rng);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut impl RngCore) {
    let at = rng.random_range(0..=bytes.len());
    let end = rng.random_range(at..=bytes.len().min(at + PIECE));
    match rng.random_range(0..7) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.extend_from_within(at..end),
        3 => {
            let mut piece = [0; PIECE];
            rng.fill_bytes(&mut piece);
            bytes.splice(at..end, piece);
        }
        4 => {
            let other = seeds.choose(rng).map(Vec::as_slice).unwrap_or_default();
            let from = rng.random_range(0..=other.len());
            bytes.splice(at..end, other[from..].iter().copied());
        }
        5 => edit(bytes, at, |_| EDGES[rng.random_range(0..EDGES.len())]),
        _ => edit(bytes, at, |byte| byte ^ (1 << rng.random_range(0..8))),
    }
}

fn edit(bytes: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}
