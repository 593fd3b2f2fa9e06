//! Clients of the cluster, connected through memory.

use std::sync::Arc;

use super::memory::Memory;
use super::{MockCluster, state};
use crate::client::{Client, ClientBuilder};
use crate::clock::Clock;
use crate::net::connector::Connector;
use crate::tasks::Tasks;

impl MockCluster {
    /// A client of this cluster with default settings, connected through memory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let mock = ottla::mock::MockCluster::builder().start().await?;
    /// let producer = mock.client().producer().build()?;
    /// producer.send(ottla::Record::to("new").with_value("v")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn client(&self) -> Client {
        let (builder, connector, clock) = self.parts(self.next_name());
        // Like any client it is the runtime's on which it is built, if it is built on one.
        let tasks = Tasks::new().unwrap_or_else(|_| self.shared.tasks.apart());
        builder.assemble_on(connector, clock, tasks)
    }

    /// Settings of a client of this cluster, to be connected through memory.
    pub fn client_builder(&self) -> ClientBuilder {
        self.named_client_builder(self.next_name())
    }

    /// The same under a name by which the client's part of the [network](Self::network) is found.
    pub fn named_client_builder(&self, name: impl Into<String>) -> ClientBuilder {
        let (builder, connector, clock) = self.parts(name.into());
        builder.transport(connector, clock)
    }

    fn next_name(&self) -> String {
        let mut state = self.shared.state();
        state.clients += 1;
        format!("client-{}", state.clients)
    }

    fn parts(&self, name: String) -> (ClientBuilder, Arc<dyn Connector>, Clock) {
        let state = self.shared.state();
        let brokers = || state.brokers.keys().copied();
        self.shared.network.add_client(&name, brokers());
        let address = |id| format!("{}:{}", state::memory_host(id), state::MEMORY_PORT);
        let builder = Client::builder()
            .bootstrap(brokers().map(address))
            .client_id(name.as_str());
        let memory = Memory {
            shared: Arc::clone(&self.shared),
            client: name,
        };
        (builder, Arc::new(memory), state.clock.clone())
    }
}
