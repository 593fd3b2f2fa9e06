//! Everything the brokers of the mock know together, behind one lock.
//!
//! One log per partition and one state per group, whichever broker is asked: what differs between
//! brokers is who leads, who coordinates, and the fetch sessions. Nothing here waits.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use uuid::Uuid;

use super::groups::Group;
use super::log::Log;
use super::requests::Api;
use super::rules::Rule;
use super::sessions::Sessions;
use super::transactions::{Transaction, Transactions};
use crate::clock::{Clock, Instant, now};
use crate::record::CodecPool;
use crate::wire::codes;

/// By which kind of connection a client came: it is told addresses of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    Tcp,
    Memory,
}

/// The port that every broker has in the in-memory network.
pub(super) const MEMORY_PORT: u16 = 9092;

/// The name of a broker in the in-memory network.
pub(super) fn memory_host(broker: i32) -> String {
    format!("mock-{broker}")
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) alive: bool,
    pub(super) paused: bool,
    /// Goes up with every start, so that what belongs to an earlier life can be told.
    pub(super) life: u64,
    pub(super) tcp: Option<(String, u16)>,
    pub(super) sessions: Sessions,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: Uuid,
    pub(super) partitions: Vec<Partition>,
    pub(super) configs: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Partition {
    /// -1 without one.
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) log: Log,
}

/// What is taken for topics that do not say.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) auto_create: bool,
    pub(super) partitions: i32,
    pub(super) replication: i16,
    pub(super) session_timeout: Duration,
    pub(super) heartbeat_interval: Duration,
    pub(super) initial_rebalance_delay: Duration,
    pub(super) group_max_size: usize,
    /// The shortest and the longest session time-out of a classic member.
    pub(super) classic_sessions: (Duration, Duration),
    /// The longest `transaction.timeout.ms`.
    pub(super) transaction_max_timeout: Duration,
    /// How long after the decision the markers of a transaction are written.
    pub(super) marker_delay: Duration,
    /// Whether classic groups with members become groups of KIP-848, and the other way round.
    pub(super) migration: (bool, bool),
}

pub(super) struct State {
    pub(super) cluster_id: String,
    pub(super) clock: Clock,
    /// How far the cluster's clock was advanced beyond the runtime's.
    pub(super) skew: Duration,
    pub(super) brokers: BTreeMap<i32, Broker>,
    pub(super) topics: IndexMap<String, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) coordinators: BTreeMap<String, i32>,
    pub(super) transactions: Transactions,
    /// The finalized `transaction.version`, and the epoch of the finalized features.
    pub(super) transaction_version: i16,
    pub(super) features_epoch: i64,
    pub(super) next_producer_id: i64,
    /// Topics made so far: to spread leaders of small topics, and to tell that there are new ones.
    pub(super) made: usize,
    pub(super) rules: Vec<Rule>,
    pub(super) defaults: Defaults,
    /// What was set for brokers and groups, by the type and the name of the resource.
    pub(super) configs: BTreeMap<(i8, String), BTreeMap<String, String>>,
    /// Where brokers are to know less than the mock does; None is nothing at all.
    pub(super) highest: BTreeMap<Api, Option<i16>>,
    pub(super) pool: CodecPool,
    /// Requests taken, for tests that count.
    pub(super) requests: u64,
    /// Clients made so far.
    pub(super) clients: u64,
}

impl State {
    pub(super) fn new(clock: Clock, defaults: Defaults, brokers: i32) -> Self {
        let cluster_id = id_text(Uuid::from_u128(clock.bits()));
        let broker = |id| {
            let broker = Broker {
                alive: true,
                paused: false,
                life: 1,
                tcp: None,
                sessions: Sessions::default(),
            };
            (id, broker)
        };
        Self {
            cluster_id,
            clock,
            skew: Duration::ZERO,
            brokers: (1..=brokers).map(broker).collect(),
            topics: IndexMap::new(),
            groups: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            transactions: Transactions::new(),
            transaction_version: 2,
            features_epoch: 1,
            next_producer_id: 0,
            made: 0,
            rules: Vec::new(),
            defaults,
            configs: BTreeMap::new(),
            highest: BTreeMap::new(),
            pool: CodecPool::new(2),
            requests: 0,
            clients: 0,
        }
    }

    /// Lowest and highest version of a request that brokers take; None if they do not know it.
    pub(super) fn versions(&self, api: Api) -> Option<(i16, i16)> {
        let (low, high) = api.versions();
        match self.highest.get(&api) {
            None => Some((low, high)),
            Some(most) => most.map(|most| (low, high.min(most))),
        }
    }

