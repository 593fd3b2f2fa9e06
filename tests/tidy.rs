//! What the compiler does not check about the sources: that machines stay free of I/O, clocks and
//! chance, that tasks are started in one place, that every public async function says what dropping
//! it does, that every setting is read by something, and that no file grows beyond what can be
//! overlooked.
//!
//! It reads the sources as text, without comments, strings and tests. Each finding names file and
//! line.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/layers.rs"]
mod layers;

/// Files, and folders with a slash at their end, that decide and do nothing: they take the time as
/// an argument and return what is to be done, so that tests and simulations can drive them.
const MACHINES: &[&str] = &[
    "src/cluster/metadata.rs",
    "src/cluster/snapshot.rs",
    "src/config/",
    "src/group/",
    "src/consumer/lag.rs",
    "src/consumer/positions.rs",
    "src/consumer/positions/",
    "src/consumer/fetcher/size.rs",
    "src/consumer/session.rs",
    "src/error.rs",
    "src/error/",
    "src/fetched/",
    "src/mock/assign.rs",
    "src/mock/groups.rs",
    "src/mock/groups/classic.rs",
    "src/mock/groups/classic/member.rs",
    "src/mock/groups/consumer.rs",
    "src/mock/groups/consumer/mixed.rs",
    "src/mock/groups/consumer/patterns.rs",
    "src/mock/log.rs",
    "src/mock/sequences.rs",
    "src/mock/sessions.rs",
    "src/net/backoff.rs",
    "src/net/frame.rs",
    "src/net/inflight.rs",
    "src/producer/identity.rs",
    "src/producer/queue.rs",
    "src/producer/queue/",
    "src/producer/produce_error.rs",
    "src/record/",
    "src/types.rs",
    "src/wire/",
];

/// Those of the machines that are still being written. A name that is here and in the tree fails:
/// take it out.
const MACHINES_TO_COME: &[&str] = &[];

/// What a machine must not contain, and why.
const NOT_IN_MACHINES: &[(&str, &str)] = &[
    ("tokio::", "a runtime (an Instant comes from crate::clock)"),
    ("std::net", "the network"),
    ("std::fs", "the file system"),
    ("Instant::now", "a clock"),
    ("SystemTime::now", "a clock"),
    ("clock::now", "a clock: take `now` as an argument"),
    (".elapsed()", "a clock: take `now` as an argument"),
    ("rand::", "chance: take a random number as an argument"),
    ("spawn(", "a task"),
    ("async fn", "waiting"),
    ("async move", "waiting"),
    (".await", "waiting"),
    ("sleep(", "waiting"),
    ("sleep_until(", "waiting"),
];

/// What may be in certain files alone, and which those are.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("tokio::spawn", &["src/tasks.rs"]),
    ("task::spawn", &["src/tasks.rs"]),
    ("spawn_local", &["src/tasks.rs"]),
    ("spawn_blocking", &["src/tasks.rs"]),
    ("thread::spawn", &["src/tasks.rs"]),
    ("JoinSet", &["src/tasks.rs"]),
    ("Runtime::new", &[]),
    ("thread::sleep", &[]),
    ("Instant::now", &["src/clock.rs"]),
    ("SystemTime::now", &["src/clock.rs"]),
    ("rand::", &["src/clock.rs"]),
    ("println!", &[]),
    ("eprintln!", &[]),
    ("std::env::", &["src/planted.rs"]),
    ("unsafe ", &[]),
];

/// Where the fields are declared that settings fill. Every one of them must be read elsewhere.
const CONFIGS: &[&str] = &[
    "src/config/mod.rs",
    "src/config/producer.rs",
    "src/config/consumer.rs",
];

/// Fields that nothing reads yet, because the reader is still being written. A name that is here
/// and read fails: take it out.
const SETTINGS_TO_COME: &[&str] = &[];

/// The types whose fields [`CONFIGS`] are about.
const CONFIG_TYPES: &[&str] = &["ClientConfig", "ProducerConfig", "ConsumerConfig"];

#[test]
fn machines_do_no_io_and_read_no_clock() {
    let tree = Tree::read();
    let mut findings = String::new();
    for machine in MACHINES {
        let files: Vec<&File> = tree
            .product()
            .filter(|file| file.is_under(machine))
            .collect();
        if files.is_empty() && !MACHINES_TO_COME.contains(machine) {
            writeln!(findings, "{machine}: no such file, correct the list").unwrap();
        }
        for (file, (word, what)) in pairs(&files, NOT_IN_MACHINES) {
            for line in file.lines_with(word) {
                writeln!(
                    findings,
                    "{}:{line}: `{word}` in a machine: {what}",
                    file.path
                )
                .unwrap();
            }
        }
    }
    none(&findings);
}

