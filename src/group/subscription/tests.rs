//! Bytes as Java's `ConsumerProtocol` writes them, and bytes as nobody should.

use super::*;
use proptest::prelude::*;

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

#[test]
fn a_subscription_is_written_as_java_writes_it() {
    let member = MemberSubscription::new(["b", "ab"])
        .with_user_data(&b"x"[..])
        .with_owned([tp("b", 2), tp("ab", 0), tp("b", 1)], 7)
        .with_rack("r");
    let bytes = encode_subscription(&member);
    let expected = [
        &[0, 3, 0, 0, 0, 2, 0, 2, b'a', b'b', 0, 1, b'b'][..], // version 3, topics
        &[0, 0, 0, 1, b'x'],                                   // user data
        &[0, 0, 0, 2, 0, 2, b'a', b'b', 0, 0, 0, 1, 0, 0, 0, 0], // ab-0
        &[0, 1, b'b', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],     // b-1, b-2
        &[0, 0, 0, 7, 0, 1, b'r'],                             // generation, rack
    ];
    assert_eq!(bytes, expected.concat());
    let mut read = decode_subscription(&bytes).unwrap();
    read.owned_partitions.rotate_left(2); // they are written in order
    assert_eq!(read.owned_partitions, [tp("b", 2), tp("ab", 0), tp("b", 1)]);
    read.owned_partitions.clone_from(&member.owned_partitions);
    assert_eq!(read, member);

    let bytes = encode_subscription(&MemberSubscription::new(["a"]));
    let rest = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let topics = [0, 3, 0, 0, 0, 1, 0, 1, b'a'];
    assert_eq!(bytes, [&topics[..], &rest, &[0xff, 0xff]].concat());
}

#[test]
fn every_version_of_a_subscription_is_read_as_far_as_it_is_known() {
    let full = MemberSubscription::new(["a"])
        .with_user_data(&b"x"[..])
        .with_owned([tp("a", 4)], 7)
        .with_rack("r");
    let written = encode_subscription(&full);
    let with_version = |version: i16, length: usize| {
        let mut bytes = written[..length].to_vec();
        bytes[..2].copy_from_slice(&version.to_be_bytes());
        bytes
    };
    let ends = [14, 29, 33, 36]; // of the fields of versions 0, 1, 2, 3
    assert_eq!(written.len(), ends[3]);
    let expected = |fields: usize| {
        let mut member = full.clone();
        if fields < 1 {
            member.owned_partitions.clear();
        }
        member.generation = full.generation.filter(|_| fields >= 2);
        member.rack = full.rack.clone().filter(|_| fields >= 3);
        member
    };
    for (version, end) in ends.into_iter().enumerate() {
        let number = i16::try_from(version).unwrap();
        let read = decode_subscription(&with_version(number, end)).unwrap();
        assert_eq!(read, expected(version), "version {version}");
        // What comes behind the fields of its version is not looked at.
        let read = decode_subscription(&with_version(number, written.len())).unwrap();
        assert_eq!(read, expected(version), "version {version} with more");
        // A version that is written without its last fields.
        let read = decode_subscription(&with_version(3, end)).unwrap();
        assert_eq!(read, expected(version), "fields of version {version}");
    }
    // A later version adds what is not known here.
    let mut later = with_version(9, written.len());
    later.extend([1, 2, 3]);
    assert_eq!(decode_subscription(&later).unwrap(), full);
}

#[test]
fn what_is_not_told_is_none() {
    let told = MemberSubscription::new(["a"]);
    let read = decode_subscription(&encode_subscription(&told)).unwrap();
    assert_eq!(read, told);
    let mut empty = told.clone();
    empty.rack = Some("".into());
    empty.generation = Some(-5);
    let read = decode_subscription(&encode_subscription(&empty)).unwrap();
    assert_eq!(
        read, told,
        "an empty rack and a negative generation are none"
    );
}

#[test]
fn names_that_no_topic_can_have_are_left_out() {
    let long = "x".repeat(40_000);
    let owned = [tp(&long, 1), tp("a", 1)];
    let member = MemberSubscription::new([long.as_str(), "a"]).with_owned(owned, 1);
    let member = member.with_rack(long.as_str());
    let read = decode_subscription(&encode_subscription(&member)).unwrap();
    let expected = MemberSubscription::new(["a"]).with_owned([tp("a", 1)], 1);
    assert_eq!(read, expected);
}

