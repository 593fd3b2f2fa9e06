//! The whole client in simulation: see `README.md` beside this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod invariants;
mod members;
mod producers;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use world::{Outcome, run};

/// What CI runs.
const FIXED: Range<u64> = 0..100;

/// Seeds that found a bug once: what it was stands beside each.
const FOUND: &[u64] = &[];

thread_local! {
    /// Where and why something panicked in this thread: a run stays within one.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

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

/// A run in which nothing may panic, neither in a task of a client or of the mock nor in the test.
fn run_caught(seed: u64) -> Result<Outcome, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string().replace('\n', " ")));
            usual(info);
        }));
    });
    PANICS.with_borrow_mut(Vec::clear);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
    match PANICS.with_borrow_mut(|panics| panics.pop()) {
        Some(panic) => Err(format!("panic: {panic}")),
        None => outcome.unwrap_or_else(|_| Err("panic: nobody knows where".to_owned())),
    }
}

#[derive(Default)]
struct Report {
    sum: Outcome,
    failed: BTreeMap<u64, String>,
}

/// Runs the seeds on all cores, each in one thread.
fn run_all(seeds: &[u64]) -> Report {
    let verbose = std::env::var_os("OTTLA_SIM_VERBOSE").is_some();
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = run_caught(*seed);
            let mut report = report.lock().unwrap();
            match outcome {
                Ok(outcome) => {
                    if verbose {
                        println!("seed {seed}: {outcome}");
                    }
                    report.sum.add(&outcome);
                }
                Err(why) => {
                    println!(
                        "seed {seed}: {why}\n  again: OTTLA_SIM_SEEDS={seed} cargo test --test sim seeds"
                    );
                    report.failed.insert(*seed, why);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(seeds.len()) {
            scope.spawn(work);
        }
    });
    report.into_inner().unwrap()
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
    let Report { sum, failed } = run_all(&seeds);
    println!("{} seeds: {sum}", seeds.len());
    // By invariant: how many, and the first.
    let mut broken: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (seed, why) in &failed {
        let name = why.split(':').next().unwrap_or_default();
        broken.entry(name).or_insert((0, *seed)).0 += 1;
    }
    for (name, (count, first)) in &broken {
        println!("broken: {name}: {count} seeds, the first is {first}");
    }
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {:?}",
        failed.len(),
        seeds.len(),
        failed.keys()
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

/// Each in a process of its own: `OTTLA_PLANTED` is read once. `planted/run` has all of them.
#[cfg(all(feature = "unstable-internals", debug_assertions))]
#[test]
fn planted_bugs_are_found() {
    let planted = [
        ("the-wrong-key", "0", "content"),
        ("a-record-is-skipped", "3", "gap"),
        ("new-sequence-when-sent-again", "7", "twice"),
    ];
    for (bug, seed, invariant) in planted {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "seeds", "--nocapture"])
            .env("OTTLA_PLANTED", bug)
            .env("OTTLA_SIM_SEEDS", seed)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.contains(&format!("broken: {invariant}: 1 seeds"));
        assert!(found && !output.status.success(), "{bug}: {said}");
    }
}
