//! Settings that Kafka's Java client has and this one does not, each with what to do instead.
//!
//! They are errors rather than ignored: who sets one expects an effect.

/// Names, or prefixes that end in a dot, and the reason.
pub(crate) static UNAVAILABLE: &[(&str, &str)] = &[
    ("auto.include.jmx.reporter", METRICS),
    (
        "bootstrap.controllers",
        "this version talks to brokers only; use bootstrap.servers",
    ),
    (
        "bootstrap.resolve.timeout.ms",
        "host names are looked up with each connection, within socket.connection.setup.timeout.ms; remove it",
    ),
    (
        "compression.lz4.level",
        "the lz4 encoder has one speed; remove it, or use zstd, which has levels",
    ),
    (
        "config.providers",
        "resolve references before the settings reach the client",
    ),
    (
        "interceptor.classes",
        "there are no plug-in classes; give the builder an interceptor (ProducerBuilder::interceptor, ConsumerBuilder::interceptor)",
    ),
    ("key.deserializer", BYTES),
    ("key.serializer", BYTES),
    (
        "metadata.cluster.check.enable",
        "misrouted connections are not detected in this version (KIP-1242); remove it",
    ),
    ("metric.reporters", METRICS),
    ("metrics.", METRICS),
    (
        "partitioner.class",
        "there are no plug-in classes; give a partitioner to the producer's builder",
    ),
    (
        "partitioner.rack.aware",
        "the partitioner does not know racks in this version (KIP-1123); remove it",
    ),
    ("sasl.", SECURITY),
    ("security.providers", "it concerns the Java VM; remove it"),
    ("share.", "share groups are not in this version"),
    ("ssl.", SECURITY),
    (
        "transaction.two.phase.commit.enable",
        "two-phase commit (KIP-939) is not in this version; remove it",
    ),
    ("value.deserializer", BYTES),
    ("value.serializer", BYTES),
];

const BYTES: &str = "keys and values are bytes here, so remove it and convert in the application";
const METRICS: &str = "there are no metrics reporters; remove it and use the snapshots (Producer::metrics, Consumer::metrics, Client::metrics) or the feature `metrics`";
const SECURITY: &str = "TLS and SASL are not in this version";

/// Why a setting of Kafka's is not available.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    UNAVAILABLE
        .iter()
        .find(|(known, _)| *known == name || (known.ends_with('.') && name.starts_with(known)))
        .map(|(_, reason)| *reason)
}