    /// The cluster's monotonic time.
    pub(super) fn now(&self) -> Instant {
        now() + self.skew
    }

    pub(super) fn wall_millis(&self) -> i64 {
        let skew = i64::try_from(self.skew.as_millis()).unwrap_or(i64::MAX);
        self.clock.wall_millis().saturating_add(skew)
    }

    /// Whether the broker is in this life, in which a connection was made.
    pub(super) fn lives(&self, broker: i32, life: u64) -> bool {
        let known = self.brokers.get(&broker);
        known.is_some_and(|broker| broker.alive && broker.life == life)
    }

    pub(super) fn is_alive(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(|broker| broker.alive)
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = i32> + '_ {
        self.brokers
            .iter()
            .filter(|(_, broker)| broker.alive)
            .map(|(id, _)| *id)
    }

    /// Where clients find a broker.
    pub(super) fn endpoint(&self, broker: i32, listener: Listener) -> Option<(String, u16)> {
        let known = self.brokers.get(&broker)?;
        match listener {
            Listener::Memory => Some((memory_host(broker), MEMORY_PORT)),
            Listener::Tcp => known.tcp.clone(),
        }
    }

    pub(super) fn topic_by_id(&self, id: Uuid) -> Option<(&String, &Topic)> {
        self.topics.iter().find(|(_, topic)| topic.id == id)
    }

    /// Makes a topic whose replicas are spread over the brokers. The name and numbers are checked.
    pub(super) fn create_topic(
        &mut self,
        name: &str,
        replicas: Vec<Vec<i32>>,
        configs: BTreeMap<String, String>,
    ) -> Uuid {
        let id = Uuid::from_u128(self.clock.bits());
        self.made += 1;
        let partitions = replicas
            .into_iter()
            .map(|replicas| self.new_partition(replicas))
            .collect();
        let topic = Topic {
            id,
            partitions,
            configs,
        };
        self.topics.insert(name.to_owned(), topic);
        id
    }

    pub(super) fn new_partition(&self, replicas: Vec<i32>) -> Partition {
        let leader = replicas.iter().copied().find(|id| self.is_alive(*id));
        let mut log = Log::default();
        log.begin_epoch(0);
        Partition {
            leader: leader.unwrap_or(-1),
            leader_epoch: 0,
            replicas,
            log,
        }
    }

    /// Brokers for so many partitions, in turn.
    pub(super) fn spread(&self, partitions: i32, replication: i16, first: usize) -> Vec<Vec<i32>> {
        let alive: Vec<i32> = self.alive().collect();
        let at = |index: usize| alive[index % alive.len().max(1)];
        let replicas = |partition: usize| {
            (0..usize::try_from(replication).unwrap_or(1).min(alive.len()))
                .map(|replica| at(self.made + first + partition + replica))
                .collect()
        };
        (0..usize::try_from(partitions).unwrap_or(0))
            .map(replicas)
            .collect()
    }

