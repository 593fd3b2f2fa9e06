use super::part::TRIES;
use super::*;
use crate::clock::now;
use crate::fetched::survey::Survey;
use crate::types::TimeLag;
use crate::wire::codes;
use proptest::prelude::*;

const B1: BrokerId = BrokerId(1);
const B2: BrokerId = BrokerId(2);
const ID: Uuid = Uuid::from_u128(7);

pub(crate) fn rules() -> Rules {
    Rules {
        reset: OffsetReset::Earliest,
        isolation: IsolationLevel::ReadUncommitted,
        has_group: false,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        preferred_for: Duration::from_secs(300),
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn led_by(
    broker: BrokerId,
    epoch: i32,
    topic_id: Uuid,
) -> impl Fn(&TopicPartition) -> Option<Known> {
    move |_| {
        Some(Known {
            topic_id,
            leader: Some(Leader { broker, epoch }),
        })
    }
}

/// Partitions of topic id 7 at offset 0, led by broker 1.
pub(crate) fn active(parts: &[TopicPartition], rules: Rules) -> Positions {
    let mut positions = Positions::new(rules);
    positions.assign(parts.iter().map(|tp| (tp.clone(), Uuid::nil())));
    positions.update(led_by(B1, 3, ID));
    for ask in positions.wanted_resets(now()) {
        positions.reset_found(&ask.tp, ask.epoch, Position::new(0));
    }
    positions
}

fn answer(data: Survey) -> Answer {
    Answer {
        code: 0,
        high_watermark: 100,
        last_stable: 90,
        log_start: 0,
        diverging: None,
        preferred: None,
        data,
    }
}

fn batches(next_offset: i64) -> Survey {
    Survey::Batches {
        next_offset,
        leader_epoch: 3,
        records: 2,
        damaged: false,
    }
}

fn brokers(positions: &Positions) -> Vec<BrokerId> {
    positions.brokers().collect()
}

fn refusal(code: i16) -> Answer {
    Answer {
        code,
        high_watermark: -1,
        ..answer(Survey::Empty)
    }
}

/// All that is wanted of broker 1.
fn plan(positions: &mut Positions, now: Instant) -> Vec<PartitionFetch> {
    wanted(positions, B1, now).0
}

/// All that is wanted of a broker, as if everything had changed; and when there may be more.
fn wanted(
    positions: &mut Positions,
    broker: BrokerId,
    now: Instant,
) -> (Vec<PartitionFetch>, Option<Instant>) {
    let all: Vec<_> = positions.assigned().cloned().collect();
    all.iter().for_each(|tp| positions.touch(tp));
    let plan = positions.plan(broker, Slot::First, now, |_| false);
    let wanted = plan.changes.into_iter().filter_map(|(_, wanted)| wanted);
    (wanted.collect(), plan.next_at)
}

#[test]
fn a_group_member_starts_at_the_committed_offset_or_where_the_policy_says() {
    let mut positions = Positions::new(Rules {
        has_group: true,
        ..rules()
    });
    positions.assign([(tp(0), ID), (tp(1), ID)]);
    positions.update(led_by(B1, 3, ID));
    let now = now();
    assert!(
        plan(&mut positions, now).is_empty(),
        "no position, no fetch"
    );
    let asks = positions.wanted_committed(now);
    assert_eq!(asks.len(), 2);
    assert!(positions.wanted_committed(now).is_empty(), "asked once");
    let found = OffsetAndMetadata::new(42).with_leader_epoch(Some(2));
    positions.committed_found(&asks[0].0, asks[0].1, Some(&found), now);
    positions.committed_found(&asks[1].0, asks[1].1, None, now);
    let planned = plan(&mut positions, now);
    assert_eq!((planned[0].offset, planned[0].last_fetched_epoch), (42, 2));
    let resets = positions.wanted_resets(now);
    assert_eq!((&resets[0].tp, resets[0].to), (&tp(1), ResetTo::Earliest));
    positions.reset_found(&tp(1), resets[0].epoch, Position::new(5));
    assert_eq!(positions.position(&tp(1)), Some(Position::new(5)));
}

#[test]
fn without_policy_the_application_is_told_once() {
    let mut positions = Positions::new(Rules {
        has_group: true,
        reset: OffsetReset::None,
        ..rules()
    });
    positions.assign([(tp(0), ID)]);
    let asks = positions.wanted_committed(now());
    let error = positions
        .committed_found(&asks[0].0, asks[0].1, None, now())
        .unwrap();
    assert_eq!(
        (error.kind(), error.topic_partition()),
        (ErrorKind::Offset, Some(&tp(0)))
    );
    assert!(positions.wanted_resets(now()).is_empty());
    positions.update(led_by(B1, 3, ID));
    positions.seek(&tp(0), Position::new(9));
    assert_eq!(plan(&mut positions, now())[0].offset, 9);
}

#[test]
fn without_group_and_policy_the_application_is_told_unless_it_seeks() {
    let rules = Rules {
        reset: OffsetReset::None,
        ..rules()
    };
    let mut positions = Positions::new(rules);
    positions.assign([(tp(0), Uuid::nil()), (tp(1), Uuid::nil())]);
    positions.seek(&tp(1), Position::new(0));
    assert_eq!(positions.untold().unwrap().topic_partition(), Some(&tp(0)));
    assert!(positions.untold().is_none());
}

#[test]
fn answers_of_another_epoch_or_offset_are_dropped() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let old = plan(&mut positions, now).remove(0);
    positions.seek(&tp(0), Position::new(0));
    assert!(!positions.accept(B1, &old, &answer(batches(10)), now).buffer);
    let asked = plan(&mut positions, now).remove(0);
    assert!(
        positions
            .accept(B1, &asked, &answer(batches(10)), now)
            .buffer
    );
    assert!(
        !positions
            .accept(B2, &asked, &answer(batches(10)), now)
            .buffer,
        "the same data twice"
    );
    assert_eq!(plan(&mut positions, now)[0].offset, 10);
    positions.remove(&tp(0));
    positions.assign([(tp(0), Uuid::nil())]);
    assert!(
        !positions
            .accept(B1, &asked, &answer(batches(10)), now)
            .buffer
    );
}

#[test]
fn pausing_stops_fetch_and_hand_out_and_keeps_what_is_under_way() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.set_paused(&tp(0), true);
    assert!(plan(&mut positions, now).is_empty());
    assert!(
        positions
            .accept(B1, &asked, &answer(batches(10)), now)
            .buffer
    );
    assert!(!positions.may_hand_out(&tp(0), asked.epoch));
    positions.set_paused(&tp(0), false);
    assert!(positions.may_hand_out(&tp(0), asked.epoch));
    assert!(positions.hand_out(&tp(0), asked.epoch, Position::new(10)));
}

