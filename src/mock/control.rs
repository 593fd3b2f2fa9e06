//! What a test does to the cluster, and what it may look at.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::MockCluster;
use super::assign::Parts;
use super::consumer_protocol;
use super::groups::{Group, Members};
use super::state::{Partition, State, transaction_key};
use crate::error::{Error, ErrorKind, Result};
use crate::record::OwnedRecord;
use crate::types::TopicPartition;

/// A group as its coordinator sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MockGroup {
    /// `Empty`, `Assigning`, `Reconciling` or `Stable`; of a classic group `Empty`,
    /// `PreparingRebalance`, `CompletingRebalance` or `Stable`.
    pub state: String,
    /// Goes up whenever members, subscriptions or topics change; of a classic group the generation.
    pub epoch: i32,
    /// The members in the order of their ids.
    pub members: Vec<MockGroupMember>,
    /// The committed offsets in the order of topics and partitions.
    pub offsets: Vec<(TopicPartition, i64)>,
}

/// A transactional id as its coordinator sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MockTransaction {
    /// The producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`, `CompleteCommit` or `CompleteAbort`.
    pub state: String,
    /// The partitions of the open transaction.
    pub partitions: Vec<TopicPartition>,
}

/// A member of a [`MockGroup`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MockGroupMember {
    /// The id that it gave itself, or that it was given in a classic group.
    pub id: String,
    /// The client's name (`client.id`).
    pub client_id: String,
    /// `group.instance.id`, if it has one.
    pub instance_id: Option<String>,
    /// The epoch that it has reached, or the generation of its classic group.
    pub epoch: i32,
    /// The number of its membership: another one if it was thrown out, or joined anew, meanwhile.
    pub membership: u64,
    /// What is its own at present; of a classic group what its leader gave it, if that is of the
    /// protocol type `consumer`.
    pub partitions: Vec<TopicPartition>,
}

fn unknown(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the mock cluster has no {what}"),
    )
}

