use super::*;
use crate::error::ErrorKind;
use proptest::prelude::*;

const T: Uuid = Uuid::from_u128(1);
const U: Uuid = Uuid::from_u128(2);

fn name(id: Uuid) -> Option<Arc<str>> {
    match id.as_u128() {
        1 => Some("t".into()),
        2 => Some("u".into()),
        _ => None,
    }
}

fn names(topics: &[&str]) -> Subscription {
    Subscription::Names(topics.iter().map(|topic| Arc::from(*topic)).collect())
}

fn settings() -> Settings {
    Settings {
        instance_id: None,
        rack: None,
        assignor: None,
        rebalance_timeout: Duration::from_secs(300),
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
    }
}

fn parts(of: &[(Uuid, &[i32])]) -> Parts {
    let parts = of.iter();
    parts
        .map(|(id, parts)| (*id, parts.iter().copied().collect()))
        .collect()
}

fn ok(epoch: i32, assignment: Option<Parts>) -> Result<HeartbeatAnswer, Error> {
    Ok(HeartbeatAnswer {
        member_id: Some("m".into()),
        member_epoch: epoch,
        interval: Duration::from_secs(5),
        assignment,
        ..HeartbeatAnswer::default()
    })
}

fn code(code: i16) -> Result<HeartbeatAnswer, Error> {
    Ok(HeartbeatAnswer {
        code,
        ..HeartbeatAnswer::default()
    })
}

struct Rig {
    machine: Member,
    now: Instant,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let now = crate::clock::now();
        let mut machine = Member::new(settings, "m".into());
        machine.subscribe(now, names(&["t", "u"]));
        Self { machine, now }
    }

    fn next(&mut self) -> Option<Effect> {
        self.machine.poll(self.now, name)
    }

    fn call(&mut self) -> (Token, Heartbeat) {
        match self.next() {
            Some(Effect::Send(token, GroupRequest::ConsumerHeartbeat(heartbeat))) => {
                (token, heartbeat)
            }
            other => panic!("expected a heartbeat, got {other:?}"),
        }
    }

    fn answer(&mut self, token: Token, answer: Result<HeartbeatAnswer, Error>) {
        self.machine.handle_heartbeat(self.now, token, answer);
    }

    fn assigned(&mut self) -> Vec<String> {
        match self.next() {
            Some(Effect::Assign(parts)) => parts.iter().map(|(tp, _)| tp.to_string()).collect(),
            other => panic!("expected an assignment, got {other:?}"),
        }
    }

    fn revoked(&mut self) -> Vec<String> {
        match self.next() {
            Some(Effect::Revoke(parts)) => parts.iter().map(ToString::to_string).collect(),
            other => panic!("expected a revocation, got {other:?}"),
        }
    }

    fn lost(&mut self) -> Vec<String> {
        match self.next() {
            Some(Effect::Lost(parts)) => parts.iter().map(ToString::to_string).collect(),
            other => panic!("expected a loss, got {other:?}"),
        }
    }

    /// A member with epoch 1 that owns partitions 0 and 1 of `t`, all acknowledged.
    fn member(settings: Settings) -> Self {
        let mut rig = Self::new(settings);
        let (token, _) = rig.call();
        rig.answer(token, ok(1, Some(parts(&[(T, &[0, 1])]))));
        assert_eq!(rig.assigned(), ["t-0", "t-1"]);
        let (token, ack) = rig.call();
        assert_eq!(ack.owned, Some(parts(&[(T, &[0, 1])])));
        rig.answer(token, ok(1, Some(parts(&[(T, &[0, 1])]))));
        assert!(rig.next().is_none());
        rig
    }
}

