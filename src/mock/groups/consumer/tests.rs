use super::*;

const TOPIC: Uuid = Uuid::from_u128(5);

struct Test {
    group: ConsumerGroup,
    now: Instant,
    partitions: i32,
    /// Beside `t`; their ids are their lengths.
    others: Vec<&'static str>,
}

impl Test {
    fn beat(&mut self, beat: &Heartbeat) -> Result<Told, i16> {
        let (count, others) = (self.partitions, self.others.clone());
        let topic = |name: &str| match name {
            "t" => Some((TOPIC, count)),
            other => Some((Uuid::from_u128(100 + other.len() as u128), 1)),
        };
        // An expression here is the beginning of a name.
        let matching = |regex: &str| {
            let names = others.iter().filter(|name| name.starts_with(regex));
            (regex != "(").then(|| names.map(|name| (*name).to_owned()).collect())
        };
        let around = Around {
            now: self.now,
            session_timeout: Duration::from_secs(45),
            topic: &topic,
            catalogue: Catalogue {
                matching: &matching,
                made: others.len(),
            },
        };
        ConsumerGroup::check(beat).unwrap();
        self.group.heartbeat(beat, &around)
    }
}

fn test() -> Test {
    Test {
        group: ConsumerGroup::default(),
        now: crate::clock::now(),
        partitions: 4,
        others: vec!["eu-1", "us"],
    }
}

fn join(id: &str) -> Heartbeat {
    Heartbeat {
        member_id: id.to_owned(),
        rebalance_timeout: Some(Duration::from_secs(60)),
        topics: Some(vec!["t".to_owned()]),
        owned: Some(Parts::new()),
        ..Heartbeat::default()
    }
}

fn alive(id: &str, epoch: i32, owned: Option<&[i32]>) -> Heartbeat {
    Heartbeat {
        member_id: id.to_owned(),
        epoch,
        owned: owned.map(parts),
        ..Heartbeat::default()
    }
}

fn parts(partitions: &[i32]) -> Parts {
    match partitions {
        [] => Parts::new(),
        some => Parts::from([(TOPIC, some.iter().copied().collect())]),
    }
}

fn told(epoch: i32, assigned: Option<&[i32]>) -> Result<Told, i16> {
    Ok(Told {
        epoch,
        assigned: assigned.map(parts),
    })
}

#[tokio::test]
async fn partitions_move_only_when_they_were_given_up() {
    let mut test = test();
    assert_eq!(test.beat(&join("a")), told(1, Some(&[0, 1, 2, 3])));
    assert_eq!(test.beat(&join("b")), told(2, Some(&[])));
    assert_eq!(test.group.state(), "Reconciling");
    assert_eq!(test.beat(&alive("b", 2, None)), told(2, None));
    assert_eq!(test.beat(&alive("a", 1, None)), told(1, Some(&[0, 1])));
    assert_eq!(
        test.beat(&alive("b", 2, None)),
        told(2, None),
        "a has not given them up"
    );
    assert_eq!(test.beat(&alive("a", 1, Some(&[0, 1]))), told(2, None));
    assert_eq!(test.beat(&alive("b", 2, None)), told(2, Some(&[2, 3])));
    assert_eq!(test.group.state(), "Stable");
}

#[tokio::test]
async fn epochs_fence() {
    let mut test = test();
    test.beat(&join("a")).unwrap();
    assert_eq!(
        test.beat(&alive("a", 2, None)),
        Err(codes::FENCED_MEMBER_EPOCH)
    );
    assert_eq!(
        test.beat(&alive("x", 1, None)),
        Err(codes::UNKNOWN_MEMBER_ID)
    );
    test.beat(&join("b")).unwrap();
    test.beat(&alive("a", 1, Some(&[0, 1, 2, 3]))).unwrap();
    test.beat(&alive("a", 1, Some(&[0, 1]))).unwrap();
    assert_eq!(
        test.beat(&alive("a", 1, Some(&[0]))),
        told(2, None),
        "an answer was lost"
    );
    assert_eq!(
        test.beat(&alive("a", 1, Some(&[0, 3]))),
        Err(codes::FENCED_MEMBER_EPOCH)
    );
    assert_eq!(
        test.group.check_commit("a", 1),
        Err(codes::STALE_MEMBER_EPOCH)
    );
    assert_eq!(test.group.check_commit("a", 2), Ok(()));
}

#[tokio::test]
async fn the_silent_and_the_stubborn_are_thrown_out() {
    let mut test = test();
    test.beat(&join("a")).unwrap();
    test.beat(&join("b")).unwrap();
    test.now += Duration::from_secs(44);
    test.beat(&alive("a", 1, Some(&[0, 1, 2, 3]))).unwrap();
    test.now += Duration::from_secs(2);
    assert_eq!(
        test.beat(&alive("b", 2, None)),
        Err(codes::UNKNOWN_MEMBER_ID)
    );
    let mut beats = 0;
    while test.beat(&alive("a", 1, Some(&[0, 1, 2, 3]))).is_ok() {
        beats += 1;
        test.now += Duration::from_secs(10);
        assert!(beats < 10, "a does not give up what it should");
    }
}

