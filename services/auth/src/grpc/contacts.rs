//! LSNs that topology told of, for the answers of enrollments. A hint: losing it costs a device a query.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_proto::auth::v1::Contact;
use muster_proto::trust::v1::Envelope;
use muster_types::limits::KEPT_CONTACTS;

/// Contacts that are kept (contract of PublishContactsRequest).
const CONTACTS: usize = 1_000;

/// What topology published last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Contacts(Arc<ArcSwap<Vec<Contact>>>);

impl Contacts {
    pub(super) fn publish(&self, mut contacts: Vec<Contact>) {
        contacts.truncate(CONTACTS);
        self.0.store(Arc::new(contacts));
    }

    /// For a device that is seen from `source`: who is seen from there too comes first.
    pub(super) fn claims_for(&self, source: Option<IpAddr>) -> Vec<Envelope> {
        let octets = source.map(octets).unwrap_or_default();
        let known = self.0.load();
        let (near, far): (Vec<_>, Vec<_>) =
            known.iter().partition(|contact| !octets.is_empty() && contact.observed_ip == octets);
        near.into_iter().chain(far).filter_map(|contact| contact.claim.clone()).take(KEPT_CONTACTS).collect()
    }
}

/// An address in as few bytes as it has, IPv4 never as IPv6.
pub(super) fn octets(ip: IpAddr) -> Bytes {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(name: u8, ip: [u8; 4]) -> Contact {
        let claim = Envelope { payload: vec![name].into(), ..Envelope::default() };
        Contact { claim: Some(claim), observed_ip: ip.to_vec().into() }
    }

    #[test]
    fn who_is_behind_the_same_address_comes_first_and_no_more_are_told_than_a_node_keeps() {
        let contacts = Contacts::default();
        let mut published: Vec<_> = (0..120).map(|name| contact(name, [192, 0, 2, 1])).collect();
        published.push(contact(200, [192, 0, 2, 2]));
        contacts.publish(published);
        let told = contacts.claims_for("::ffff:192.0.2.2".parse().ok());
        assert_eq!((told.len(), told[0].payload[0], told[1].payload[0]), (KEPT_CONTACTS, 200, 0));
        assert_eq!(contacts.claims_for(None)[0].payload[0], 0);
    }
}
