//! Bugs that a test can switch on, to show that the simulation finds them (`tests/sim/README.md`).
//!
//! The code asks `crate::planted("name")` where a bug would be. Only a debug build with the feature
//! `unstable-internals` looks at the environment variable `OTTLA_PLANTED`, once, for the name of
//! the one bug to have. In every other build the answer is the constant `false`.

/// Whether this process has the bug of this name.
#[cfg(not(all(feature = "unstable-internals", debug_assertions)))]
#[inline(always)]
pub(crate) const fn planted(_name: &str) -> bool {
    false
}

/// Whether this process has the bug of this name.
#[cfg(all(feature = "unstable-internals", debug_assertions))]
pub(crate) fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("OTTLA_PLANTED").ok());
    CHOSEN.as_deref() == Some(name)
}
