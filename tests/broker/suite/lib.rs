//! The tests are in `main.rs`, which says how to run them.
