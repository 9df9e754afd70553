//! Every span of time in the overlay, side by side, because they only make sense together.
//!
//! What they must add up to: a crashed LSN is replaced for everybody after 1.0 s in the mean and 2.5 s at worst; a
//! host has an LSN 0.5 s after it got a network; the master's picture is right within 1 s of what is
//! announced and 10 s of what is not (design, section 2: Presence).

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// --- looking for an LSN ---

/// Between two LAN queries. Several times a LAN's round trip and short enough that three, two of them lost,
/// still leave half of the 0.5 s for joining.
pub const QUERY_INTERVAL: Duration = ms(80);
/// LAN queries before memory is asked. Two lost in a row are a burst; three are silence.
pub const QUERIES: u32 = 3;
/// For the shell's own memory, a file: it never takes longer.
pub const RECALL_PATIENCE: Duration = ms(200);
/// For topology's answer: DNS, TCP and TLS to the other side of the world is four round trips of 300 ms.
pub const MASTER_PATIENCE: Duration = ms(1_500);
/// How long a node that found nobody lets a better one go first. Longer than the spread of three lost queries, so that
/// a room that powers on together elects once instead of contesting.
pub const DEFERENCE: Duration = ms(250);
/// Who lost its LSN and both deputies leaves the place to each living neighbor above it for so long: the time to claim,
/// to begin calling, to open a session by TCP after UDP had its head start, and to show the claim.
pub const PRECEDENCE: Duration = ms(500);
/// Times a node defers before it ascends anyway: the better one may have died meanwhile.
pub const DEFERENCES: u32 = 2;

// --- joining ---

/// For a session to open. QUIC repeats a lost first packet after one second at most (RFC 9002, 6.2.2: 333 ms
/// times three), and a handshake takes two round trips.
pub const OPEN_PATIENCE: Duration = ms(1_200);
/// For the verdict upon a join: one round trip, and one retransmission on top.
pub const JOIN_PATIENCE: Duration = ms(700);

// --- being a child ---

/// How long a silent child stays in the table. A second under the 10 s in which the master must know, for
/// batching and the way there.
pub const LEASE: Duration = ms(9_000);
/// How long a child may take to be heard of once others say that they do not reach it: longer than one ping interval, so
/// that an own ping does as well as the answer to ours.
pub const SUSPICION: Duration = ms(4_000);
/// Three pings in a lease, so that two may get lost.
pub const PING_INTERVAL: Duration = ms(3_000);
/// When an unanswered ping is repeated.
pub const PING_REPEAT: Duration = ms(1_000);
/// Silence after which a child gives its LSN up: one interval and three unanswered pings. It accuses nobody, it only
/// looks around: the slow lease for the day LSN and both deputies die together.
pub const LSN_PATIENCE: Duration = ms(6_000);
/// For a session that broke to stand again, or for the successor's call, before a child looks around: a deputy's
/// probes, its first round of calls, and a way around a firewall that drops UDP.
pub const REOPEN_PATIENCE: Duration = ms(2_000);
/// Without topology's word by then, a child attaches to topology itself (design, section 2: Presence).
pub const RECEIPT_PATIENCE: Duration = ms(5_000);
/// A child that topology shows by its own channel asks its LSN so often to show it once more.
pub const RECEIPT_RETRY: Duration = ms(15_000);
/// For the child's own channel to stand; then topology is away for everybody, not only for a hidden node.
pub const RECEIPT_ATTEMPT: Duration = ms(10_000);
/// Between two nodes of one cell that look whether topology is back; doubles from round to round, so that a whole cell looks
/// hardly more often than its LSN.
pub const RECEIPT_TURN: Duration = ms(2_000);
/// No longer than this: as often as the shell of an LSN tries in the mean.
pub const RECEIPT_TURN_MAX: Duration = ms(15_000);
/// How long topology's signed word holds that it shows this child. It signs each node's uptime anew twice a day; an hour is
/// for whatever delays that.
pub const WORD_HOLDS: Duration = Duration::from_secs(13 * 3_600);
/// Or up to so long, so that a fleet whose words stay away does not ask at once.
pub const WORD_HOLDS_MAX: Duration = Duration::from_secs(14 * 3_600);
/// For the successor's claim when the LSN has named one; twice what a lost packet and its repetition take.
pub const SUCCESSION_PATIENCE: Duration = ms(600);
/// Children that follow a claim spread their handshakes by this much for each neighbor; one takes the new LSN about a
/// millisecond of CPU.
pub const FOLLOW_SPREAD: Duration = ms(1);
/// And by no more than this, or a full cell would miss the 2.5 s.
pub const FOLLOW_SPREAD_MAX: Duration = ms(500);

// --- beats ---

