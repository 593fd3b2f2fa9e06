//! Members of classic groups (`group.protocol=classic`) on the mock cluster, with a paused clock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::clock::{Instant, now};
use crate::group::assignor::{
    Assignor, CooperativeStickyAssignor, RangeAssignor, RoundRobinAssignor, StickyAssignor,
};
use crate::mock::{Api, MockCluster};
use crate::types::{OffsetAndMetadata, TopicPartition};
use crate::{Client, ErrorKind, Record};

const SECOND: Duration = Duration::from_secs(1);
const PARTITIONS: usize = 6;

async fn mock() -> MockCluster {
    let builder = MockCluster::builder().brokers(2).in_memory().seed(5);
    let topic = builder.topic("t", u32::try_from(PARTITIONS).unwrap());
    topic.start().await.unwrap()
}

fn strategies() -> Vec<Arc<dyn Assignor>> {
    vec![
        Arc::new(RangeAssignor),
        Arc::new(RoundRobinAssignor),
        Arc::new(StickyAssignor),
        Arc::new(CooperativeStickyAssignor),
    ]
}

fn classic(client: &Client) -> ConsumerBuilder {
    client
        .consumer("g")
        .subscribe(["t"])
        .offset_reset(OffsetReset::Earliest)
        .group_protocol(GroupProtocol::Classic)
}

/// What a member tells about its partitions, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Assigned(Vec<i32>),
    Revoking(Vec<i32>),
    Lost(Vec<i32>),
    Failed(ErrorKind),
}

fn numbers(partitions: &[TopicPartition]) -> Vec<i32> {
    let mut numbers: Vec<i32> = partitions.iter().map(TopicPartition::partition).collect();
    numbers.sort_unstable();
    numbers
}

/// A consumer that is polled by a task, and what that was told.
struct Polled {
    handle: ConsumerHandle,
    told: Arc<Mutex<Vec<Told>>>,
    read: Arc<Mutex<Vec<String>>>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Consumer>,
}

impl Polled {
    fn new(builder: ConsumerBuilder) -> Self {
        let mut consumer = builder.build().unwrap();
        let handle = consumer.handle();
        let told = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::new(Mutex::new(Vec::new()));
        let (notes, values) = (Arc::clone(&told), Arc::clone(&read));
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    biased;
                    _ = &mut stopped => return consumer,
                    event = consumer.next_event() => event,
                };
                let told = match event {
                    Ok(Some(Event::Records(batches))) => {
                        let failed = batches
                            .errors()
                            .iter()
                            .map(|error| Told::Failed(error.kind()));
                        notes.lock().unwrap().extend(failed);
                        for batch in &batches {
                            for record in batch.records() {
                                let value = record.unwrap().value().unwrap().to_vec();
                                let value = String::from_utf8(value).unwrap();
                                values.lock().unwrap().push(value);
                            }
                        }
                        continue;
                    }
                    Ok(Some(Event::Assigned(partitions))) => Told::Assigned(numbers(&partitions)),
                    Ok(Some(Event::Revoking(revoking))) => {
                        Told::Revoking(numbers(revoking.partitions()))
                    }
                    Ok(Some(Event::Lost(partitions))) => Told::Lost(numbers(&partitions)),
                    Ok(_) => return consumer,
                    Err(error) => {
                        tokio::time::sleep(SECOND / 10).await;
                        Told::Failed(error.kind())
                    }
                };
                notes.lock().unwrap().push(told);
            }
        });
        Self {
            handle,
            told,
            read,
            stop,
            task,
        }
    }

    fn owned(&self) -> Vec<i32> {
        numbers(&self.handle.assignment())
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// The consumer, which nobody polls any more.
    async fn stop(self) -> Consumer {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

async fn until(what: impl Fn() -> bool, within: Duration) -> Instant {
    let end = now() + within;
    while !what() {
        assert!(now() < end, "not within {within:?}");
        tokio::time::sleep(SECOND / 100).await;
    }
    now()
}

/// Every partition has one owner, and the members have about as many.
fn is_shared(members: &[&Polled]) -> bool {
    let owned: Vec<Vec<i32>> = members.iter().map(|member| member.owned()).collect();
    let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
    let count: usize = owned.iter().map(Vec::len).sum();
    let least = PARTITIONS / members.len();
    count == PARTITIONS && all.len() == PARTITIONS && owned.iter().all(|own| own.len() >= least)
}

async fn produce(client: &Client, from: usize, count: usize) {
    let producer = client.producer().build().unwrap();
    for number in from..from + count {
        let partition = i32::try_from(number % PARTITIONS).unwrap();
        let record = Record::to("t").with_partition(partition);
        let value = format!("{number:04}");
        producer.send(record.with_value(&value)).await.unwrap();
    }
}

fn of_group(mock: &MockCluster) -> (String, i32, usize) {
    let group = mock.group("g").unwrap();
    (group.state, group.epoch, group.members.len())
}

#[tokio::test(start_paused = true)]
async fn members_share_partitions_with_each_assignor() {
    for strategy in strategies() {
        let mock = mock().await;
        let builder = |mock: &MockCluster| {
            classic(&mock.client()).partition_assignment_strategy([Arc::clone(&strategy)])
        };
        produce(&mock.client(), 0, 60).await;
        let one = Polled::new(builder(&mock));
        until(|| one.owned().len() == PARTITIONS, 5 * SECOND).await;
        let two = Polled::new(builder(&mock));
        until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
        let three = Polled::new(builder(&mock));
        until(|| is_shared(&[&one, &two, &three]), 10 * SECOND).await;
        produce(&mock.client(), 60, 60).await;
        two.stop().await.close().await.unwrap();
        until(|| is_shared(&[&one, &three]), 10 * SECOND).await;
        produce(&mock.client(), 120, 60).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(of_group(&mock).2, 2);
        for member in [one, three] {
            member.stop().await.close().await.unwrap();
        }
        assert_eq!(of_group(&mock).2, 0);
    }
}

/// Eagerly, with auto-commit: nothing is skipped, and what was finished is not read again.
#[tokio::test(start_paused = true)]
async fn what_was_finished_before_a_rebalance_is_not_read_again() {
    let mock = mock().await;
    produce(&mock.client(), 0, 60).await;
    let one = Polled::new(classic(&mock.client()));
    until(|| one.read.lock().unwrap().len() == 60, 5 * SECOND).await;
    let two = Polled::new(classic(&mock.client()));
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    produce(&mock.client(), 60, 60).await;
    tokio::time::sleep(SECOND).await;
    let mut read = one.read.lock().unwrap().clone();
    read.extend(two.read.lock().unwrap().iter().cloned());
    read.sort_unstable();
    let all: Vec<String> = (0..120).map(|number| format!("{number:04}")).collect();
    assert_eq!(read, all);
    let told = one.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1], Told::Revoking((0..6).collect()));
    assert!(two.told().len() == 1);
}