impl MockCluster {
    /// Ends a broker at once, as by SIGKILL: connections break, partitions get other leaders where
    /// there are other replicas, and its groups another coordinator.
    ///
    /// Does nothing to a broker that is dead or does not exist.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::MockCluster;
    /// let mock = MockCluster::builder().brokers(3).topic("orders", 1).start().await?;
    /// let (leader, epoch) = mock.leader("orders", 0).expect("all are alive");
    /// mock.kill(leader);
    /// let (next, newer) = mock.leader("orders", 0).expect("two are alive");
    /// assert!(next != leader && newer == epoch + 1);
    /// mock.restart(leader).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill(&self, broker: i32) {
        let mut state = self.shared.state();
        match state.brokers.get_mut(&broker) {
            Some(known) if known.alive => {
                known.alive = false;
                known.paused = false;
                known.sessions = Default::default();
            }
            _ => return,
        }
        if crate::planted("broker-loses-its-last-batch-when-it-dies") {
            for topic in state.topics.values_mut() {
                for partition in &mut topic.partitions {
                    let end = partition.log.end();
                    if partition.leader == broker && end > 0 {
                        partition.log.truncate(end - 1);
                    }
                }
            }
        }
        state.elect();
        state.new_coordinators(broker);
        drop(state);
        self.end_life(broker);
        self.shared.changed.notify_waiters();
    }

    /// Starts a broker that was killed, at its old address; one that runs is killed before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`] if its port is taken meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the broker may be left without its TCP port.
    pub async fn restart(&self, broker: i32) -> Result<()> {
        self.kill(broker);
        {
            let mut state = self.shared.state();
            let known = state
                .brokers
                .get_mut(&broker)
                .ok_or_else(|| unknown(format!("broker {broker}")))?;
            known.alive = true;
            known.life += 1;
            state.elect();
        }
        {
            let mut lives = self
                .shared
                .lives
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            lives.insert(broker, self.shared.tasks.child());
        }
        // The old listener is closed when its task has ended, which may take a moment.
        let mut opened = self.shared.open(broker).await;
        for _ in 0..100 {
            if opened.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            opened = self.shared.open(broker).await;
        }
        self.shared.changed.notify_waiters();
        opened.map_err(|error| {
            let what = format!("broker {broker} of the mock cluster cannot listen: {error}");
            Error::new(ErrorKind::Connection, what).with_source(error)
        })
    }

    fn end_life(&self, broker: i32) {
        let mut lives = self
            .shared
            .lives
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = lives.remove(&broker) {
            tasks.stop();
        }
    }

    /// Freezes a broker, as by SIGSTOP: it takes connections and answers nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::MockCluster;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let producer = mock.client().producer().build()?;
    /// mock.pause(1);
    /// let delivery = producer.enqueue(ottla::Record::to("orders").with_value("v"));
    /// mock.resume(1);
    /// delivery.await?.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&self, broker: i32) {
        self.set_paused(broker, true);
    }

    /// Lets a paused broker go on with what it was asked meanwhile.
    pub fn resume(&self, broker: i32) {
        self.set_paused(broker, false);
    }

    fn set_paused(&self, broker: i32, paused: bool) {
        if let Some(known) = self.shared.state().brokers.get_mut(&broker) {
            known.paused = paused;
        }
        self.shared.changed.notify_waiters();
    }

    /// Makes a broker the leader of a partition, and a replica if it was none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there is no such partition, or no such broker alive.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<()> {
        let mut state = self.shared.state();
        if !state.is_alive(broker) {
            return Err(unknown(format!("broker {broker} that is alive")));
        }
        let known = partition_of(&mut state, topic, partition)?;
        if !known.replicas.contains(&broker) {
            known.replicas.push(broker);
        }
        known.lead(broker);
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Adds partitions to a topic until it has so many, as `kafka-topics --alter --partitions`
    /// does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::MockCluster;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// mock.add_partitions("orders", 3)?;
    /// assert_eq!(mock.topics(), [("orders".to_owned(), 3)]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there is no such topic, if it has more, or if no broker is
    /// alive to have them.
    pub fn add_partitions(&self, topic: &str, total: u32) -> Result<()> {
        let mut state = self.shared.state();
        let known = state.topics.get(topic);
        let present = known.ok_or_else(|| unknown(format!("topic '{topic}'")))?;
        if state.alive().next().is_none() {
            return Err(unknown("broker that is alive"));
        }
        let first = present.partitions.len();
        let replicas = present.partitions.first().map_or(1, |p| p.replicas.len());
        let more = i64::from(total) - first as i64;
        let more = match i32::try_from(more) {
            Ok(more) if (0..=100_000).contains(&more) => more,
            _ => {
                let what = format!("topic '{topic}' has {first} partitions and cannot get {total}");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
        };
        let replicas = state.spread(more, i16::try_from(replicas).unwrap_or(1), first);
        let new: Vec<Partition> = replicas
            .into_iter()
            .map(|replicas| state.new_partition(replicas))
            .collect();
        if let Some(known) = state.topics.get_mut(topic) {
            known.partitions.extend(new);
        }
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Makes a broker the coordinator of a group. Members' sessions begin anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there is no such broker alive.
    pub fn move_coordinator(&self, group: &str, broker: i32) -> Result<()> {
        let mut state = self.shared.state();
        if !state.is_alive(broker) {
            return Err(unknown(format!("broker {broker} that is alive")));
        }
        state.coordinators.insert(group.to_owned(), broker);
        state.renew(group);
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Makes a broker the coordinator of a transactional id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there is no such broker alive.
    pub fn move_transaction_coordinator(&self, id: &str, broker: i32) -> Result<()> {
        let mut state = self.shared.state();
        if !state.is_alive(broker) {
            return Err(unknown(format!("broker {broker} that is alive")));
        }
        state.coordinators.insert(transaction_key(id), broker);
        Ok(())
    }

    /// Changes how transactions are done from now on (`transaction.version`), as
    /// `kafka-features.sh` does: clients learn of it with their next connections.
    pub fn set_transaction_version(&self, version: u8) {
        let mut state = self.shared.state();
        state.transaction_version = version.into();
        state.features_epoch += 1;
    }

    /// A transactional id as its coordinator sees it; `None` if nobody ever used it.
    #[must_use]
    pub fn transaction(&self, id: &str) -> Option<MockTransaction> {
        let mut state = self.shared.state();
        state.settle_transactions();
        let known = state.transactions.get(id)?;
        let partitions = known.partitions.iter();
        Some(MockTransaction {
            producer_id: known.owner.id,
            producer_epoch: known.owner.epoch,
            state: known.phase.name().to_owned(),
            partitions: partitions
                .map(|(topic, partition)| TopicPartition::new(topic.as_str(), *partition))
                .collect(),
        })
    }

    /// Makes the coordinator forget a transactional id. A transaction that was open hangs then:
    /// nobody ends it, and `read_committed` consumers do not get past it. On brokers before
    /// transactions were verified (KIP-890, Kafka 3.6) a late request could bring that about.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::MockCluster;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let mut producer = mock.client().transactional_producer("tx").build().await?;
    /// let transaction = producer.begin().await?;
    /// transaction.send(ottla::Record::to("orders").with_value("v")).await?;
    /// assert!(mock.forget_transaction("tx"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn forget_transaction(&self, id: &str) -> bool {
        self.shared.state().transactions.remove(id).is_some()
    }

    /// The broker that coordinates a transactional id; `None` if no broker lives.
    #[must_use]
    pub fn transaction_coordinator(&self, id: &str) -> Option<i32> {
        self.shared.state().coordinator(&transaction_key(id))
    }

    /// Cuts the end of a partition off under a new leader epoch, as an unclean election does. What
    /// is lost was acknowledged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there is no such partition.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut state = self.shared.state();
        let known = partition_of(&mut state, topic, partition)?;
        known.log.truncate(offset);
        let leader = known.leader;
        known.lead(leader);
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Removes the records before an offset, as retention does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::MockCluster;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let producer = mock.client().producer().build()?;
    /// for value in ["a", "b", "c"] {
    ///     producer.send(ottla::Record::to("orders").with_value(value)).await?;
    /// }
    /// mock.delete_records("orders", 0, 2)?;
    /// assert_eq!(mock.offsets("orders", 0), Some((2, 3)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if there is no such partition.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut state = self.shared.state();
        partition_of(&mut state, topic, partition)?
            .log
            .delete_before(before);
        drop(state);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Lets the cluster's clock jump forward: sessions of groups may end, timestamps are later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # use ottla::mock::MockCluster;
    /// let mock = MockCluster::builder().topic("orders", 1).start().await?;
    /// let mut consumer = mock.client().consumer("billing").subscribe(["orders"]).build()?;
    /// let patience = std::time::Duration::from_millis(200);
    /// while mock.group("billing").is_none_or(|group| group.members.is_empty()) {
    ///     let _ = consumer.poll_timeout(patience).await?;
    /// }
    /// mock.advance(std::time::Duration::from_secs(60));
    /// assert_eq!(mock.group("billing").expect("it was there").members.len(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn advance(&self, time: Duration) {
        let mut state = self.shared.state();
        state.skew += time;
        let now = state.now();
        for group in state.groups.values_mut() {
            group.expire(now);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Every record of a partition, in order; none if there is no such partition.
    #[must_use]
    pub fn records(&self, topic: &str, partition: i32) -> Vec<OwnedRecord> {
        self.records_of(topic, partition, false)
    }

    /// The records that a `read_committed` consumer sees: not those of transactions that are open
    /// or were aborted, nor those behind the first open one.
    #[must_use]
    pub fn committed_records(&self, topic: &str, partition: i32) -> Vec<OwnedRecord> {
        self.records_of(topic, partition, true)
    }

    fn records_of(&self, topic: &str, partition: i32, committed: bool) -> Vec<OwnedRecord> {
        let mut state = self.shared.state();
        state.settle_transactions();
        let Some(known) = state
            .topics
            .get(topic)
            .and_then(|topic| topic.partition(partition))
        else {
            return Vec::new();
        };
        let start = known.log.start();
        let batches = known
            .log
            .decoded(&Arc::from(topic), partition, committed, &state.pool);
        let records = batches
            .iter()
            .flat_map(|batch| batch.records().filter_map(std::result::Result::ok));
        records
            .filter(|record| record.offset() >= start)
            .map(|record| record.to_owned())
            .collect()
    }

    /// Whether a broker runs, be it paused; `false` if there is none of this number.
    #[must_use]
    pub fn is_alive(&self, broker: i32) -> bool {
        self.shared.state().is_alive(broker)
    }

    /// The first offset of a partition and the one after the last.
    #[must_use]
    pub fn offsets(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let state = self.shared.state();
        let log = &state.topics.get(topic)?.partition(partition)?.log;
        Some((log.start(), log.end()))
    }

    /// The leader of a partition, if it has one, and its epoch.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let state = self.shared.state();
        let known = state.topics.get(topic)?.partition(partition)?;
        (known.leader >= 0).then_some((known.leader, known.leader_epoch))
    }

    /// The coordinator of a group; `None` if no broker is alive.
    #[must_use]
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.shared.state().coordinator(group)
    }

    /// Names of the topics and how many partitions each has, in the order in which they were made.
    #[must_use]
    pub fn topics(&self) -> Vec<(String, usize)> {
        let state = self.shared.state();
        let topics = state
            .topics
            .iter()
            .map(|(name, topic)| (name.clone(), topic.partitions.len()));
        topics.collect()
    }

    /// A group as its coordinator sees it; `None` if nobody ever joined it or committed for it.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<MockGroup> {
        let mut state = self.shared.state();
        let now = state.now();
        state.groups.get_mut(name)?.expire(now);
        let group = state.groups.get(name)?;
        let (epoch, members) = members_of(&state, group);
        let offsets = group.offsets.iter().map(|((topic, partition), committed)| {
            (
                TopicPartition::new(topic.as_str(), *partition),
                committed.offset,
            )
        });
        Some(MockGroup {
            state: group.state().to_owned(),
            epoch,
            members,
            offsets: offsets.collect(),
        })
    }

    /// How many requests the brokers took so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.state().requests
    }
}

