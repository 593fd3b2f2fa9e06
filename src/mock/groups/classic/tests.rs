use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

struct Test {
    group: ClassicGroup,
    now: Instant,
    version: i16,
    delay: Duration,
    max_size: usize,
    asked: u32,
}

fn test() -> Test {
    Test {
        group: ClassicGroup::default(),
        now: crate::clock::now(),
        version: 9,
        delay: Duration::ZERO,
        max_size: usize::MAX,
        asked: 0,
    }
}

fn request(id: &str, protocols: &[&str]) -> JoinGroupRequest {
    let protocol = |name: &&str| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(Bytes::from(format!("{name} of it")))
    };
    JoinGroupRequest::default()
        .with_member_id(text(id))
        .with_protocol_type(text("consumer"))
        .with_protocols(protocols.iter().map(protocol).collect())
        .with_session_timeout_ms(SESSION.as_millis() as i32)
        .with_rebalance_timeout_ms(REBALANCE.as_millis() as i32)
}

fn of_static(id: &str, instance: &str) -> JoinGroupRequest {
    request(id, &["range"]).with_group_instance_id(Some(text(instance)))
}

type Joining = Reply<JoinGroupResponse>;
type Syncing = Reply<SyncGroupResponse>;

impl Test {
    fn ask(&mut self, request: &JoinGroupRequest) -> Joining {
        self.asked += 1;
        let asker = Asker {
            client_id: "c",
            version: self.version,
            random: self.asked.to_string(),
            initial_delay: self.delay,
            max_size: self.max_size,
        };
        self.group.join(request, &asker, self.now)
    }

    /// Joins with an id that it is given first.
    fn come(&mut self, protocols: &[&str]) -> (String, Joining) {
        let given = self.ask(&request("", protocols));
        let given = done(&given);
        assert_eq!(given.error_code, codes::MEMBER_ID_REQUIRED);
        let id = given.member_id.to_string();
        let reply = self.ask(&request(&id, protocols));
        (id, reply)
    }

    fn again(&mut self, id: &str) -> Joining {
        self.ask(&request(id, &["range"]))
    }

    fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &str)]) -> Syncing {
        let one = |(id, assignment): &(&str, &str)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(id))
                .with_assignment(Bytes::from((*assignment).to_owned()))
        };
        let request = SyncGroupRequest::default()
            .with_member_id(text(id))
            .with_generation_id(generation)
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assignments.iter().map(one).collect());
        self.group.sync(&request, self.now)
    }

    fn beat(&mut self, id: &str, generation: i32) -> i16 {
        self.group.heartbeat(id, None, generation, self.now)
    }

    fn leave(&mut self, id: &str) -> i16 {
        let leaving = MemberIdentity::default().with_member_id(text(id));
        self.group.leave(&[leaving], self.now)[0]
    }

    fn commit(&mut self, id: &str, generation: i32) -> i16 {
        let checked = self.group.check_commit(id, None, generation, self.now);
        checked.err().unwrap_or(codes::NONE)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.expire(self.now);
    }

    /// A stable group of two: the leader and the other.
    fn two(&mut self) -> (String, String) {
        let (a, _) = self.come(&["range"]);
        let (b, _) = self.come(&["range"]);
        self.again(&a);
        self.sync(&a, 2, &[(&a, "of a"), (&b, "of b")]);
        self.sync(&b, 2, &[]);
        assert_eq!(self.group.state(), "Stable");
        (a, b)
    }
}

fn done<T: Clone>(reply: &Reply<T>) -> T {
    reply.get().expect("it is answered").clone()
}

fn waits<T>(reply: &Reply<T>) -> bool {
    reply.get().is_none() && Arc::strong_count(reply) > 1
}