#[test]
fn assignments_are_written_as_java_writes_them() {
    let mut assignment = MemberAssignment::new([tp("b", 1), tp("ab", 2), tp("b", 0)]);
    assignment.user_data = Some(Bytes::from_static(b"x"));
    let bytes = encode_assignment(&assignment);
    let expected = [
        &[0, 3, 0, 0, 0, 2][..],
        &[0, 1, b'b', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0], // b-1, b-0
        &[0, 2, b'a', b'b', 0, 0, 0, 1, 0, 0, 0, 2],       // ab-2
        &[0, 0, 0, 1, b'x'],
    ];
    assert_eq!(bytes, expected.concat());
    let read = decode_assignment(&bytes).unwrap();
    assert_eq!(read.partitions, [tp("b", 1), tp("b", 0), tp("ab", 2)]);
    assert_eq!(read.user_data, assignment.user_data);
}

#[test]
fn classic_assignments_are_read() {
    // Version 3, one topic `ab` with partitions 1 and 2, no user data.
    let bytes = [
        0, 3, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff,
        0xff,
    ];
    let read = decode_assignment(&bytes).unwrap();
    assert_eq!(read, MemberAssignment::new([tp("ab", 1), tp("ab", 2)]));
    assert!(decode_assignment(&[]).unwrap().partitions.is_empty());
}

#[test]
fn hostile_assignments_end_with_their_bytes() {
    for bytes in [
        &[0, 3, 0x7f, 0xff, 0xff, 0xff][..],
        &[0, 3, 0, 0, 0, 1, 0x7f, 0xff, b'a'],
        &[0, 3, 0, 0, 0, 1, 0, 1, b'a', 0x7f, 0xff, 0xff, 0xff, 0, 0],
        &[0, 3, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, b'x'],
        &[0],
    ] {
        assert!(decode_assignment(bytes).is_err(), "{bytes:?}");
    }
    // Negative counts are no elements.
    let negative = [0, 3, 0xff, 0xff, 0xff, 0xff];
    assert!(decode_assignment(&negative).unwrap().partitions.is_empty());
}

#[test]
fn hostile_subscriptions_end_with_their_bytes() {
    for bytes in [
        &[][..],
        &[0, 3],
        &[0, 3, 0x7f, 0xff, 0xff, 0xff, 0, 0],
        &[0, 3, 0, 0, 0, 1, 0x7f, 0xff, b'a'],
        &[0, 3, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, b'x'],
        &[
            0, 3, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff,
        ],
        &[0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0],
    ] {
        assert!(decode_subscription(bytes).is_err(), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_bytes_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        _ = decode_subscription(&bytes);
        _ = decode_assignment(&bytes);
    }

    #[test]
    fn damaged_bytes_do_not_make_more_than_there_is(
        owned in prop::collection::vec((0..3_usize, 0..20_i32), 0..20),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let names = ["a", "bb", "ccc"];
        let owned: Vec<_> = owned.into_iter().map(|(t, p)| tp(names[t], p)).collect();
        let member = MemberSubscription::new(names).with_owned(owned, 3);
        let mut bytes = encode_subscription(&member).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = decode_subscription(&bytes) {
            prop_assert!(read.topics.len() * 2 + read.owned_partitions.len() * 4 <= bytes.len());
        }
    }

    #[test]
    fn what_is_written_is_read(
        topics in prop::collection::btree_set("[a-z]{1,5}", 0..5),
        owned in prop::collection::btree_set(("[a-z]{1,3}", 0..20_i32), 0..20),
        generation in prop::option::of(0..i32::MAX),
        rack in prop::option::of("[a-z]{1,5}"),
        user_data in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
    ) {
        let owned: Vec<_> = owned.into_iter().map(|(t, p)| tp(&t, p)).collect();
        let mut member = MemberSubscription::new(topics).with_owned(owned, generation);
        member.rack = rack.map(Into::into);
        member.user_data = user_data.map(Into::into);
        prop_assert_eq!(&decode_subscription(&encode_subscription(&member)).unwrap(), &member);
        let mut assignment = MemberAssignment::new(member.owned_partitions);
        assignment.user_data = member.user_data;
        let read = decode_assignment(&encode_assignment(&assignment)).unwrap();
        prop_assert_eq!(read, assignment);
    }
}
