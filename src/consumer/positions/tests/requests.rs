//! What brokers are asked for: by the first request, which goes on until told otherwise, and the
//! second.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Key = (TopicPartition, PartEpoch);

fn none_full(_: &TopicPartition) -> bool {
    false
}

/// Begins the second request, with all there is for it.
fn second(positions: &mut Positions, broker: BrokerId, now: Instant) -> Vec<PartitionFetch> {
    let plan = positions.plan(broker, Slot::Second, now, none_full);
    let asked: Vec<_> = plan.changes.into_iter().filter_map(|(_, it)| it).collect();
    positions.begun(broker, &keys(&asked));
    asked
}

fn keys(asked: &[PartitionFetch]) -> Vec<Key> {
    let keys = asked.iter();
    keys.map(|asked| (asked.tp.clone(), asked.epoch)).collect()
}

#[test]
fn a_full_buffer_is_not_filled_further() {
    let mut positions = active(&[tp(0), tp(1)], rules());
    let plan = positions.plan(B1, Slot::First, now(), |of| *of == tp(0));
    assert_eq!(plan.full, 1);
    let wanted: Vec<_> = plan.changes.iter().map(|(_, it)| it.is_some()).collect();
    assert_eq!(wanted, [false, true]);
    // Other measures, and it is looked at again.
    positions.recheck(B1);
    let plan = positions.plan(B1, Slot::First, now(), none_full);
    assert_eq!((plan.full, plan.changes.len()), (0, 1));
    assert_eq!(plan.changes[0].0, tp(0));
}

#[test]
fn a_request_looks_at_what_changed_and_at_nothing_else() {
    let all: Vec<_> = (0..10_000).map(tp).collect();
    let mut positions = active(&all, rules());
    let now = now();
    let first = positions.plan(B1, Slot::First, now, none_full);
    assert_eq!(first.changes.len(), all.len());
    let busy = [7, 4_000, 9_999].map(|at| first.changes[at].1.clone().unwrap());
    positions.looks = 0;
    for offset in 0..100 {
        for asked in &busy {
            let asked = PartitionFetch {
                offset,
                ..asked.clone()
            };
            let answer = answer(batches(offset + 1));
            let answer = Answer {
                high_watermark: 1_000,
                ..answer
            };
            assert!(positions.accept(B1, &asked, &answer, now).buffer);
        }
        positions.ended(B1, &[], now);
        let plan = positions.plan(B1, Slot::First, now, none_full);
        assert_eq!(plan.changes.len(), busy.len());
        assert!(second(&mut positions, B1, now).is_empty());
        assert!(positions.wanted_resets(now).is_empty());
    }
    assert_eq!(positions.looks, 100 * busy.len());
}

#[test]
fn whoever_is_to_be_asked_instead_is_woken() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    let asked = plan(&mut positions, now);
    positions.ended(B1, &[], now);
    assert!(!positions.ended(B1, &[], now));
    let named = Answer {
        preferred: Some(B2),
        ..answer(Survey::Empty)
    };
    positions.accept(B1, &asked[0], &named, now);
    assert!(positions.ended(B1, &[], now), "a follower is named");
    assert_eq!(wanted(&mut positions, B2, now).0.len(), 1);
    assert!(!positions.ended(B2, &[], now));
    let later = now + Duration::from_secs(3600);
    // Seen at the end of a request or, if there is none, when its task looks.
    let plan = positions.plan(B2, Slot::First, later, none_full);
    assert!(plan.moved, "its time is over");
    assert_eq!(plan.changes, [(tp(0), None)]);
    let asked = wanted(&mut positions, B1, later).0;
    positions.accept(B1, &asked[0], &named, later);
    assert!(positions.ended(B1, &[], later));
    let later = later + Duration::from_secs(3600);
    assert!(positions.ended(B2, &[], later), "its time is over");
    let plan = positions.plan(B2, Slot::First, later, none_full);
    assert_eq!(plan.changes, [(tp(0), None)]);
}

#[test]
fn a_partition_that_was_moved_can_be_asked_for_at_once_and_only_once() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    assert_eq!(plan(&mut positions, now).len(), 1);
    assert!(second(&mut positions, B1, now).is_empty(), "the first asks");
    positions.seek(&tp(0), Position::new(50));
    let asked = second(&mut positions, B1, now);
    assert_eq!(asked[0].offset, 50);
    // The first one leaves it out until the second has ended.
    let first = positions.plan(B1, Slot::First, now, none_full);
    assert_eq!(first.changes, [(tp(0), None)]);
    let other: Vec<_> = vec![(tp(0), PartEpoch(0))];
    positions.ended(B1, &other, now);
    assert!(plan(&mut positions, now).is_empty());
    positions.ended(B1, &keys(&asked), now);
    let first = positions.plan(B1, Slot::First, now, none_full);
    assert_eq!(first.changes[0].1.as_ref().map(|it| it.offset), Some(50));
}