#[test]
fn joins_with_everything_and_then_sends_only_what_changed() {
    let mut rig = Rig::new(settings());
    let (token, join) = rig.call();
    assert_eq!(join.member_epoch, 0);
    assert_eq!(join.topics.as_deref(), Some(&["t".into(), "u".into()][..]));
    assert_eq!(join.rebalance_timeout, Some(Duration::from_secs(300)));
    assert_eq!(
        join.owned,
        Some(Parts::new()),
        "a joining member owns nothing and says so"
    );
    assert!(rig.next().is_none(), "one heartbeat at a time");
    rig.answer(token, ok(1, None));
    assert_eq!(
        rig.assigned(),
        [""; 0],
        "the first assignment is told, though empty"
    );
    assert!(
        rig.next().is_none(),
        "nothing to tell before the interval is over"
    );
    assert_eq!(
        rig.machine.next_timeout(),
        Some(rig.now + Duration::from_secs(5))
    );
    rig.now += Duration::from_secs(5);
    let (_, heartbeat) = rig.call();
    assert_eq!(heartbeat.member_epoch, 1);
    assert_eq!(
        (
            heartbeat.topics,
            heartbeat.owned,
            heartbeat.rebalance_timeout
        ),
        (None, None, None)
    );
}

/// The control task wakes for each commit, too.
#[test]
fn partitions_are_looked_at_when_something_changed() {
    const TOPICS: u128 = 1_000;
    let mut rig = Rig::new(settings());
    let (token, _) = rig.call();
    let all = (1..=TOPICS).map(|id| (Uuid::from_u128(id), BTreeSet::from([0])));
    rig.answer(token, ok(1, Some(all.collect())));
    let looks = std::cell::Cell::new(0);
    let named = |id: Uuid| {
        looks.set(looks.get() + 1);
        Some(Arc::from(format!("topic-{id}")))
    };
    match rig.machine.poll(rig.now, named) {
        Some(Effect::Assign(parts)) => assert_eq!(parts.len(), 1_000),
        other => panic!("{other:?}"),
    }
    let Some(Effect::Send(token, _)) = rig.machine.poll(rig.now, named) else {
        panic!("no acknowledgement");
    };
    rig.answer(token, ok(1, None));
    let before = looks.replace(0);
    assert!(before >= 1_000);
    for _ in 0..500 {
        assert!(rig.machine.poll(rig.now, named).is_none());
    }
    assert_eq!(looks.get(), 0);
    rig.machine.metadata_changed();
    assert!(rig.machine.poll(rig.now, named).is_none());
    assert_eq!(looks.get(), 1_000, "one of them may be gone");
}

#[test]
fn revokes_first_then_acknowledges_then_takes() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, ok(1, Some(parts(&[(T, &[1]), (U, &[0])]))));
    assert_eq!(rig.revoked(), ["t-0"]);
    assert!(rig.next().is_none());
    // Heartbeats go on while the application takes its time, without an acknowledgement.
    rig.now += Duration::from_secs(5);
    let (token, waiting) = rig.call();
    assert_eq!(waiting.owned, None);
    rig.answer(token, ok(1, None));
    assert!(rig.next().is_none());
    rig.machine.revoked();
    assert_eq!(rig.assigned(), ["u-0"]);
    let (_, ack) = rig.call();
    assert_eq!(ack.owned, Some(parts(&[(T, &[1]), (U, &[0])])));
}

#[test]
fn what_is_taken_back_before_it_was_owned_is_acknowledged_at_once() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    // A topic that metadata does not know yet is waited for.
    let unknown = Uuid::from_u128(99);
    let had = parts(&[(T, &[0, 1])]);
    let target = parts(&[(T, &[0, 1]), (unknown, &[0])]);
    rig.answer(token, ok(2, Some(target)));
    assert!(matches!(rig.next(), Some(Effect::RefreshMetadata)));
    assert!(rig.next().is_none());
    rig.now += Duration::from_secs(5);
    let (token, heartbeat) = rig.call();
    assert_eq!(heartbeat.owned, Some(had.clone()));
    rig.answer(token, ok(2, Some(had.clone())));
    let (token, ack) = rig.call();
    assert_eq!(ack.owned, Some(had.clone()), "without the one taken back");
    rig.answer(token, ok(3, Some(had)));
    assert!(rig.next().is_none(), "and once is enough");
}