#[test]
fn a_partition_under_revocation_neither_fetches_nor_hands_out_but_can_be_committed() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(10)), now);
    positions.hand_out(&tp(0), asked.epoch, Position::new(5));
    positions.set_revoking(&tp(0));
    assert!(plan(&mut positions, now).is_empty());
    assert!(!positions.may_hand_out(&tp(0), asked.epoch));
    positions.finish();
    assert_eq!(positions.uncommitted(), [(tp(0), Position::new(5))]);
}

#[test]
fn only_what_was_finished_is_committed_automatically() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(10)), now);
    positions.hand_out(&tp(0), asked.epoch, Position::new(10));
    assert_eq!(positions.uncommitted(), [(tp(0), Position::new(0))]);
    assert_eq!(positions.handed_out(), [(tp(0), Position::new(10))]);
    positions.finish();
    assert_eq!(positions.uncommitted(), [(tp(0), Position::new(10))]);
    positions.note_committed(&tp(0), 10);
    assert!(positions.uncommitted().is_empty());
}

#[test]
fn an_offset_outside_of_the_log_goes_where_the_policy_says() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    let outcome = positions.accept(B1, &asked, &refusal(codes::OFFSET_OUT_OF_RANGE), now);
    assert!(outcome.discard && outcome.error.is_none());
    assert_eq!(positions.wanted_resets(now)[0].to, ResetTo::Earliest);

    let mut positions = active(&[tp(0)], rules());
    positions.rules.reset = OffsetReset::None;
    let asked = plan(&mut positions, now).remove(0);
    let outcome = positions.accept(B1, &asked, &refusal(codes::OFFSET_OUT_OF_RANGE), now);
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::Offset);
    assert!(plan(&mut positions, now).is_empty());
}

