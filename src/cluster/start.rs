//! How a cluster comes to be: its state, and the task that learns of brokers and topics.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::coordinators::Coordinators;
use super::metadata::MetadataMachine;
use super::{Cluster, Inner, Metadata, Role, StopOnDrop, driver};
use crate::clock::{Clock, now};
use crate::config::ClientConfig;
use crate::log_throttle::LogThrottle;
use crate::net::Owner;
use crate::net::connector::Connector;
use crate::net::pool::{Endpoint, Pool};
use crate::tasks::Tasks;
use crate::types::BrokerId;

impl Cluster {
    /// A cluster known by its bootstrap addresses; its metadata task starts at once.
    pub(crate) fn new(
        config: ClientConfig,
        bootstrap: Vec<(String, u16)>,
        clock: Clock,
        connector: Arc<dyn Connector>,
        tasks: Tasks,
    ) -> Self {
        let config = Arc::new(config);
        let pool = Pool::new(Arc::clone(&config), clock.clone(), tasks.clone(), connector);
        let backoff = (config.retry_backoff, config.retry_backoff_max);
        let machine = MetadataMachine::new(config.metadata_max_age, backoff);
        let bootstrap = (1..)
            .zip(bootstrap)
            .map(|(number, (host, port))| Endpoint {
                id: BrokerId(-number),
                host: host.into(),
                port,
            })
            .collect();
        let inner = Arc::new(Inner {
            config,
            clock,
            tasks: tasks.clone(),
            pool,
            bootstrap,
            snapshot: ArcSwap::default(),
            published: Notify::new(),
            metadata: Mutex::new(Metadata {
                machine,
                rounds: 0,
                full_rounds: 0,
                failure: None,
                last_success: now(),
            }),
            wishes: Notify::new(),
            coordinators: Coordinators::default(),
            failures: LogThrottle::default(),
        });
        let role = Arc::new(Role {
            pool: Arc::clone(&inner.pool),
            owner: Owner::default(),
        });
        let mut cluster = Self {
            inner,
            role,
            stop: None,
        };
        tasks.spawn("metadata", driver::run(cluster.clone()));
        cluster.stop = Some(Arc::new(StopOnDrop(tasks)));
        cluster
    }
}
