//! Enrollment: an open link and a proven key become a name, a certificate and, for a node, a ticket.

use muster_types::{Identity, Role, Timestamp};
use rand::CryptoRng;

use super::authority::{Authority, AuthorityError};
use super::label::{LabelError, check_text};
use super::leaf::Leaf;
use super::link::{Link, Presenter, Protocol, Use};
use super::principal::{Principal, draw_node_id};
use super::request::{CertificateRequest, NodeKeys, RequestError};

/// What a device or person sends beside the link's token.
#[derive(Debug, Clone)]
pub struct Applicant {
    pub request: CertificateRequest,
    pub node_keys: Option<NodeKeys>,
    pub host_name: String,
    pub software_version: String,
    /// As the firmware says it; empty if it was not told.
    pub hardware_serial: String,
    /// The address it came from, for people.
    pub source: String,
}

/// Why an applicant is not enrolled although the link is good.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Text(#[from] LabelError),
    #[error("the key was revoked: make a new one")]
    KeyRevoked,
    #[error("the key is {0}'s already: each identity has its own")]
    KeyTaken(String),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// An enrollment as it will be stored, all of it or nothing.
#[derive(Debug, Clone)]
pub struct Enrollment {
    pub usage: Use,
    pub principal: Principal,
    pub leaf: Leaf,
}

impl Applicant {
    /// What a link needs to know of it.
    pub fn presenter(&self) -> Presenter<'_> {
        Presenter {
            key: self.request.key().hash(),
            host_name: &self.host_name,
            hardware_serial: &self.hardware_serial,
            protocol: Protocol::Muster,
        }
    }

    /// # Errors
    /// What it sends is not what `role` sends.
    pub fn check(&self, role: Role) -> Result<(), EnrollmentError> {
        check_text("host_name", &self.host_name)?;
        check_text("software_version", &self.software_version)?;
        check_text("hardware_serial", &self.hardware_serial)?;
        match (role, self.node_keys) {
            (Role::Node, None) => Err(RequestError::NoNodeKeys.into()),
            (Role::Node, Some(_)) | (_, None) => Ok(()),
            (_, Some(_)) => Err(RequestError::ForeignNodeKeys.into()),
        }
    }
}

/// Whom auth knows by the key that an applicant proved.
#[derive(Debug, Clone)]
pub struct KeyHolder {
    pub principal: Principal,
    /// The key's certificate was revoked, even if the principal has since been admitted anew.
    pub key_revoked: bool,
}

/// The name that a link, found open by [`Link::redeem`], grants to a key. A device that enrolls again with the key it
/// has keeps its id.
///
/// # Errors
/// The key was revoked, or speaks for somebody in another role.
pub fn grant(
    link: &Link,
    holder: Option<&KeyHolder>,
    authority: &Authority,
    rng: &mut impl CryptoRng,
) -> Result<Identity, EnrollmentError> {
    let role = link.terms.role;
    let network = authority.network();
    if let Some(KeyHolder { principal, key_revoked }) = holder {
        if *key_revoked || principal.revocation.is_some() {
            return Err(EnrollmentError::KeyRevoked);
        }
        if principal.identity.role != role {
            return Err(EnrollmentError::KeyTaken(principal.resource_name()));
        }
        if role == Role::Node {
            return Ok(principal.identity.clone());
        }
    }
    Ok(match role {
        Role::Node => Identity::node(network, draw_node_id(rng)),
        _ => Identity { network, role, name: granted_name(link) },
    })
}

/// Enrolls `identity` by its link. `before` is the principal of that name, if there is one.
///
/// # Errors
/// What the applicant sends does not fit the role, or the authority failed.
pub fn enroll(
    link: &Link,
    applicant: &Applicant,
    identity: Identity,
    before: Option<&Principal>,
    authority: &Authority,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Enrollment, EnrollmentError> {
    applicant.check(identity.role)?;
    let leaf = authority.issue(&identity, applicant.request.key(), now, rng)?;
    let principal = Principal {
        identity,
        key: leaf.key,
        generation: before.map_or(1, |principal| principal.generation.saturating_add(1)),
        host_name: applicant.host_name.clone(),
        software_version: applicant.software_version.clone(),
        labels: link.terms.labels.clone(),
        node_keys: applicant.node_keys,
        enroll_time: before.map_or(now, |principal| principal.enroll_time),
        renew_time: now,
        revocation: None,
    };
    let usage =
        Use { time: now, key: leaf.key, enrolled: principal.resource_name(), certificate: leaf.der.clone() };
    Ok(Enrollment { usage, principal, leaf })
}

/// The display name of the link, or the link's id where it has none.
fn granted_name(link: &Link) -> String {
    if link.terms.display_name.is_empty() { link.id.clone() } else { link.terms.display_name.clone() }
}