/// As Java does, whose consumer asks for more only when nothing is left.
#[test]
fn what_was_fetched_before_an_offset_outside_of_the_log_is_read_first() {
    let mut positions = active(&[tp(0)], rules());
    let mut now = now();
    let asked = plan(&mut positions, now).remove(0);
    let start = asked.offset;
    positions.accept(B1, &asked, &answer(batches(start + 10)), now);
    let out_of_range = refusal(codes::OFFSET_OUT_OF_RANGE);
    for times in 0..3 {
        now += Duration::from_secs(2);
        let asked = plan(&mut positions, now).remove(0);
        assert_eq!(asked.offset, start + 10);
        let outcome = positions.accept(B1, &asked, &out_of_range, now);
        assert_eq!(outcome.discard, times == 2);
        assert_eq!(positions.wanted_resets(now).is_empty(), times < 2);
        assert!(plan(&mut positions, now).is_empty(), "after a pause");
        if times == 1 {
            assert!(positions.may_hand_out(&tp(0), asked.epoch));
            let end = Position::new(start + 10);
            assert!(positions.hand_out(&tp(0), asked.epoch, end));
        }
    }
}

#[test]
fn a_wrong_leader_means_metadata_and_a_pause_until_it_is_another() {
    for code in [
        codes::NOT_LEADER_OR_FOLLOWER,
        codes::FENCED_LEADER_EPOCH,
        codes::UNKNOWN_LEADER_EPOCH,
        codes::UNKNOWN_TOPIC_ID,
    ] {
        let mut positions = active(&[tp(0)], rules());
        let now = now();
        let asked = plan(&mut positions, now).remove(0);
        let outcome = positions.accept(B1, &asked, &refusal(code), now);
        assert!(outcome.refresh && outcome.error.is_none(), "code {code}");
        let (waiting, next_at) = wanted(&mut positions, B1, now);
        assert!(waiting.is_empty());
        assert_eq!(next_at, Some(now + Duration::from_millis(100)));
        positions.update(led_by(B2, 4, ID));
        assert!(plan(&mut positions, now).is_empty());
        let (there, _) = wanted(&mut positions, B2, now);
        assert_eq!((there[0].leader_epoch, there[0].epoch), (4, asked.epoch));
    }
}

#[test]
fn pauses_between_errors_grow_and_end_with_success() {
    let mut positions = active(&[tp(0)], rules());
    let mut now = now();
    for expected in [100, 200, 400, 800, 1000, 1000] {
        let asked = plan(&mut positions, now).remove(0);
        positions.accept(B1, &asked, &refusal(codes::NOT_LEADER_OR_FOLLOWER), now);
        let at = wanted(&mut positions, B1, now).1.unwrap();
        assert_eq!(at - now, Duration::from_millis(expected));
        now = at;
    }
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(Survey::Empty), now);
    assert_eq!(plan(&mut positions, now).len(), 1);
}

#[test]
fn a_follower_is_read_while_it_is_preferred_and_not_trusted_with_the_bounds() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    let hint = Answer {
        preferred: Some(B2),
        ..answer(Survey::Empty)
    };
    positions.accept(B1, &asked, &hint, now);
    assert!(plan(&mut positions, now).is_empty());
    assert_eq!(wanted(&mut positions, B2, now).0.len(), 1);
    let outcome = positions.accept(B2, &asked, &refusal(codes::OFFSET_OUT_OF_RANGE), now);
    assert!(!outcome.discard);
    assert_eq!(
        plan(&mut positions, now)[0].offset,
        0,
        "back to the leader, same offset"
    );
}

#[test]
fn a_truncated_log_moves_the_position_back() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(50)), now);
    positions.hand_out(
        &tp(0),
        asked.epoch,
        Position {
            offset: 40,
            leader_epoch: 3,
        },
    );
    let asked = plan(&mut positions, now).remove(0);
    assert_eq!(asked.last_fetched_epoch, 3);
    let cut = Answer {
        diverging: Some((2, 30)),
        ..answer(Survey::Empty)
    };
    assert!(positions.accept(B1, &asked, &cut, now).discard);
    assert_eq!(
        positions.position(&tp(0)),
        Some(Position {
            offset: 30,
            leader_epoch: 2
        })
    );
}

