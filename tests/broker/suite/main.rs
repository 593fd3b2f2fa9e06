//! `ottla` against real brokers. Run with `testcontainers/run cargo test -p ottla-broker-tests`;
//! without Docker every test fails and says so.

mod support;

mod admin;
mod admin_groups;
mod connect;
mod consumer;
mod faults;
mod fetching;
mod fidelity;
mod group;
mod interop;
mod java_on_mock;
mod limits;
mod membership;
mod offsets;
mod old;
mod producer;
mod proxy;
mod quotas;
mod roles;
mod subscriptions;
mod tools;
mod transactions;
