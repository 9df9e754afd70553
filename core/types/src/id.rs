//! Identifiers of fixed size, shown and read as lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

/// A text or byte string that is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} has {expected} bytes, not {actual}")]
    Length { what: &'static str, expected: usize, actual: usize },
    #[error("{what} is written in hexadecimal, which {text:?} is not")]
    Digits { what: &'static str, text: String },
}

/// Defines a newtype over `[u8; $len]` with hexadecimal `Display` and `FromStr`.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The identifier's bytes, in network order.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEX.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), HEX.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEX
                    .decode(text.as_bytes())
                    .map_err(|_| IdError::Digits { what: $what, text: text.to_owned() })?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let fixed = bytes
                    .try_into()
                    .map_err(|_| IdError::Length { what: $what, expected: $len, actual: bytes.len() })?;
                Ok(Self(fixed))
            }
        }
    };
}
pub(crate) use identifier;

identifier!(
    /// A node's place in the 160-bit key space: drawn at random by auth, once, and written into the certificate.
    NodeId, 20, "a node id"
);

identifier!(
    /// One deployment with one trust root: the first 16 bytes of the SHA-256 of the first root's public key.
    NetworkId, 16, "a network id"
);

identifier!(
    /// A place in the 160-bit space of the hash table: a node's id, a subnet's key, a hash of content.
    Key, 20, "a key"
);

identifier!(
    /// One letter from node to node: drawn at random by its sender.
    LetterId, 16, "a letter's id"
);

impl From<NodeId> for Key {
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

impl NodeId {
    /// The first 8 hexadecimal digits, for people who compare two ids on a screen.
    pub fn short(&self) -> String {
        HEX.encode(&self.0[..4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_what_it_shows() {
        let id = NodeId([0xab; 20]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn an_id_of_the_wrong_length_names_both_lengths() {
        let error = NodeId::try_from(&[0u8; 19][..]).unwrap_err();
        assert_eq!(error.to_string(), "a node id has 20 bytes, not 19");
    }
}