#[test]
fn truncation_behind_the_buffer_only_refetches() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(50)), now);
    positions.hand_out(
        &tp(0),
        asked.epoch,
        Position {
            offset: 20,
            leader_epoch: 3,
        },
    );
    let asked = plan(&mut positions, now).remove(0);
    let cut = Answer {
        diverging: Some((2, 30)),
        ..answer(Survey::Empty)
    };
    positions.rules.reset = OffsetReset::None;
    let outcome = positions.accept(B1, &asked, &cut, now);
    assert!(outcome.discard && outcome.error.is_none());
    assert_eq!(positions.position(&tp(0)).unwrap().offset, 20);
}

#[test]
fn a_topic_made_anew_is_not_read_at_the_old_positions() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let old = plan(&mut positions, now).remove(0);
    let (recreated, _) = positions.update(led_by(B1, 0, Uuid::from_u128(8)));
    assert_eq!(recreated, [tp(0)]);
    assert!(!positions.accept(B1, &old, &answer(batches(10)), now).buffer);
    assert_eq!(positions.wanted_resets(now)[0].to, ResetTo::Earliest);

    // An assignment by topic id stays with its topic: the group has to assign the new one.
    let mut pinned = Positions::new(rules());
    pinned.assign([(tp(0), ID)]);
    pinned.update(led_by(B1, 0, Uuid::from_u128(8)));
    assert!(
        pinned.wanted_resets(now).is_empty(),
        "no leader for a topic that is gone"
    );
}

/// The session tells a new end once: an older answer that overtakes it would stay for good.
#[test]
fn an_end_looked_up_before_the_last_fetch_is_not_taken() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let end = |positions: &Positions| positions.lag(now, 10_000).remove(0).end_offset;
    let second = Duration::from_secs(1);
    positions.note_end(&tp(0), 90, now, now);
    assert_eq!(end(&positions), Some(90));
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(100)), now + 2 * second);
    positions.note_end(&tp(0), 90, now + second, now + 3 * second);
    assert_eq!(end(&positions), Some(100));
    positions.note_end(&tp(0), 110, now + 3 * second, now + 4 * second);
    assert_eq!(end(&positions), Some(110));
}

#[test]
fn lag_in_records_and_time() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let lag = |positions: &Positions| positions.lag(now, 10_000).remove(0);
    assert_eq!(
        (lag(&positions).records, lag(&positions).time),
        (None, TimeLag::Unknown)
    );
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(100)), now);
    assert_eq!(
        (lag(&positions).records, lag(&positions).time),
        (Some(100), TimeLag::Unknown)
    );
    positions.hand_out(&tp(0), asked.epoch, Position::new(60));
    assert_eq!(positions.headless()[0].1.offset, 60);
    positions.note_head(&tp(0), asked.epoch, 60, 7_000);
    assert!(positions.headless().is_empty());
    let behind = lag(&positions);
    assert_eq!(
        (behind.records, behind.time),
        (Some(40), TimeLag::Behind(Duration::from_secs(3)))
    );
    positions.rules.isolation = IsolationLevel::ReadCommitted;
    assert_eq!(lag(&positions).end_offset, Some(90));
    positions.hand_out(&tp(0), asked.epoch, Position::new(90));
    assert_eq!(
        (lag(&positions).records, lag(&positions).time),
        (Some(0), TimeLag::CaughtUp)
    );
}

#[test]
fn bytes_without_progress_are_an_error_and_not_a_loop() {
    for data in [batches(0), Survey::Corrupt, Survey::Partial] {
        let mut positions = active(&[tp(0)], rules());
        let now = now();
        let asked = plan(&mut positions, now).remove(0);
        // On its way an answer may be damaged; the same again and again is what the broker has.
        for _ in 0..TRIES {
            let outcome = positions.accept(B1, &asked, &answer(data), now);
            assert!(outcome.again && !outcome.buffer && outcome.error.is_none());
            assert_eq!(plan(&mut positions, now).first(), Some(&asked), "at once");
        }
        let outcome = positions.accept(B1, &asked, &answer(data), now);
        assert!(!outcome.buffer);
        assert_eq!(outcome.error.unwrap().topic_partition(), Some(&tp(0)));
        assert!(plan(&mut positions, now).is_empty());
        assert_eq!(
            positions.position(&tp(0)),
            Some(Position::new(0)),
            "nothing is skipped"
        );
    }
}