#[test]
fn a_revocation_that_ends_after_its_membership_changes_nothing() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, ok(1, Some(parts(&[(T, &[1])]))));
    assert_eq!(rig.revoked(), ["t-0"]);
    rig.machine.absent(rig.now);
    rig.machine.revoked();
    assert_eq!(rig.lost(), ["t-0", "t-1"]);
    let (token, leave) = rig.call();
    assert_eq!(leave.member_epoch, LEAVE);
    rig.answer(token, ok(LEAVE, None));
    assert!(matches!(rig.next(), Some(Effect::Left)));
    rig.now += Duration::from_secs(60);
    assert!(rig.next().is_none());
}

#[test]
fn a_pure_revocation_is_acknowledged_at_once() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, ok(1, Some(Parts::new())));
    assert_eq!(rig.revoked(), ["t-0", "t-1"]);
    rig.machine.revoked();
    let (_, ack) = rig.call();
    assert_eq!(ack.owned, Some(Parts::new()));
}

#[test]
fn topics_that_nobody_knows_are_asked_for_with_every_heartbeat() {
    let mut rig = Rig::member(settings());
    let strange = parts(&[(T, &[0, 1]), (Uuid::from_u128(9), &[0])]);
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, ok(2, Some(strange.clone())));
    for _ in 0..3 {
        assert!(matches!(rig.next(), Some(Effect::RefreshMetadata)));
        rig.now += Duration::from_secs(5);
        let (token, _) = rig.call();
        rig.answer(token, ok(2, None));
    }
}

#[test]
fn everything_is_told_once_a_minute() {
    let mut rig = Rig::member(settings());
    let full = (0..36).filter(|_| {
        rig.now += Duration::from_secs(5);
        let (token, heartbeat) = rig.call();
        let full = heartbeat.topics.is_some();
        rig.answer(token, ok(1, full.then(|| parts(&[(T, &[0, 1])]))));
        assert!(rig.next().is_none());
        full
    });
    assert_eq!(full.count(), 3);
}

#[test]
fn an_epoch_that_no_member_has_is_asked_for_again() {
    for epoch in [0, -1] {
        let mut rig = Rig::member(settings());
        rig.now += Duration::from_secs(5);
        let (token, _) = rig.call();
        rig.answer(token, ok(epoch, None));
        assert!(rig.next().is_none(), "{epoch}");
        rig.now += Duration::from_millis(100);
        let (_, full) = rig.call();
        assert!(full.owned.is_some() && full.topics.is_some());
        assert_eq!(full.member_epoch, 1);
    }
}

/// As in Java's client: another member may have the partitions already.
#[test]
fn a_refusal_for_good_counts_at_once() {
    for refusal in [
        30,  // GROUP_AUTHORIZATION_FAILED
        81,  // GROUP_MAX_SIZE_REACHED
        82,  // FENCED_INSTANCE_ID
        112, // UNSUPPORTED_ASSIGNOR
        999, // a code to come
    ] {
        let mut rig = Rig::member(settings());
        rig.now += Duration::from_secs(5);
        let (token, _) = rig.call();
        rig.answer(token, code(refusal));
        assert_eq!(rig.lost(), ["t-0", "t-1"]);
        match rig.next() {
            Some(Effect::Fail(error)) => assert!(error.is_fatal(), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.machine.next_timeout(), None);
    }
}

#[test]
fn a_fenced_member_gives_up_all_and_joins_again() {
    for refusal in [codes::FENCED_MEMBER_EPOCH, codes::UNKNOWN_MEMBER_ID] {
        let mut rig = Rig::member(settings());
        rig.now += Duration::from_secs(5);
        let (token, _) = rig.call();
        rig.answer(token, code(refusal));
        assert_eq!(rig.lost(), ["t-0", "t-1"]);
        let (token, join) = rig.call();
        assert_eq!((join.member_epoch, join.owned), (0, Some(Parts::new())));
        assert!(join.topics.is_some());
        // Refused again: no busy loop.
        rig.answer(token, code(refusal));
        assert!(rig.next().is_none());
        assert!(rig.machine.next_timeout().unwrap() > rig.now);
    }
}

#[test]
fn fenced_during_a_revocation_drops_it() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, ok(1, Some(parts(&[(T, &[1])]))));
    assert_eq!(rig.revoked(), ["t-0"]);
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, code(codes::FENCED_MEMBER_EPOCH));
    assert_eq!(rig.lost(), ["t-0", "t-1"]);
    assert!(!rig.machine.is_revoking());
    assert_eq!(rig.call().1.member_epoch, 0);
}

