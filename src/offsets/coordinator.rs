//! Requests to the coordinator of a group, and who sends them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Instant;
use crate::cluster::{Cluster, CoordinatorKey};
use crate::error::{Result, classify};
use crate::net::Lane;
use crate::types::BrokerId;
use crate::wire::Call;
use crate::wire::offsets::BY_TOPIC_ID;

/// The group and, for members, the id and epoch that requests carry.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) group: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) member: Option<(Arc<str>, i32)>,
}

/// One request to the group's coordinator, and one only: members judge failures themselves. `build`
/// may choose a lower version than it is offered.
pub(crate) async fn ask_coordinator<R: Call>(
    cluster: &Cluster,
    group: &str,
    deadline: Instant,
    build: impl Fn(i16) -> Result<(i16, R)> + Send + Sync,
) -> Result<(BrokerId, R::Response)> {
    let lane = (Lane::Coordinator, Duration::ZERO);
    ask_coordinator_on(lane, cluster, group, deadline, build).await
}

/// The same on another lane, where it may wait for so long at the broker.
pub(crate) async fn ask_coordinator_on<R: Call>(
    lane: (Lane, Duration),
    cluster: &Cluster,
    group: &str,
    deadline: Instant,
    build: impl Fn(i16) -> Result<(i16, R)> + Send + Sync,
) -> Result<(BrokerId, R::Response)> {
    let key = CoordinatorKey::Group(group);
    cluster.ask_coordinator(key, lane, deadline, build).await
}

/// The highest version in which all topics can be named: by id only where every id is known.
pub(super) fn nameable(offered: i16, mut ids: impl Iterator<Item = Uuid>) -> i16 {
    match ids.any(|id| id.is_nil()) {
        true => offered.min(BY_TOPIC_ID - 1),
        false => offered,
    }
}

/// The name of a topic in an answer; `None` for one that was not asked about.
pub(super) fn named<'a>(
    name: &'a str,
    id: Uuid,
    names: &BTreeMap<Uuid, &'a str>,
) -> Option<&'a str> {
    match id.is_nil() {
        true => Some(name),
        false => names.get(&id).copied(),
    }
}

pub(super) fn doubt_coordinator(cluster: &Cluster, code: i16, group: &str, broker: BrokerId) {
    if classify::classify(code).refresh == classify::Refresh::Coordinator {
        cluster.forget_coordinator(CoordinatorKey::Group(group), broker);
    }
}