/// Brokers look up the end of the log before they read: records that came in between lie beyond the
/// end that they tell.
#[test]
fn records_may_have_come_while_the_broker_read() {
    let mut positions = active(&[tp(0)], rules());
    let asked = plan(&mut positions, now()).remove(0);
    let newer = Answer {
        high_watermark: 5,
        ..answer(batches(7))
    };
    assert!(positions.accept(B1, &asked, &newer, now()).buffer);
    let next = plan(&mut positions, now()).remove(0);
    assert_eq!(next.offset, 7, "at once");
}

#[test]
fn what_cannot_be_right_moves_nothing() {
    let whole = || answer(batches(7));
    let damaged = [
        (
            "offsets beyond the end of the log",
            Answer {
                high_watermark: 4,
                ..whole()
            },
        ),
        (
            "a wrong checksum",
            answer(Survey::Batches {
                next_offset: 7,
                leader_epoch: 3,
                records: 7,
                damaged: true,
            }),
        ),
        (
            "a leader to come",
            answer(Survey::Batches {
                next_offset: 7,
                leader_epoch: 4,
                records: 7,
                damaged: false,
            }),
        ),
        (
            "an epoch that parts above what was read",
            Answer {
                diverging: Some((9, 3)),
                ..whole()
            },
        ),
    ];
    for (what, damaged) in damaged {
        let mut positions = active(&[tp(0)], rules());
        let now = now();
        let asked = plan(&mut positions, now).remove(0);
        let outcome = positions.accept(B1, &asked, &damaged, now);
        assert!(
            !outcome.buffer && !outcome.discard && outcome.error.is_none(),
            "{what}"
        );
        assert_eq!(positions.position(&tp(0)), Some(Position::new(0)), "{what}");
        assert_eq!(plan(&mut positions, now).first(), Some(&asked), "{what}");
        assert!(positions.accept(B1, &asked, &whole(), now).buffer, "{what}");
    }
}

proptest! {
    /// However answers, duplicates of them, seeks, pauses and rewinds interleave: what is handed
    /// out runs on without gap or repetition from the last seek, and
    /// `finished <= position <= fetch`.
    #[test]
    fn what_is_handed_out_runs_on(steps in prop::collection::vec((0..8_u8, 1..20_i64), 1..80)) {
        let mut positions = active(&[tp(0)], rules());
        let mut now = now();
        let mut flying: Vec<PartitionFetch> = Vec::new();
        let mut buffer: Vec<(PartEpoch, i64, i64)> = Vec::new();
        let mut expected = 0;
        for (step, n) in steps {
            now += Duration::from_secs(2);
            match step {
                0 | 1 => flying.extend(plan(&mut positions, now)),
                2 | 3 => if let Some(asked) = flying.last().cloned() {
                    // Not popped: the next such step answers the same question again.
                    if n % 2 == 0 { flying.pop(); }
                    let next = asked.offset + n;
                    if positions.accept(B1, &asked, &answer(batches(next)), now).buffer {
                        buffer.push((asked.epoch, asked.offset, next));
                    }
                },
                4 | 5 => if !buffer.is_empty() {
                    let (epoch, from, next) = buffer.remove(0);
                    if positions.hand_out(&tp(0), epoch, Position::new(next)) {
                        prop_assert_eq!(from, expected);
                        expected = next;
                    }
                },
                6 => {
                    positions.seek(&tp(0), Position::new(n));
                    expected = n;
                }
                _ => positions.rewind(&tp(0), Some(now)),
            }
            positions.finish();
            let part = &positions.parts[&tp(0)];
            prop_assert!(part.finished.offset <= part.position.offset);
            prop_assert!(part.position.offset <= part.fetch.offset);
        }
    }
}