#[test]
fn another_leader_is_asked_while_the_old_one_owes_an_answer() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    assert_eq!(plan(&mut positions, now).len(), 1);
    positions.update(led_by(B2, 4, ID));
    let there = positions.plan(B2, Slot::First, now, none_full);
    assert_eq!(
        there.changes[0].1.as_ref().map(|it| it.leader_epoch),
        Some(4)
    );
    let here = positions.plan(B1, Slot::First, now, none_full);
    assert_eq!(here.changes, [(tp(0), None)]);
}

#[test]
fn what_the_second_request_was_not_made_for_comes_again() {
    let mut positions = active(&[tp(0)], rules());
    let now = now();
    plan(&mut positions, now);
    positions.seek(&tp(0), Position::new(50));
    let put_off = positions.plan(B1, Slot::Second, now, none_full).changes;
    assert_eq!(put_off.len(), 1);
    let asked: Vec<_> = put_off.into_iter().filter_map(|(_, it)| it).collect();
    positions.put_off(B1, keys(&asked));
    assert_eq!(second(&mut positions, B1, now).len(), 1);
}

#[test]
fn brokers_that_lead_nothing_any_more_have_no_share() {
    let mut positions = active(&[tp(0), tp(1)], rules());
    let lead = |partition: i32| {
        move |of: &TopicPartition| {
            let broker = if of.partition < partition { B2 } else { B1 };
            let leader = Some(Leader { broker, epoch: 9 });
            Some(Known {
                topic_id: ID,
                leader,
            })
        }
    };
    positions.update(lead(1));
    assert_eq!(brokers(&positions), [B1, B2]);
    positions.update(lead(0));
    assert_eq!(brokers(&positions), [B1]);
    positions.remove(&tp(0));
    positions.remove(&tp(1));
    assert!(brokers(&positions).is_empty());
}

/// Fetch tasks as the planner is meant for: the first request of a broker keeps what it was told,
/// and what is wanted is known by looking at every partition.
#[derive(Default)]
struct Model {
    asked: BTreeMap<BrokerId, BTreeMap<TopicPartition, PartitionFetch>>,
    seconds: BTreeMap<BrokerId, Vec<PartitionFetch>>,
    full: BTreeSet<TopicPartition>,
    /// Where partitions are read from, and from where they were taken since the first request was
    /// told.
    homes: BTreeMap<TopicPartition, BrokerId>,
    left: BTreeSet<(BrokerId, TopicPartition)>,
}

impl Model {
    /// All that is wanted of a broker, by looking at every partition; how many are full; when there
    /// may be more.
    fn scan(
        &self,
        positions: &Positions,
        broker: BrokerId,
        now: Instant,
    ) -> (
        BTreeMap<TopicPartition, PartitionFetch>,
        usize,
        Option<Instant>,
    ) {
        let (mut wanted, mut full, mut next_at) = (BTreeMap::new(), 0, None::<Instant>);
        let second = self.seconds.get(&broker);
        for (tp, part) in &positions.parts {
            let leader = part.leader.map(|leader| leader.broker);
            let preferred = part.preferred.filter(|(_, until)| *until > now);
            let read_from = leader.map(|leader| preferred.map_or(leader, |(replica, _)| replica));
            let out = second.into_iter().flatten();
            let out = out
                .filter(|it| it.tp == *tp && it.epoch == part.epoch)
                .count()
                > 0;
            if part.state != State::Active
                || part.paused
                || part.revoking
                || out
                || read_from != Some(broker)
            {
                continue;
            }
            if let Some(at) = part.not_before.filter(|at| *at > now) {
                next_at = Some(next_at.map_or(at, |next| next.min(at)));
            } else if self.full.contains(tp) {
                full += 1;
            } else {
                let planned = PartitionFetch {
                    tp: tp.clone(),
                    topic_id: part.topic_id,
                    epoch: part.epoch,
                    offset: part.fetch.offset,
                    leader_epoch: part.leader.unwrap().epoch,
                    last_fetched_epoch: part.fetch.leader_epoch,
                    log_start: -1,
                };
                wanted.insert(tp.clone(), planned);
            }
        }
        (wanted, full, next_at)
    }