#[test]
fn a_failed_heartbeat_is_repeated_in_full_after_a_pause() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, Err(Error::new(ErrorKind::Connection, "gone")));
    assert!(rig.next().is_none());
    rig.now += Duration::from_millis(100);
    let (_, full) = rig.call();
    assert_eq!(full.member_epoch, 1);
    assert_eq!(full.owned, Some(parts(&[(T, &[0, 1])])));
    assert!(full.topics.is_some());
}

#[test]
fn a_coordinator_that_has_moved_is_asked_again_after_a_pause() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, code(codes::NOT_COORDINATOR));
    assert!(rig.next().is_none());
    rig.now += Duration::from_millis(100);
    rig.call();
}

#[test]
fn an_unreleased_instance_id_ends_it() {
    let mut rig = Rig::new(Settings {
        instance_id: Some("i".into()),
        ..settings()
    });
    let (token, join) = rig.call();
    assert_eq!(join.instance_id.as_deref(), Some("i"));
    rig.answer(token, code(111));
    match rig.next() {
        Some(Effect::Fail(error)) => assert!(error.is_fatal()),
        other => panic!("{other:?}"),
    }
    rig.now += Duration::from_secs(100);
    assert!(rig.next().is_none());
    assert_eq!(rig.machine.next_timeout(), None);
}

