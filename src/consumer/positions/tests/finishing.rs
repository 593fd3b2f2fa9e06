//! What the application has finished with, in use, left or given back.

use super::*;

fn finished(positions: &Positions) -> Vec<i64> {
    let finished = positions.uncommitted().into_iter();
    finished.map(|(_, at)| at.offset).collect()
}

#[test]
fn what_is_in_use_or_was_left_is_not_finished_until_the_application_says_so() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(50)), now);
    positions.hand_out(&tp(0), asked.epoch, Position::new(50));
    let held = |offset| Held::from([(tp(0), (asked.epoch, Position::new(offset)))]);
    assert!(positions.ask(&held(20)).is_empty());
    assert_eq!(finished(&positions), [20]);
    // Its memory was needed: that makes no other records of those handed out.
    positions.rewind(&tp(0), None);
    assert!(positions.ask(&held(30)).is_empty());
    assert!(positions.hand_back(&tp(0), asked.epoch, 45));
    positions.leave(&held(40));
    assert_eq!(
        (
            finished(&positions),
            positions.position(&tp(0)).unwrap().offset
        ),
        (vec![40], 45)
    );
    positions.finish();
    assert!(positions.ask(&Held::new()).is_empty());
    assert_eq!(finished(&positions), [45]);
    // Once more up to 50, and left at 48.
    let asked = plan(&mut positions, now).remove(0);
    assert!(positions.hand_out(&tp(0), asked.epoch, Position::new(50)));
    positions.leave(&Held::from([(tp(0), (asked.epoch, Position::new(48)))]));
    assert_eq!(positions.ask(&Held::new()), [tp(0)], "read again");
    assert_eq!(
        (
            finished(&positions),
            positions.position(&tp(0)).unwrap().offset
        ),
        (vec![48], 48)
    );
    // After a seek what is kept of before has nothing to say.
    positions.seek(&tp(0), Position::new(10));
    let asked_anew = plan(&mut positions, now).remove(0);
    positions.hand_out(&tp(0), asked_anew.epoch, Position::new(60));
    assert!(!positions.hand_back(&tp(0), asked.epoch, 45));
    positions.ask(&held(45));
    assert_eq!(finished(&positions), [60]);
}

#[test]
fn the_stream_of_a_partition_finishes_for_itself_and_gives_back_what_it_did_not() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now).remove(0);
    positions.accept(B1, &asked, &answer(batches(50)), now);
    positions.give_to(&tp(0), 1);
    positions.hand_out(&tp(0), asked.epoch, Position::new(20));
    positions.finish_one(&tp(0), 1);
    positions.hand_out(&tp(0), asked.epoch, Position::new(50));
    positions.finish();
    positions.ask(&Held::new());
    assert_eq!(finished(&positions), [20], "no poll and no word ends it");
    assert_eq!(positions.dropped(&tp(0), 2), None);
    assert_eq!(positions.dropped(&tp(0), 1), Some((20, 1)));
    assert_eq!(positions.position(&tp(0)).unwrap().offset, 20);
    assert!(
        !positions.hand_out(&tp(0), asked.epoch, Position::new(50)),
        "fetched before"
    );
    assert_eq!(positions.give_to(&tp(0), 2), 1);
    // What the application committed itself in the middle of a batch is not handed out again.
    let asked = plan(&mut positions, now).remove(0);
    positions.hand_out(&tp(0), asked.epoch, Position::new(50));
    positions.finish_committed(&tp(0), 30);
    assert_eq!(positions.dropped(&tp(0), 2), Some((30, 2)));
}
