//! Every span and bound of a meeting, side by side.

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Between two rounds of probes. A translator needs one packet each way; at this pace the second round meets the hole
/// that the first has punched, and ten rounds of eight addresses are 3 kB.
pub const ROUND: Duration = ms(100);
/// Rounds of one search, 2.5 s: the word through the master and a satellite's round trip differ by less than half of it.
pub const ROUNDS: u32 = 25;
/// From the first answer until the best of those that came is taken: half a round, so that a neighbor in the LAN is not
/// talked to through its router because that answer came first.
pub const SETTLE: Duration = ms(50);
/// An unanswered word is said again: the way through LSN and master may just be changing.
pub const TELL_AGAIN: Duration = ms(1_000);
/// Words of one search.
pub const TELLS: u32 = 3;
/// Between searches that found nothing. Translators seldom change; what does change begins a search by itself.
pub const RETRIES: [Duration; 4] =
    [Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900)];

/// A direct way that ends sooner was none: a dial by it, after one by the relay, takes this long to fail twice over
/// (`DIAL` of the sockets: 5 s).
pub const CARRIED: Duration = Duration::from_secs(15);

/// Ports that are guessed of a translator that counts them up: what a busy home opens within the second between the
/// measurement and the meeting.
pub const FORESEEN: u16 = 32;
/// Rounds in which guesses are probed: with [`FORESEEN`] 512 packets of 42 bytes, the largest part of a search's budget.
pub const GUESSING_ROUNDS: u32 = 16;
/// Largest step between two ports of a translator that is believed to count.
pub const STEP: u16 = 16;

/// Addresses met beside those that were told.
pub const MET: usize = 8;
/// Own probes whose answers are still waited for, and probes of the peer whose source is still known.
pub const ASKED: usize = 1_024;
/// Answers to authentic probes within a second: two rounds of everything that a search may send.
pub const ANSWERS: u32 = 96;
