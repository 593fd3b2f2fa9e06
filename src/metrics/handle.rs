//! Handles of the `metrics` facade, made once and kept. Without the feature they are nothing and do
//! nothing.
//!
//! Whatever recorder the application installed runs in these calls: never make one under a lock.

#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::table::Metric;

/// Labels of a metric.
#[derive(Clone, Debug)]
pub(crate) struct Labels(#[cfg(feature = "metrics")] Vec<::metrics::Label>);

/// Counts up.
#[derive(Clone)]
pub(crate) struct Counter(#[cfg(feature = "metrics")] ::metrics::Counter);

/// Part of a sum: the gauges of several producers or consumers with the same labels add up. What
/// this one has put in it takes out when it is dropped.
pub(crate) struct Share {
    #[cfg(feature = "metrics")]
    gauge: ::metrics::Gauge,
    #[cfg(feature = "metrics")]
    put_in: AtomicI64,
}

/// Has one value; 0 when it is dropped, since the facade cannot take a gauge back.
pub(crate) struct Level(#[cfg(feature = "metrics")] ::metrics::Gauge);

/// Counts durations and sizes by their values.
#[derive(Clone)]
pub(crate) struct Distribution(#[cfg(feature = "metrics")] ::metrics::Histogram);

#[cfg(feature = "metrics")]
mod on {
    use ::metrics::{Key, KeyName, Level as Importance, Metadata, with_recorder};

    use super::*;
    use crate::metrics::table::{ALL, Kind, Unit};

    static METADATA: Metadata<'static> =
        Metadata::new("ottla", Importance::INFO, Some("ottla::metrics"));

    /// Tells the recorder what the metrics are.
    pub(crate) fn describe() {
        for metric in ALL {
            let name = KeyName::from_const_str(metric.name);
            let unit = Some(match metric.unit {
                Unit::Count => ::metrics::Unit::Count,
                Unit::Bytes => ::metrics::Unit::Bytes,
                Unit::Seconds => ::metrics::Unit::Seconds,
            });
            let help = metric.help.into();
            with_recorder(|recorder| match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            });
        }
    }

    fn key(metric: &Metric, labels: &Labels) -> Key {
        Key::from_parts(metric.name, labels.0.clone())
    }

    impl Labels {
        pub(crate) fn client(client_id: &str) -> Self {
            Self(vec![::metrics::Label::new(
                "client_id",
                client_id.to_owned(),
            )])
        }

        pub(crate) fn with(&self, name: &'static str, value: &str) -> Self {
            let mut labels = self.clone();
            labels.0.push(::metrics::Label::new(name, value.to_owned()));
            labels
        }
    }

    impl Counter {
        pub(crate) fn new(metric: &Metric, labels: &Labels) -> Self {
            debug_assert_eq!(metric.kind, Kind::Counter);
            let key = key(metric, labels);
            Self(with_recorder(|recorder| {
                recorder.register_counter(&key, &METADATA)
            }))
        }

        #[inline]
        pub(crate) fn add(&self, count: u64) {
            self.0.increment(count);
        }
    }

    fn gauge(metric: &Metric, labels: &Labels) -> ::metrics::Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge);
        let key = key(metric, labels);
        with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
    }

    impl Share {
        pub(crate) fn new(metric: &Metric, labels: &Labels) -> Self {
            Self {
                gauge: gauge(metric, labels),
                put_in: AtomicI64::new(0),
            }
        }

        pub(crate) fn set(&self, value: usize) {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let before = self.put_in.swap(value, Ordering::AcqRel);
            self.pass_on(value.saturating_sub(before));
        }

        pub(crate) fn change(&self, by: i64) {
            self.put_in.fetch_add(by, Ordering::AcqRel);
            self.pass_on(by);
        }

        fn pass_on(&self, change: i64) {
            match change {
                1.. => self.gauge.increment(change as f64),
                0 => {}
                ..0 => self.gauge.decrement(-(change as f64)),
            }
        }
    }

    impl Drop for Share {
        fn drop(&mut self) {
            self.set(0);
        }
    }

    impl Level {
        pub(crate) fn new(metric: &Metric, labels: &Labels) -> Self {
            Self(gauge(metric, labels))
        }

        pub(crate) fn set(&self, value: f64) {
            self.0.set(value);
        }
    }

    impl Drop for Level {
        fn drop(&mut self) {
            self.set(0.0);
        }
    }

    impl Distribution {
        pub(crate) fn new(metric: &Metric, labels: &Labels) -> Self {
            debug_assert_eq!(metric.kind, Kind::Histogram);
            let key = key(metric, labels);
            Self(with_recorder(|recorder| {
                recorder.register_histogram(&key, &METADATA)
            }))
        }

        #[inline]
        pub(crate) fn add(&self, value: f64) {
            self.0.record(value);
        }
    }
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, clippy::needless_pass_by_value)]
mod off {
    use super::*;

    #[inline]
    pub(crate) fn describe() {}

    impl Labels {
        #[inline]
        pub(crate) fn client(_: &str) -> Self {
            Self()
        }

        #[inline]
        pub(crate) fn with(&self, _: &'static str, _: &str) -> Self {
            Self()
        }
    }

    impl Counter {
        #[inline]
        pub(crate) fn new(_: &Metric, _: &Labels) -> Self {
            Self()
        }

        #[inline]
        pub(crate) fn add(&self, _: u64) {}
    }

    impl Share {
        #[inline]
        pub(crate) fn new(_: &Metric, _: &Labels) -> Self {
            Self {}
        }

        #[inline]
        pub(crate) fn set(&self, _: usize) {}

        #[inline]
        pub(crate) fn change(&self, _: i64) {}
    }

    impl Level {
        #[inline]
        pub(crate) fn new(_: &Metric, _: &Labels) -> Self {
            Self()
        }

        #[inline]
        pub(crate) fn set(&self, _: f64) {}
    }

    impl Distribution {
        #[inline]
        pub(crate) fn new(_: &Metric, _: &Labels) -> Self {
            Self()
        }

        #[inline]
        pub(crate) fn add(&self, _: f64) {}
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::describe;
#[cfg(feature = "metrics")]
pub(crate) use on::describe;

impl Distribution {
    #[inline]
    pub(crate) fn time(&self, time: Duration) {
        self.add(time.as_secs_f64());
    }

    #[inline]
    pub(crate) fn size(&self, bytes: usize) {
        self.add(bytes as f64);
    }

    /// A time, unless there was none.
    #[inline]
    pub(crate) fn some_time(&self, time: Duration) {
        if !time.is_zero() {
            self.time(time);
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "metrics"))]
mod tests {
    use super::*;
    use crate::consumer::meter::ConsumerMeter;
    use crate::producer::meter::ProducerMeter;

    #[test]
    fn without_the_feature_handles_are_nothing() {
        assert_eq!(size_of::<ProducerMeter>(), 0);
        assert_eq!(size_of::<ConsumerMeter>(), 0);
        assert_eq!(
            size_of::<(Labels, Counter, Share, Level, Distribution)>(),
            0
        );
        assert!(!std::mem::needs_drop::<(Share, Level)>());
    }
}
