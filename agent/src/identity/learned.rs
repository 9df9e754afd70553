//! What the agent learnt on its way and is glad to know at its next start. Losing it costs time, never safety.

use bytes::Bytes;
use data_encoding::BASE64;
use muster_proto::control::v1::DisconnectionReport;
use muster_proto::trust::v1::Envelope;
use muster_types::SubnetKey;
use prost::Message;
use serde::{Deserialize, Serialize};

/// Disconnections remembered.
const DISCONNECTIONS: usize = 100;

/// LSNs remembered of one network, and of all.
const CLAIMS_OF_A_PLACE: usize = 4;
const CLAIMS: usize = muster_types::limits::KEPT_CONTACTS;

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
    /// Nodes of the hash table that answered, encoded contacts in base64.
    pub table_contacts: Vec<String>,
    /// Encoded disconnection reports in base64, newest first.
    disconnections: Vec<String>,
    /// LSN claims, each with the network that it was met on; encoded, in base64, newest first.
    claims: Vec<(String, String)>,
    /// The subnet keys that the master derived on each network, in base64, newest first.
    subnet_keys: Vec<(String, Vec<String>)>,
}

impl Learned {
    pub(crate) fn remember_claim(&mut self, place: &str, claim: &Envelope) {
        let claim = encoded(claim);
        self.claims.retain(|(other, known)| other != place || *known != claim);
        self.claims.insert(0, (place.to_owned(), claim));
        let mut of_place = 0;
        self.claims.retain(|(other, _)| {
            of_place += usize::from(other == place);
            other != place || of_place <= CLAIMS_OF_A_PLACE
        });
        self.claims.truncate(CLAIMS);
    }

    /// LSNs met on this network, latest first.
    pub(crate) fn claims_of(&self, place: &str) -> Vec<Envelope> {
        self.claims
            .iter()
            .filter(|(other, _)| other == place)
            .filter_map(|(_, claim)| decoded(claim))
            .collect()
    }

    /// Whether that is news.
    pub(crate) fn remember_keys(&mut self, place: &str, keys: &[Bytes]) -> bool {
        let keys: Vec<_> = keys.iter().map(|key| BASE64.encode(key)).collect();
        if self.subnet_keys.first().is_some_and(|(last, known)| last == place && *known == keys) {
            return false;
        }
        self.subnet_keys.retain(|(other, _)| other != place);
        self.subnet_keys.insert(0, (place.to_owned(), keys));
        self.subnet_keys.truncate(CLAIMS);
        true
    }

    /// What this network was called when the master last said so.
    pub(crate) fn keys_of(&self, place: &str) -> Vec<SubnetKey> {
        let known = self.subnet_keys.iter().find(|(other, _)| other == place);
        let keys = known.into_iter().flat_map(|(_, keys)| keys);
        let bytes = keys.filter_map(|key| BASE64.decode(key.as_bytes()).ok());
        bytes.filter_map(|key| SubnetKey::try_from(&key[..]).ok()).collect()
    }

    pub fn disconnected(&mut self, report: &DisconnectionReport) {
        self.disconnections.insert(0, BASE64.encode(&report.encode_to_vec()));
        self.disconnections.truncate(DISCONNECTIONS);
    }

    /// Newest first.
    pub fn disconnections(&self) -> Vec<DisconnectionReport> {
        self.disconnections.iter().filter_map(|text| decoded(text)).collect()
    }
}

/// A message kept as text; `None` if it is none.
pub(crate) fn decoded<M: Message + Default>(text: &str) -> Option<M> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    if bytes.is_empty() { None } else { M::decode(&bytes[..]).ok() }
}

pub(crate) fn encoded(message: &impl Message) -> String {
    BASE64.encode(&message.encode_to_vec())
}