    /// The broker that coordinates a group, chosen at first use; `None` if no broker lives.
    pub(super) fn coordinator(&mut self, key: &str) -> Option<i32> {
        if let Some(broker) = self.coordinators.get(key)
            && self.is_alive(*broker)
        {
            return Some(*broker);
        }
        let alive: Vec<i32> = self.alive().collect();
        let hash = key.bytes().fold(7_usize, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        let broker = *alive.get(hash % alive.len().max(1))?;
        self.coordinators.insert(key.to_owned(), broker);
        // It loads the group and gives its members time to come.
        self.renew(key);
        Some(broker)
    }

    /// Another broker takes a group over, whose members' sessions begin anew.
    pub(super) fn renew(&mut self, group: &str) {
        let now = self.now();
        let timeout = self.defaults.session_timeout;
        if let Some(group) = self.groups.get_mut(group) {
            group.reload(now, timeout);
        }
    }

    /// The code to refuse a transactional id's request with at this broker, if it must.
    pub(super) fn not_transaction_coordinator(&mut self, id: &str, broker: i32) -> Option<i16> {
        self.not_coordinator(&transaction_key(id), broker)
    }

    /// Does what was to happen to transactions until now: ends those that are open for too long,
    /// and writes the markers of those that are decided.
    pub(super) fn settle_transactions(&mut self) {
        let (now, delay) = (self.now(), self.defaults.marker_delay);
        let time = self.wall_millis();
        for transaction in self.transactions.values_mut() {
            let Some(markers) = transaction.settle(now, delay) else {
                continue;
            };
            for (topic, index) in &markers.partitions {
                let topic = self.topics.get_mut(topic);
                let index = usize::try_from(*index).ok();
                let partition = index.and_then(|index| topic?.partitions.get_mut(index));
                if let Some(partition) = partition {
                    let epoch = partition.leader_epoch;
                    let (owner, commits) = (markers.owner, markers.commits);
                    partition
                        .log
                        .mark(owner.id, owner.epoch, commits, epoch, time);
                }
            }
            for (group, place, offset) in markers.offsets {
                if markers.commits {
                    let group = self.groups.entry(group).or_default();
                    group.offsets.insert(place, offset);
                }
            }
        }
    }

    /// When a transaction is given up, or its markers are written, without anything else happening;
    /// by the runtime's clock.
    pub(super) fn next_settlement(&self) -> Option<Instant> {
        let deadlines = self.transactions.values();
        let next = deadlines.filter_map(Transaction::next_deadline).min();
        next.map(|at| at.checked_sub(self.skew).unwrap_or_else(now))
    }

    /// The code to refuse a group's request with at this broker, if it must.
    pub(super) fn not_coordinator(&mut self, key: &str, broker: i32) -> Option<i16> {
        match self.coordinator(key) {
            Some(coordinator) if coordinator == broker => None,
            _ => Some(codes::NOT_COORDINATOR),
        }
    }

    /// Gives partitions whose leader is not alive another one, as the controller does.
    pub(super) fn elect(&mut self) {
        let alive: Vec<i32> = self.alive().collect();
        for topic in self.topics.values_mut() {
            for partition in &mut topic.partitions {
                if alive.contains(&partition.leader) {
                    continue;
                }
                let next = partition.replicas.iter().find(|id| alive.contains(id));
                let lost = partition.leader < 0 && crate::planted("broker-stays-without-a-leader");
                let next = next.copied().filter(|_| !lost).unwrap_or(-1);
                if next != partition.leader {
                    partition.lead(next);
                }
            }
        }
    }

    /// The partition, if this broker leads it and the client's epoch is right (KIP-320).
    pub(super) fn led_mut(
        &mut self,
        topic: &str,
        partition: i32,
        broker: i32,
    ) -> Result<&mut Partition, i16> {
        self.led(topic, partition, broker, -1)?;
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let topic = self.topics.get_mut(topic);
        topic
            .and_then(|topic| topic.partitions.get_mut(index))
            .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)
    }

    pub(super) fn led(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        epoch: i32,
    ) -> Result<&Partition, i16> {
        let found = usize::try_from(partition)
            .ok()
            .and_then(|index| self.topics.get(topic)?.partitions.get(index))
            .ok_or(codes::UNKNOWN_TOPIC_OR_PARTITION)?;
        found.check(broker, epoch).map(|()| found)
    }
}

impl Partition {
    /// Puts another broker in charge.
    pub(super) fn lead(&mut self, broker: i32) {
        self.leader = broker;
        self.leader_epoch += 1;
        if broker >= 0 {
            self.log.begin_epoch(self.leader_epoch);
        }
    }

    pub(super) fn check(&self, broker: i32, epoch: i32) -> Result<(), i16> {
        if epoch >= 0 && epoch < self.leader_epoch {
            return Err(codes::FENCED_LEADER_EPOCH);
        }
        if epoch > self.leader_epoch {
            return Err(codes::UNKNOWN_LEADER_EPOCH);
        }
        match self.leader == broker {
            true => Ok(()),
            false => Err(codes::NOT_LEADER_OR_FOLLOWER),
        }
    }
}

impl Topic {
    /// A configuration of the topic, or Kafka's default for it.
    pub(super) fn config(&self, name: &str) -> &str {
        self.configs
            .get(name)
            .map_or_else(|| super::topic_config::default_of(name), String::as_str)
    }

    pub(super) fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// Under which the coordinator of a transactional id is kept; no group is called so.
pub(super) fn transaction_key(id: &str) -> String {
    format!("\u{0}{id}")
}

/// An id as Kafka writes it: 22 characters of URL-safe base64.
pub(super) fn id_text(id: Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = id.as_u128();
    let digit = |index: u32| {
        let shift = 122_i64 - 6 * i64::from(index);
        let value = if shift >= 0 {
            bits >> shift
        } else {
            bits << -shift
        };
        char::from(DIGITS[(value & 63) as usize])
    };
    (0..22).map(digit).collect()
}
