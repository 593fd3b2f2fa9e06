use super::*;
use crate::error::ErrorKind;

mod model;

const INTERVAL: Duration = Duration::from_secs(3);
const SESSION: Duration = Duration::from_secs(45);

pub(super) fn settings(instance_id: Option<&str>) -> Settings {
    Settings {
        instance_id: instance_id.map(Arc::from),
        protocol_type: "consumer",
        session_timeout: SESSION,
        heartbeat_interval: INTERVAL,
        rebalance_timeout: Duration::from_secs(300),
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
    }
}

fn code(code: i16) -> JoinAnswer {
    JoinAnswer {
        code,
        ..JoinAnswer::default()
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Connection, "gone")
}

struct Rig {
    machine: Member,
    now: Instant,
}

impl Rig {
    fn of(settings: Settings) -> Self {
        let mut machine = Member::new(settings);
        machine.join();
        Self {
            machine,
            now: crate::clock::now(),
        }
    }

    fn new() -> Self {
        Self::of(settings(None))
    }

    fn next(&mut self) -> Option<Event> {
        self.machine.poll(self.now)
    }

    #[track_caller]
    fn quiet(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "{next:?}");
    }

    /// Waits until the machine has something to do.
    fn wait(&mut self) -> Duration {
        let before = self.now;
        self.quiet();
        self.now = self.machine.next_timeout().unwrap().max(before);
        self.now - before
    }

    #[track_caller]
    fn sent(&mut self) -> (Token, GroupRequest) {
        match self.next() {
            Some(Event::Send(token, request)) => (token, request),
            other => panic!("expected a request, got {other:?}"),
        }
    }

    #[track_caller]
    fn prepares(&mut self) {
        match self.next() {
            Some(Event::Prepare) => {}
            other => panic!("expected to prepare, got {other:?}"),
        }
        let says = |name: &str| (Arc::from(name), Bytes::from_static(b"topics"));
        self.machine.prepared(vec![says("range"), says("sticky")]);
    }

    #[track_caller]
    fn join(&mut self) -> (Token, JoinGroup) {
        match self.sent() {
            (token, GroupRequest::Join(join)) => (token, join),
            other => panic!("expected JoinGroup, got {other:?}"),
        }
    }

    #[track_caller]
    fn sync(&mut self) -> (Token, SyncGroup) {
        match self.sent() {
            (token, GroupRequest::Sync(sync)) => (token, sync),
            other => panic!("expected SyncGroup, got {other:?}"),
        }
    }

    #[track_caller]
    fn beat(&mut self) -> (Token, Heartbeat) {
        match self.sent() {
            (token, GroupRequest::Heartbeat(beat)) => (token, beat),
            other => panic!("expected a heartbeat, got {other:?}"),
        }
    }

    #[track_caller]
    fn is_lost(&mut self) {
        let next = self.next();
        assert!(matches!(next, Some(Event::Lost)), "{next:?}");
        assert!(self.machine.identity().is_none());
    }

    #[track_caller]
    fn fails(&mut self) -> Error {
        match self.next() {
            Some(Event::Fail(error)) => error,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    fn joined(&mut self, token: Token, generation: i32, leader: &str) {
        let answer = JoinAnswer {
            generation,
            protocol_type: Some("consumer".into()),
            protocol: "range".into(),
            leader: leader.into(),
            member_id: "m".into(),
            members: vec![JoinedMember {
                id: "m".into(),
                instance_id: None,
                metadata: Bytes::from_static(b"topics"),
            }],
            ..JoinAnswer::default()
        };
        self.answer(token, Ok(GroupResponse::Join(answer)));
    }

    fn synced(&mut self, token: Token) {
        let answer = SyncAnswer {
            assignment: Bytes::from_static(b"mine"),
            protocol: Some("range".into()),
            ..SyncAnswer::default()
        };
        self.answer(token, Ok(GroupResponse::Sync(answer)));
    }

    fn answer(&mut self, token: Token, answer: Result<GroupResponse>) {
        self.machine.handle(self.now, token, answer);
    }

    fn beaten(&mut self, token: Token, code: i16) {
        self.answer(token, Ok(GroupResponse::Heartbeat(Code(code))));
    }

    #[track_caller]
    fn assigned(&mut self) -> Assigned {
        match self.next() {
            Some(Event::Assigned(assigned)) => assigned,
            other => panic!("expected an assignment, got {other:?}"),
        }
    }

    /// Follows in generation 1.
    fn member() -> Self {
        Self::member_of(settings(None))
    }

    fn member_of(settings: Settings) -> Self {
        let mut rig = Self::of(settings);
        rig.prepares();
        let (token, _) = rig.join();
        rig.joined(token, 1, "other");
        let (token, _) = rig.sync();
        rig.synced(token);
        assert_eq!(rig.assigned().generation, 1);
        rig.quiet();
        rig
    }

    /// The same, whose application gives up what it has since the group rebalances.
    fn preparing() -> Self {
        let mut rig = Self::member();
        rig.wait();
        let (token, _) = rig.beat();
        rig.beaten(token, codes::REBALANCE_IN_PROGRESS);
        assert!(matches!(rig.next(), Some(Event::Prepare)));
        rig.quiet();
        rig
    }

    /// The same, waiting for the answer to JoinGroup.
    fn rejoining() -> (Self, Token) {
        let mut rig = Self::preparing();
        let says = (Arc::from("range"), Bytes::new());
        rig.machine.prepared(vec![says]);
        let (token, _) = rig.join();
        (rig, token)
    }

    /// The same, waiting for the answer to SyncGroup.
    fn syncing() -> (Self, Token) {
        let (mut rig, token) = Self::rejoining();
        rig.joined(token, 2, "other");
        let (token, _) = rig.sync();
        (rig, token)
    }
}

#[test]
fn a_follower_joins_asks_for_its_assignment_and_is_heard_of() {
    let mut rig = Rig::new();
    rig.prepares();
    let (token, join) = rig.join();
    assert_eq!(&*join.sender.member_id, "");
    assert_eq!(join.protocols.len(), 2);
    assert_eq!(join.session_timeout, SESSION);
    assert!(!join.reason.is_empty());
    rig.quiet();
    let given = JoinAnswer {
        member_id: "given".into(),
        ..code(codes::MEMBER_ID_REQUIRED)
    };
    rig.answer(token, Ok(GroupResponse::Join(given)));
    let (token, join) = rig.join();
    assert_eq!(&*join.sender.member_id, "given", "KIP-394");
    rig.joined(token, 7, "other");
    let (token, sync) = rig.sync();
    assert_eq!((sync.sender.generation, &*sync.protocol), (7, "range"));
    assert!(sync.assignments.is_empty(), "it does not lead");
    assert_eq!(rig.machine.identity().unwrap().epoch, 7);
    // The leader takes its time: heartbeats go on.
    assert_eq!(rig.wait(), INTERVAL);
    let (beat, _) = rig.beat();
    rig.beaten(beat, codes::NONE);
    rig.synced(token);
    let assigned = rig.assigned();
    assert_eq!(
        (assigned.generation, &assigned.assignment[..]),
        (7, &b"mine"[..])
    );
    assert_eq!(rig.wait(), INTERVAL);
    let (_, beat) = rig.beat();
    assert_eq!((beat.sender.generation, &*beat.sender.member_id), (7, "m"));
    rig.quiet();
}

#[test]
fn a_leader_assigns_and_is_heard_of_meanwhile() {
    let mut rig = Rig::new();
    rig.prepares();
    let (token, _) = rig.join();
    rig.joined(token, 1, "m");
    let Some(Event::Elect(election)) = rig.next() else {
        panic!("no election");
    };
    assert_eq!((election.members.len(), election.skip), (1, false));
    assert!(rig.machine.leads());
    assert_eq!(rig.wait(), INTERVAL);
    let (beat, _) = rig.beat();
    rig.beaten(beat, codes::REBALANCE_IN_PROGRESS);
    rig.quiet();
    rig.machine.elected(rig.now, 0, Ok(Vec::new()));
    rig.quiet();
    let gets = (Arc::from("m"), Bytes::from_static(b"all"));
    rig.machine.elected(rig.now, 1, Ok(vec![gets.clone()]));
    let (_, sync) = rig.sync();
    assert_eq!(sync.assignments, [gets]);
}

#[test]
fn a_leader_that_cannot_assign_says_so_and_waits_before_it_tries_again() {
    let mut rig = Rig::new();
    rig.prepares();
    for _ in 0..10 {
        let (token, _) = rig.join();
        rig.joined(token, 1, "m");
        assert!(matches!(rig.next(), Some(Event::Elect(_))));
        let error = Error::new(ErrorKind::Group, "it panicked");
        rig.machine.elected(rig.now, 1, Err(error));
        assert!(!rig.fails().is_fatal());
        rig.prepares();
        let began = rig.now;
        while rig.now < began + INTERVAL {
            rig.wait();
            if rig.now < began + INTERVAL {
                let (beat, _) = rig.beat();
                rig.beaten(beat, codes::REBALANCE_IN_PROGRESS);
            }
        }
    }
}

#[test]
fn a_member_that_rejoins_keeps_its_generation_until_it_has_the_next() {
    let mut rig = Rig::preparing();
    // The application takes its time: heartbeats go on.
    assert_eq!(rig.wait(), INTERVAL);
    let (beat, _) = rig.beat();
    rig.beaten(beat, codes::REBALANCE_IN_PROGRESS);
    rig.quiet();
    assert_eq!(rig.machine.identity().unwrap().epoch, 1);
    rig.machine
        .prepared(vec![(Arc::from("range"), Bytes::new())]);
    let (token, join) = rig.join();
    assert_eq!(&*join.sender.member_id, "m");
    rig.quiet();
    assert!(
        rig.machine.next_timeout().is_none(),
        "the coordinator waits"
    );
    assert_eq!(rig.machine.identity().unwrap().epoch, 1);
    let life = rig.machine.life();
    rig.joined(token, 2, "other");
    assert_eq!(rig.machine.identity().unwrap().epoch, 2);
    let (token, _) = rig.sync();
    rig.synced(token);
    assert_eq!(rig.assigned().generation, 2);
    assert_eq!(rig.machine.life(), life);
}

#[test]
fn what_a_member_says_anew_is_said_in_the_next_rebalance() {
    let mut rig = Rig::member();
    rig.machine.rejoin("topics");
    rig.prepares();
    let (token, join) = rig.join();
    assert_eq!(join.reason, "topics");
    // Once more, while it waits.
    rig.machine.rejoin("more topics");
    rig.quiet();
    rig.joined(token, 2, "other");
    let (token, _) = rig.sync();
    rig.synced(token);
    rig.assigned();
    rig.prepares();
    assert_eq!(rig.join().1.reason, "more topics");
}

#[test]
fn nobody_is_told_that_the_coordinator_moved_but_asks_again_after_a_pause() {
    for code in [
        codes::NOT_COORDINATOR,
        codes::COORDINATOR_NOT_AVAILABLE,
        codes::COORDINATOR_LOAD_IN_PROGRESS,
        codes::REQUEST_TIMED_OUT,
        codes::UNKNOWN_SERVER_ERROR,
    ] {
        let mut rig = Rig::member();
        rig.wait();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let (token, _) = rig.beat();
            rig.beaten(token, code);
            pauses.push(rig.wait().as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        let (mut rig, mut token) = Rig::rejoining();
        let mut pauses = Vec::new();
        for _ in 0..5 {
            rig.answer(token, Ok(GroupResponse::Join(self::code(code))));
            pauses.push(rig.wait().as_millis());
            token = rig.join().0;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000]);
        let (mut rig, token) = Rig::syncing();
        let answer = SyncAnswer {
            code,
            ..SyncAnswer::default()
        };
        rig.answer(token, Ok(GroupResponse::Sync(answer)));
        rig.prepares();
        assert_eq!(rig.wait().as_millis(), 100);
        let (_, join) = rig.join();
        assert_eq!(&*join.sender.member_id, "m");
        assert_eq!(rig.machine.identity().unwrap().epoch, 2);
    }
}

#[test]
fn who_is_thrown_out_loses_all_and_joins_again() {
    for code in [codes::UNKNOWN_MEMBER_ID, codes::ILLEGAL_GENERATION] {
        let id = match code {
            codes::UNKNOWN_MEMBER_ID => "",
            _ => "m",
        };
        let again = |rig: &mut Rig| {
            rig.is_lost();
            rig.prepares();
            let (token, join) = rig.join();
            assert_eq!(&*join.sender.member_id, id);
            assert_eq!(rig.machine.life(), 2);
            // A second time it waits.
            rig.answer(token, Ok(GroupResponse::Join(self::code(code))));
            rig.prepares();
            assert_eq!(rig.wait().as_millis(), 100);
            rig.join();
        };
        let mut rig = Rig::member();
        rig.wait();
        let (token, _) = rig.beat();
        rig.beaten(token, code);
        again(&mut rig);
        let mut rig = Rig::preparing();
        rig.wait();
        let (token, _) = rig.beat();
        rig.beaten(token, code);
        again(&mut rig);
        let (mut rig, token) = Rig::rejoining();
        rig.answer(token, Ok(GroupResponse::Join(self::code(code))));
        again(&mut rig);
        let (mut rig, token) = Rig::syncing();
        let answer = SyncAnswer {
            code,
            ..SyncAnswer::default()
        };
        rig.answer(token, Ok(GroupResponse::Sync(answer)));
        again(&mut rig);
    }
}

#[test]
fn another_rebalance_meanwhile_is_joined() {
    let (mut rig, token) = Rig::syncing();
    // The answer that it waits for says so, too.
    rig.wait();
    let (beat, _) = rig.beat();
    rig.beaten(beat, codes::REBALANCE_IN_PROGRESS);
    rig.quiet();
    let answer = SyncAnswer {
        code: codes::REBALANCE_IN_PROGRESS,
        ..SyncAnswer::default()
    };
    rig.answer(token, Ok(GroupResponse::Sync(answer)));
    rig.prepares();
    assert_eq!(&*rig.join().1.sender.member_id, "m");
    assert_eq!(rig.machine.life(), 1);
}

#[test]
fn a_refusal_for_good_ends_it() {
    const FOR_GOOD: [i16; 6] = [
        codes::FENCED_INSTANCE_ID,
        23, // INCONSISTENT_GROUP_PROTOCOL
        26, // INVALID_SESSION_TIMEOUT
        30, // GROUP_AUTHORIZATION_FAILED
        codes::UNSUPPORTED_VERSION,
        81, // GROUP_MAX_SIZE_REACHED
    ];
    for code in FOR_GOOD {
        let over = |mut rig: Rig| {
            rig.is_lost();
            let error = rig.fails();
            assert!(error.is_fatal());
            assert_eq!(error.code().unwrap().get(), code);
            rig.quiet();
            rig.machine.join();
            rig.machine.rejoin("again");
            rig.quiet();
            assert!(rig.machine.next_timeout().is_none());
            rig.machine.leave(GroupMembershipOperation::LeaveGroup, "");
            assert!(matches!(rig.next(), Some(Event::Left)));
        };
        let mut rig = Rig::member();
        rig.wait();
        let (token, _) = rig.beat();
        rig.beaten(token, code);
        over(rig);
        let (mut rig, token) = Rig::rejoining();
        rig.answer(token, Ok(GroupResponse::Join(self::code(code))));
        over(rig);
        let (mut rig, token) = Rig::syncing();
        let answer = SyncAnswer {
            code,
            ..SyncAnswer::default()
        };
        rig.answer(token, Ok(GroupResponse::Sync(answer)));
        over(rig);
    }
}

#[test]
fn without_an_answer_for_the_session_time_out_all_is_lost() {
    let states: [fn() -> Rig; 3] = [Rig::member, Rig::preparing, || Rig::syncing().0];
    for state in states {
        let mut rig = state();
        let began = rig.now;
        loop {
            rig.now = rig.machine.next_timeout().unwrap();
            match rig.next() {
                Some(Event::Send(token, GroupRequest::Heartbeat(_))) => {
                    rig.answer(token, Err(lost()));
                }
                Some(Event::Lost) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(rig.now, began + SESSION);
        rig.prepares();
        // The coordinator may know it still.
        assert_eq!(&*rig.join().1.sender.member_id, "m");
    }
}

#[test]
fn a_heartbeat_without_an_answer_does_not_keep_the_session_up() {
    let mut rig = Rig::member();
    let began = rig.now;
    rig.wait();
    let (token, _) = rig.beat();
    rig.quiet();
    rig.now = rig.machine.next_timeout().unwrap();
    assert_eq!(rig.now, began + SESSION);
    rig.is_lost();
    // Too late.
    rig.beaten(token, codes::NONE);
    rig.prepares();
    rig.join();
}

#[test]
fn an_answer_that_was_long_on_its_way_does_not_keep_the_session_up() {
    let (mut rig, token) = Rig::syncing();
    let began = rig.now;
    rig.now += SESSION - Duration::from_secs(1);
    let (beat, _) = rig.beat();
    rig.answer(beat, Err(lost()));
    rig.synced(token);
    rig.assigned();
    rig.now = began + SESSION;
    rig.is_lost();
}

#[test]
fn while_a_rebalance_is_waited_for_the_session_goes_on() {
    let (mut rig, token) = Rig::rejoining();
    rig.now += 4 * SESSION;
    rig.quiet();
    // The connection ended: from now on it counts.
    rig.answer(token, Err(lost()));
    let began = rig.now;
    loop {
        rig.now = rig.machine.next_timeout().unwrap();
        match rig.next() {
            Some(Event::Send(token, _)) => rig.answer(token, Err(lost())),
            Some(Event::Lost) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.now, began + SESSION);
}

#[test]
fn a_join_that_was_not_sent_does_not_keep_the_session_up() {
    let (mut rig, token) = Rig::rejoining();
    let began = rig.now;
    rig.now += Duration::from_secs(30);
    let unsent = lost().with_certainty(Certainty::NotSent);
    rig.answer(token, Err(unsent));
    loop {
        rig.now = rig.machine.next_timeout().unwrap();
        match rig.next() {
            Some(Event::Send(token, _)) => rig.answer(token, Err(lost())),
            Some(Event::Lost) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(rig.now <= began + SESSION, "{:?}", rig.now - began);
}

#[test]
fn what_was_to_come_does_not_come_after_leaving() {
    let (mut rig, token) = Rig::syncing();
    rig.synced(token);
    rig.machine
        .leave(GroupMembershipOperation::Default, "closed");
    assert!(matches!(rig.next(), Some(Event::Send(..))));
    rig.quiet();
}

#[test]
fn an_answer_to_an_older_request_is_dropped() {
    let mut rig = Rig::member();
    rig.wait();
    let (beat, _) = rig.beat();
    rig.machine.rejoin("topics");
    rig.prepares();
    let (token, _) = rig.join();
    rig.beaten(beat, codes::UNKNOWN_MEMBER_ID);
    rig.quiet();
    rig.joined(token, 2, "other");
    let (sync, _) = rig.sync();
    rig.joined(token, 3, "other");
    rig.quiet();
    rig.synced(sync);
    assert_eq!(rig.assigned().generation, 2);
}

#[test]
fn an_answer_that_makes_no_sense_is_asked_for_again() {
    let whole = JoinAnswer {
        generation: 1,
        protocol: "range".into(),
        leader: "other".into(),
        member_id: "m".into(),
        ..JoinAnswer::default()
    };
    let senseless = [
        JoinAnswer {
            generation: -1,
            ..whole.clone()
        },
        JoinAnswer {
            member_id: "".into(),
            ..whole.clone()
        },
        JoinAnswer {
            protocol: "uniform".into(),
            ..whole.clone()
        },
        JoinAnswer {
            protocol_type: Some("connect".into()),
            ..whole
        },
        code(codes::MEMBER_ID_REQUIRED),
    ];
    for answer in senseless {
        let mut rig = Rig::new();
        rig.prepares();
        let (token, _) = rig.join();
        rig.answer(token, Ok(GroupResponse::Join(answer)));
        assert_eq!(rig.wait().as_millis(), 100);
        let (token, _) = rig.join();
        rig.answer(token, Ok(GroupResponse::Leave));
        assert_eq!(rig.wait().as_millis(), 200);
    }
    let (mut rig, token) = Rig::syncing();
    let answer = SyncAnswer {
        protocol: Some("sticky".into()),
        ..SyncAnswer::default()
    };
    rig.answer(token, Ok(GroupResponse::Sync(answer)));
    rig.prepares();
    assert_eq!(rig.wait().as_millis(), 100);
    rig.join();
}

#[test]
fn a_coordinator_that_gives_ids_and_never_a_place_does_not_make_it_spin() {
    let mut rig = Rig::new();
    rig.prepares();
    for pause in [0, 100, 200, 400, 800, 1000, 1000] {
        let (token, _) = rig.join();
        let given = JoinAnswer {
            member_id: "given".into(),
            ..code(codes::MEMBER_ID_REQUIRED)
        };
        rig.answer(token, Ok(GroupResponse::Join(given)));
        if pause > 0 {
            assert_eq!(rig.wait().as_millis(), pause);
        }
    }
}

#[test]
fn a_member_joins_with_its_id_at_once_however_often_it_failed_before() {
    let mut rig = Rig::new();
    rig.prepares();
    for pause in [100, 400, 1000, 1000] {
        let (token, join) = rig.join();
        assert_eq!(&*join.sender.member_id, "");
        let given = JoinAnswer {
            member_id: "given".into(),
            ..code(codes::MEMBER_ID_REQUIRED)
        };
        rig.answer(token, Ok(GroupResponse::Join(given)));
        let (token, join) = rig.join();
        assert_eq!(&*join.sender.member_id, "given");
        let unknown = code(codes::UNKNOWN_MEMBER_ID);
        rig.answer(token, Ok(GroupResponse::Join(unknown)));
        rig.prepares();
        assert_eq!(rig.wait().as_millis(), pause);
    }
}

#[test]
fn leaves_as_it_is_told() {
    use GroupMembershipOperation::{Default, LeaveGroup, RemainInGroup};
    for (instance, operation, tells) in [
        (None, Default, true),
        (None, LeaveGroup, true),
        (None, RemainInGroup, false),
        (Some("i"), Default, false),
        (Some("i"), LeaveGroup, true),
        (Some("i"), RemainInGroup, false),
    ] {
        let mut rig = Rig::member_of(settings(instance));
        rig.machine.leave(operation, "closed");
        assert!(rig.machine.identity().is_none());
        if tells {
            let (token, request) = rig.sent();
            let GroupRequest::Leave(leave) = request else {
                panic!("{request:?}");
            };
            assert_eq!((&*leave.sender.member_id, leave.reason), ("m", "closed"));
            assert_eq!(leave.sender.instance_id.as_deref(), instance);
            rig.quiet();
            rig.answer(token, Err(lost()));
        }
        assert!(matches!(rig.next(), Some(Event::Left)));
        rig.quiet();
        // It comes back as anybody who comes.
        rig.machine.join();
        rig.prepares();
        assert_eq!(&*rig.join().1.sender.member_id, "");
        assert_eq!(rig.machine.life(), 2);
    }
}

#[test]
fn leaving_does_not_wait_for_a_rebalance() {
    let (mut rig, token) = Rig::rejoining();
    rig.machine.leave(GroupMembershipOperation::Default, "");
    let (leave, _) = rig.sent();
    rig.joined(token, 2, "m");
    rig.quiet();
    rig.answer(leave, Ok(GroupResponse::Leave));
    assert!(matches!(rig.next(), Some(Event::Left)));
    // One that nobody knows yet has nobody to tell.
    let mut rig = Rig::new();
    rig.prepares();
    rig.join();
    rig.machine.leave(GroupMembershipOperation::Default, "");
    assert!(matches!(rig.next(), Some(Event::Left)));
}