#[tokio::test]
async fn a_group_forms_syncs_and_ends() {
    let mut test = test();
    let (a, first) = test.come(&["range", "sticky"]);
    assert_eq!(a, "c-1", "the client's name and what is random");
    let first = done(&first);
    assert_eq!((first.error_code, first.generation_id), (codes::NONE, 1));
    assert_eq!(&*first.leader, &*a);
    assert_eq!(first.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(first.protocol_name.as_deref(), Some("range"));
    assert_eq!(first.members.len(), 1);
    assert_eq!(&first.members[0].metadata[..], b"range of it");
    assert_eq!(test.group.state(), "CompletingRebalance");
    let synced = done(&test.sync(&a, 1, &[(&a, "all")]));
    assert_eq!(&synced.assignment[..], b"all");
    assert_eq!(synced.protocol_name.as_deref(), Some("range"));
    assert_eq!(test.group.state(), "Stable");
    assert_eq!(test.beat(&a, 1), codes::NONE);

    let (b, second) = test.come(&["range"]);
    assert!(waits(&second));
    assert_eq!(test.group.state(), "PreparingRebalance");
    assert_eq!(test.beat(&a, 1), codes::REBALANCE_IN_PROGRESS);
    let first = done(&test.again(&a));
    let second = done(&second);
    assert_eq!((first.generation_id, second.generation_id), (2, 2));
    assert_eq!((&*first.leader, &*second.leader), (&*a, &*a));
    assert_eq!((first.members.len(), second.members.len()), (2, 0));

    let late = test.sync(&b, 2, &[]);
    assert!(waits(&late));
    assert_eq!(test.beat(&b, 2), codes::NONE);
    let synced = done(&test.sync(&a, 2, &[(&b, "of b")]));
    assert_eq!(&synced.assignment[..], b"", "the leader left itself out");
    assert_eq!(&done(&late).assignment[..], b"of b");
    assert_eq!(&done(&test.sync(&b, 2, &[])).assignment[..], b"of b");

    assert_eq!(test.leave(&b), codes::NONE);
    assert_eq!(test.leave(&b), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(test.group.state(), "PreparingRebalance");
    assert_eq!(test.leave(&a), codes::NONE);
    assert_eq!((test.group.state(), test.group.generation), ("Empty", 3));
    assert_eq!(test.beat(&a, 3), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(test.group.next_deadline(), None);
}

#[tokio::test]
async fn the_first_rebalance_waits_for_more_members_but_not_for_ever() {
    let mut test = test();
    test.delay = Duration::from_secs(3);
    let (_, first) = test.come(&["range"]);
    test.pass(Duration::from_secs(2));
    let (_, second) = test.come(&["range"]);
    test.pass(Duration::from_secs(2));
    assert!(waits(&first), "put off once");
    test.pass(Duration::from_secs(2));
    assert_eq!(
        (done(&first).generation_id, done(&first).members.len()),
        (1, 2)
    );
    assert_eq!(done(&second).generation_id, 1);

    let mut group = self::test();
    group.delay = Duration::from_secs(3);
    let (_, first) = group.come(&["range"]);
    let begun = group.now;
    while waits(&first) {
        group.come(&["range"]);
        group.pass(Duration::from_secs(1));
    }
    assert_eq!(group.now - begun, REBALANCE, "however many come");
}

#[tokio::test]
async fn who_does_not_join_again_in_time_is_removed() {
    let mut test = test();
    let (a, b) = test.two();
    let (_, third) = test.come(&["range"]);
    for _ in 0..7 {
        assert_eq!(test.beat(&a, 2), codes::REBALANCE_IN_PROGRESS);
        test.again(&b);
        test.pass(Duration::from_secs(8));
    }
    assert!(waits(&third), "a heartbeat keeps a member in");
    test.pass(Duration::from_secs(4));
    let third = done(&third);
    assert_eq!(
        (third.generation_id, &*third.leader),
        (3, &*b),
        "b leads: it came first"
    );
    assert_eq!(test.beat(&a, 2), codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test]
async fn who_does_not_sync_in_time_is_removed() {
    let mut test = test();
    let (a, first) = test.come(&["range"]);
    assert_eq!(done(&first).generation_id, 1);
    for _ in 0..7 {
        assert_eq!(test.beat(&a, 1), codes::NONE);
        test.pass(Duration::from_secs(8));
    }
    assert_eq!(test.beat(&a, 1), codes::NONE);
    test.pass(Duration::from_secs(4));
    assert_eq!(test.beat(&a, 1), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(test.group.state(), "Empty");

    // The other member's wait ends, and it is told to join again.
    let (a, _) = test.come(&["range"]);
    let (b, _) = test.come(&["range"]);
    test.again(&a);
    let waiting = test.sync(&b, test.group.generation, &[]);
    test.pass(SESSION);
    assert_eq!(done(&waiting).error_code, codes::REBALANCE_IN_PROGRESS);
    assert_eq!(
        test.beat(&a, test.group.generation),
        codes::UNKNOWN_MEMBER_ID
    );
    assert_eq!(test.group.leader.as_deref(), Some(&*b));
}

#[tokio::test]
async fn silent_members_are_thrown_out_and_waiting_ones_are_not() {
    let mut test = test();
    let (a, b) = test.two();
    test.pass(SESSION / 2);
    assert_eq!(test.beat(&a, 2), codes::NONE);
    test.pass(SESSION / 2);
    assert_eq!(test.group.state(), "PreparingRebalance", "b was silent");
    assert_eq!(test.beat(&b, 2), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(done(&test.again(&a)).members.len(), 1);

    test.sync(&a, 3, &[]);
    let (_, new) = test.come(&["range"]);
    for _ in 0..6 {
        test.beat(&a, 3);
        test.pass(SESSION / 2);
    }
    assert!(waits(&new), "a member that joins sends no heartbeats");

    // Not even a new one waits without end, if the others take their time.
    let mut slow = self::test();
    let hour = request("", &["range"]).with_rebalance_timeout_ms(3_600_000);
    let id = done(&slow.ask(&hour)).member_id;
    let hour = hour.with_member_id(id.clone());
    slow.ask(&hour);
    slow.sync(&id, 1, &[]);
    let (_, new) = slow.come(&["range"]);
    for _ in 0..30 {
        assert_eq!(slow.beat(&id, 1), codes::REBALANCE_IN_PROGRESS);
        assert!(waits(&new));
        slow.pass(SESSION - TICK);
    }
    slow.beat(&id, 1);
    slow.pass(Duration::from_secs(1));
    assert_eq!(done(&new).error_code, codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test]
async fn ids_that_nobody_uses_hold_up_a_rebalance_for_a_session() {
    let mut test = test();
    let (a, _) = test.two();
    let given = done(&test.ask(&request("", &["range"])));
    assert_eq!(test.group.state(), "Stable", "an id alone is no member");
    let (_, third) = test.come(&["range"]);
    let leaders = test.again(&a);
    test.group.leave(
        &[MemberIdentity::default().with_member_id(text("c-2"))],
        test.now,
    );
    assert!(waits(&leaders) && waits(&third));
    test.pass(SESSION);
    assert_eq!(done(&leaders).generation_id, 3);
    let late = done(&test.again(&given.member_id));
    assert_eq!(late.error_code, codes::UNKNOWN_MEMBER_ID);

    // One that leaves before it has joined.
    let given = done(&test.ask(&request("", &["range"])));
    assert_eq!(test.leave(&given.member_id), codes::NONE);
    assert_eq!(test.leave(&given.member_id), codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test]
async fn who_joins_again_without_need_is_told_the_present_generation() {
    let mut test = test();
    let (a, _) = test.come(&["range"]);
    let again = done(&test.again(&a));
    assert_eq!((again.generation_id, again.members.len()), (1, 1));
    let (b, _) = test.come(&["range"]);
    test.again(&a);
    test.sync(&a, 2, &[]);
    let again = done(&test.again(&b));
    assert_eq!((again.generation_id, again.members.len()), (2, 0));
    assert_eq!(test.group.state(), "Stable");
    let other = test.ask(&request(&b, &["range", "sticky"]));
    assert!(waits(&other), "it changed, so all join");
    assert_eq!(done(&test.again(&a)).generation_id, 3);
    test.sync(&a, 3, &[]);
    let leaders = test.again(&a);
    assert!(waits(&leaders), "a leader always begins a rebalance");
    assert_eq!(test.group.state(), "PreparingRebalance");
}

#[tokio::test]
async fn a_join_that_comes_again_takes_the_place_of_the_first() {
    let mut test = test();
    test.two();
    let (c, first) = test.come(&["range"]);
    let second = test.again(&c);
    assert!(first.get().is_none() && Arc::strong_count(&first) == 1);
    assert!(waits(&second));
}

#[tokio::test]
async fn the_protocol_is_one_that_all_have_and_most_want() {
    let mut test = test();
    let refused = done(&test.ask(&request("", &[])));
    assert_eq!(refused.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);
    let (a, _) = test.come(&["sticky", "range"]);
    let (b, _) = test.come(&["range", "sticky"]);
    let (c, third) = test.come(&["range", "sticky", "own"]);
    test.ask(&request(&a, &["sticky", "range"]));
    test.ask(&request(&b, &["range", "sticky"]));
    let joined = done(&third);
    assert_eq!(
        (joined.generation_id, joined.protocol_name.as_deref()),
        (2, Some("range"))
    );
    let only = done(&test.ask(&request("", &["own"])));
    assert_eq!(only.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(&*only.member_id, "");
    let only = done(&test.ask(&request(&c, &["other"])));
    assert_eq!(only.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(&*only.member_id, &*c);
    let connect = request("", &["range"]).with_protocol_type(text("connect"));
    let connect = done(&test.ask(&connect));
    assert_eq!(connect.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);

    let asked = |kind: &str, name: &str| {
        SyncGroupRequest::default()
            .with_member_id(text(&a))
            .with_generation_id(2)
            .with_protocol_type(Some(text(kind)))
            .with_protocol_name(Some(text(name)))
    };
    for other in [asked("connect", "range"), asked("consumer", "sticky")] {
        let refused = done(&test.group.sync(&other, test.now));
        assert_eq!(refused.error_code, codes::INCONSISTENT_GROUP_PROTOCOL);
    }
    let refused = done(&test.sync(&a, 1, &[]));
    assert_eq!(refused.error_code, codes::ILLEGAL_GENERATION);
    let refused = done(&test.sync("nobody", 2, &[]));
    assert_eq!(refused.error_code, codes::UNKNOWN_MEMBER_ID);
}

#[tokio::test]
async fn a_static_member_comes_back_without_a_rebalance() {
    let mut test = test();
    let old = done(&test.ask(&of_static("", "i")));
    assert_eq!(
        (&*old.member_id, old.generation_id),
        ("i-1", 1),
        "at once, without an id"
    );
    test.sync("i-1", 1, &[("i-1", "all")]);
    let new = done(&test.ask(&of_static("", "i")));
    assert_eq!(
        (&*new.member_id, &*new.leader, new.generation_id),
        ("i-2", "i-2", 1)
    );
    assert!(new.skip_assignment && new.members.len() == 1);
    assert_eq!(test.group.state(), "Stable");
    let fenced = test.group.heartbeat("i-1", Some("i"), 1, test.now);
    assert_eq!(fenced, codes::FENCED_INSTANCE_ID);
    assert_eq!(test.beat("i-1", 1), codes::UNKNOWN_MEMBER_ID);
    let checked = test.group.check_commit("i-1", Some("i"), 1, test.now);
    assert_eq!(checked, Err(codes::FENCED_INSTANCE_ID));
    let refused = done(&test.ask(&of_static("i-1", "i")));
    assert_eq!(refused.error_code, codes::FENCED_INSTANCE_ID);
    let unknown = test.group.heartbeat("i-2", Some("j"), 1, test.now);
    assert_eq!(unknown, codes::UNKNOWN_MEMBER_ID);
    assert_eq!(&done(&test.sync("i-2", 1, &[])).assignment[..], b"all");

    test.version = 8;
    let older = done(&test.ask(&of_static("", "i")));
    assert_eq!(
        (&*older.member_id, &*older.leader),
        ("i-4", "i-2"),
        "it shall not assign"
    );
    assert!(!older.skip_assignment && older.members.is_empty());

    let other = request("", &["sticky", "range"]).with_group_instance_id(Some(text("i")));
    let other = done(&test.ask(&other));
    assert_eq!(
        (other.generation_id, other.protocol_name.as_deref()),
        (2, Some("sticky"))
    );

    // By its instance id alone, as an administrator takes it out.
    let leaving = MemberIdentity::default().with_group_instance_id(Some(text("i")));
    let leaving = [leaving.clone(), leaving];
    assert_eq!(
        test.group.leave(&leaving, test.now),
        [codes::NONE, codes::UNKNOWN_MEMBER_ID]
    );
    assert_eq!(test.group.state(), "Empty");
}

#[tokio::test]
async fn a_static_member_that_is_replaced_while_it_waits_is_fenced_at_once() {
    let mut test = test();
    let (a, _) = test.two();
    let old = test.ask(&of_static("", "i"));
    let new = test.ask(&of_static("", "i"));
    assert_eq!(done(&old).error_code, codes::FENCED_INSTANCE_ID);
    assert!(waits(&new));
    test.again(&a);
    test.pass(SESSION);
    let id = done(&new).member_id;
    let generation = test.group.generation;
    let waiting = test.sync(&id, generation, &[]);
    // While the leader assigns, a new id begins a new rebalance.
    let newer = test.ask(&of_static("", "i"));
    assert_eq!(done(&waiting).error_code, codes::FENCED_INSTANCE_ID);
    assert!(waits(&newer));
    assert_eq!(test.group.state(), "PreparingRebalance");
}

#[tokio::test]
async fn static_members_that_are_away_keep_their_place_until_their_session_ends() {
    let mut test = test();
    let long = of_static("", "i").with_session_timeout_ms(600_000);
    let id = done(&test.ask(&long)).member_id;
    test.sync(&id, 1, &[]);
    let (_, second) = test.come(&["range"]);
    test.pass(REBALANCE);
    let second = done(&second);
    assert_eq!(second.members.len(), 2, "the static one is still in");
    assert_eq!(second.leader, second.member_id);
    let beat = test.group.heartbeat(&id, Some("i"), 1, test.now);
    assert_eq!(beat, codes::ILLEGAL_GENERATION);
}

#[tokio::test]
async fn more_members_than_allowed_are_sent_away() {
    let mut test = test();
    test.max_size = 2;
    let (a, b) = test.two();
    let refused = done(&test.ask(&request("", &["range"])));
    assert_eq!(refused.error_code, codes::GROUP_MAX_SIZE_REACHED);
    assert_eq!(done(&test.again(&b)).error_code, codes::NONE);
    test.max_size = 1;
    let leaders = test.again(&a);
    assert!(waits(&leaders));
    let refused = done(&test.again(&b));
    assert_eq!(refused.error_code, codes::GROUP_MAX_SIZE_REACHED);
}

#[tokio::test]
async fn commits_are_for_members_of_the_present_generation_once_they_are_assigned() {
    let mut test = test();
    assert_eq!(test.commit("", -1), codes::NONE);
    let (a, _) = test.come(&["range"]);
    assert_eq!(test.commit(&a, 1), codes::REBALANCE_IN_PROGRESS);
    assert_eq!(test.commit("", -1), codes::UNKNOWN_MEMBER_ID);
    test.sync(&a, 1, &[]);
    assert_eq!(test.commit("", -1), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(test.commit("nobody", 1), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(test.commit(&a, 2), codes::ILLEGAL_GENERATION);
    assert_eq!(test.commit(&a, -1), codes::ILLEGAL_GENERATION);
    test.pass(SESSION - TICK);
    assert_eq!(test.commit(&a, 1), codes::NONE);
    test.pass(SESSION - TICK);
    assert_eq!(
        test.commit(&a, 1),
        codes::NONE,
        "a commit is a sign of life"
    );
    test.come(&["range"]);
    assert_eq!(test.commit(&a, 1), codes::NONE, "before it joins again");
}

#[tokio::test]
async fn another_coordinator_knows_what_was_written() {
    let mut test = test();
    let (a, b) = test.two();
    let (c, third) = test.come(&["range"]);
    test.group.reload(test.now);
    assert_eq!(done(&third).error_code, codes::NOT_COORDINATOR);
    assert_eq!((test.group.state(), test.group.generation), ("Stable", 2));
    assert_eq!(test.beat(&c, 2), codes::UNKNOWN_MEMBER_ID);
    assert_eq!(
        (test.beat(&a, 2), test.beat(&b, 2)),
        (codes::NONE, codes::NONE)
    );
    assert_eq!(&done(&test.sync(&b, 2, &[])).assignment[..], b"of b");
    test.leave(&a);
    test.again(&b);
    assert_eq!(test.group.state(), "CompletingRebalance");
    let waiting = test.sync(&b, 3, &[(&b, "all")]);
    assert_eq!(done(&waiting).error_code, codes::NONE);
    test.group.reload(test.now);
    assert_eq!((test.group.state(), test.group.generation), ("Stable", 3));
}

/// What holds after every request.
fn check(group: &ClassicGroup, crowded: bool) {
    let members = || group.members.iter();
    match &group.leader {
        Some(leader) => assert!(group.members.contains_key(leader), "a leader from outside"),
        None => assert!(group.members.is_empty(), "members without a leader"),
    }
    for (id, member) in members() {
        assert!(
            !group.pending.contains_key(id),
            "{id} is a member and no member"
        );
        assert!(member.join.is_none() || matches!(group.state, State::Preparing(_)));
        assert!(member.sync.is_none() || group.state == State::Completing);
        assert!(member.sync.is_none() || member.asked == group.generation);
    }
    let mut instances: Vec<_> = members()
        .filter_map(|(_, m)| m.instance_id.clone())
        .collect();
    let count = instances.len();
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), count, "one member per instance");
    if let State::Preparing(None) = group.state {
        let all = members().all(|(_, member)| member.join.is_some());
        // Kafka does not look again when it sends one away for whom there is no room.
        let fine = crowded || !all || !group.pending.is_empty();
        assert!(fine, "nobody is waited for");
    }
    assert_eq!(
        group.state == State::Empty,
        group.members.is_empty() && group.timer.is_none()
    );
}

#[tokio::test]
async fn whatever_members_do_the_group_stays_whole() {
    for seed in 1..200_u64 {
        let mut test = test();
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |below: u64| {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (chance >> 33) % below
        };
        test.delay = Duration::from_secs(draw(2) * 3);
        test.max_size = [usize::MAX, 3][draw(2) as usize];
        let mut ids: Vec<String> = vec![String::new()];
        let mut waiting: Vec<Joining> = Vec::new();
        for _ in 0..120 {
            let id = ids[draw(ids.len() as u64) as usize].clone();
            let generation = test.group.generation - i32::from(draw(8) == 0);
            match draw(12) {
                0..5 => {
                    let instance = ["i", "j"][draw(2) as usize];
                    let fixed = id.starts_with(instance) || id.is_empty() && draw(3) == 0;
                    let names: &[&str] = [&["range"][..], &["range", "sticky"]][draw(2) as usize];
                    let asked =
                        request(&id, names).with_group_instance_id(fixed.then(|| text(instance)));
                    waiting.push(test.ask(&asked));
                }
                5..8 => drop(test.sync(&id, generation, &[(&id, "x")])),
                8..10 => drop(test.beat(&id, generation)),
                10 => drop(test.leave(&id)),
                _ => test.pass(Duration::from_millis(draw(12_000))),
            }
            let before = test.group.generation;
            for reply in &waiting {
                let Some(joined) = reply.get() else { continue };
                assert!(joined.generation_id <= before);
                let id = joined.member_id.to_string();
                if !id.is_empty() && !ids.contains(&id) {
                    ids.push(id);
                }
            }
            waiting.retain(|reply| reply.get().is_none());
            check(&test.group, test.max_size == 3);
            if draw(60) == 0 {
                test.group.reload(test.now);
            }
            check(&test.group, test.max_size == 3);
        }
        // Nobody waits for ever.
        test.pass(Duration::from_secs(3_600));
        check(&test.group, test.max_size == 3);
        assert_eq!(test.group.state(), "Empty", "seed {seed}");
        assert!(!waiting.iter().any(waits), "seed {seed}");
    }
}
