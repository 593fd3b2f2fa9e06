//! Real Kafka brokers in containers for the tests of `ottla`.