#[test]
fn tasks_clocks_and_chance_each_have_one_place() {
    let tree = Tree::read();
    let mut findings = String::new();
    for file in tree.product() {
        for (word, places) in ONLY_IN {
            if !places.contains(&file.path.as_str()) {
                for line in file.lines_with(word) {
                    writeln!(
                        findings,
                        "{}:{line}: `{word}` belongs in {places:?}",
                        file.path
                    )
                    .unwrap();
                }
            }
        }
    }
    none(&findings);
}

#[test]
fn every_public_async_function_says_what_dropping_it_does() {
    let tree = Tree::read();
    let mut findings = String::new();
    let mut seen = 0;
    for file in tree.product() {
        for (index, signature) in file.public_functions() {
            let returns_future =
                signature.contains("impl Future") || signature.contains("BoxFuture");
            if !signature.starts_with("pub async fn") && !returns_future {
                continue;
            }
            seen += 1;
            if !file.doc_above(index).contains("# Cancel safety") {
                let line = index + 1;
                writeln!(
                    findings,
                    "{}:{line}: no `# Cancel safety` section: {signature}",
                    file.path
                )
                .unwrap();
            }
        }
    }
    assert!(seen > 5, "the test finds no functions any more");
    none(&findings);
}

#[test]
fn every_setting_is_read_by_something() {
    let tree = Tree::read();
    let mut findings = String::new();
    for (path, line, field) in tree.config_fields() {
        let read = tree.reads(&field);
        let to_come = SETTINGS_TO_COME.contains(&field.as_str());
        match (read, to_come) {
            (false, false) => {
                writeln!(
                    findings,
                    "{path}:{line}: nothing reads the setting `{field}`"
                )
                .unwrap();
            }
            (true, true) => {
                writeln!(
                    findings,
                    "`{field}` is read now: take it out of SETTINGS_TO_COME"
                )
                .unwrap();
            }
            _ => {}
        }
    }
    let fields: BTreeSet<String> = tree.config_fields().map(|(.., field)| field).collect();
    assert!(fields.len() > 30, "the test finds no fields any more");
    for field in SETTINGS_TO_COME
        .iter()
        .filter(|field| !fields.contains(**field))
    {
        writeln!(
            findings,
            "SETTINGS_TO_COME names `{field}`, which is no setting"
        )
        .unwrap();
    }
    none(&findings);
}

#[test]
fn what_was_to_come_and_is_there_is_off_the_list() {
    let tree = Tree::read();
    let mut findings = String::new();
    for machine in MACHINES_TO_COME {
        if !MACHINES.contains(machine) {
            writeln!(findings, "{machine} is not among MACHINES").unwrap();
        }
        if tree.product().any(|file| file.is_under(machine)) {
            writeln!(
                findings,
                "{machine} is there: take it out of MACHINES_TO_COME"
            )
            .unwrap();
        }
    }
    none(&findings);
}

/// `tests/sim/planted/run` takes long and is run by hand: here at least the names are compared.
#[test]
fn planted_bugs_have_their_place_in_the_sources() {
    let expected = fs::read_to_string("tests/sim/planted/expected").unwrap();
    let expected: BTreeSet<&str> = expected
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    let tree = Tree::read();
    let mut planted = BTreeSet::new();
    for file in tree.product() {
        let text: String = file.text.split_whitespace().collect();
        let names = text.split("crate::planted(\"").skip(1);
        planted.extend(names.map(|name| name.split('"').next().unwrap().to_owned()));
    }
    planted.remove("name"); // how it is said in `src/planted.rs`
    let planted: BTreeSet<&str> = planted.iter().map(String::as_str).collect();
    let mut findings = String::new();
    for name in expected.difference(&planted) {
        writeln!(findings, "`{name}` is expected and nowhere in src").unwrap();
    }
    for name in planted.difference(&expected) {
        writeln!(findings, "`{name}` is planted in src and not expected").unwrap();
    }
    none(&findings);
}

/// Of anything written in Rust here. Whoever comes to the end splits the file by subject, not by
/// halves.
const LONGEST_FILE: usize = 800;