#[tokio::test]
async fn static_members_come_back_to_what_they_had() {
    let mut test = test();
    let fixed = |id: &str| Heartbeat {
        instance_id: Some("i".to_owned()),
        ..join(id)
    };
    assert_eq!(test.beat(&fixed("a")), told(1, Some(&[0, 1, 2, 3])));
    assert_eq!(test.beat(&fixed("b")), Err(codes::UNRELEASED_INSTANCE_ID));
    test.beat(&Heartbeat {
        epoch: -2,
        ..fixed("a")
    })
    .unwrap();
    assert_eq!(test.beat(&fixed("b")), told(1, Some(&[0, 1, 2, 3])));
    let old = Heartbeat {
        epoch: 1,
        ..fixed("a")
    };
    assert_eq!(test.beat(&old), Err(codes::FENCED_INSTANCE_ID));
}

#[tokio::test]
async fn new_partitions_are_assigned() {
    let mut test = test();
    test.beat(&join("a")).unwrap();
    test.partitions = 5;
    assert_eq!(
        test.beat(&alive("a", 1, None)),
        told(2, Some(&[0, 1, 2, 3, 4]))
    );
}

fn wants(id: &str, epoch: i32, regex: &str) -> Heartbeat {
    let beat = match epoch {
        0 => join(id),
        _ => alive(id, epoch, None),
    };
    Heartbeat {
        topics: None,
        regex: Some(regex.to_owned()),
        ..beat
    }
}

fn names(told: Result<Told, i16>) -> Option<Vec<u128>> {
    let assigned = told.unwrap().assigned?;
    Some(assigned.keys().map(|id| id.as_u128() - 100).collect())
}

#[tokio::test]
async fn topics_of_an_expression_are_found_by_the_next_heartbeat_and_new_ones_in_time() {
    let mut test = test();
    assert_eq!(names(test.beat(&wants("a", 0, "eu"))), Some(vec![]));
    let epoch = test.group.members["a"].epoch;
    assert_eq!(names(test.beat(&alive("a", epoch, None))), Some(vec![4]));
    test.others.push("eu-22");
    let mut beat = |seconds| {
        test.now += Duration::from_secs(seconds);
        let epoch = test.group.members["a"].epoch;
        names(test.beat(&alive("a", epoch, None)))
    };
    assert_eq!(beat(0), None);
    assert_eq!(beat(9), None, "it was looked at ten seconds ago at most");
    assert_eq!(beat(2), None, "a reason to look");
    assert_eq!(beat(0), Some(vec![4, 5]));
    assert_eq!(beat(20), None);
    assert_eq!(beat(0), None);
}

#[tokio::test]
async fn an_expression_can_be_changed_shared_and_given_up() {
    let mut test = test();
    test.beat(&wants("a", 0, "us")).unwrap();
    let at = |test: &Test, id: &str| test.group.members[id].epoch;
    let epoch = at(&test, "a");
    assert_eq!(names(test.beat(&alive("a", epoch, None))), Some(vec![2]));
    let epoch = at(&test, "a");
    let told = names(test.beat(&wants("a", epoch, "eu")));
    assert_eq!(told, Some(vec![]), "what it stands for is not known yet");
    let epoch = at(&test, "a");
    let owned = Some(&[][..]);
    assert_eq!(names(test.beat(&alive("a", epoch, owned))), Some(vec![4]));
    // One that is known already counts at once.
    assert_eq!(names(test.beat(&wants("b", 0, "eu"))), Some(vec![]));
    assert!(test.group.epoch > at(&test, "a"));
    let epoch = test.group.epoch;
    test.beat(&wants("c", 0, "nothing")).unwrap();
    assert_eq!(test.group.epoch, epoch, "what is not known changes nothing");
    let epoch = at(&test, "b");
    let gone = Heartbeat {
        topics: Some(vec!["t".to_owned()]),
        ..wants("b", epoch, "")
    };
    assert_eq!(
        test.beat(&gone).unwrap().assigned,
        Some(parts(&[0, 1, 2, 3]))
    );
}

#[tokio::test]
async fn what_is_no_expression_changes_nothing() {
    let mut test = test();
    let refused = Err(codes::INVALID_REGULAR_EXPRESSION);
    assert_eq!(test.beat(&wants("a", 0, "(")), refused);
    assert!(test.group.members.is_empty());
    test.beat(&join("a")).unwrap();
    assert_eq!(test.beat(&wants("a", 1, "(")), refused);
    assert_eq!(
        test.beat(&wants("x", 1, "(")),
        Err(codes::UNKNOWN_MEMBER_ID)
    );
    assert_eq!(test.beat(&alive("a", 1, None)), told(1, None));
}
