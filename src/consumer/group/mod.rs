//! Group membership: who owns which partitions.

pub(crate) mod kip848;
