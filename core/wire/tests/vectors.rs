//! Records of the hash table as everybody must read them: bytes that were once signed, kept in `records.txt`, and what they say.
//!
//! `MUSTER_WRITE_VECTORS=1` writes the file anew, for a format that was changed on purpose.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use muster_proto::trust::v1::TrustBundle;
use muster_types::{Address, Contact, Instant, Key, NetworkId, NodeId, SubnetKey, Timestamp};
use muster_wire::record::{self, Moment, Reader, Value};
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::{TrustStore, Verifier};
use prost::Message;
use rustls_pki_types::CertificateDer;

const PUBLISHER: NodeId = NodeId([0x5a; 20]);

/// One record of each kind that is always the same.
fn values() -> Vec<(Key, Value)> {
    let address =
        |ip: &str| Address { ip: ip.parse().unwrap(), udp_port: Some(27_431), tcp_port: Some(27_432) };
    let contact =
        || Contact { node: PUBLISHER, addresses: vec![address("192.0.2.7"), address("2001:db8::7")] };
    let (own, subnet) = (Key::from(PUBLISHER), SubnetKey([0x21; 20]));
    let content = record::content_key(b"a package");
    vec![
        (own, Value::Contact(contact(), Vec::new())),
        (own, Value::NodeKeys),
        (
            subnet.into(),
            Value::Subnet {
                subnet,
                lsn: contact(),
                lineage: 0x0123_4567_89ab_cdef,
                epoch: 3,
                via: Vec::new(),
            },
        ),
        (content, Value::Holder { holder: contact(), subnet: Some(subnet) }),
        (content, Value::Gsn { contact: contact(), reliability_basis_points: 9_876 }),
        (record::named_key("printer"), Value::Opaque(Bytes::from_static(b"third floor"))),
    ]
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/records.txt")
}

fn write() {
    let network = TestNetwork::new();
    let signer = network.node(PUBLISHER).signer(1);
    let mut text = String::from(
        "# network, root (DER), trust bundle, date in microseconds; then records, as in vectors.rs\n",
    );
    let mut line = |name: &str, bytes: &[u8]| writeln!(text, "{name} {}", HEXLOWER.encode(bytes)).unwrap();
    line("network", network.id.as_bytes());
    line("root", &network.root());
    line("bundle", &network.bundle().encode_to_vec());
    for (key, value) in values() {
        let moment = (Instant::ZERO, NOW);
        let record = record::sign(key, &value, record::LIFE, &signer, moment).unwrap();
        line("record", &record.bytes);
    }
    writeln!(text, "date {}", NOW.as_micros()).unwrap();
    std::fs::write(file(), text).unwrap();
}

#[test]
fn records_that_were_signed_once_are_read_as_they_were_meant_and_changed_ones_are_not() {
    if std::env::var_os("MUSTER_WRITE_VECTORS").is_some() {
        write();
    }
    let text = std::fs::read_to_string(file()).unwrap();
    let of = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(' ')).filter(move |(it, _)| *it == name);
        lines.map(|(_, rest)| rest.to_owned()).collect::<Vec<_>>()
    };
    let bytes =
        |name: &str| of(name).iter().map(|it| HEXLOWER.decode(it.as_bytes()).unwrap()).collect::<Vec<_>>();
    let date = Timestamp::from_micros(of("date")[0].parse().unwrap());
    let network = NetworkId::try_from(&bytes("network")[0][..]).unwrap();
    let root = CertificateDer::from(bytes("root").remove(0));
    let mut trust = TrustStore::new(network, &[root]).unwrap();
    trust.load(&TrustBundle::decode(&bytes("bundle")[0][..]).unwrap(), date).unwrap();
    let now = Instant::from_elapsed(Duration::from_secs(9));
    let at = Moment { verifier: Verifier { trust: &trust, now: date }, now };

    let records = bytes("record");
    assert_eq!(records.len(), values().len());
    for (bytes, (key, value)) in records.iter().zip(values()) {
        let opened = Reader::default().read(bytes, &at).unwrap();
        assert_eq!((opened.record.key, opened.record.publisher), (key, PUBLISHER));
        assert_eq!((opened.record.kind, &opened.value), (value.kind(), &value));
        assert_eq!(opened.record.sequence, u64::try_from(date.as_micros()).unwrap());
        assert_eq!((opened.expires, opened.record.expires), (date + record::LIFE, now + record::LIFE));
        assert!(opened.ticket.is_some());
        // In the payload, in the ticket, in the signature: nothing may be another bit.
        for place in (0..bytes.len()).step_by(37) {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            let read = Reader::default().read(&changed, &at);
            assert!(!read.is_ok_and(|read| read.value != value), "byte {place} of {value:?}");
        }
        let late = Moment { verifier: Verifier { trust: &trust, now: date + record::LIFE }, now };
        assert!(Reader::default().read(bytes, &late).is_err(), "it has expired");
    }
}
