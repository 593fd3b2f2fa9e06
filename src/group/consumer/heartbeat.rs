//! ConsumerGroupHeartbeat: what a member says, what the coordinator answers, and both on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages as kp;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use uuid::Uuid;

use crate::error::{Class, Error, ErrorKind, Result};
use crate::group::call::GroupCall;
use crate::wire::{str_bytes, topic_name};

/// Partitions by topic id.
pub(crate) type Parts = BTreeMap<Uuid, BTreeSet<i32>>;

/// With this epoch a member joins.
pub(crate) const JOIN: i32 = 0;

/// A ConsumerGroupHeartbeat request; `None` is "unchanged".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) member_id: Arc<str>,
    /// Version 0 lets the broker choose the id; until it did, the one above is only a proposal.
    pub(crate) id_confirmed: bool,
    pub(crate) member_epoch: i32,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<Vec<Arc<str>>>,
    /// Empty: there is none any more.
    pub(crate) regex: Option<Arc<str>>,
    pub(crate) assignor: Option<Arc<str>>,
    pub(crate) owned: Option<Parts>,
}

impl Heartbeat {
    /// The id is the member's own choice, but for the first of version 0.
    fn names_itself(&self, version: i16) -> bool {
        version > 0 || self.id_confirmed
    }

    /// The member leaves, for a while or for good.
    pub(crate) fn is_farewell(&self) -> bool {
        self.member_epoch < JOIN
    }
}

/// A ConsumerGroupHeartbeat answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeartbeatAnswer {
    pub(crate) code: i16,
    pub(crate) message: Option<String>,
    pub(crate) member_id: Option<Arc<str>>,
    pub(crate) member_epoch: i32,
    pub(crate) interval: Duration,
    pub(crate) assignment: Option<Parts>,
}

impl GroupCall for Heartbeat {
    type Wire = kp::ConsumerGroupHeartbeatRequest;
    type Answer = HeartbeatAnswer;

    fn build(&self, group: &str, version: i16) -> Result<Self::Wire> {
        let regex = self.regex.as_ref().filter(|_| version >= 1);
        if regex.is_none() && self.regex.as_ref().is_some_and(|regex| !regex.is_empty()) {
            let message = "the broker cannot match topics by a pattern: that needs Kafka 4.0 or newer; \
                           use a pattern that is matched by the client";
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        let millis = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let member_id = match self.names_itself(version) {
            true => &*self.member_id,
            false => "",
        };
        let owned = self.owned.as_ref().map(|owned| {
            let owned = owned.iter().map(|(id, partitions)| {
                TopicPartitions::default()
                    .with_topic_id(*id)
                    .with_partitions(partitions.iter().copied().collect())
            });
            owned.collect()
        });
        let topics = self
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(|name| topic_name(name)).collect());
        let text = |text: &Arc<str>| str_bytes(text);
        Ok(kp::ConsumerGroupHeartbeatRequest::default()
            .with_group_id(kp::GroupId(str_bytes(group)))
            .with_member_id(str_bytes(member_id))
            .with_member_epoch(self.member_epoch)
            .with_instance_id(self.instance_id.as_ref().map(text))
            .with_rack_id(self.rack.as_ref().map(text))
            .with_rebalance_timeout_ms(self.rebalance_timeout.map_or(-1, millis))
            .with_subscribed_topic_names(topics)
            .with_subscribed_topic_regex(regex.map(text))
            .with_server_assignor(self.assignor.as_ref().map(text))
            .with_topic_partitions(owned))
    }

    fn read(
        &self,
        version: i16,
        response: kp::ConsumerGroupHeartbeatResponse,
    ) -> Result<HeartbeatAnswer> {
        let told: Option<Arc<str>> = response.member_id.map(|id| Arc::from(id.as_str()));
        if self.names_itself(version)
            && let Some(told) = &told
            && *told != self.member_id
        {
            let member = &self.member_id;
            let message = format!("a heartbeat of member {member} was answered to {told}");
            return Err(Error::new(ErrorKind::Protocol, message).with_class(Class::Retriable));
        }
        let interval = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0);
        let assignment = response.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            topics
                .map(|topic| (topic.topic_id, topic.partitions.into_iter().collect()))
                .collect()
        });
        Ok(HeartbeatAnswer {
            code: response.error_code,
            message: response.error_message.map(|text| text.to_string()),
            member_id: told,
            member_epoch: response.member_epoch,
            interval: Duration::from_millis(interval),
            assignment,
        })
    }
}