/// From the LSN to each deputy (design, section 2: Uptime).
pub const BEAT_INTERVAL: Duration = ms(200);
/// A deputy answers every fifth.
pub const BEAT_ANSWER_EVERY: u64 = 5;
/// Missed in a row before the deputy probes.
pub const BEATS_MISSED: u32 = 3;
/// How late a beat may be before it is missed: the jitter of a busy Wi-Fi.
pub const BEAT_GRACE: Duration = ms(50);
/// For an answer to the two probes. A LAN answers in under 10 ms; the rest is for a busy host.
pub const PROBE_PATIENCE: Duration = ms(150);
/// For the session to stand again that a deputy lost: it may have to go by TCP, which UDP gives a head start of 300 ms.
pub const REOPEN_PROBE: Duration = ms(600);
/// How long the second deputy leaves the claim to the first.
pub const STEP_IN_PATIENCE: Duration = ms(300);
/// A deputy that has answered no beat for so long does not count as one: three answers missed.
pub const DEPUTY_SILENCE: Duration = ms(3_500);
/// A timer that fires later than this shows that this host was not running well: it accuses nobody.
pub const LATE: Duration = ms(100);
/// A timer that fires later than this shows that this host slept, or stalled for so long that others have given it up
/// (design, section 2: Protocol core).
pub const SLEPT: Duration = ms(5_000);

// --- being LSN ---

/// How often an LSN looks for leases that ran out.
pub const SWEEP_INTERVAL: Duration = ms(500);
/// A new LSN repeats its claim on the LAN after these, for those who lost the first.
pub const CLAIM_REPEATS: [Duration; 2] = [ms(60), ms(200)];
/// An LSN shows itself on the LAN so often: two cells that became one merge within this.
pub const CLAIM_INTERVAL: Duration = ms(10_000);
/// When a new LSN begins to call those of its predecessor's children that have not come by themselves.
pub const RALLY_AFTER: Duration = ms(150);
/// Between two rounds of calls.
pub const RALLY_INTERVAL: Duration = ms(100);
/// When a predecessor, or a child that was called and did not come, is reported as gone. Time for a lost packet of a
/// handshake; and short enough that a child that died in silence shows within its 10 s, though its LSN died too.
pub const RALLY_PATIENCE: Duration = ms(2_000);
/// Deputies learn of changes of the neighbor list after this; it merges what a burst of joins changes.
pub const LIST_DELAY: Duration = ms(100);
/// The other children after this: they need the list only on the day the LSN dies.
pub const LIST_DELAY_CHILDREN: Duration = ms(1_000);
/// Changes of the child table wait this long for company ...
pub const BATCH_QUIET: Duration = ms(20);
/// ... but never longer than this (design, section 2: Presence).
pub const BATCH_MAX: Duration = ms(250);
/// A lineage this old is settled; a child or LSN this long in place may be unseated or unseat
/// (design, section 2: Uptime).
pub const STABILITY: Duration = ms(30_000);
/// How long an LSN that has handed over waits for its successor's claim before it leaves, or goes on.
pub const HANDOVER_PATIENCE: Duration = ms(200);
/// For a better LSN to accept the loser of a contest.
pub const YIELD_PATIENCE: Duration = ms(2_000);
/// Before the same rival is tried again that could not be reached, or before it is shown our claim again. Doubles each
/// time that nobody but this LSN itself speaks of it ...
pub const RIVAL_PAUSE: Duration = ms(5_000);
/// ... up to this for each rival: a network that was parted is one cell again so soon after it healed, and where nodes
/// never reach each other the tries of one cost a few hundred bytes a second, however many they are.
pub const RIVAL_PAUSE_MAX: Duration = ms(20_000);

/// Before an LSN asks another one again that had no room for it and its children: a cell shrinks by people going home.
pub const APART_PAUSE: Duration = ms(600_000);
/// For the children of an LSN that gave in to follow it.
pub const FOLLOW_PATIENCE: Duration = ms(5_000);

// --- being reached ---

/// For deputies to say whether they reach their LSN: a knock takes the shell 1.5 s at most, and the words a round trip.
pub const WITNESS_PATIENCE: Duration = ms(3_000);
/// An LSN that somebody reached so lately is believed to be reachable, whoever does not reach it.
pub const REACHED_LATELY: Duration = ms(60_000);
/// Before a child is knocked at again that was out of reach: its firewall does not change by the minute.
pub const KNOCK_PAUSE: Duration = ms(600_000);

// --- answering discovery ---

/// Deputies answer LAN queries after a random wait from here ...
pub const DEPUTY_ANSWER_MIN: Duration = ms(50);
/// ... to here (design, section 2: Uptime), so that only the LSN's answer is on the way if it lives.
pub const DEPUTY_ANSWER_MAX: Duration = ms(150);
