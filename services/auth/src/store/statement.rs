//! The SQL, once for both databases: they understand the same text with `$1`, and sqlx wants the types apart.

mod change;
mod reading;

pub(super) use change::changes;
pub(super) use reading::readings;

use super::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
