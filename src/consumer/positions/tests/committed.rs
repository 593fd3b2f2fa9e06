//! Committed offsets that the log does not have: they are looked up again before the reset policy
//! counts, for the first answer may have been damaged on its way.

use super::*;

/// A member of a group that has one partition and looks its committed offset up.
fn member() -> (Positions, (TopicPartition, PartEpoch)) {
    let mut positions = Positions::new(Rules {
        has_group: true,
        ..rules()
    });
    positions.assign([(tp(0), ID)]);
    positions.update(led_by(B1, 3, ID));
    let asked = positions.wanted_committed(now()).remove(0);
    (positions, asked)
}

/// How a log says that it does not have what was asked for.
fn not_there() -> [Answer; 2] {
    let cut = Answer {
        diverging: Some((2, 30)),
        ..answer(Survey::Empty)
    };
    [refusal(codes::OFFSET_OUT_OF_RANGE), cut]
}

fn found(positions: &mut Positions, asked: &(TopicPartition, PartEpoch), offset: i64) {
    let committed = OffsetAndMetadata::new(offset).with_leader_epoch(Some(3));
    let error = positions.committed_found(&asked.0, asked.1, Some(&committed), now());
    assert!(error.is_none());
}

/// The log does not have the offset that was found. The look-up that follows, after a pause.
fn refuse(
    positions: &mut Positions,
    answer: &Answer,
    now: &mut Instant,
) -> (TopicPartition, PartEpoch) {
    let asked = plan(positions, *now).remove(0);
    let outcome = positions.accept(B1, &asked, answer, *now);
    assert!(outcome.discard && outcome.error.is_none());
    assert!(positions.wanted_resets(*now).is_empty());
    assert!(positions.wanted_committed(*now).is_empty(), "after a pause");
    *now = positions.next_timeout().unwrap();
    positions.wanted_committed(*now).remove(0)
}

#[test]
fn a_committed_offset_outside_of_the_log_is_looked_up_again() {
    for answer_ in not_there() {
        let (mut positions, asked) = member();
        let mut now = now();
        found(&mut positions, &asked, 1 << 58);
        let asked = refuse(&mut positions, &answer_, &mut now);
        assert!(positions.uncommitted().is_empty(), "nothing to commit yet");
        found(&mut positions, &asked, 42);
        let asked = plan(&mut positions, now).remove(0);
        assert_eq!(asked.offset, 42);
        assert!(
            positions
                .accept(B1, &asked, &answer(batches(50)), now)
                .buffer
        );
    }
}

#[test]
fn a_committed_offset_found_outside_of_the_log_twice_goes_where_the_policy_says() {
    for (nth, answer_) in not_there().into_iter().enumerate() {
        let (mut positions, asked) = member();
        let mut now = now();
        found(&mut positions, &asked, 1 << 58);
        let asked = refuse(&mut positions, &answer_, &mut now);
        // Another one that the log does not have is no confirmation.
        found(&mut positions, &asked, 1 << 57);
        let asked = refuse(&mut positions, &answer_, &mut now);
        found(&mut positions, &asked, 1 << 57);
        let asked = plan(&mut positions, now).remove(0);
        assert_eq!(asked.offset, 1 << 57);
        let outcome = positions.accept(B1, &asked, &answer_, now);
        assert!(outcome.discard && outcome.error.is_none());
        assert!(positions.wanted_committed(now).is_empty());
        match nth {
            0 => assert_eq!(positions.wanted_resets(now)[0].to, ResetTo::Earliest),
            _ => assert_eq!(positions.position(&tp(0)).unwrap().offset, 30),
        }
    }
}

#[test]
fn an_offset_that_the_log_had_is_not_looked_up_again() {
    for sound in [answer(batches(50)), answer(Survey::Empty)] {
        let (mut positions, asked) = member();
        let now = now();
        found(&mut positions, &asked, 42);
        let asked = plan(&mut positions, now).remove(0);
        positions.accept(B1, &asked, &sound, now);
        positions.hand_out(&tp(0), asked.epoch, Position::new(50));
        let asked = plan(&mut positions, now).remove(0);
        let outcome = positions.accept(B1, &asked, &refusal(codes::OFFSET_OUT_OF_RANGE), now);
        assert!(outcome.discard);
        assert_eq!(positions.wanted_resets(now).len(), 1);
    }
}

#[test]
fn nor_is_one_that_the_application_chose() {
    let (mut positions, asked) = member();
    let mut now = now();
    found(&mut positions, &asked, 1 << 58);
    refuse(
        &mut positions,
        &refusal(codes::OFFSET_OUT_OF_RANGE),
        &mut now,
    );
    positions.seek(&tp(0), Position::new(70));
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &refusal(codes::OFFSET_OUT_OF_RANGE), now);
    assert_eq!(positions.wanted_resets(now).len(), 1);
}

#[test]
fn a_committed_offset_that_no_log_has_goes_where_the_policy_says() {
    let (mut positions, asked) = member();
    found(&mut positions, &asked, -42);
    assert!(positions.wanted_resets(now()).is_empty());
    let due = positions.next_timeout().unwrap();
    let asked = positions.wanted_committed(due).remove(0);
    found(&mut positions, &asked, -42);
    let resets = positions.wanted_resets(due);
    assert_eq!(resets.first().map(|ask| ask.to), Some(ResetTo::Earliest));
}
