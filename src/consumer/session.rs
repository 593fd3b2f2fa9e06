//! Fetch sessions (KIP-227): after one full request only changes are sent.
//!
//! A machine: `build` says what the next request carries, `accept` and `failed` take in how it
//! ended.
//!
//! Invariants:
//! - The broker answers for every partition of the session, asked in this request or not. So a
//!   partition that is not wanted now is forgotten at once: else its data would come again.
//! - Epochs count requests, and one request is out at a time. Whenever it is not certain which
//!   requests the broker saw, the next one is full and closes the old session.
//! - A session speaks of topics by id or by name. Changing that starts a new session.
//! - What a broker holds may be wrong (a damaged request), and would stay so, because only changes
//!   are sent. So a session whose broker answers for what was never asked, or otherwise than it was
//!   asked, starts anew.
//! - A request that overlaps with another to the same broker is outside of the session, for there
//!   is one session and its requests are counted.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use uuid::Uuid;

use crate::fetched::PartitionFetch;
use crate::types::TopicPartition;
use crate::wire::codes;

/// The epoch of a full request that opens a session.
const INITIAL: i32 = 0;
/// The id before there is a session.
const NO_SESSION: i32 = 0;
/// The epoch of a request that wants no session.
const SESSIONLESS: i32 = -1;

/// What a Fetch request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    /// Whether topics go by id (version 13 and newer, KIP-516).
    pub(crate) by_id: bool,
    pub(crate) send: Vec<PartitionFetch>,
    pub(crate) forget: Vec<(TopicPartition, Uuid)>,
}

/// What is to be done after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionAction {
    /// Its partitions count.
    Take,
    /// The broker does not know the session as we do: ask again at once, in full.
    Restart,
    /// Topic ids proved wrong: refresh metadata, then ask again in full.
    Refresh,
    /// Another error of the whole request.
    Fail(i16),
}

/// The session with one broker; see the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct FetchSession {
    id: i32,
    epoch: i32,
    by_id: bool,
    /// Every request is full, and no session comes of it.
    sessionless: bool,
    /// The names of the topics asked for by id.
    names: IndexMap<Uuid, Arc<str>>,
    /// What is asked for, and what the broker answers for.
    parts: IndexMap<TopicPartition, Member>,
    /// How many of them have no topic id.
    nameless: usize,
    /// The partitions that the next request adds or changes.
    send: IndexSet<TopicPartition>,
    forget: IndexSet<(TopicPartition, Uuid)>,
    /// Counts changes.
    changes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    planned: PartitionFetch,
    /// The broker has it in the session.
    known: bool,
    /// When it changed last. Brokers take partitions in the order of the request, so the one that
    /// was answered last comes last.
    changed: u64,
}

/// Whether a request would ask for both in the same way.
fn same_on_wire(one: &PartitionFetch, other: &PartitionFetch) -> bool {
    one.topic_id == other.topic_id
        && one.offset == other.offset
        && one.leader_epoch == other.leader_epoch
        && one.last_fetched_epoch == other.last_fetched_epoch
        && one.log_start == other.log_start
}

impl Member {
    fn is_nameless(&self) -> bool {
        self.planned.topic_id.is_nil()
    }
}

impl FetchSession {
    /// Requests outside of any session.
    pub(crate) fn none() -> Self {
        Self {
            sessionless: true,
            ..Self::default()
        }
    }

    /// From the next request on the session asks for the partition in this way, or not at all.
    pub(crate) fn change(&mut self, tp: TopicPartition, wanted: Option<PartitionFetch>) {
        if let (Some(member), Some(planned)) = (self.parts.get_mut(&tp), &wanted)
            && same_on_wire(&member.planned, planned)
        {
            member.planned = planned.clone();
            return;
        }
        let old = self.parts.swap_remove(&tp);
        self.send.swap_remove(&tp);
        self.nameless -= usize::from(old.as_ref().is_some_and(Member::is_nameless));
        if let Some(old) = old.filter(|old| old.known) {
            self.forget.insert((tp.clone(), old.planned.topic_id));
        }
        let Some(planned) = wanted else { return };
        self.changes += 1;
        let known = self.forget.swap_remove(&(tp.clone(), planned.topic_id));
        let member = Member {
            planned,
            known,
            changed: self.changes,
        };
        self.nameless += usize::from(member.is_nameless());
        self.send.insert(tp.clone());
        self.parts.insert(tp, member);
    }

