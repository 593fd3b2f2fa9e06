//! Clusters shared by the tests of this binary, and names that do not collide.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ottla::Client;
use ottla_testcontainers::Cluster;
use tokio::sync::OnceCell;

pub(crate) type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> =
    std::result::Result<T, E>;

/// Longer than anything here takes when it works.
pub(crate) const LONG: Duration = Duration::from_secs(60);

static ONE: OnceCell<Cluster> = OnceCell::const_new();
static THREE: OnceCell<Cluster> = OnceCell::const_new();

/// One broker that nobody breaks, without automatic creation of topics, with TLS.
pub(crate) async fn one() -> Result<&'static Cluster> {
    Ok(ONE
        .get_or_try_init(|| {
            Cluster::builder()
                .config("auto.create.topics.enable", "false")
                .tls()
                .start()
        })
        .await?)
}

/// Three brokers that nobody breaks.
pub(crate) async fn three() -> Result<&'static Cluster> {
    Ok(THREE
        .get_or_try_init(|| Cluster::builder().brokers(3).start())
        .await?)
}

/// A name that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn client(cluster: &Cluster) -> Result<Client> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Ok(Client::builder()
        .bootstrap(cluster.bootstrap().split(','))
        .client_id("broker-tests")
        .connect()
        .await?)
}