const SOURCES: &[&str] = &[
    "benches",
    "examples",
    "fuzz/fuzz_targets",
    "src",
    "testcontainers/src",
    "testcontainers/tests",
    "tests",
];

#[test]
fn no_file_is_longer_than_can_be_overlooked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = String::new();
    let mut seen = 0;
    for folder in SOURCES {
        for path in rust_files(&root.join(folder)) {
            seen += 1;
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > LONGEST_FILE {
                let path = path.strip_prefix(root).unwrap().display();
                writeln!(findings, "{path}: {lines} lines, of {LONGEST_FILE} at most").unwrap();
            }
        }
    }
    assert!(seen > 200, "the test finds no files any more");
    none(&findings);
}

/// Tables, code and what has no space to break at may be longer.
#[test]
fn documents_fit_into_a_hundred_columns() {
    let mut findings = String::new();
    for name in ["README.md", "DESIGN.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let mut is_code = false;
        for (number, line) in (1..).zip(fs::read_to_string(path).unwrap().lines()) {
            is_code ^= line.trim_start().starts_with("```");
            let is_long = line.chars().count() > 100 && line.trim().contains(' ');
            if is_long && !is_code && !line.starts_with(['|', ' ']) {
                writeln!(findings, "{name}:{number}: {line}").unwrap();
            }
        }
    }
    none(&findings);
}

/// Tables, code and what has no space to break at may be longer.
#[test]
fn comments_fit_into_a_hundred_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = String::new();
    for path in SOURCES
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
    {
        let text = fs::read_to_string(&path).unwrap();
        let mut is_code = false;
        for (number, line) in (1..).zip(text.lines()) {
            let comment = line.trim_start();
            let words = comment.trim_start_matches(['/', '!']).trim_start();
            is_code ^= words.starts_with("```") && comment.starts_with("//");
            let is_long = comment.starts_with("//") && line.chars().count() > 100;
            if is_long && !is_code && words.contains(' ') && !words.starts_with(['|', '[']) {
                let path = path.strip_prefix(root).unwrap().display();
                writeln!(findings, "{path}:{number}: {comment}").unwrap();
            }
        }
    }
    none(&findings);
}

#[track_caller]
fn none(findings: &str) {
    assert!(findings.is_empty(), "\n{findings}");
}

fn pairs<'a, A, B>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    a.iter().flat_map(move |a| b.iter().map(move |b| (a, b)))
}

/// Every source file of the crate, by path.
struct Tree(BTreeMap<String, File>);

struct File {
    path: String,
    /// As it is.
    text: String,
    /// Without comments, the contents of strings, and tests; lines stay where they are.
    code: String,
    /// Whether the whole file is compiled for tests alone.
    test: bool,
}

impl Tree {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = BTreeMap::new();
        for path in rust_files(&root.join("src")) {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_str().unwrap();
            let path = path.replace('\\', "/");
            let code = without_tests(&without_comments_and_strings(&text));
            let file = File {
                path: path.clone(),
                text,
                code,
                test: false,
            };
            files.insert(path, file);
        }
        let mut tree = Self(files);
        tree.mark_tests();
        tree
    }

    /// A file is a test if the module is declared so, or if its parent is a test.
    fn mark_tests(&mut self) {
        let mut tests: Vec<String> = Vec::new();
        for file in self.0.values() {
            tests.extend(file.test_modules());
        }
        for (path, file) in &mut self.0 {
            file.test = tests.iter().any(|test| {
                let folder = test.strip_suffix(".rs").unwrap_or(test);
                path == test || path.starts_with(&format!("{folder}/"))
            });
        }
    }

    fn product(&self) -> impl Iterator<Item = &File> {
        self.0.values().filter(|file| !file.test)
    }

    /// Path, line and name of the fields of the configurations.
    fn config_fields(&self) -> impl Iterator<Item = (&str, usize, String)> {
        let files = CONFIGS.iter().map(|path| &self.0[*path]);
        files.flat_map(|file| {
            let mut inside = false;
            file.code
                .lines()
                .enumerate()
                .filter_map(move |(index, line)| {
                    if let Some((_, rest)) = line.split_once("struct ") {
                        inside = CONFIG_TYPES.iter().any(|name| rest.starts_with(name));
                    } else if line.starts_with('}') {
                        inside = false;
                    }
                    let field = line.trim().strip_prefix("pub(crate) ")?.split_once(':')?.0;
                    inside.then(|| (file.path.as_str(), index + 1, field.to_owned()))
                })
        })
    }

    /// Whether `.field` is used anywhere but where it is declared, parsed and checked, other than
    /// to assign to it.
    fn reads(&self, field: &str) -> bool {
        let mut readers = self
            .product()
            .filter(|file| !file.path.starts_with("src/config/"))
            // It does not know settings, and has fields of the same names.
            .filter(|file| !file.path.starts_with("src/record/"))
            .filter(|file| !CONFIGS.contains(&file.path.as_str()));
        readers.any(|file| {
            let used = file.code.match_indices(field).filter(|(at, _)| {
                let before = file.code[..*at].ends_with('.');
                let after = &file.code[at + field.len()..];
                let ends = !after.starts_with(|c: char| c.is_alphanumeric() || "_(".contains(c));
                let assigned = after
                    .trim_start()
                    .strip_prefix('=')
                    .is_some_and(|rest| !rest.starts_with(['=', '>']));
                before && ends && !assigned
            });
            used.count() > 0
        }) || self.validated_use(field)
    }

    /// Some fields serve through a method that is declared beside the checks.
    fn validated_use(&self, field: &str) -> bool {
        let through = match field {
            "idempotence" => ".is_idempotent(",
            "bootstrap" => "client.bootstrap",
            _ => return false,
        };
        self.product()
            .filter(|file| !file.path.starts_with("src/config/"))
            .any(|file| file.code.contains(through))
    }
}

