//! Spans of time and numbers of the table, side by side. Those that a network may choose stand in [`Settings`]; which values
//! are best was measured (`muster-sim dht sweep`, tests/RESULTS.md).

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Nodes that hold a record, and contacts in an answer (Kademlia's k).
    pub k: usize,
    /// Contacts in one bucket.
    pub bucket: usize,
    /// The same at a node that serves by its office: LSNs know each other almost completely.
    pub office_bucket: usize,
    /// Requests of a lookup under way at once (Kademlia's alpha) ...
    pub alpha: usize,
    /// ... and at most, when contacts do not answer.
    pub alpha_most: usize,
    /// Disjoint paths of a careful lookup (S/Kademlia recommends 4 to 8).
    pub paths: usize,
    /// A server asks one contact one question so often, whatever the size of its table.
    pub question: Duration,
    /// How often a server sees to it that what it holds is held by the closest.
    pub sweep: Duration,
    /// As long as fewer serve by their office, all reachable nodes serve.
    pub few_offices: u32,
    /// What a server keeps for others, in bytes of records.
    pub store_bytes: usize,
    /// What it keeps of one publisher.
    pub publisher_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            k: 20,
            bucket: 20,
            office_bucket: 256,
            alpha: 3,
            alpha_most: 10,
            paths: 8,
            question: s(30),
            sweep: s(3_600),
            few_offices: 64,
            store_bytes: 16 << 20,
            publisher_bytes: 256 << 10,
        }
    }
}

/// The longest that a lookup waits for one contact before it turns to others as well. Longer than nearly all round trips on
/// a continent; with 1 s instead, the first value at 30 % dead takes three times as long in the 95th percentile.
pub const PATIENCE_MAX: Duration = ms(250);
/// And the shortest: a busy host's scheduler.
pub const PATIENCE_MIN: Duration = ms(20);
/// After this a request counts as unanswered. Later answers still show that their sender lives.
pub const CALL_LIMIT: Duration = ms(1_500);
/// Requests of one machine under way at once; a machine that has so many begins nothing new.
pub const CALLS: usize = 4_096;
/// Lookups at once.
pub const LOOKUPS: usize = 256;
/// Contacts that a lookup keeps in mind.
pub const CANDIDATES: usize = 256;
/// How many of a path's closest must have answered before the paths are joined.
pub const PATH_WIDTH: usize = 3;
/// Holders that must have answered when the newest record is wanted: all five lie in 0.03 % of the cases when 20 % do.
pub const NEWEST_HOLDERS: usize = 5;
/// Failures in a row after which a contact is away.
pub const FAILURES: u8 = 2;
/// Newcomers that wait for a full bucket, over all buckets.
pub const SPARES: usize = 32;
/// Contacts of other days, kept apart from the table: sleeping ones, and the way back to a lost half.
pub const REMEMBERED: usize = 64;
/// Contacts that are not asked again after so long.
pub const FORGOTTEN: Duration = s(14 * 24 * 3_600);
/// Contacts heard of that are being checked at once.
pub const CHECKS: usize = 8;
/// Of ten questions one goes to a contact that was away, or to a bootstrap node: a partition heals within minutes.
pub const HEALING_SHARE: u32 = 10;
/// A near contact is not asked again within this, a far one not within [`FAR_FRESH`].
pub const NEAR_FRESH: Duration = s(600);
/// Kademlia's hour.
pub const FAR_FRESH: Duration = s(3_600);
/// A bucket's oldest contact this long unheard is asked when a newcomer waits for its room.
pub const DOUBTFUL: Duration = s(900);
/// Questions of a node that has just come go out so fast ...
pub const EAGER_QUESTION: Duration = ms(500);
/// ... and so many of them.
pub const EAGER_QUESTIONS: u32 = 12;
/// While nobody answers, joining is tried again so often.
pub const JOIN_RETRY: Duration = s(10);
/// Copies on the way to the holders live this long: what they say may be old.
pub const CACHE_LIFE: Duration = s(300);
/// Records of one key and kind, one for each publisher.
pub const SET: usize = 20;
/// Records sent for one answer to an offer; the next sweep sends the rest.
pub const GIVEN: usize = 32;
/// A record's publisher is asked to renew it after this share of its life.
pub const RENEW_SHARE: f64 = 0.66;
/// A listener's lease, and the longest one granted.
pub const LEASE: Duration = s(600);
/// Closest nodes at which a listener leaves its wish.
pub const LISTEN_AT: usize = 3;
/// Listeners of one node, over all keys.
pub const LISTENERS: usize = 1_024;
/// Records of this node's own that are watched for renewal.
pub const OWN_RECORDS: usize = 256;
/// Leaving takes no longer.
pub const PARTING_PATIENCE: Duration = ms(1_500);
