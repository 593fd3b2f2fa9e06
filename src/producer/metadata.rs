//! A producer's topics follow the cluster's metadata: they are looked up, taken over, given homes
//! (the ready lists of their leaders' senders), and forgotten.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexSet;

use crate::clock::{Instant, now};
use crate::cluster::snapshot::is_refusal;
use crate::cluster::{Snapshot, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::producer::identity::ExhaustedEpoch;
use crate::producer::ready::ReadyList;
use crate::producer::sender;
use crate::producer::shared::Shared;
use crate::producer::slot::Slot;
use crate::producer::topics::{Entries, Known, TopicEntry, TopicState};
use crate::producer::transaction::Transactions;
use crate::record::Compression;
use crate::types::{BrokerId, TopicPartition};

impl Shared {
    /// Learns of a topic, waiting until the deadline.
    pub(crate) async fn look_up(self: &Arc<Self>, name: &str, deadline: Instant) -> Result<()> {
        if name.is_empty() {
            return Err(no_topic());
        }
        // Until the entry has an interest of its own, or the topic would be asked for once more.
        let unknown = self.cluster.snapshot().topic(name).is_none();
        let _interest = unknown.then(|| self.cluster.watch(&[name.into()], true));
        let topic = self.cluster.topic(name, true, deadline).await?;
        self.add_topic(&topic);
        Ok(())
    }

    /// Looks whether partitions were added, waiting until the deadline.
    pub(crate) async fn look_again(self: &Arc<Self>, deadline: Instant) {
        self.cluster.renewed(deadline).await;
        self.apply();
    }

    /// Has a topic looked up in the background.
    pub(crate) fn want(&self, name: &str) -> Option<Error> {
        if name.is_empty() {
            return Some(no_topic());
        }
        let snapshot = self.cluster.snapshot();
        if let Some(code) = snapshot.errors.get(name).filter(|code| is_refusal(**code)) {
            return Some(Error::from_code(*code, format_args!("topic '{name}'")));
        }
        let mut wanted = self.wanted();
        if wanted.len() < MAX_WANTED && !wanted.contains(name) {
            wanted.insert(name.into());
            drop(wanted);
            self.control.notify_one();
        }
        None
    }

    pub(crate) fn take_wanted(&self) -> Vec<Arc<str>> {
        self.wanted().iter().cloned().collect()
    }

    pub(crate) fn found(&self, name: &str) {
        self.wanted().shift_remove(name);
    }

    fn wanted(&self) -> MutexGuard<'_, IndexSet<Arc<str>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a topic known, as the newest snapshot has it.
    pub(crate) fn add_topic(self: &Arc<Self>, topic: &Arc<Topic>) {
        let name = &topic.name;
        let mut known = self.topics.lock();
        let snapshot = self.cluster.snapshot();
        let topic = snapshot.topic(name).unwrap_or(topic);
        let before = known.entries.get(name).cloned();
        let is_new = before.is_none();
        let entry = before.unwrap_or_else(|| {
            let interest = self.cluster.watch(std::slice::from_ref(name), true);
            TopicEntry::new(topic, self.batch_config.batch_size, now(), interest)
        });
        self.update_topic(&entry, topic, known.spent);
        if is_new {
            known.entries.insert(Arc::clone(name), Arc::clone(&entry));
            self.topics.missed(&mut known);
        }
        drop(known);
        self.end_late(&entry);
    }

    /// The ready list of a leader; its sender starts with it. Under the lock of the topics, as
    /// everything that gives slots a home.
    pub(super) fn home(self: &Arc<Self>, broker: Option<BrokerId>) -> Arc<ReadyList<Slot>> {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let home = homes.entry(broker).or_insert_with(|| {
            let list = ReadyList::new(broker);
            let task = sender::run(Arc::clone(self), Arc::clone(&list));
            self.tasks.spawn("producer sender", task);
            list
        });
        Arc::clone(home)
    }

    /// Takes over the cluster's snapshot: leaders, new partitions, topics made anew.
    pub(crate) fn apply(self: &Arc<Self>) {
        let known = self.topics.lock();
        let snapshot = self.cluster.snapshot();
        for (name, entry) in &known.entries {
            match snapshot.topic(name) {
                Some(topic) => self.update_topic(entry, topic, known.spent),
                None => self.orphan_topic(entry),
            }
        }
        self.note_brokers(&snapshot);
        let entries: Vec<_> = match self.ended().is_some() {
            true => known.entries.values().cloned().collect(),
            false => Vec::new(),
        };
        drop(known);
        for entry in entries {
            self.end_late(&entry);
        }
    }

    /// Tells the senders whose brokers are not of the cluster any more, or are again.
    fn note_brokers(&self, snapshot: &Snapshot) {
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        for home in homes.values() {
            if let Some(broker) = home.broker {
                home.set_left(!snapshot.brokers.contains_key(&broker));
            }
        }
    }

    /// Forgets topics to which nothing was sent for so long (`metadata.max.idle.ms`); how many they
    /// are.
    pub(crate) fn forget_idle(&self, idle: Duration) -> usize {
        let open = |state: &Arc<Transactions>| !state.machine().is_settled();
        if self.transactions.as_ref().is_some_and(open) {
            // What is forgotten costs another epoch, and a transaction has one.
            return 0;
        }
        let time = now();
        let mut known = self.topics.lock();
        let all = std::mem::take(&mut known.entries);
        let (idle, rest) = all
            .into_iter()
            .partition::<Entries, _>(|(_, entry)| entry.retires(time, idle));
        known.entries = rest;
        if idle.is_empty() {
            return 0;
        }
        self.forget(&mut known, &idle);
        drop(known);
        tracing::debug!(
            topics = idle.len(),
            "forgot topics that are not used (metadata.max.idle.ms)"
        );
        idle.len()
    }

    /// Notes the identity under which the sequences of forgotten topics ran.
    fn forget(&self, known: &mut Known, topics: &Entries) {
        // Those of an older epoch, or of another id, are forgotten by the brokers as well.
        let current = self.identity().current();
        let states = topics.values().map(|entry| entry.state.load_full());
        let spent = states
            .flat_map(|state| state.slots.clone())
            .filter_map(|slot| slot.lock().queue.spent())
            .filter(|spent| Some(spent.identity) == current)
            .reduce(|one, other| ExhaustedEpoch {
                fenced: one.fenced || other.fenced,
                ..one
            });
        if spent.is_some() {
            if let Some(transactions) = &self.transactions {
                transactions.machine().lost_sequence();
                transactions.work.notify_one();
            }
            known.spent = spent;
        }
        self.topics.publish(known);
    }

    #[cfg(test)]
    pub(super) fn forget_topic(&self, name: &str) {
        let mut known = self.topics.lock();
        let entry = known.entries.swap_remove_entry(name);
        self.forget(&mut known, &entry.into_iter().collect());
    }

    /// Ends slots that were made while everything was being ended, and may have been missed.
    fn end_late(&self, entry: &TopicEntry) {
        let ended = self.ended().clone();
        if let Some(error) = ended {
            for slot in &entry.state.load().slots {
                slot.close(&error);
            }
        }
    }

    /// Under the lock of the topics.
    fn update_topic(
        self: &Arc<Self>,
        entry: &TopicEntry,
        topic: &Arc<Topic>,
        spent: Option<ExhaustedEpoch>,
    ) {
        let state = entry.state.load_full();
        if Arc::ptr_eq(&state.topic, topic) {
            return;
        }
        let anew = state.topic.id != topic.id;
        let mut slots = state.slots.clone();
        for (number, partition) in (0..).zip(&topic.partitions) {
            let before = state.topic.partitions.get(slots_index(number));
            let home = self.home(partition.leader);
            match slots.get(slots_index(number)) {
                Some(slot) => {
                    // A deleted topic that came back has the same leaders, but slots have been
                    // orphaned.
                    if anew
                        || before.is_none_or(|before| before.leader != partition.leader)
                        || slot.lock().queue.leader() != partition.leader
                    {
                        slot.set_home(&home, anew);
                    }
                }
                None => slots.push(Slot::new(
                    TopicPartition {
                        topic: Arc::clone(&topic.name),
                        partition: number,
                    },
                    Arc::clone(&entry.sticky),
                    home,
                    self.compression(&topic.name),
                    spent,
                )),
            }
        }
        if slots.len() > topic.partitions.len() {
            let nowhere = self.home(None);
            for slot in slots.iter().skip(topic.partitions.len()) {
                slot.set_home(&nowhere, anew);
            }
        }
        entry.state.store(Arc::new(TopicState {
            topic: Arc::clone(topic),
            slots,
        }));
    }

    fn orphan_topic(self: &Arc<Self>, entry: &TopicEntry) {
        let state = entry.state.load_full();
        if state
            .topic
            .partitions
            .iter()
            .all(|partition| partition.leader.is_none())
        {
            return;
        }
        let nowhere = self.home(None);
        for slot in &state.slots {
            slot.set_home(&nowhere, false);
        }
        // Without leaders, but still with its partitions: metadata may only be incomplete for a
        // moment.
        let mut topic = Topic::clone(&state.topic);
        for partition in &mut topic.partitions {
            partition.leader = None;
        }
        entry.state.store(Arc::new(TopicState {
            topic: Arc::new(topic),
            slots: state.slots.clone(),
        }));
    }

    fn compression(&self, topic: &str) -> Compression {
        let own = self.config.topic_compression.get(topic);
        own.copied().unwrap_or(self.config.compression)
    }

    /// The topic's id, for requests that name it so.
    pub(crate) fn topic_id(&self, name: &str) -> uuid::Uuid {
        let entry = self.topics.get(name);
        entry.map_or(uuid::Uuid::nil(), |entry| entry.state.load().topic.id)
    }
}

/// Topics looked for at once on behalf of calls that do not wait.
const MAX_WANTED: usize = 1000;

fn no_topic() -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "the record names no topic; send it by a TopicProducer or make it with Record::to",
    )
}

fn slots_index(number: i32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