impl File {
    fn is_under(&self, entry: &str) -> bool {
        self.path == entry || (entry.ends_with('/') && self.path.starts_with(entry))
    }

    /// Numbers of the lines with a word, which is not part of a longer name.
    fn lines_with<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let lines = self.code.lines().enumerate();
        lines
            .filter(move |(_, line)| {
                let mut found = line.match_indices(word);
                found.any(|(at, _)| is_whole(word, &line[..at], &line[at + word.len()..]))
            })
            .map(|(index, _)| index + 1)
    }

    /// Index of the line and text up to the body of each `pub fn`.
    fn public_functions(&self) -> impl Iterator<Item = (usize, String)> {
        let lines: Vec<&str> = self.code.lines().collect();
        let starts = (0..lines.len()).filter(|index| {
            let line = lines[*index].trim_start();
            ["pub fn", "pub async fn", "pub const fn"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        let found: Vec<(usize, String)> = starts
            .map(|index| {
                let mut signature = String::new();
                for line in &lines[index..] {
                    let (head, ends) = match line.find(['{', ';']) {
                        Some(at) => (&line[..at], true),
                        None => (*line, false),
                    };
                    signature.push_str(head.trim());
                    signature.push(' ');
                    if ends {
                        break;
                    }
                }
                (index, signature.trim().to_owned())
            })
            .collect();
        found.into_iter()
    }

    /// The documentation above a line, with attributes between left out.
    fn doc_above(&self, index: usize) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut doc = Vec::new();
        for line in lines[..index].iter().rev().map(|line| line.trim()) {
            if line.is_empty() || line.starts_with('}') || line.ends_with(['{', ';']) {
                break;
            }
            doc.push(line);
        }
        doc.reverse();
        doc.retain(|line| line.starts_with("///"));
        doc.join("\n")
    }

    /// Paths of the files of modules that are declared for tests alone.
    fn test_modules(&self) -> Vec<String> {
        // The code without tests does not have them any more.
        let code = without_comments_and_strings(&self.text);
        let code: Vec<&str> = code.lines().collect();
        let text: Vec<&str> = self.text.lines().collect();
        let mut found = Vec::new();
        for (index, _) in code
            .iter()
            .enumerate()
            .filter(|(_, line)| is_cfg_test(line))
        {
            let mut path = None;
            for (line, raw) in code[index + 1..].iter().zip(&text[index + 1..]) {
                let line = line.trim();
                if line.starts_with("#[path") {
                    path = raw.split('"').nth(1);
                } else if line.starts_with("#[") {
                } else if let Some(name) = module_in_a_file(line) {
                    let file = path.map_or_else(|| format!("{name}.rs"), str::to_owned);
                    let folder = self.module_folder(path.is_some());
                    found.push(format!("{folder}/{file}"));
                    found.push(format!("{folder}/{name}/mod.rs"));
                    break;
                } else {
                    break;
                }
            }
        }
        found
    }

    /// Where the modules that this file declares are kept; those with a `path` are beside it.
    fn module_folder(&self, beside: bool) -> String {
        let path = PathBuf::from(&self.path);
        let own = ["mod.rs", "lib.rs"].iter().any(|name| path.ends_with(name));
        if own || beside {
            path.parent().unwrap().to_str().unwrap().to_owned()
        } else {
            self.path.strip_suffix(".rs").unwrap().to_owned()
        }
    }
}

fn is_whole(word: &str, before: &str, after: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    let goes_back = word.starts_with(in_name) && before.ends_with(in_name);
    let goes_on = word.ends_with(in_name) && after.starts_with(in_name);
    !goes_back && !goes_on
}

fn is_cfg_test(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test")
}

fn module_in_a_file(line: &str) -> Option<&str> {
    let (_, name) = line.split_once("mod ")?;
    name.strip_suffix(';')
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Blanks what stands behind `#[cfg(test)]`: an item that ends in `;`, or one in braces.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut depth = 0_usize;
    let mut skipping = false;
    for line in code.split_inclusive('\n') {
        skipping |= is_cfg_test(line);
        if !skipping {
            kept.push_str(line);
            continue;
        }
        kept.extend(line.chars().filter(|c| *c == '\n'));
        let attribute = line.trim_start().starts_with("#[");
        depth += line.matches('{').count();
        let closed = line.matches('}').count();
        depth = depth.saturating_sub(closed);
        let ends = closed > 0 || line.trim_end().ends_with([';', ',']);
        if depth == 0 && ends && !attribute {
            skipping = false;
        }
    }
    kept
}

/// Blanks comments and what is in strings and characters; lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |code: &mut String, from: usize, to: usize| {
        let lines = chars[from..to.min(chars.len())].iter();
        code.extend(lines.map(|c| if *c == '\n' { '\n' } else { ' ' }));
        to
    };
    while let Some(c) = chars.get(at) {
        let next = chars.get(at + 1);
        let after_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        at = match (c, next) {
            ('/', Some('/')) => {
                let length = chars[at..].iter().take_while(|c| **c != '\n').count();
                blank(&mut code, at, at + length)
            }
            ('/', Some('*')) => blank(&mut code, at, end_of_block_comment(&chars, at)),
            ('"', _) => blank(&mut code, at, end_of_string(&chars, at)),
            ('r', Some('"' | '#')) if !after_name || chars[at - 1] == 'b' => {
                match end_of_raw_string(&chars, at) {
                    Some(end) => blank(&mut code, at, end),
                    None => {
                        code.push('r');
                        at + 1
                    }
                }
            }
            ('\'', Some('\\')) => {
                let end = chars[at + 3..].iter().position(|c| *c == '\'');
                blank(&mut code, at, at + 4 + end.unwrap_or(0))
            }
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => blank(&mut code, at, at + 3),
            (c, _) => {
                code.push(*c);
                at + 1
            }
        };
    }
    code
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
    let body = chars[open + 1..].windows(close.len());
    let length = body.into_iter().position(|window| window == close)?;
    Some(open + 1 + length + close.len())
}