/// KIP-429: what a member keeps is read on, and what it gives up goes to the other one.
#[tokio::test(start_paused = true)]
async fn cooperatively_what_stays_is_not_given_up() {
    let mock = mock().await;
    let builder = |mock: &MockCluster| {
        let strategy = Arc::new(CooperativeStickyAssignor) as _;
        classic(&mock.client()).partition_assignment_strategy([strategy])
    };
    let one = Polled::new(builder(&mock));
    until(|| one.owned().len() == PARTITIONS, 5 * SECOND).await;
    one.told();
    // Whoever joins with a slow network holds the rebalance up, and the reading not.
    mock.on(Api::SyncGroup).delay(20 * SECOND);
    let two = Polled::new(builder(&mock));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(of_group(&mock).0, "CompletingRebalance");
    produce(&mock.client(), 0, 60).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(one.read.lock().unwrap().len(), 60);
    until(|| is_shared(&[&one, &two]), 200 * SECOND).await;
    tokio::time::sleep(60 * SECOND).await;
    let (told, kept) = (one.told(), one.owned());
    let gone: Vec<i32> = (0..6).filter(|number| !kept.contains(number)).collect();
    assert_eq!(told, [Told::Revoking(gone.clone())]);
    assert_eq!(two.told(), [Told::Assigned(vec![]), Told::Assigned(gone)]);
    // Nothing was read twice, nothing left out.
    produce(&mock.client(), 60, 60).await;
    tokio::time::sleep(SECOND).await;
    let mut read = one.read.lock().unwrap().clone();
    read.extend(two.read.lock().unwrap().iter().cloned());
    read.sort_unstable();
    let all: Vec<String> = (0..120).map(|number| format!("{number:04}")).collect();
    assert_eq!(read, all);
}