    /// How many partitions are asked for.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The next request.
    pub(crate) fn build(&mut self, ids_spoken: bool) -> Request {
        let by_id = ids_spoken && self.nameless == 0;
        if by_id != self.by_id && !self.parts.is_empty() {
            self.by_id = by_id;
            self.restart();
        }
        if self.epoch == INITIAL {
            self.names.clear();
            self.forget.clear();
            self.send = self.parts.keys().cloned().collect();
        }
        if !self.by_id {
            let parts = &self.parts;
            self.forget.retain(|(tp, _)| !parts.contains_key(tp));
        }
        let mut send = Vec::with_capacity(self.send.len());
        for tp in self.send.drain(..) {
            if let Some(member) = self.parts.get_mut(&tp) {
                member.known = true;
                send.push((member.changed, member.planned.clone()));
            }
        }
        send.sort_unstable_by_key(|(changed, _)| *changed);
        let send: Vec<_> = send.into_iter().map(|(_, planned)| planned).collect();
        for planned in &send {
            let name = || Arc::clone(&planned.tp.topic);
            self.names.entry(planned.topic_id).or_insert_with(name);
        }
        let session_epoch = match self.sessionless {
            true => SESSIONLESS,
            false => self.epoch,
        };
        Request {
            session_id: self.id,
            session_epoch,
            by_id: self.by_id,
            send,
            forget: self.forget.drain(..).collect(),
        }
    }

    /// Judges the answer as a whole.
    pub(crate) fn accept(&mut self, code: i16, session_id: i32) -> SessionAction {
        match code {
            codes::NONE => {
                if session_id == NO_SESSION || self.sessionless {
                    // The broker keeps no session (its cache is full): every request is full.
                    self.id = NO_SESSION;
                    self.epoch = INITIAL;
                } else if self.epoch != INITIAL && session_id != self.id {
                    // No broker changes it: damaged.
                    self.restart();
                } else {
                    self.id = session_id;
                    self.epoch = next_epoch(self.epoch);
                }
                SessionAction::Take
            }
            codes::FETCH_SESSION_ID_NOT_FOUND => {
                assert!(!crate::planted("a-panic-in-a-task"));
                self.id = NO_SESSION;
                self.restart();
                SessionAction::Restart
            }
            codes::INVALID_FETCH_SESSION_EPOCH => {
                self.restart();
                SessionAction::Restart
            }
            codes::FETCH_SESSION_TOPIC_ID_ERROR
            | codes::INCONSISTENT_TOPIC_ID
            | codes::UNKNOWN_TOPIC_ID => {
                self.restart();
                SessionAction::Refresh
            }
            other => {
                self.restart();
                SessionAction::Fail(other)
            }
        }
    }

    /// The request ended without an answer: nobody knows whether the broker saw it.
    pub(crate) fn failed(&mut self) {
        self.restart();
    }

    /// What was asked of a partition that the broker answers for.
    pub(crate) fn asked(&self, tp: &TopicPartition) -> Option<&PartitionFetch> {
        self.parts.get(tp).map(|member| &member.planned)
    }

    /// The name of a topic asked for by id.
    pub(crate) fn name(&self, topic_id: &Uuid) -> Option<&Arc<str>> {
        self.names.get(topic_id)
    }

    /// The next request is full; with the old id it closes the old session at the broker.
    fn restart(&mut self) {
        self.epoch = INITIAL;
    }
}

fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::positions::tests::{active, rules};
    use crate::consumer::positions::{Known, Leader, Slot};
    use crate::types::BrokerId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn planned(partition: i32, offset: i64) -> PartitionFetch {
        topic_planned(partition, offset, 7)
    }

    fn topic_planned(partition: i32, offset: i64, id: u128) -> PartitionFetch {
        let tp = TopicPartition::new("t", partition);
        let mut positions = active(std::slice::from_ref(&tp), rules());
        positions.update(|_| {
            Some(Known {
                topic_id: Uuid::from_u128(7),
                leader: Some(Leader {
                    broker: BrokerId(1),
                    epoch: 3,
                }),
            })
        });
        let plan = positions.plan(BrokerId(1), Slot::First, crate::clock::now(), |_| false);
        let mut planned = plan.changes[0].1.clone().unwrap();
        planned.offset = offset;
        planned.topic_id = Uuid::from_u128(id);
        planned
    }

    fn sent(request: &Request) -> Vec<(i32, i64)> {
        let sent = request.send.iter();
        sent.map(|planned| (planned.tp.partition, planned.offset))
            .collect()
    }

    /// The next request, if these partitions and no others are asked for.
    fn ask(session: &mut FetchSession, wanted: Vec<PartitionFetch>) -> Request {
        want(session, wanted);
        session.build(true)
    }

    fn want(session: &mut FetchSession, wanted: Vec<PartitionFetch>) {
        let before: Vec<_> = session.parts.keys().cloned().collect();
        for tp in before {
            if !wanted.iter().any(|planned| planned.tp == tp) {
                session.change(tp, None);
            }
        }
        for planned in wanted {
            session.change(planned.tp.clone(), Some(planned));
        }
    }

    fn forgotten(request: &Request) -> Vec<i32> {
        request.forget.iter().map(|(tp, _)| tp.partition).collect()
    }

    #[test]
    fn after_a_full_request_only_changes_are_sent() {
        let mut session = FetchSession::default();
        let first = ask(&mut session, vec![planned(0, 10), planned(1, 20)]);
        assert_eq!((first.session_id, first.session_epoch), (0, 0));
        assert_eq!(sent(&first), [(0, 10), (1, 20)]);
        assert_eq!(session.accept(0, 55), SessionAction::Take);

        let second = ask(&mut session, vec![planned(0, 15), planned(1, 20)]);
        assert_eq!((second.session_id, second.session_epoch), (55, 1));
        assert_eq!(sent(&second), [(0, 15)]);
        assert!(second.forget.is_empty());
        session.accept(0, 55);

        let third = ask(&mut session, vec![planned(1, 20), planned(2, 0)]);
        assert_eq!((sent(&third), forgotten(&third)), (vec![(2, 0)], vec![0]));
        assert!(session.asked(&TopicPartition::new("t", 0)).is_none());
        assert!(session.asked(&TopicPartition::new("t", 1)).is_some());
    }

    #[test]
    fn full_requests_begin_with_what_was_answered_longest_ago() {
        let mut session = FetchSession::default();
        ask(
            &mut session,
            vec![planned(0, 0), planned(1, 0), planned(2, 0)],
        );
        session.accept(0, 0);
        session.change(planned(0, 0).tp, Some(planned(0, 5)));
        session.change(planned(1, 0).tp, None);
        session.change(planned(1, 0).tp, Some(planned(1, 5)));
        assert_eq!(sent(&session.build(true)), [(2, 0), (0, 5), (1, 5)]);
    }

    #[test]
    fn what_goes_by_name_is_not_forgotten_because_its_id_became_known() {
        let mut session = FetchSession::default();
        ask(
            &mut session,
            vec![topic_planned(0, 10, 0), topic_planned(1, 0, 0)],
        );
        session.accept(0, 9);
        let request = ask(&mut session, vec![planned(0, 10), topic_planned(1, 0, 0)]);
        assert!(!request.by_id);
        assert_eq!((sent(&request), request.forget.len()), (vec![(0, 10)], 0));
    }

    #[test]
    fn a_broker_without_sessions_gets_full_requests() {
        let mut session = FetchSession::default();
        for _ in 0..3 {
            let request = ask(&mut session, vec![planned(0, 10)]);
            assert_eq!((request.session_id, request.session_epoch), (0, 0));
            assert_eq!(sent(&request), [(0, 10)]);
            session.accept(0, 0);
        }
    }

    #[test]
    fn requests_outside_of_the_session_say_so() {
        let mut session = FetchSession::none();
        for _ in 0..2 {
            let request = ask(&mut session, vec![planned(0, 10)]);
            assert_eq!((request.session_id, request.session_epoch), (0, -1));
            assert_eq!(sent(&request), [(0, 10)]);
            assert!(request.forget.is_empty());
            session.accept(0, 0);
        }
    }

    #[test]
    fn a_lost_session_starts_anew_and_a_confused_one_is_closed() {
        for (code, id, action) in [
            (codes::FETCH_SESSION_ID_NOT_FOUND, 0, SessionAction::Restart),
            (
                codes::INVALID_FETCH_SESSION_EPOCH,
                9,
                SessionAction::Restart,
            ),
            (
                codes::FETCH_SESSION_TOPIC_ID_ERROR,
                9,
                SessionAction::Refresh,
            ),
            (codes::UNKNOWN_SERVER_ERROR, 9, SessionAction::Fail(-1)),
        ] {
            let mut session = FetchSession::default();
            ask(&mut session, vec![planned(0, 10)]);
            session.accept(0, 9);
            ask(&mut session, vec![planned(0, 10)]);
            assert_eq!(session.accept(code, 0), action);
            let again = ask(&mut session, vec![planned(0, 10)]);
            assert_eq!(
                (again.session_id, again.session_epoch),
                (id, 0),
                "code {code}"
            );
            assert_eq!(sent(&again), [(0, 10)]);
        }
    }

    #[test]
    fn a_request_without_answer_makes_the_next_one_full() {
        let mut session = FetchSession::default();
        ask(&mut session, vec![planned(0, 10)]);
        session.accept(0, 9);
        ask(&mut session, vec![planned(0, 11)]);
        session.failed();
        let again = ask(&mut session, vec![planned(0, 11)]);
        assert_eq!((again.session_id, again.session_epoch), (9, 0));
        assert_eq!(sent(&again), [(0, 11)]);
        assert!(again.forget.is_empty());
    }

    #[test]
    fn another_id_than_the_sessions_makes_the_next_request_full() {
        let mut session = FetchSession::default();
        let wanted = || vec![planned(0, 10), planned(1, 20)];
        ask(&mut session, wanted());
        session.accept(0, 9);
        assert_eq!(sent(&ask(&mut session, wanted())), []);
        // Another id than the session's: taken for damage.
        assert_eq!(session.accept(0, 11), SessionAction::Take);
        let full = ask(&mut session, wanted());
        assert_eq!((full.session_id, full.session_epoch), (9, 0));
        session.accept(0, 10);
        assert_eq!(session.build(true).session_epoch, 1);
    }

    #[test]
    fn a_topic_made_anew_replaces_the_old_one() {
        let mut session = FetchSession::default();
        ask(&mut session, vec![topic_planned(0, 10, 1)]);
        session.accept(0, 9);
        let request = ask(&mut session, vec![topic_planned(0, 0, 2)]);
        assert_eq!(
            request.forget,
            [(TopicPartition::new("t", 0), Uuid::from_u128(1))]
        );
        assert_eq!(sent(&request), [(0, 0)]);
    }

    #[test]
    fn topics_without_id_go_by_name_in_a_session_of_their_own() {
        let mut session = FetchSession::default();
        assert!(ask(&mut session, vec![planned(0, 10)]).by_id);
        session.accept(0, 9);
        let request = ask(&mut session, vec![planned(0, 10), topic_planned(1, 0, 0)]);
        assert!(!request.by_id);
        assert_eq!((request.session_id, request.session_epoch), (9, 0));
        assert_eq!(request.send.len(), 2);
    }

    proptest! {
        /// Whatever is planned and however requests end, a broker that applies them as KIP-227
        /// says answers exactly for what was planned, at the planned offsets.
        #[test]
        fn the_brokers_view_is_the_plan(
            steps in prop::collection::vec(
                (prop::collection::btree_map(0..4_i32, 0..3_i64, 0..4), 0..6_u8), 1..25)
        ) {
            let template = planned(0, 0);
            let mut session = FetchSession::default();
            let mut broker: Option<(i32, i32, BTreeMap<i32, i64>)> = None;
            let mut ids = 100;
            for (wanted, fate) in steps {
                let plan: Vec<_> = wanted.iter().map(|(p, o)| PartitionFetch {
                    tp: TopicPartition::new("t", *p), offset: *o, ..template.clone()
                }).collect();
                want(&mut session, plan);
                if fate == 4 {
                    continue; // no request was made
                }
                let request = session.build(true);
                if fate == 0 {
                    session.failed(); // the broker never saw it
                    continue;
                }
                let (code, id) = match (&mut broker, request.session_epoch) {
                    (_, 0) => {
                        ids += 1;
                        let parts = sent(&request).into_iter().collect();
                        broker = Some((ids, 1, parts));
                        (0, ids)
                    }
                    (Some((id, epoch, parts)), sent_epoch)
                        if *id == request.session_id && *epoch == sent_epoch =>
                    {
                        // In this order: a partition of both lists is gone.
                        parts.extend(sent(&request));
                        for gone in forgotten(&request) { parts.remove(&gone); }
                        *epoch += 1;
                        (0, *id)
                    }
                    _ => (codes::FETCH_SESSION_ID_NOT_FOUND, 0),
                };
                if code == 0 {
                    let held = &broker.as_ref().unwrap().2;
                    prop_assert_eq!(held, &wanted);
                }
                match fate {
                    1 => session.failed(), // the broker saw it, its answer was lost
                    2 => { session.accept(code, id); broker = None; } // evicted afterwards
                    _ => { session.accept(code, id); }
                }
            }
        }
    }
}
