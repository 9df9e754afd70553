//! What the agent learnt on its way and is glad to know at its next start. Losing it costs time, never safety.

use std::time::Duration;

use muster_proto::control::v1::DisconnectionReport;
use prost::Message;
use serde::{Deserialize, Serialize};

/// Disconnections remembered.
const DISCONNECTIONS: usize = 100;

/// Addresses of the master remembered.
const ADDRESSES: usize = 8;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// The master's clock less this host's, in microseconds.
    pub clock_offset_micros: i64,
    /// Where the master was reached, latest first.
    pub master_addresses: Vec<String>,
    /// Last uptime ticket, encoded, in base64.
    pub uptime_ticket: String,
    /// Latest trust bundle, encoded, in base64.
    pub trust_bundle: String,
    /// Encoded disconnection reports in base64, newest first.
    disconnections: Vec<String>,
    /// LSN claims met on a network, by its gateway and prefix; encoded, in base64.
    pub claims: Vec<(String, String)>,
}

impl Learned {
    /// A clock that is off by less is as good as right; not worth a write.
    pub const CLOCK_STEP: Duration = Duration::from_secs(1);

    pub fn met_master(&mut self, address: &str) -> bool {
        if self.master_addresses.first().is_some_and(|first| first == address) {
            return false;
        }
        self.master_addresses.retain(|known| known != address);
        self.master_addresses.insert(0, address.to_owned());
        self.master_addresses.truncate(ADDRESSES);
        true
    }

    pub fn disconnected(&mut self, report: &DisconnectionReport) {
        self.disconnections.insert(0, data_encoding::BASE64.encode(&report.encode_to_vec()));
        self.disconnections.truncate(DISCONNECTIONS);
    }

    /// Newest first.
    pub fn disconnections(&self) -> Vec<DisconnectionReport> {
        self.disconnections.iter().filter_map(|text| decoded(text)).collect()
    }
}

/// A message kept as text; `None` if it is none.
pub(crate) fn decoded<M: Message + Default>(text: &str) -> Option<M> {
    let bytes = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
    if bytes.is_empty() { None } else { M::decode(&bytes[..]).ok() }
}

pub(crate) fn encoded(message: &impl Message) -> String {
    data_encoding::BASE64.encode(&message.encode_to_vec())
}
