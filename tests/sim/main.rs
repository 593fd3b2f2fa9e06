//! The whole client in simulation: see `README.md` beside this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copiers;
mod faults;
mod invariants;
mod members;
mod producers;
mod protocols;
mod splits;
mod together;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use world::{Outcome, Place, run};

/// What CI runs.
const FIXED: Range<u64> = 0..100;
const ON_THREADS: Range<u64> = 0..12;

/// How applications panic that are meant to.
const PLANNED: &str = "the application fails, as planned";

/// Seeds that found a bug once: what it was stands beside each.
const FOUND: &[u64] = &[
    196, // a group of the mock that became classic forgot what its members have
    321, // the mock's `uniform` gave a member all that was left over
];

type Panics = Arc<Mutex<Vec<String>>>;

thread_local! {
    /// Where and why something panicked in the run that this thread belongs to.
    static PANICS: RefCell<Panics> = RefCell::default();
}

/// `OTTLA_SIM_SEEDS=7` or `OTTLA_SIM_SEEDS=0..100000`.
fn chosen() -> Option<Vec<u64>> {
    let text = std::env::var("OTTLA_SIM_SEEDS").ok()?;
    let number = |text: &str| text.trim().parse().expect("a number in OTTLA_SIM_SEEDS");
    Some(match text.split_once("..") {
        Some((from, to)) => (number(from)..number(to)).collect(),
        None => vec![number(&text)],
    })
}

/// A run in which nothing may panic, neither in a task of a client or of the mock nor in the test.
fn run_caught(seed: u64, place: Place) -> Result<Outcome, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let what = info.to_string().replace('\n', " ");
            if what.contains(PLANNED) {
                return;
            }
            PANICS.with_borrow(|panics| panics.lock().unwrap().push(what));
            usual(info);
        }));
    });
    let panics = Panics::default();
    PANICS.set(Arc::clone(&panics));
    let of_the_run = Arc::clone(&panics);
    let begin_thread = move || PANICS.set(Arc::clone(&of_the_run));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, place, begin_thread)));
    match panics.lock().unwrap().pop() {
        Some(panic) => Err(format!("panic: {panic}")),
        None => outcome.unwrap_or_else(|_| Err("panic: nobody knows where".to_owned())),
    }
}

#[derive(Default)]
struct Report {
    sum: Outcome,
    failed: BTreeMap<u64, String>,
}

/// Runs so many seeds at once, and tells which invariants they broke. `test` is the name of the
/// caller.
fn run_all(test: &str, seeds: &[u64], at_once: usize, place: fn(u64) -> Place) {
    static LOG: Once = Once::new();
    LOG.call_once(|| {
        if let Ok(wanted) = std::env::var("RUST_LOG") {
            let lines = tracing_subscriber::fmt::layer()
                .without_time()
                .with_writer(std::io::stderr);
            tracing_subscriber::registry()
                .with(lines)
                .with(wanted.parse::<Targets>().unwrap())
                .init();
        }
    });
    let verbose = std::env::var_os("OTTLA_SIM_VERBOSE").is_some();
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = run_caught(*seed, place(*seed));
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
                        "seed {seed}: {why}\n  again: OTTLA_SIM_SEEDS={seed} cargo test --test sim {test}"
                    );
                    report.failed.insert(*seed, why);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(seeds.len()) {
            scope.spawn(work);
        }
    });
    let Report { sum, failed } = report.into_inner().unwrap();
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

#[test]
fn seeds() {
    let seeds = chosen().unwrap_or_else(|| FOUND.iter().copied().chain(FIXED).collect());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    run_all("seeds", &seeds, cores, |_| Place::Simulated);
}

/// Four threads each and real time, which they spend waiting: all at once.
#[test]
fn threads() {
    let seeds = chosen().unwrap_or_else(|| ON_THREADS.collect());
    run_all("threads", &seeds, 12, |seed| match seed % 3 {
        2 => Place::Tcp,
        _ => Place::Threads,
    });
}

/// Otherwise a failing seed would be worth nothing.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in chosen().unwrap_or_else(|| vec![3, 14, 15]) {
        let (one, two) = (
            run_caught(seed, Place::Simulated),
            run_caught(seed, Place::Simulated),
        );
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
    let (one, two) = (
        run_caught(3, Place::Simulated),
        run_caught(4, Place::Simulated),
    );
    assert!(one.unwrap_or_default().trace != two.unwrap_or_default().trace);
}

/// Each in a process of its own: `OTTLA_PLANTED` is read once. `planted/run` has all of them.
#[cfg(all(feature = "unstable-internals", debug_assertions))]
#[test]
fn planted_bugs_are_found() {
    let planted = [
        ("the-wrong-key", "0", "content"),
        ("acked-by-a-deposed-leader", "0..3", "lost"),
        ("an-impatient-caller-ends-the-connection", "1", "neighbour"),
    ];
    for (bug, seeds, invariant) in planted {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "seeds", "--nocapture"])
            .env("OTTLA_PLANTED", bug)
            .env("OTTLA_SIM_SEEDS", seeds)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.contains(&format!("broken: {invariant}: "));
        assert!(found && !output.status.success(), "{bug}: {said}");
    }
}
