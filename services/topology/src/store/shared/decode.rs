//! Documents and columns to rows of the domain and back.

use data_encoding::HEXLOWER;
use muster_types::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::table::Stored;
use crate::domain::task::TaskId;
use crate::store::StoreError;

pub(super) fn document<T: Serialize>(row: &T) -> Result<String, StoreError> {
    serde_json::to_string(row).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn row<T: DeserializeOwned>(document: &str) -> Result<T, StoreError> {
    serde_json::from_str(document).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn stored<T: DeserializeOwned>(rows: Vec<(String, i64)>) -> Result<Vec<Stored<T>>, StoreError> {
    rows.into_iter().map(|(doc, revision)| Ok(Stored { row: row(&doc)?, revision })).collect()
}

pub(super) fn node_id(bytes: &[u8]) -> Result<NodeId, StoreError> {
    NodeId::try_from(bytes).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn task_id(bytes: &[u8]) -> Result<TaskId, StoreError> {
    TaskId::from_bytes(bytes).ok_or_else(|| StoreError::Corrupt("a task id has 16 bytes".to_owned()))
}

/// A JSON array of hexadecimal texts: how a list of keys becomes one parameter.
pub(super) fn hex_list<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> String {
    let quoted: Vec<_> = keys.into_iter().map(|key| format!("\"{}\"", HEXLOWER.encode(key))).collect();
    format!("[{}]", quoted.join(","))
}

pub(super) fn number_list(numbers: impl IntoIterator<Item = i64>) -> String {
    let shown: Vec<_> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("[{}]", shown.join(","))
}
