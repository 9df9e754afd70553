//! The enrollment link: where the master is, a one-time token, and the root's public key, in one https URL.
//!
//! `https://HOST:PORT/enroll#1.TOKEN.ROOTKEY`. The fragment never travels: a browser that opens the link by accident
//! sends neither token nor key. With the key itself (not its hash) in hand, the very first TLS handshake is verified.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};

use crate::NetworkId;

/// The version of the fragment's form.
const FORM: &str = "1";

/// A one-time secret that enrolls one device. It cannot be printed; [`Token::reveal`] is for the one place that sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 16]);

impl Token {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The token as it is written: 26 characters of lower-case base32.
    pub fn reveal(&self) -> String {
        BASE32_NOPAD.encode(&self.0).to_ascii_lowercase()
    }

    /// SHA-256 of the 16 bytes: all that the master keeps of it.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl FromStr for Token {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let bytes =
            BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| LinkError::Token)?;
        Ok(Self(bytes.try_into().map_err(|_| LinkError::Token)?))
    }
}

/// A root authority's public key: an uncompressed point of P-256. Everything else about a root follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootKey([u8; 65]);

impl RootKey {
    /// What stands before the point in a SubjectPublicKeyInfo of P-256 (RFC 5480).
    const SPKI_HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];

    /// The point's 65 bytes: 0x04, x, y.
    pub fn from_point(point: &[u8]) -> Result<Self, LinkError> {
        let point: [u8; 65] = point.try_into().map_err(|_| LinkError::RootKey)?;
        if point[0] == 4 { Ok(Self(point)) } else { Err(LinkError::RootKey) }
    }

    /// The key inside a DER SubjectPublicKeyInfo.
    pub fn from_spki(spki: &[u8]) -> Result<Self, LinkError> {
        Self::from_point(spki.strip_prefix(&Self::SPKI_HEAD[..]).ok_or(LinkError::RootKey)?)
    }

    pub fn point(&self) -> &[u8; 65] {
        &self.0
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        [&Self::SPKI_HEAD[..], &self.0].concat()
    }

    /// The id of the network whose first root this is.
    pub fn network_id(&self) -> NetworkId {
        let mut id = NetworkId::default();
        id.0.copy_from_slice(&digest(&SHA256, &self.spki()).as_ref()[..NetworkId::LEN]);
        id
    }

    /// The common name that the root's certificate carries, and nothing else in its subject.
    pub fn common_name(&self) -> String {
        format!("Muster root {}", HEXLOWER.encode(&digest(&SHA256, &self.spki()).as_ref()[..8]))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.common_name())
    }
}

impl fmt::Display for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

/// What stands between a text and an enrollment link. No variant repeats the text: it may hold a live token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("it does not begin with https://")]
    Scheme,
    #[error("it does not say where the master is: expected https://HOST:PORT/enroll#...")]
    Address,
    #[error("its path is not /enroll")]
    Path,
    #[error("it has no part after #: was it cut off, or not put in quotes?")]
    NoFragment,
    #[error("its part after # is not of the form 1.TOKEN.ROOTKEY: was it cut off?")]
    Fragment,
    #[error("it is of form {0}, which is newer than this program: update it")]
    Newer(u8),
    #[error("its token is not 26 characters of base32: was it cut off or mistyped?")]
    Token,
    #[error("its root key is not 87 characters of a P-256 point in base64url: was it cut off or mistyped?")]
    RootKey,
}

/// Everything that a device needs to know before it meets its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentLink {
    /// `host:port`; an IPv6 address stands in brackets.
    pub address: String,
    pub token: Token,
    pub root_key: RootKey,
}

impl EnrollmentLink {
    /// The link as it is handed over, secret and all: that is why there is no `Display`.
    pub fn reveal(&self) -> String {
        format!("https://{}/enroll#{FORM}.{}.{}", self.address, self.token.reveal(), self.root_key)
    }
}

impl FromStr for EnrollmentLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        let rest = text.strip_prefix("https://").ok_or(LinkError::Scheme)?;
        let (place, fragment) = rest.split_once('#').ok_or(LinkError::NoFragment)?;
        let (authority, path) = place.split_once('/').ok_or(LinkError::Path)?;
        if path != "enroll" {
            return Err(LinkError::Path);
        }
        let address = host_and_port(authority)?;
        let mut parts = fragment.split('.');
        let form = parts.next().unwrap_or_default();
        if form != FORM {
            return Err(form.parse().map_or(LinkError::Fragment, LinkError::Newer));
        }
        let (Some(token), Some(key), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(LinkError::Fragment);
        };
        let point = BASE64URL_NOPAD.decode(key.as_bytes()).map_err(|_| LinkError::RootKey)?;
        Ok(Self { address, token: token.parse()?, root_key: RootKey::from_point(&point)? })
    }
}

