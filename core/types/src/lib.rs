//! Plain data that every other crate shares: ids, addresses, times, names and limits.
//!
//! Nothing here does I/O, and no type knows how it travels: that is `muster-wire`'s business.

pub mod address;
pub mod id;
pub mod limits;
pub mod link;
pub mod name;
pub mod subnet;
pub mod time;
pub mod version;

pub use address::{Address, Contact, Prefix};
pub use id::{Key, LetterId, NetworkId, NodeId};
pub use link::{EnrollmentLink, RootKey, Token};
pub use name::{Identity, Role};
pub use subnet::SubnetKey;
pub use time::{Instant, Timestamp};
pub use version::Version;