    fn follow(&mut self, positions: &Positions) {
        let homes = positions.parts.iter();
        let homes: BTreeMap<_, _> = homes
            .filter_map(|(tp, part)| Some((tp.clone(), part.read_from()?)))
            .collect();
        for (tp, broker) in std::mem::replace(&mut self.homes, homes) {
            if self.homes.get(&tp) != Some(&broker) {
                // Whoever reads it now need not wait for the answer.
                if let Some(second) = self.seconds.get_mut(&broker) {
                    second.retain(|asked| asked.tp != tp);
                }
                self.left.insert((broker, tp));
            }
        }
    }

    fn first(&mut self, positions: &mut Positions, broker: BrokerId, now: Instant) {
        let full = |tp: &TopicPartition| self.full.contains(tp);
        let plan = positions.plan(broker, Slot::First, now, full);
        self.left.retain(|(from, _)| *from != broker);
        let asked = self.asked.entry(broker).or_default();
        for (tp, wanted) in plan.changes {
            match wanted {
                Some(planned) => asked.insert(tp, planned),
                None => asked.remove(&tp),
            };
        }
        let (wanted, full, next_at) = self.scan(positions, broker, now);
        assert_eq!(self.asked[&broker], wanted);
        assert_eq!(plan.full, full);
        if let Some(at) = next_at {
            assert!(plan.next_at.is_some_and(|next| next <= at));
        }
    }