/// `host:port`, with https's own port where none is written.
fn host_and_port(authority: &str) -> Result<String, LinkError> {
    const HTTPS_PORT: u16 = 443;
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[after_host..].rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_host + colon);
            (host, port[1..].parse().map_err(|_| LinkError::Address)?)
        }
        None => (authority, HTTPS_PORT),
    };
    let foreign = |c: char| !(c.is_ascii_alphanumeric() || "-._[]:%".contains(c));
    let bare_colon = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || host.contains(foreign) || bare_colon || port == 0 {
        return Err(LinkError::Address);
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> EnrollmentLink {
        let mut point = [7; 65];
        point[0] = 4;
        EnrollmentLink {
            address: "master.example.org:27431".into(),
            token: Token::from_bytes([9; 16]),
            root_key: RootKey::from_point(&point).unwrap(),
        }
    }

    #[test]
    fn a_link_is_read_back_from_what_it_reveals() {
        let text = link().reveal();
        assert_eq!(text.parse(), Ok(link()));
        assert_eq!(format!("  {text}\n").parse(), Ok(link()));
        assert_eq!(text.len(), "https://master.example.org:27431/enroll#1..".len() + 26 + 87);
    }

    #[test]
    fn an_ipv6_address_and_a_missing_port_are_understood() {
        let at = |place: &str| {
            let text = link().reveal().replace("master.example.org:27431", place);
            text.parse::<EnrollmentLink>().map(|link| link.address)
        };
        assert_eq!(at("[2001:db8::1]:1234"), Ok("[2001:db8::1]:1234".into()));
        assert_eq!(at("[2001:db8::1]"), Ok("[2001:db8::1]:443".into()));
        assert_eq!(at("master"), Ok("master:443".into()));
        for wrong in ["", ":27431", "host:", "host:0", "host:70000", "2001:db8::1", "a b:1", "u@host:1"] {
            assert_eq!(at(wrong), Err(LinkError::Address), "{wrong:?}");
        }
    }

    #[test]
    fn each_malformation_has_its_own_error() {
        let good = link().reveal();
        let token = link().token.reveal();
        let wrong = |text: &str| text.parse::<EnrollmentLink>().unwrap_err();
        assert_eq!(wrong(""), LinkError::Scheme);
        assert_eq!(wrong(&good.replace("https", "http")), LinkError::Scheme);
        assert_eq!(wrong(&good.replace("/enroll", "/join")), LinkError::Path);
        assert_eq!(wrong(good.split('#').next().unwrap()), LinkError::NoFragment);
        assert_eq!(wrong(&good.replace("#1.", "#2.")), LinkError::Newer(2));
        assert_eq!(wrong(&good.replace("#1.", "#x.")), LinkError::Fragment);
        assert_eq!(wrong(&good[..good.len() - 88]), LinkError::Fragment);
        assert_eq!(wrong(&format!("{good}.more")), LinkError::Fragment);
        assert_eq!(wrong(&good[..good.len() - 1]), LinkError::RootKey);
        assert_eq!(wrong(&good.replace(&token, &token[1..])), LinkError::Token);
        assert_eq!(wrong(&good.replace(&token, &format!("1{}", &token[1..]))), LinkError::Token);
    }

    #[test]
    fn neither_a_link_nor_its_errors_print_the_token() {
        let token = link().token.reveal();
        assert!(!format!("{:?}", link()).contains(&token));
        let cut = &link().reveal()[..80];
        assert!(!cut.parse::<EnrollmentLink>().unwrap_err().to_string().contains(&token));
    }

    #[test]
    fn a_root_key_is_found_in_its_spki() {
        let key = link().root_key;
        assert_eq!(RootKey::from_spki(&key.spki()), Ok(key));
        assert_eq!(RootKey::from_spki(&key.spki()[1..]), Err(LinkError::RootKey));
        assert!(RootKey::from_point(&[4; 64]).is_err());
        assert!(key.common_name().starts_with("Muster root "));
    }
}