#[tokio::test(start_paused = true)]
async fn the_protocol_is_found_out() {
    // As brokers before 4.0, as those whose groups are not upgraded, and as those that do not
    // convert the classic members of this one.
    for refusal in [None, Some(35), Some(69)] {
        let builder = MockCluster::builder().topic("t", 6).in_memory().seed(5);
        let builder = match refusal {
            None => builder.max_version(Api::ConsumerGroupHeartbeat, -1),
            Some(_) => builder,
        };
        let mock = builder.start().await.unwrap();
        if let Some(code) = refusal {
            mock.on(Api::ConsumerGroupHeartbeat).fail(code);
        }
        let classic_joins = mock.on(Api::JoinGroup).delay(Duration::ZERO);
        let consumer = mock.client().consumer("g").subscribe(["t"]);
        let one = Polled::new(consumer);
        until(|| one.owned().len() == PARTITIONS, 5 * SECOND).await;
        assert!(classic_joins.hits() >= 2);
        assert_eq!(one.told(), [Told::Assigned((0..6).collect())]);
        let metrics = one.handle.metrics();
        assert_eq!(metrics.group_protocol, Some(GroupProtocol::Classic));
    }
    // Where the coordinator offers both.
    let mock = mock().await;
    let classic_joins = mock.on(Api::JoinGroup).delay(Duration::ZERO);
    let one = Polled::new(mock.client().consumer("g").subscribe(["t"]));
    until(|| one.owned().len() == PARTITIONS, 5 * SECOND).await;
    assert_eq!(classic_joins.hits(), 0);
    let metrics = one.handle.metrics();
    assert_eq!(metrics.group_protocol, Some(GroupProtocol::Consumer));
    // Who insists on the other one hears of classic members once, and gets in when they are gone.
    let refusing = mock.on(Api::ConsumerGroupHeartbeat).times(5).fail(69);
    let other = mock.client().consumer("i").subscribe(["t"]);
    let three = Polled::new(other.group_protocol(GroupProtocol::Consumer));
    until(|| three.owned().len() == PARTITIONS, 30 * SECOND).await;
    assert_eq!(refusing.hits(), 5);
    let all = Told::Assigned((0..6).collect());
    assert_eq!(three.told(), [Told::Failed(ErrorKind::Group), all]);
    // A setting that only the classic protocol has asks for it.
    let other = mock.client().consumer("h").subscribe(["t"]);
    let two = Polled::new(other.session_timeout(10 * SECOND));
    until(|| two.owned().len() == PARTITIONS, 5 * SECOND).await;
    assert!(classic_joins.hits() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_static_member_restarts_without_a_rebalance() {
    let mock = mock().await;
    let named = |name: &str| classic(&mock.client()).group_instance_id(name);
    let one = Polled::new(named("one"));
    let two = Polled::new(named("two"));
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    let (_, generation, _) = of_group(&mock);
    for member in ["one", "two"] {
        let (kept, restarted) = match member {
            "one" => (&two, &one),
            _ => (&one, &two),
        };
        let (kept_before, before) = (kept.owned(), restarted.owned());
        kept.told();
        let again = {
            let builder = named(member);
            // It goes away and comes back.
            Polled::new(builder)
        };
        until(|| again.owned() == before, 10 * SECOND).await;
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(of_group(&mock), ("Stable".to_owned(), generation, 2));
        assert_eq!((kept.told(), kept.owned()), (vec![], kept_before));
        // The one before is fenced, which is final.
        assert_eq!(
            restarted.told().last(),
            Some(&Told::Failed(ErrorKind::Fenced))
        );
        again.stop().await.close().await.unwrap();
        assert_eq!(of_group(&mock).2, 2, "its place is kept");
        if member == "one" {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_heard_of_loses_all_and_others_get_it() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()));
    let gone = mock.named_client_builder("gone").build().unwrap();
    let two = Polled::new(classic(&gone));
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    two.told();
    let before = now();
    let had = two.owned();
    mock.network().client("gone").cut();
    until(|| one.owned().len() == PARTITIONS, 60 * SECOND).await;
    let taken = now() - before;
    assert!((40 * SECOND..52 * SECOND).contains(&taken), "{taken:?}");
    // By then, it knows that it has lost them.
    assert!(two.owned().is_empty());
    assert_eq!(two.told(), [Told::Lost(had)]);
    mock.network().client("gone").heal();
    until(|| is_shared(&[&one, &two]), 60 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_poll_leaves_and_comes_back() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()));
    let builder = classic(&mock.client()).max_poll_interval(20 * SECOND);
    let two = Polled::new(builder);
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    let mut idle = two.stop().await;
    let handle = idle.handle();
    let before = now();
    until(|| one.owned().len() == PARTITIONS, 60 * SECOND).await;
    let taken = now() - before;
    assert!((15 * SECOND..25 * SECOND).contains(&taken), "{taken:?}");
    assert_eq!(handle.assignment(), []);
    while handle.assignment().is_empty() {
        idle.poll_timeout(SECOND).await.unwrap();
    }
    assert_eq!(of_group(&mock).2, 2);
}

/// Joining waits for other members at the coordinator; nothing else does.
#[tokio::test(start_paused = true)]
async fn a_rebalance_that_takes_long_holds_up_neither_commits_nor_the_end() {
    let mock = mock().await;
    produce(&mock.client(), 0, 60).await;
    let slow = Polled::new(classic(&mock.client()));
    until(|| slow.owned().len() == PARTITIONS, 10 * SECOND).await;
    let slow = slow.stop().await;
    // It holds on to what it has, so that the rebalance waits for it.
    let mut other = classic(&mock.client()).build().unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(of_group(&mock).0, "PreparingRebalance");
    assert_eq!(of_group(&mock).2, 2, "the slow one is heard of");
    let before = now();
    slow.commit_offsets([(TopicPartition::new("t", 0), OffsetAndMetadata::new(3))])
        .await
        .unwrap();
    assert!(now() - before < SECOND);
    // The other one waits for the answer to its JoinGroup.
    assert!(
        other
            .poll_timeout(SECOND)
            .await
            .unwrap()
            .unwrap()
            .is_empty()
    );
    let before = now();
    other.close().await.unwrap();
    assert!(now() - before < SECOND);
    assert_eq!(of_group(&mock).2, 1);
    let before = now();
    slow.close().await.unwrap();
    assert!(now() - before < SECOND);
    assert_eq!(of_group(&mock).2, 0);
}

#[tokio::test(start_paused = true)]
async fn closing_at_any_moment_of_a_rebalance_leaves_nobody_behind() {
    for after in (0..6_000).step_by(250) {
        let mock = mock().await;
        mock.on(Api::JoinGroup).delay(SECOND);
        mock.on(Api::SyncGroup).delay(SECOND);
        let one = classic(&mock.client()).build().unwrap();
        tokio::time::sleep(Duration::from_millis(after)).await;
        one.close().await.unwrap();
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(
            mock.group("g").map_or(0, |group| group.members.len()),
            0,
            "{after}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_during_a_rebalance_may_be_made_again() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()).auto_commit(false));
    until(|| one.owned().len() == PARTITIONS, 10 * SECOND).await;
    let consumer = one.stop().await;
    let offset = || [(TopicPartition::new("t", 0), OffsetAndMetadata::new(3))];
    mock.on(Api::OffsetCommit).times(1).fail(27);
    let error = consumer.commit_offsets(offset()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retriable()),
        (ErrorKind::Group, true)
    );
    consumer.commit_offsets(offset()).await.unwrap();
    assert_eq!(mock.group("g").unwrap().offsets.len(), 1);
    let metadata = consumer.group_metadata();
    assert_eq!(metadata.member_epoch(), of_group(&mock).1);
}

#[tokio::test(start_paused = true)]
async fn new_partitions_are_shared_out() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()));
    let refreshed = mock.named_client_builder("b").metadata_max_age(5 * SECOND);
    let two = Polled::new(classic(&refreshed.build().unwrap()));
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    mock.add_partitions("t", 8).unwrap();
    let all = || one.owned().len() + two.owned().len() == 8;
    until(all, 400 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn the_oldest_versions_do_as_well() {
    let builder = MockCluster::builder().topic("t", 6).in_memory().seed(5);
    let builder = builder.max_version(Api::JoinGroup, 6);
    let builder = builder.max_version(Api::SyncGroup, 4);
    let mock = builder
        .max_version(Api::LeaveGroup, 4)
        .start()
        .await
        .unwrap();
    let one = Polled::new(classic(&mock.client()));
    let two = Polled::new(classic(&mock.client()).group_instance_id("two"));
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    one.stop().await.close().await.unwrap();
    until(|| two.owned().len() == PARTITIONS, 10 * SECOND).await;
    let for_good = CloseOptions::new();
    let for_good = for_good.group_membership_operation(crate::GroupMembershipOperation::LeaveGroup);
    two.stop().await.close_with(for_good).await.unwrap();
    assert_eq!(of_group(&mock).2, 0);
}

#[tokio::test(start_paused = true)]
async fn another_coordinator_knows_the_members() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()));
    let two = Polled::new(classic(&mock.client()));
    until(|| is_shared(&[&one, &two]), 10 * SECOND).await;
    let (_, generation, _) = of_group(&mock);
    for member in [&one, &two] {
        member.told();
    }
    let coordinator = mock.coordinator("g").unwrap();
    mock.move_coordinator("g", 3 - coordinator).unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(of_group(&mock), ("Stable".to_owned(), generation, 2));
    assert_eq!((one.told(), two.told()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn members_without_an_assignor_in_common_are_refused() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()));
    until(|| one.owned().len() == PARTITIONS, 10 * SECOND).await;
    let other = Arc::new(RoundRobinAssignor) as _;
    let other = classic(&mock.client()).partition_assignment_strategy([other]);
    let mut other = other.build().unwrap();
    let error = loop {
        match other.poll_timeout(SECOND).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Group, true));
    assert_eq!(one.owned().len(), PARTITIONS);
}