impl State {
    /// The groups of a broker that is gone get another coordinator.
    fn new_coordinators(&mut self, broker: i32) {
        let orphans = self
            .coordinators
            .iter()
            .filter(|(_, coordinator)| **coordinator == broker);
        let orphans: Vec<String> = orphans.map(|(key, _)| key.clone()).collect();
        for group in orphans {
            self.coordinators.remove(&group);
            self.coordinator(&group);
        }
    }
}

fn partition_of<'a>(
    state: &'a mut State,
    topic: &str,
    partition: i32,
) -> Result<&'a mut Partition> {
    usize::try_from(partition)
        .ok()
        .and_then(|index| state.topics.get_mut(topic)?.partitions.get_mut(index))
        .ok_or_else(|| unknown(format!("partition {topic}-{partition}")))
}

/// The epoch of a group, and its members in the order of their ids.
fn members_of(state: &State, group: &Group) -> (i32, Vec<MockGroupMember>) {
    match &group.members {
        Members::Consumer(group) => {
            let members = group.members.iter().map(|(id, member)| MockGroupMember {
                id: id.clone(),
                client_id: member.client_id.clone(),
                instance_id: member.instance_id.clone(),
                epoch: member.epoch,
                membership: member.membership,
                partitions: partitions_of(state, &member.assigned),
            });
            (group.epoch, members.collect())
        }
        Members::Classic(group) => {
            let consumer = group.protocol_type() == "consumer";
            let members = group.members.iter().map(|(id, member)| MockGroupMember {
                id: id.clone(),
                client_id: member.client_id.clone(),
                instance_id: member.instance_id.clone(),
                epoch: group.generation,
                membership: member.membership,
                partitions: consumer
                    .then(|| consumer_protocol::assigned(&member.assignment))
                    .flatten()
                    .unwrap_or_default(),
            });
            let mut members: Vec<_> = members.collect();
            members.sort_by(|a, b| a.id.cmp(&b.id));
            (group.generation, members)
        }
    }
}

fn partitions_of(state: &State, parts: &Parts) -> Vec<TopicPartition> {
    let named = parts.iter().filter_map(|(id, partitions)| {
        let (name, _) = state.topic_by_id(*id)?;
        Some(
            partitions
                .iter()
                .map(|partition| TopicPartition::new(name.as_str(), *partition)),
        )
    });
    named.flatten().collect()
}
