//! Members of groups that leave it to the coordinator which topics match.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId, TopicName,
};
use uuid::Uuid;

use super::groups::{LOADING, NOT_COORDINATOR, coordinator};
use super::topics::{fresh, remove};
use super::wire::{Result, Wire, text};

type Parts = Vec<(Uuid, Vec<i32>)>;

/// A group, and the topics by their ids under names that do not change from run to run.
struct Group<'a> {
    wire: &'a mut Wire,
    name: &'a str,
    topics: BTreeMap<Uuid, &'static str>,
    /// How much more than 1 the first epoch was, see `groups::beat`.
    shift: Option<i32>,
    /// Each member's epoch, and what it has.
    members: BTreeMap<&'static str, (i32, Parts)>,
}

#[derive(Clone, Copy, Default)]
struct Says<'a> {
    regex: Option<&'a str>,
    name: Option<&'a str>,
    joins: bool,
}

impl Group<'_> {
    async fn create(&mut self, topic: &'static str) -> Result {
        let name = format!("{}{topic}", self.name);
        self.topics.insert(fresh(self.wire, &name, 1).await?, topic);
        Ok(())
    }

    /// One heartbeat, in which the member says that it owns what it was given.
    async fn beat(&mut self, member: &'static str, says: Says<'_>) -> Result<String> {
        let (epoch, owned) = match says.joins {
            true => (0, Vec::new()),
            false => self.members.get(member).cloned().unwrap_or_default(),
        };
        let owned = owned.into_iter().map(|(id, partitions)| {
            TopicPartitions::default()
                .with_topic_id(id)
                .with_partitions(partitions)
        });
        let names = says.name.map(|name| match name {
            "" => Vec::new(),
            name => vec![TopicName(text(&format!("{}{name}", self.name)))],
        });
        let regex = says.regex.map(|regex| regex.replace("IT", self.name));
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(self.name)))
            .with_member_id(text(member))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(if says.joins { 60_000 } else { -1 })
            .with_subscribed_topic_names(names)
            .with_subscribed_topic_regex(regex.as_deref().map(text))
            .with_topic_partitions(Some(owned.collect()));
        let mut answer: ConsumerGroupHeartbeatResponse = self.wire.ask(68, 1, &request).await?;
        while matches!(answer.error_code, LOADING..=NOT_COORDINATOR) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = self.wire.ask(68, 1, &request).await?;
        }
        if answer.error_code != 0 {
            return Ok(format!("code {}", answer.error_code));
        }
        let has = self.members.entry(member).or_default();
        has.0 = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let parts = assignment.topic_partitions.into_iter();
            has.1 = parts.map(|part| (part.topic_id, part.partitions)).collect();
        }
        let shift = *self.shift.get_or_insert(answer.member_epoch - 1);
        Ok(format!("epoch {}", answer.member_epoch - shift))
    }

    /// The topics of a member, by their names here.
    fn topics_of(&self, member: &str) -> BTreeSet<&'static str> {
        let has = self.members.get(member).into_iter().flat_map(|has| &has.1);
        has.filter_map(|(id, _)| self.topics.get(id).copied())
            .collect()
    }

    /// Heartbeats of all until everybody has so many topics; who has which of those that both want
    /// is left to chance.
    async fn settle(&mut self, expected: &[(&'static str, usize)]) -> Result<String> {
        let mut told = String::new();
        for _ in 0..400 {
            told.clear();
            for (member, _) in expected {
                let one = self.beat(member, Says::default()).await?;
                let count = self.topics_of(member).len();
                write!(told, " {member} {one} has {count}")?;
            }
            let has = |(member, count): &(&str, usize)| self.members[member].1.len() == *count;
            let mut epochs = expected.iter().map(|(member, _)| self.members[member].0);
            let first = epochs.next();
            if expected.iter().all(has) && epochs.all(|epoch| Some(epoch) == first) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let members = expected.iter().map(|(member, _)| self.topics_of(member));
        let all: BTreeSet<_> = members.flatten().collect();
        write!(told, ", together {all:?}")?;
        Ok(told)
    }
}

pub(super) async fn patterns(wire: &mut Wire, topic: &str) -> Result<String> {
    let mut said = String::new();
    coordinator(wire, topic).await?;
    let mut group = Group {
        wire,
        name: topic,
        topics: BTreeMap::new(),
        shift: None,
        members: BTreeMap::new(),
    };
    for topic in ["-a1", "-a2", "-a1-more", "-b", "-named"] {
        group.create(topic).await?;
    }
    let joins = |regex| Says {
        regex: Some(regex),
        joins: true,
        ..Says::default()
    };
    let changes = |regex| Says {
        regex: Some(regex),
        ..Says::default()
    };
    for bad in ["(", "[z-a]", "a)(?:b", "a{2,1}", "*"] {
        writeln!(said, "{bad}: {}", group.beat("a", joins(bad)).await?)?;
    }
    let joined = group.beat("a", joins("IT-a.")).await?;
    writeln!(said, "a joins: {joined}")?;
    writeln!(said, "found:{}", group.settle(&[("a", 2)]).await?)?;
    let refused = group.beat("a", changes("(")).await?;
    writeln!(said, "refused: {refused}")?;
    writeln!(said, "as before:{}", group.settle(&[("a", 2)]).await?)?;
    let joined = group.beat("b", joins("IT-a.")).await?;
    writeln!(said, "b joins: {joined}")?;
    let both = [("a", 1), ("b", 1)];
    writeln!(said, "shared:{}", group.settle(&both).await?)?;
    group.create("-a3").await?;
    group.create("-a4").await?;
    let both = [("a", 2), ("b", 2)];
    writeln!(said, "two more:{}", group.settle(&both).await?)?;
    let changed = group.beat("b", changes("IT-b")).await?;
    writeln!(said, "b has another: {changed}")?;
    let both = [("a", 4), ("b", 1)];
    writeln!(said, "apart:{}", group.settle(&both).await?)?;
    let named = Says {
        name: Some("-named"),
        ..Says::default()
    };
    let changed = group.beat("b", named).await?;
    writeln!(said, "b names one, too: {changed}")?;
    let both = [("a", 4), ("b", 2)];
    writeln!(said, "named:{}", group.settle(&both).await?)?;
    let changed = group.beat("b", changes("")).await?;
    writeln!(said, "b has none any more: {changed}")?;
    let both = [("a", 4), ("b", 1)];
    writeln!(said, "only named:{}", group.settle(&both).await?)?;
    let joined = group.beat("c", joins("IT-la.*")).await?;
    writeln!(said, "c wants what is not there yet: {joined}")?;
    let three = [("a", 4), ("b", 1), ("c", 0)];
    writeln!(said, "with nothing:{}", group.settle(&three).await?)?;
    group.create("-later").await?;
    let three = [("a", 4), ("b", 1), ("c", 1)];
    writeln!(said, "now there:{}", group.settle(&three).await?)?;
    let gone = format!("{topic}-a2");
    remove(group.wire, &gone).await?;
    let three = [("a", 3), ("b", 1), ("c", 1)];
    writeln!(said, "one less:{}", group.settle(&three).await?)?;
    let neither = Says {
        joins: true,
        ..Says::default()
    };
    writeln!(said, "nothing: {}", group.beat("d", neither).await?)?;
    let empty = Says {
        name: Some(""),
        regex: Some(""),
        joins: true,
    };
    writeln!(said, "nothing wanted: {}", group.beat("d", empty).await?)?;
    Ok(said)
}