/// A group on its way from one protocol to the other, and back (KIP-848).
#[tokio::test(start_paused = true)]
async fn members_of_both_protocols_share_a_group() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()));
    until(|| one.owned().len() == PARTITIONS, 10 * SECOND).await;
    let new = mock.client().consumer("g").subscribe(["t"]);
    let two = Polled::new(new.group_protocol(GroupProtocol::Consumer));
    until(|| is_shared(&[&one, &two]), 60 * SECOND).await;
    two.stop().await.close().await.unwrap();
    until(|| one.owned().len() == PARTITIONS, 60 * SECOND).await;
}

/// The coordinator stops serving KIP-848 (its broker was downgraded) while the member is in.
#[tokio::test(start_paused = true)]
async fn a_member_whose_protocol_is_served_no_more_loses_all_and_joins_by_the_other() {
    let mock = mock().await;
    let one = Polled::new(mock.client().consumer("g").subscribe(["t"]));
    until(|| one.owned().len() == PARTITIONS, 10 * SECOND).await;
    let all: Vec<i32> = (0..6).collect();
    assert_eq!(one.told(), [Told::Assigned(all.clone())]);
    let refused = mock.on(Api::ConsumerGroupHeartbeat).fail(35);
    until(|| refused.hits() > 0, 60 * SECOND).await;
    tokio::time::sleep(SECOND).await;
    until(|| one.owned().len() == PARTITIONS, 120 * SECOND).await;
    let told = one.told();
    assert_eq!(told.first(), Some(&Told::Lost(all.clone())), "{told:?}");
    assert_eq!(told.last(), Some(&Told::Assigned(all)), "{told:?}");
    let metrics = one.handle.metrics();
    assert_eq!(metrics.group_protocol, Some(GroupProtocol::Classic));
}