#[test]
fn what_cannot_be_asked_is_no_reason_to_wake_up() {
    let mut positions = Positions::new(rules());
    positions.assign([(tp(0), Uuid::nil()), (tp(1), Uuid::nil())]);
    positions.update(led_by(B1, 3, ID));
    let start = now();
    for ask in positions.wanted_resets(start) {
        positions.lookup_failed(&ask.tp, ask.epoch, None, start);
    }
    let due = positions.next_timeout().unwrap();
    assert!(due > start);
    positions.set_revoking(&tp(1));
    positions.update(|_| {
        Some(Known {
            topic_id: ID,
            leader: None,
        })
    });
    // Without a leader there is nobody to ask, and what is given up is not asked for.
    assert!(positions.wanted_resets(due).is_empty());
    assert_eq!(positions.next_timeout(), None);
    positions.update(led_by(B2, 4, ID));
    assert_eq!(positions.wanted_resets(due).len(), 1);
}

#[test]
fn a_lookup_that_found_nothing_does_not_undo_a_seek() {
    let mut positions = active(&[tp(0)], rules());
    positions.seek_to(&tp(0), ResetTo::Ago(Duration::from_secs(60)));
    let asks = positions.wanted_resets(now());
    positions.seek(&tp(0), Position::new(5));
    positions.reset_found(&tp(0), asks[0].epoch, Position::new(-1));
    assert_eq!(positions.position(&tp(0)), Some(Position::new(5)));
    // Asked for by who still wants it, it means that only records to come are young enough.
    positions.seek_to(&tp(0), ResetTo::Ago(Duration::from_secs(60)));
    let asks = positions.wanted_resets(now());
    positions.reset_found(&tp(0), asks[0].epoch, Position::new(-1));
    let asks = positions.wanted_resets(now());
    assert_eq!(asks[0].to, ResetTo::Latest);
}

#[test]
fn a_follower_that_cannot_be_reached_is_not_read_from_any_more() {
    let mut positions = active(&[tp(0), tp(1)], rules());
    let now = now();
    for asked in plan(&mut positions, now) {
        let named = Answer {
            preferred: Some(B2),
            ..answer(Survey::Empty)
        };
        positions.accept(B1, &asked, &named, now);
    }
    assert_eq!(brokers(&positions), [B2]);
    positions.unreachable(B1);
    assert_eq!(brokers(&positions), [B2]);
    positions.unreachable(B2);
    assert_eq!(brokers(&positions), [B1]);
    assert_eq!(plan(&mut positions, now).len(), 2);
}

#[test]
fn what_was_read_of_a_topic_that_is_gone_is_not_committed_to_its_successor() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(50)), now);
    positions.hand_out(&tp(0), asked.epoch, Position::new(50));
    positions.finish();
    assert_eq!(
        (positions.uncommitted().len(), positions.handed_out().len()),
        (1, 1)
    );
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &refusal(codes::UNKNOWN_TOPIC_ID), now);
    assert_eq!(
        (positions.uncommitted().len(), positions.handed_out().len()),
        (0, 0)
    );
    // A broker that was late to know of it, after all.
    positions.accept(B1, &asked, &answer(Survey::Empty), now);
    assert_eq!(positions.uncommitted().len(), 1);
    positions.update(|_| None);
    assert!(positions.uncommitted().is_empty());
}

#[test]
fn one_partition_is_finished_apart_from_the_others() {
    let mut positions = active(&[tp(0), tp(1)], rules());
    let now = now();
    for asked in plan(&mut positions, now) {
        positions.accept(B1, &asked, &answer(batches(50)), now);
        positions.hand_out(&asked.tp, asked.epoch, Position::new(50));
    }
    assert_eq!(positions.give_to(&tp(0), 7), 0);
    positions.finish_one(&tp(0), 6);
    assert!(
        positions.has_in_hand(&tp(0), 7),
        "what another stream says is not of this one"
    );
    positions.finish_one(&tp(0), 7);
    let finished: Vec<_> = positions
        .uncommitted()
        .into_iter()
        .map(|(tp, at)| (tp, at.offset))
        .collect();
    assert_eq!(finished, [(tp(0), 50), (tp(1), 0)]);
}

mod committed;
mod finishing;
mod requests;
