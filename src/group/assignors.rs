//! The assignors of a member (`partition.assignment.strategy`). They may be the application's own
//! code, so that a panic in one is an error like any other.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::assignor::{
    Assignor, ClusterView, CooperativeStickyAssignor, GroupAssignment, GroupSubscription,
    MemberAssignment, MemberView, RangeAssignor, RebalanceProtocol, RoundRobinAssignor,
    StickyAssignor,
};
use crate::error::{Error, ErrorKind, Result};

/// In order of preference.
#[derive(Clone)]
pub(crate) struct Assignors(Arc<[Arc<dyn Assignor>]>);

impl Assignors {
    pub(crate) fn new(assignors: impl IntoIterator<Item = Arc<dyn Assignor>>) -> Self {
        Self(assignors.into_iter().collect())
    }

    /// Those that come with the client, by their names; others are left out.
    pub(crate) fn named(names: &[&str]) -> Self {
        let known = |name: &&str| -> Option<Arc<dyn Assignor>> {
            match *name {
                "range" => Some(Arc::new(RangeAssignor)),
                "roundrobin" => Some(Arc::new(RoundRobinAssignor)),
                "sticky" => Some(Arc::new(StickyAssignor)),
                "cooperative-sticky" => Some(Arc::new(CooperativeStickyAssignor)),
                _ => None,
            }
        };
        Self::new(names.iter().filter_map(known))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What all of them can do.
    pub(crate) fn protocol(&self) -> RebalanceProtocol {
        let protocols = self.0.iter().map(|assignor| assignor.rebalance_protocol());
        protocols.min().unwrap_or_default()
    }

    /// The name of each, with what it adds to a subscription.
    pub(crate) fn user_data(
        &self,
        member: &MemberView<'_>,
    ) -> Vec<(Arc<str>, Result<Option<Bytes>>)> {
        let assignors = self.0.iter();
        let told = assignors.map(|assignor| {
            let data = guarded(&**assignor, || assignor.subscription_user_data(member));
            (Arc::from(assignor.name()), data)
        });
        told.collect()
    }

    /// Who gets what; refused if members could not act upon it.
    pub(crate) fn assign(
        &self,
        name: &str,
        cluster: &ClusterView,
        group: &GroupSubscription,
    ) -> Result<GroupAssignment> {
        let assignor = self.find(name)?;
        let assignment = guarded(assignor, || assignor.assign(cluster, group))?;
        assignment.check(name, cluster, group)?;
        // The built-in one takes partitions away in one round and gives them in the next, but for
        // those that it knows to be nobody's any more.
        let cooperative = self.protocol() == RebalanceProtocol::Cooperative;
        if cooperative && name != CooperativeStickyAssignor.name() {
            assignment.check_moves(name, group)?;
        }
        Ok(assignment)
    }

    pub(crate) fn on_assignment(
        &self,
        name: &str,
        assignment: &MemberAssignment,
        generation: i32,
    ) -> Result<()> {
        let assignor = self.find(name)?;
        guarded(assignor, || assignor.on_assignment(assignment, generation))
    }

    fn find(&self, name: &str) -> Result<&dyn Assignor> {
        let found = self.0.iter().find(|assignor| assignor.name() == name);
        found.map(|assignor| &**assignor).ok_or_else(|| {
            let message =
                format!("the group uses the assignor '{name}', which this member does not have");
            Error::new(ErrorKind::Group, message)
        })
    }
}

impl fmt::Debug for Assignors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|assignor| assignor.name());
        f.debug_list().entries(names).finish()
    }
}

fn guarded<T>(assignor: &dyn Assignor, run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        let name = assignor.name();
        let message = format!(
            "the assignor '{name}' panicked: correct it, or choose another \
             (partition.assignment.strategy)"
        );
        Error::new(ErrorKind::Group, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::consumer::ConsumerConfig;

    #[test]
    fn names_of_settings_are_those_of_assignors() {
        let all = ["range", "roundrobin", "sticky", "cooperative-sticky"];
        let assignors = Assignors::named(&all);
        let names: Vec<_> = assignors
            .0
            .iter()
            .map(|one| one.name().to_owned())
            .collect();
        assert_eq!(names, all);
    }

    /// What all can do counts: Java's default is eager, on the way to the other.
    #[test]
    fn the_rebalance_protocol_is_what_all_assignors_can_do() {
        let protocol = |names: &[&str]| Assignors::named(names).protocol();
        let usual = ConsumerConfig::default().assignment_strategy;
        assert_eq!(protocol(&usual), RebalanceProtocol::Eager);
        let cooperative = protocol(&["cooperative-sticky"]);
        assert_eq!(cooperative, RebalanceProtocol::Cooperative);
    }
}