/// Leaders assign by name: a topic that was made again, unseen, is the same to them.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_again_is_read_from_its_beginning() {
    for assignor in strategies() {
        let mock = mock().await;
        let other = mock.client();
        let builder = classic(&mock.client());
        let one = Polled::new(builder.partition_assignment_strategy([assignor]));
        produce(&other, 0, 60).await;
        until(|| one.read.lock().unwrap().len() == 60, 10 * SECOND).await;
        let late = mock.on(Api::Metadata).delay(2 * SECOND);
        let admin = other.admin();
        admin.delete_topics(["t"]).await.unwrap().all().unwrap();
        let made = crate::admin::NewTopic::new("t").partitions(6);
        admin.create_topics([made]).await.unwrap().all().unwrap();
        late.remove();
        produce(&mock.client(), 60, 60).await;
        until(|| one.read.lock().unwrap().len() == 120, 60 * SECOND).await;
    }
}

/// The answer to a JoinGroup is on its way: the coordinator is in the next generation already.
#[tokio::test(start_paused = true)]
async fn a_commit_that_crosses_the_end_of_a_rebalance_is_made_in_the_new_generation() {
    let mock = mock().await;
    let one = Polled::new(classic(&mock.client()).auto_commit(false));
    until(|| one.owned().len() == PARTITIONS, 10 * SECOND).await;
    let refused = mock.on(Api::OffsetCommit).times(1).fail(22);
    let offset = (TopicPartition::new("t", 0), OffsetAndMetadata::new(3));
    one.handle.commit_offsets([offset]).await.unwrap();
    assert_eq!(refused.hits(), 1);
    // One that was thrown out hears so, and does not try until it has no time left.
    mock.on(Api::OffsetCommit).fail(22);
    mock.on(Api::Heartbeat).times(1).fail(22);
    let began = now();
    let offset = (TopicPartition::new("t", 0), OffsetAndMetadata::new(4));
    let error = one.handle.commit_offsets([offset]).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.get()), Some(25), "{error}");
    assert!(now() - began < 10 * SECOND, "{:?}", now() - began);
}