#[test]
fn the_reader_of_sources_sees_code_and_nothing_else() {
    let text = r##"
// tokio::spawn
/* tokio:: /* nested */ spawn( */
let a = "tokio::\"spawn("; let b = '"'; let c = '\''; let d = 'x';
let r = r#"rand:: "quoted" "#; fn lives<'a>(x: &'a str) {}
#[cfg(test)]
mod tests {
    fn sleep() { if true {} }
}
fn kept() {}
#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
fn also_kept() {}
"##;
    let code = without_comments_and_strings(text);
    assert_eq!(code.lines().count(), text.lines().count());
    for word in ["tokio", "spawn", "rand", "quoted", "nested"] {
        assert!(!code.contains(word), "{code}");
    }
    assert!(code.contains("fn lives<'a>(x: &'a str) {}"), "{code}");
    let product = without_tests(&code);
    assert_eq!(product.lines().count(), text.lines().count());
    assert!(
        product.contains("fn kept") && product.contains("fn also_kept"),
        "{product}"
    );
    assert!(
        !product.contains("sleep") && !product.contains("mod tests"),
        "{product}"
    );
    let file = File {
        path: "src/config/keys.rs".to_owned(),
        text: text.to_owned(),
        code: product,
        test: false,
    };
    assert!(
        file.test_modules()
            .contains(&"src/config/keys_tests.rs".to_owned())
    );
    assert_eq!(file.lines_with("fn kept").collect::<Vec<_>>(), [10]);
    assert_eq!(file.lines_with("fn kep").count(), 0);
}
