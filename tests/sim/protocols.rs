//! Which group protocols the members of a run speak, and who assigns where that is a member.

use std::sync::Arc;
use std::time::Duration;

use ottla::mock::{Api, MockClusterBuilder};
use ottla::{
    Assignor, ConsumerBuilder, CooperativeStickyAssignor, GroupProtocol, RangeAssignor,
    RoundRobinAssignor, StickyAssignor,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The members that speak the classic protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Classic {
    Nobody,
    /// Each other one; the rest speaks what the brokers can (`GroupProtocol::Auto`).
    Half,
    All,
}

/// Drawn from the seed by itself: whoever else draws is given the same in each case.
#[derive(Debug)]
pub(crate) struct Protocols {
    classic: Classic,
    /// The brokers are older than KIP-848.
    old: bool,
    /// Whether a group changes its protocol while it has members, one way and the other.
    migrates: (bool, bool),
    /// The assignor that all classic members have.
    common: usize,
    /// Each has another one besides, before or after it.
    overlap: bool,
    /// Of classic members, and how often they are heard of.
    session: Duration,
    heartbeat: Duration,
}

impl Protocols {
    pub(crate) fn draw(seed: u64, hurry: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(!seed);
        // Two seeds of five.
        let classic = match seed % 5 {
            1 | 3 if rng.random_ratio(1, 4) => Classic::Half,
            1 | 3 => Classic::All,
            _ => Classic::Nobody,
        };
        let session = Duration::from_millis(rng.random_range(3_000..20_000)) / hurry;
        let common = match classic {
            // Those that speak what the brokers can have `range` and `cooperative-sticky`.
            Classic::Half => [0, 3][rng.random_range(0..2)],
            _ => rng.random_range(0..4),
        };
        Self {
            classic,
            old: classic != Classic::Nobody && rng.random_ratio(1, 3),
            migrates: (rng.random_ratio(3, 4), rng.random_ratio(3, 4)),
            common,
            overlap: rng.random_ratio(1, 3),
            session,
            heartbeat: session / rng.random_range(3..8),
        }
    }

    /// What the brokers need to know of it.
    pub(crate) fn prepare(&self, builder: MockClusterBuilder) -> MockClusterBuilder {
        if self.classic == Classic::Nobody {
            return builder;
        }
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(60));
        let (upgrade, downgrade) = self.migrates;
        let builder = builder
            .classic_sessions(shortest, longest)
            .group_migration(upgrade, downgrade);
        match self.old {
            true => builder
                .without(Api::ConsumerGroupHeartbeat)
                .without(Api::ConsumerGroupDescribe),
            false => builder,
        }
    }

    /// Whether there are members of the classic protocol.
    pub(crate) fn are_classic(&self) -> bool {
        self.classic != Classic::Nobody
    }

    /// Gives a member its protocol; `assignor` is the broker's, where that assigns.
    pub(crate) fn choose(
        &self,
        builder: ConsumerBuilder,
        number: usize,
        assignor: Option<&str>,
    ) -> ConsumerBuilder {
        let is_classic = match self.classic {
            Classic::Nobody => false,
            Classic::Half => number.is_multiple_of(2),
            Classic::All => true,
        };
        if !is_classic {
            return match assignor {
                Some(assignor) => builder.group_remote_assignor(assignor),
                None => builder,
            };
        }
        let mut assignors = vec![assignor_of(self.common)];
        if self.overlap {
            // Another one for each, which the group must not choose.
            let other = assignor_of((self.common + 1 + number % 3) % 4);
            assignors.insert(number % 2, other);
        }
        builder
            .group_protocol(GroupProtocol::Classic)
            .partition_assignment_strategy(assignors)
            .session_timeout(self.session)
            .heartbeat_interval(self.heartbeat)
    }
}

fn assignor_of(number: usize) -> Arc<dyn Assignor> {
    match number {
        0 => Arc::new(RangeAssignor),
        1 => Arc::new(RoundRobinAssignor),
        2 => Arc::new(StickyAssignor),
        _ => Arc::new(CooperativeStickyAssignor),
    }
}