#[test]
fn topics_of_unknown_name_wait_for_metadata() {
    let mut rig = Rig::new(settings());
    let (token, _) = rig.call();
    let strange = Uuid::from_u128(9);
    rig.answer(token, ok(1, Some(parts(&[(strange, &[0]), (T, &[0])]))));
    assert!(matches!(rig.next(), Some(Effect::RefreshMetadata)));
    assert_eq!(rig.assigned(), ["t-0"], "what is known does not wait");
    let (_, ack) = rig.call();
    assert_eq!(ack.owned, Some(parts(&[(T, &[0])])));
    assert!(rig.next().is_none());
    let known = |id| {
        if id == strange {
            Some("s".into())
        } else {
            name(id)
        }
    };
    rig.machine.metadata_changed();
    match rig.machine.poll(rig.now, known) {
        Some(Effect::Assign(parts)) => assert_eq!(parts[0].0.to_string(), "s-0"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn leaves_as_it_is_told() {
    use GroupMembershipOperation::{Default, LeaveGroup, RemainInGroup};
    for (is_static, operation, epoch) in [
        (false, Default, Some(-1)),
        (false, LeaveGroup, Some(-1)),
        (false, RemainInGroup, None),
        (true, Default, Some(-2)),
        (true, LeaveGroup, Some(-1)),
        (true, RemainInGroup, Some(-2)),
    ] {
        let mut rig = Rig::member(Settings {
            instance_id: is_static.then(|| "i".into()),
            ..settings()
        });
        rig.machine.leave(rig.now, operation);
        assert!(rig.machine.identity().is_none());
        if let Some(epoch) = epoch {
            let (token, leave) = rig.call();
            assert_eq!(
                (leave.member_epoch, leave.topics, leave.owned),
                (epoch, None, None)
            );
            assert_eq!(leave.instance_id.is_some(), is_static);
            // Once is enough, and the answer is waited for.
            rig.machine.leave(rig.now, operation);
            assert!(rig.next().is_none());
            rig.answer(token, Err(Error::new(ErrorKind::Connection, "gone")));
        }
        assert!(matches!(rig.next(), Some(Effect::Left)));
        rig.now += Duration::from_secs(60);
        assert!(rig.next().is_none());
    }
}

#[test]
fn who_retires_keeps_what_it_has_takes_nothing_and_does_not_come_back() {
    let mut rig = Rig::member(settings());
    assert!(rig.machine.retire());
    rig.now += Duration::from_secs(5);
    let (token, beat) = rig.call();
    assert_eq!(beat.owned, None, "all of it");
    rig.answer(token, ok(2, Some(parts(&[(T, &[1]), (U, &[0])]))));
    assert!(rig.next().is_none());
    rig.now += Duration::from_secs(5);
    let (token, beat) = rig.call();
    assert!(
        beat.owned
            .is_none_or(|owned| owned == parts(&[(T, &[0, 1])]))
    );
    rig.answer(token, code(codes::FENCED_MEMBER_EPOCH));
    assert_eq!(rig.lost(), ["t-0", "t-1"]);
    rig.machine.resume(rig.now);
    rig.now += Duration::from_secs(60);
    assert!(rig.next().is_none());
    rig.machine
        .leave(rig.now, GroupMembershipOperation::Default);
    assert!(matches!(rig.next(), Some(Effect::Left)));
    assert!(rig.next().is_none());
    rig.machine.subscribe(rig.now, names(&["t", "u"]));
    assert_eq!(rig.call().1.member_epoch, 0);
}

#[test]
fn one_that_never_joined_has_nobody_to_tell() {
    let mut rig = Rig::new(settings());
    rig.machine
        .leave(rig.now, GroupMembershipOperation::Default);
    assert!(matches!(rig.next(), Some(Effect::Left)));
}

#[test]
fn an_absent_application_loses_its_place_until_it_comes_back() {
    let mut rig = Rig::member(settings());
    rig.machine.absent(rig.now);
    assert_eq!(rig.lost(), ["t-0", "t-1"]);
    let (token, leave) = rig.call();
    assert_eq!(leave.member_epoch, -1);
    rig.answer(token, ok(-1, None));
    assert!(matches!(rig.next(), Some(Effect::Left)));
    rig.now += Duration::from_secs(60);
    assert!(rig.next().is_none());
    rig.machine.resume(rig.now);
    assert_eq!(rig.call().1.member_epoch, 0);
}

#[test]
fn an_answer_to_an_older_heartbeat_is_dropped() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (old, _) = rig.call();
    rig.machine
        .leave(rig.now, GroupMembershipOperation::Default);
    let (leave, _) = rig.call();
    rig.answer(old, ok(7, Some(parts(&[(U, &[3])]))));
    assert!(rig.next().is_none());
    rig.answer(leave, ok(-1, None));
    assert!(matches!(rig.next(), Some(Effect::Left)));
}

#[test]
fn a_changed_subscription_is_told_at_once() {
    let mut rig = Rig::member(settings());
    rig.machine.subscribe(rig.now, names(&["u"]));
    let (_, heartbeat) = rig.call();
    assert_eq!(heartbeat.topics.as_deref(), Some(&["u".into()][..]));
    assert_eq!(heartbeat.owned, None);
}

#[test]
fn a_pattern_and_names_take_each_others_place() {
    let mut rig = Rig::member(settings());
    let life = rig.machine.life();
    rig.machine
        .subscribe(rig.now, Subscription::Regex("t|u".into()));
    let (token, heartbeat) = rig.call();
    assert_eq!(heartbeat.regex.as_deref(), Some("t|u"));
    assert_eq!(heartbeat.topics.as_deref(), Some(&[][..]));
    rig.answer(token, ok(2, None));
    rig.machine.subscribe(rig.now, names(&["u"]));
    let (token, heartbeat) = rig.call();
    assert_eq!(heartbeat.regex.as_deref(), Some(""), "none any more");
    assert_eq!(heartbeat.topics.as_deref(), Some(&["u".into()][..]));
    rig.answer(token, ok(3, None));
    assert_eq!(rig.machine.life(), life, "the same membership");
    rig.now += Duration::from_secs(5);
    let (_, heartbeat) = rig.call();
    assert_eq!((heartbeat.regex, heartbeat.topics), (None, None));
}

#[test]
fn members_of_brokers_without_patterns_do_not_mention_them() {
    let mut rig = Rig::new(settings());
    assert_eq!(rig.call().1.regex, None);
}

#[test]
fn a_refused_pattern_ends_the_membership_until_the_next_subscription() {
    let mut rig = Rig::member(settings());
    rig.machine
        .subscribe(rig.now, Subscription::Regex("(".into()));
    let (token, _) = rig.call();
    rig.answer(token, code(codes::INVALID_REGULAR_EXPRESSION));
    match rig.next() {
        Some(Effect::Fail(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!error.is_fatal());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(rig.next(), Some(Effect::Lost(_))));
    let (token, leave) = rig.call();
    assert_eq!(leave.member_epoch, LEAVE);
    rig.answer(token, ok(-1, None));
    assert!(matches!(rig.next(), Some(Effect::Left)));
    rig.machine.resume(rig.now);
    assert!(rig.next().is_none(), "there is nothing to join with");
    let life = rig.machine.life();
    rig.machine
        .subscribe(rig.now, Subscription::Regex("t".into()));
    let (_, heartbeat) = rig.call();
    assert_eq!(heartbeat.member_epoch, JOIN);
    assert_eq!(heartbeat.regex.as_deref(), Some("t"));
    assert!(rig.machine.life() > life);
}

#[test]
fn a_coordinator_that_has_lost_the_group_is_joined_anew() {
    let mut rig = Rig::member(settings());
    rig.now += Duration::from_secs(5);
    let (token, _) = rig.call();
    rig.answer(token, code(codes::GROUP_ID_NOT_FOUND));
    assert!(matches!(rig.next(), Some(Effect::Lost(_))));
    assert_eq!(rig.call().1.member_epoch, JOIN);
}

#[test]
fn no_topic_at_all_is_a_subscription_too() {
    let mut machine = Member::new(settings(), "m".into());
    let now = crate::clock::now();
    assert!(machine.poll(now, name).is_none());
    machine.subscribe(now, names(&[]));
    match machine.poll(now, name) {
        Some(Effect::Send(_, GroupRequest::ConsumerHeartbeat(heartbeat))) => {
            assert_eq!(heartbeat.topics, Some(Vec::new()))
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// Whatever the broker wants and whoever fails when: what the member tells as owned is what
    /// was given out and not taken back, and a partition is never given out twice.
    #[test]
    fn what_is_told_as_owned_is_what_the_application_has(
        steps in prop::collection::vec((0..6_u8, prop::collection::btree_set(0..4_i32, 0..4)), 1..60)
    ) {
        let mut rig = Rig::new(settings());
        let mut held: BTreeSet<TopicPartition> = BTreeSet::new();
        let mut giving_up: Vec<TopicPartition> = Vec::new();
        let mut calls: Vec<Token> = Vec::new();
        let mut epoch = 1;
        for (step, wanted) in steps {
            rig.now += Duration::from_secs(6);
            while let Some(effect) = rig.next() {
                match effect {
                    Effect::Send(token, GroupRequest::ConsumerHeartbeat(heartbeat)) => {
                        calls.push(token);
                        if let Some(owned) = heartbeat.owned {
                            let told: BTreeSet<_> = owned.get(&T).into_iter().flatten()
                                .map(|p| TopicPartition::new("t", *p)).collect();
                            prop_assert_eq!(&told, &held);
                        }
                    }
                    Effect::Assign(parts) => for (tp, _) in parts {
                        prop_assert!(held.insert(tp), "given out twice");
                    },
                    Effect::Revoke(parts) => {
                        prop_assert!(giving_up.is_empty());
                        prop_assert!(parts.iter().all(|tp| held.contains(tp)));
                        giving_up = parts;
                    }
                    Effect::Lost(parts) => {
                        for tp in parts { prop_assert!(held.remove(&tp)); }
                        prop_assert!(held.is_empty());
                        giving_up.clear();
                    }
                    _ => {}
                }
            }
            let token = calls.pop();
            match (step, token) {
                (0..=2, Some(token)) => {
                    epoch += 1;
                    let target = if wanted.is_empty() { Parts::new() } else { Parts::from([(T, wanted)]) };
                    rig.answer(token, ok(epoch, Some(target)));
                }
                (3, Some(token)) => rig.answer(token, code(codes::FENCED_MEMBER_EPOCH)),
                (4, Some(token)) => rig.answer(token, Err(Error::new(ErrorKind::Timeout, "lost"))),
                (_, token) => {
                    calls.extend(token);
                    if !giving_up.is_empty() {
                        for tp in giving_up.drain(..) { held.remove(&tp); }
                        rig.machine.revoked();
                    }
                }
            }
        }
    }
}
