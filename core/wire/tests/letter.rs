//! A letter is read by whom it is for alone, is of whom its ticket names, and ends with its time.

use std::time::Duration;

use muster_types::{LetterId, NodeId, limits};
use muster_wire::letter::{Content, Letter, Word, open_receipt, receipt};
use muster_wire::sealing::SealingKey;
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::{Verifier, WireError};

const SENDER: NodeId = NodeId([1; 20]);
const RECIPIENT: NodeId = NodeId([2; 20]);
const ID: LetterId = LetterId([7; 16]);

fn key() -> SealingKey {
    SealingKey::new([9; 32])
}

fn letter(bytes: usize) -> Letter {
    let expires = NOW + Duration::from_secs(60);
    Letter { id: ID, to: RECIPIENT, sent: NOW, expires, content: vec![b'x'; bytes].into() }
}

#[test]
fn a_letter_of_the_largest_size_arrives_as_it_was_written_and_only_its_recipient_reads_it() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(SENDER), network.trust());
    let verifier = Verifier { trust: &trust, now: NOW };
    let sealed = letter(limits::LETTER_BYTES).seal(&node.signer(1), key().public()).unwrap();
    let opened = Letter::open(&sealed, RECIPIENT, &key(), &verifier).unwrap();
    assert_eq!(opened, (SENDER, letter(limits::LETTER_BYTES)));
    let other = Letter::open(&sealed, RECIPIENT, &SealingKey::new([8; 32]), &verifier);
    assert!(matches!(other, Err(WireError::Invalid { field: "letter.sealed", .. })), "{other:?}");
    let stranger = Letter::open(&sealed, NodeId([3; 20]), &key(), &verifier);
    assert!(matches!(stranger, Err(WireError::Stranger { .. })), "{stranger:?}");
    let late = Verifier { trust: &trust, now: NOW + Duration::from_secs(61) };
    assert!(Letter::open(&sealed, RECIPIENT, &key(), &late).is_err());
    let word = Word::new(RECIPIENT, Content::Letter(sealed));
    assert_eq!(Word::from_wire(word.to_wire()).unwrap(), word);
}

#[test]
fn a_letter_that_is_too_large_or_lives_too_long_is_refused() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(SENDER), network.trust());
    let large = letter(limits::LETTER_BYTES + 1).seal(&node.signer(1), key().public());
    assert!(matches!(large, Err(WireError::TooLarge { .. })), "{large:?}");
    let long = Letter { expires: NOW + limits::LETTER_LIFETIME + Duration::from_secs(1), ..letter(1) };
    let sealed = long.seal(&node.signer(1), key().public()).unwrap();
    let opened = Letter::open(&sealed, RECIPIENT, &key(), &Verifier { trust: &trust, now: NOW });
    assert!(matches!(opened, Err(WireError::Invalid { field: "letter.expire_time", .. })), "{opened:?}");
}

#[test]
fn whoever_passes_a_word_on_knows_whose_it_is_and_passes_no_forgery_on() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(SENDER), network.trust());
    let verifier = Verifier { trust: &trust, now: NOW };
    let sealed = letter(5).seal(&node.signer(1), key().public()).unwrap();
    let word = Word::new(RECIPIENT, Content::Letter(sealed.clone()));
    let header = word.header(&verifier).unwrap();
    assert_eq!((header.from, header.to), (SENDER, RECIPIENT));
    let redirected = Word { to: SENDER, ..word.clone() };
    assert!(matches!(redirected.header(&verifier), Err(WireError::Stranger { .. })));
    let mut forged = sealed;
    forged.payload = [&forged.payload[..], b"x"].concat().into();
    assert!(Word::new(RECIPIENT, Content::Letter(forged)).header(&verifier).is_err());
    let abroad = TestNetwork::new();
    let foreign = letter(5).seal(&abroad.node(SENDER).signer(1), key().public()).unwrap();
    assert!(Word::new(RECIPIENT, Content::Letter(foreign)).header(&verifier).is_err());
}

#[test]
fn a_receipt_is_the_recipients_and_for_the_sender() {
    let network = TestNetwork::new();
    let (recipient, trust) = (network.node(RECIPIENT), network.trust());
    let verifier = Verifier { trust: &trust, now: NOW };
    let sealed = receipt(ID, SENDER, &recipient.signer(1));
    assert_eq!(open_receipt(&sealed, SENDER, &verifier).unwrap(), (RECIPIENT, ID));
    assert!(open_receipt(&sealed, RECIPIENT, &verifier).is_err(), "it is somebody else's");
}
