//! Every metric that is published: one table, from which descriptions and the reference in the
//! documentation come.

/// What a metric's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
pub(crate) enum Unit {
    Count,
    Bytes,
    Seconds,
}

/// One metric. Every one of them has the label `client_id` besides `labels`.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "some of it is for the reference, or for the feature, alone"
)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    pub(crate) labels: &'static [&'static str],
    /// What it counts; and the name of Java's metric nearest to it, if there is one.
    pub(crate) help: &'static str,
    pub(crate) java: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $unit:ident $name:literal $labels:tt $java:literal $help:literal;)*) => {
        $(pub(crate) static $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &$labels,
            help: $help,
            java: $java,
        };)*
        /// In the order of the reference.
        #[cfg(feature = "metrics")]
        pub(crate) static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    CONNECTIONS Gauge Count "ottla_client_connections" []
        "connection-count" "Connections open now.";
    CONNECTIONS_MADE Counter Count "ottla_client_connections_made_total" []
        "connection-creation-total" "Connections whose versions were negotiated.";
    CONNECTIONS_FAILED Counter Count "ottla_client_connections_failed_total" []
        "" "Attempts to connect that failed.";
    CONNECTIONS_CLOSED Counter Count "ottla_client_connections_closed_total" []
        "connection-close-total" "Connections that ended, for whatever reason.";
    REQUESTS_IN_FLIGHT Gauge Count "ottla_client_requests_in_flight" []
        "requests-in-flight" "Requests in line or on their way.";
    REQUESTS Counter Count "ottla_client_requests_total" ["api"]
        "request-total" "Requests that ended, with an answer or without.";
    REQUESTS_FAILED Counter Count "ottla_client_requests_failed_total" ["api"]
        "" "Requests that ended without an answer.";
    REQUEST_LATENCY Histogram Seconds "ottla_client_request_latency_seconds" ["api"]
        "request-latency-avg" "From a request's place in line to its answer.";
    THROTTLE Histogram Seconds "ottla_client_throttle_seconds" ["api"]
        "produce-throttle-time-avg" "How long an answer asked this client to be silent (quotas); answers without are left out.";
    BYTES_SENT Counter Bytes "ottla_client_sent_bytes_total" []
        "outgoing-byte-total" "Bytes of requests.";
    BYTES_RECEIVED Counter Bytes "ottla_client_received_bytes_total" []
        "incoming-byte-total" "Bytes of answers.";

    RECORDS_SENT Counter Count "ottla_producer_records_sent_total" []
        "record-send-total" "Records that were written (with acks=0: sent).";
    RECORDS_FAILED Counter Count "ottla_producer_records_failed_total" []
        "record-error-total" "Records whose delivery failed.";
    BATCHES_SENT Counter Count "ottla_producer_batches_sent_total" []
        "" "Batches that were written.";
    BATCHES_FAILED Counter Count "ottla_producer_batches_failed_total" []
        "" "Batches that failed.";
    BATCHES_RETRIED Counter Count "ottla_producer_batches_retried_total" []
        "record-retry-total" "Attempts after the first of batches that have ended.";
    BATCHES_SPLIT Counter Count "ottla_producer_batches_split_total" []
        "batch-split-total" "Batches that a broker called too large and that were split.";
    BATCHES_REFUSED Counter Count "ottla_producer_batches_refused_total" []
        "" "Answers that refused a batch, whether it was then repeated or failed.";
    BATCH_BYTES Counter Bytes "ottla_producer_batch_bytes_total" []
        "byte-total" "Bytes of the batches written, as sent.";
    UNCOMPRESSED_BYTES Counter Bytes "ottla_producer_uncompressed_bytes_total" []
        "compression-rate-avg" "Bytes of the batches written, before compression.";
    BATCH_SIZE Histogram Bytes "ottla_producer_batch_size_bytes" []
        "batch-size-avg" "Sizes of the batches written, as sent.";
    QUEUE_TIME Histogram Seconds "ottla_producer_queue_time_seconds" []
        "record-queue-time-avg" "From a batch's first record to its first request.";
    BATCH_LATENCY Histogram Seconds "ottla_producer_batch_latency_seconds" []
        "" "From a batch's first record to its end.";
    PRODUCE_REQUESTS Counter Count "ottla_producer_requests_total" []
        "request-total" "Produce requests that ended, with an answer or without.";
    PRODUCE_REQUESTS_FAILED Counter Count "ottla_producer_requests_failed_total" []
        "" "Produce requests that ended without an answer.";
    PRODUCE_LATENCY Histogram Seconds "ottla_producer_request_latency_seconds" []
        "request-latency-avg" "How long answered produce requests took.";
    PRODUCE_THROTTLE Histogram Seconds "ottla_producer_throttle_seconds" []
        "produce-throttle-time-avg" "How long an answer asked the producer to be silent; answers without are left out.";
    BUFFER_WAIT Histogram Seconds "ottla_producer_buffer_wait_seconds" []
        "bufferpool-wait-time-total" "How long calls of send waited for buffer.memory; those that had not to wait are left out.";
    BUFFER_USED Gauge Bytes "ottla_producer_buffer_used_bytes" []
        "buffer-available-bytes" "Bytes of buffer.memory in use.";
    BUFFER_TOTAL Gauge Bytes "ottla_producer_buffer_total_bytes" []
        "buffer-total-bytes" "buffer.memory.";

    RECORDS_CONSUMED Counter Count "ottla_consumer_records_consumed_total" []
        "records-consumed-total" "Records handed out.";
    BATCHES_CONSUMED Counter Count "ottla_consumer_batches_consumed_total" []
        "" "Batches of one partition handed out.";
    FETCHED_BYTES Counter Bytes "ottla_consumer_fetched_bytes_total" []
        "bytes-consumed-total" "Bytes of records fetched, compressed as they were.";
    FETCHES Counter Count "ottla_consumer_fetches_total" []
        "fetch-total" "Fetch requests that were answered.";
    FETCHES_FAILED Counter Count "ottla_consumer_fetches_failed_total" []
        "" "Fetches that failed as a whole: no connection, no answer in time, an error code.";
    FETCH_LATENCY Histogram Seconds "ottla_consumer_fetch_latency_seconds" []
        "fetch-latency-avg" "How long answered fetches took, the broker's waiting for records (fetch.max.wait.ms) included.";
    FETCH_SIZE Histogram Bytes "ottla_consumer_fetch_size_bytes" []
        "fetch-size-avg" "Bytes of records in an answer, compressed as they were.";
    FETCH_THROTTLE Histogram Seconds "ottla_consumer_fetch_throttle_seconds" []
        "fetch-throttle-time-avg" "How long an answer asked the consumer to be silent; answers without are left out.";
    BUFFERED_BYTES Gauge Bytes "ottla_consumer_buffered_bytes" []
        "" "Bytes fetched that wait to be handed out.";
    RECORDS_LAG Gauge Count "ottla_consumer_records_lag" ["group", "topic", "partition"]
        "records-lag" "Offsets between the position and the end of the log.";
    TIME_LAG Gauge Seconds "ottla_consumer_time_lag_seconds" ["group", "topic", "partition"]
        "" "The age of the first record not handed out yet; 0 when caught up, NaN while unknown.";
    ASSIGNED Gauge Count "ottla_consumer_assigned_partitions" []
        "assigned-partitions" "Partitions assigned now.";
    REBALANCES Counter Count "ottla_consumer_rebalances_total" ["event"]
        "rebalance-total" "Changes of the assignment by the group; event is assigned, revoked or lost.";
    COMMITS Counter Count "ottla_consumer_commits_total" []
        "commit-total" "Commits that the group's coordinator took.";
    COMMITS_FAILED Counter Count "ottla_consumer_commits_failed_total" []
        "" "Commits that failed after all retries.";
    COMMIT_LATENCY Histogram Seconds "ottla_consumer_commit_latency_seconds" []
        "commit-latency-avg" "How long commits took, retries included.";
    POLL_WAIT Histogram Seconds "ottla_consumer_poll_wait_seconds" []
        "poll-idle-ratio-avg" "How long the application was inside of poll.";
    POLL_INTERVAL Histogram Seconds "ottla_consumer_poll_interval_seconds" []
        "time-between-poll-avg" "How long it was away between two polls, which max.poll.interval.ms bounds.";
}