    /// What changed since the first request was made, and can be asked for beside it.
    fn second(&mut self, positions: &mut Positions, broker: BrokerId, now: Instant, made: bool) {
        if self.seconds.contains_key(&broker) {
            return;
        }
        let (wanted, ..) = self.scan(positions, broker, now);
        let first = self.asked.entry(broker).or_default();
        let beside = |tp: &TopicPartition, epoch| {
            let asked = first.get(tp);
            asked.is_none_or(|first| first.epoch != epoch)
                || self.left.contains(&(broker, tp.clone()))
        };
        let expected: BTreeSet<_> = wanted
            .iter()
            .filter(|(tp, planned)| beside(tp, planned.epoch))
            .map(|(tp, planned)| (tp.clone(), planned.epoch))
            .collect();
        let full = |tp: &TopicPartition| self.full.contains(tp);
        let plan = positions.plan(broker, Slot::Second, now, full);
        let asked: Vec<_> = plan.changes.into_iter().filter_map(|(_, it)| it).collect();
        let told: BTreeSet<_> = keys(&asked).into_iter().collect();
        assert_eq!(told.len(), asked.len());
        assert_eq!(told, expected);
        if made {
            positions.begun(broker, &keys(&asked));
            self.seconds.insert(broker, asked);
        } else {
            positions.put_off(broker, keys(&asked));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: the first request of each broker asks for exactly what
    /// looking at all partitions finds, and the second for exactly what of that the first does not
    /// ask for already.
    #[test]
    fn agendas_say_what_looking_at_all_partitions_finds(
        steps in prop::collection::vec((0..20_u8, 0..5_i32, 1..4_i32), 1..60)
    ) {
        let mut positions = active(&(0..4).map(tp).collect::<Vec<_>>(), rules());
        let mut model = Model::default();
        let mut now = now();
        let mut leaders: BTreeMap<TopicPartition, i32> = BTreeMap::new();
        let mut leader_epoch = 3;
        for (step, partition, broker) in steps {
            let (at, broker) = (tp(partition), BrokerId(broker));
            let asked = model.asked.get(&broker).and_then(|all| all.get(&at)).cloned();
            match step {
                0 | 1 => model.first(&mut positions, broker, now),
                2 | 3 => model.second(&mut positions, broker, now, step == 2),
                4 => {
                    let ended = model.seconds.remove(&broker).unwrap_or_default();
                    positions.ended(broker, &keys(&ended), now);
                }
                5 | 6 => if let Some(asked) = asked {
                    let next = asked.offset + 1;
                    positions.accept(broker, &asked, &answer(batches(next)), now);
                },
                7 => if let Some(asked) = asked {
                    let codes = [codes::NOT_LEADER_OR_FOLLOWER, codes::OFFSET_OUT_OF_RANGE];
                    let code = codes[usize::try_from(partition % 2).unwrap()];
                    positions.accept(broker, &asked, &refusal(code), now);
                },
                8 => if let Some(asked) = asked {
                    let to = BrokerId(1 + partition % 3);
                    let named = Answer { preferred: Some(to), ..answer(Survey::Empty) };
                    positions.accept(broker, &asked, &named, now);
                },
                9 => { positions.seek(&at, Position::new(i64::from(broker.0))); }
                10 => {
                    let paused = positions.is_paused(&at);
                    positions.set_paused(&at, !paused);
                }
                11 => {
                    // The buffer fills with an answer and empties with a poll.
                    if !model.full.remove(&at) { model.full.insert(at.clone()); }
                    positions.touch(&at);
                }
                12 => match positions.is_assigned(&at) {
                    true => { positions.remove(&at); }
                    false => positions.assign([(at, Uuid::nil())]),
                },
                13 => {
                    leader_epoch += 1;
                    leaders.insert(at, broker.0);
                    positions.update(|tp| Some(Known {
                        topic_id: ID,
                        leader: leaders.get(tp).copied().or(Some(1)).filter(|id| *id < 4).map(|id| Leader {
                            broker: BrokerId(id),
                            epoch: leader_epoch,
                        }),
                    }));
                }
                14 => {
                    now += Duration::from_millis(if partition == 0 { 400_000 } else { 150 });
                    for id in 1..4 {
                        positions.ended(BrokerId(id), &[], now);
                    }
                }
                15 => positions.unreachable(broker),
                16 => if let Some(asked) = asked {
                    let next = Position::new(asked.offset);
                    positions.hand_out(&at, asked.epoch, next);
                },
                17 => positions.finish(),
                18 => if let Some((tp, to)) = positions.uncommitted().pop() {
                    positions.note_committed(&tp, to.offset);
                },
                _ => positions.rewind(&at, (partition % 2 == 0).then_some(now)),
            }
            for ask in positions.wanted_resets(now) {
                positions.reset_found(&ask.tp, ask.epoch, Position::new(0));
            }
            model.follow(&positions);
            let ahead = |of: fn(&Part) -> Position| {
                let parts = positions.parts.iter();
                let ahead = parts.filter(|(_, part)| {
                    part.may_commit() && part.committed != Some(of(part).offset)
                });
                ahead.map(|(tp, part)| (tp.clone(), of(part).offset)).collect::<BTreeMap<_, _>>()
            };
            let told = |told: Vec<(TopicPartition, Position)>| {
                told.into_iter().map(|(tp, at)| (tp, at.offset)).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(told(positions.handed_out()), ahead(|part| part.position));
            prop_assert_eq!(told(positions.uncommitted()), ahead(|part| part.finished));
        }
        for id in 1..4 {
            model.first(&mut positions, BrokerId(id), now);
        }
    }
}

#[test]
fn what_was_dropped_for_want_of_memory_is_fetched_when_it_is_asked_for() {
    let now = now();
    // What has it fetched again: the stream asks, ends or is dropped, or there are no streams.
    let ways: [fn(&mut Positions); 4] = [
        |positions| assert!(positions.finish_one(&tp(0), 7)),
        |positions| positions.take_from(&tp(0), 7),
        |positions| assert_eq!(positions.dropped(&tp(0), 7), Some((0, 1))),
        |positions| assert!(positions.wanted_again(&tp(0))),
    ];
    for way in ways {
        let mut positions = active(&[tp(0), tp(1)], rules());
        let asked = plan(&mut positions, now).remove(0);
        positions.accept(B1, &asked, &answer(batches(50)), now);
        positions.give_to(&tp(0), 7);
        positions.evict(&tp(0));
        assert!(!positions.may_hand_out(&tp(0), asked.epoch));
        let left = plan(&mut positions, now);
        assert_eq!(left.len(), 1, "only the other one");
        way(&mut positions);
        assert!(!positions.wanted_again(&tp(0)));
        let plan = positions.plan(B1, Slot::First, now, none_full);
        let again = plan.changes.into_iter().find_map(|(_, wanted)| wanted);
        assert_eq!(again.map(|it| (it.tp, it.offset)), Some((tp(0), 0)));
    }
    // What is paused is fetched again when it is not.
    let mut positions = active(&[tp(0)], rules());
    positions.set_paused(&tp(0), true);
    positions.evict(&tp(0));
    assert!(plan(&mut positions, now).is_empty());
    positions.set_paused(&tp(0), false);
    assert_eq!(plan(&mut positions, now).len(), 1);
}
