//! The whole client in simulation: see `README.md` beside this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod invariants;
mod workload;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Outcome, run};

/// What CI runs.
const FIXED: Range<u64> = 0..100;

/// Seeds that found a bug once: what it was stands beside each.
const FOUND: &[u64] = &[];

/// `OTTLA_SIM_SEEDS=7` or `OTTLA_SIM_SEEDS=0..100000`.
fn chosen() -> Vec<u64> {
    let Ok(text) = std::env::var("OTTLA_SIM_SEEDS") else {
        return FOUND.iter().copied().chain(FIXED).collect();
    };
    let number = |text: &str| text.trim().parse().expect("a number in OTTLA_SIM_SEEDS");
    match text.split_once("..") {
        Some((from, to)) => (number(from)..number(to)).collect(),
        None => vec![number(&text)],
    }
}

fn run_caught(seed: u64) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "panicked".to_owned()))
    })
}

#[test]
fn seeds() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    let seeds = chosen();
    let (mut failed, mut sum) = (Vec::new(), Outcome::default());
    for seed in &seeds {
        match run_caught(*seed) {
            Ok(outcome) => {
                if std::env::var_os("OTTLA_SIM_VERBOSE").is_some() {
                    println!(
                        "seed {seed}: {outcome}, {} trace lines",
                        outcome.trace.len()
                    );
                }
                sum.add(&outcome);
            }
            Err(why) => {
                println!(
                    "seed {seed}: {why}\n  again: OTTLA_SIM_SEEDS={seed} cargo test --test sim seeds"
                );
                failed.push(*seed);
            }
        }
    }
    println!("{} seeds: {sum}", seeds.len());
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {failed:?}",
        failed.len(),
        seeds.len()
    );
}

/// Otherwise a failing seed would be worth nothing.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 14, 15] {
        let (one, two) = (run_caught(seed), run_caught(seed));
        let (Ok(one), Ok(two)) = (one, two) else {
            continue; // `seeds` tells.
        };
        let differs = one
            .trace
            .iter()
            .zip(&two.trace)
            .position(|(one, two)| one != two);
        if let Some(at) = differs {
            panic!(
                "seed {seed} differs at line {at}:\n{}\n{}",
                one.trace[at], two.trace[at]
            );
        }
        assert_eq!(one.trace.len(), two.trace.len(), "seed {seed}");
    }
    let (one, two) = (run_caught(3), run_caught(4));
    assert!(one.unwrap_or_default().trace != two.unwrap_or_default().trace);
}
