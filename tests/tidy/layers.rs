//! Who imports whom: the parts of the crate lie in layers, and files do not import each other in a
//! circle.
//!
//! A path counts for the file that defines its item: re-exports are followed, and are no imports
//! themselves. What documentation alone imports does not count. A method that is called is not
//! seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{File, Tree, none};

/// The modules of the crate's root, from the lowest on. They import modules of lower layers only.
/// `mock` is outside of the product: it uses all of it and nothing uses it.
const LAYERS: &[&[&str]] = &[
    &["types", "clock", "sync", "planted", "hooks", "metrics"],
    &["error", "log_throttle"],
    &["tasks"],
    &["record"],
    &["wire"],
    &["config"],
    &["net"],
    &["cluster"],
    &["fetched"],
    &["offsets", "group"],
    &["producer", "consumer", "admin"],
    &["exactly_once"],
    &["client"],
    &["mock"],
];

#[test]
fn nothing_imports_what_lies_above_it() {
    let tree = Tree::read();
    let crate_ = Crate::read(&tree);
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut findings = String::new();
    let mut seen = 0;
    for (file, module) in crate_.files() {
        let Some(own) = module.path.first() else {
            continue; // the root names everything
        };
        let Some(place) = layer(own) else {
            writeln!(findings, "{file}: `{own}` is in no layer, add it").unwrap();
            continue;
        };
        for path in &module.imports {
            let defined = crate_.definition(path);
            let named = path.first().filter(|name| layer(name).is_some());
            for used in named.into_iter().chain(defined.first()) {
                seen += 1;
                if used != own && layer(used).is_none_or(|used| used >= place) {
                    let path = path.join("::");
                    writeln!(findings, "{file}: `crate::{path}` is not below `{own}`").unwrap();
                }
            }
        }
    }
    assert!(seen > 500, "the test finds no imports any more: {seen}");
    none(&findings);
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let tree = Tree::read();
    let crate_ = Crate::read(&tree);
    let uses = crate_.files().map(|(file, _)| crate_.uses(file).len());
    let uses: usize = uses.sum();
    assert!(uses > 500, "the test finds no imports any more: {uses}");
    let circles = crate_.circles();
    let mut findings = String::new();
    for circle in &circles {
        writeln!(findings, "a circle of {}:", circle.len()).unwrap();
        for file in circle {
            let others = crate_.uses(file);
            let within: Vec<_> = circle
                .iter()
                .filter(|file| others.contains(*file))
                .collect();
            writeln!(findings, "    {file} imports {within:?}").unwrap();
        }
    }
    none(&findings);
}

/// A path within the crate, without `crate`.
type Path = Vec<String>;

/// What files declare and import.
struct Crate<'a> {
    modules: BTreeMap<Path, Module<'a>>,
}

struct Module<'a> {
    file: &'a str,
    path: Path,
    /// Names of items that it defines.
    items: BTreeSet<String>,
    /// What its `use` items call names; that of a glob is `*`.
    names: Vec<(String, Path)>,
    /// Paths that it depends on.
    imports: BTreeSet<Path>,
}

impl<'a> Crate<'a> {
    fn read(tree: &'a Tree) -> Self {
        let mut modules = BTreeMap::new();
        let paths: BTreeSet<Path> = tree.product().map(path_of).collect();
        for file in tree.product() {
            let module = Module::read(file, &paths);
            modules.insert(module.path.clone(), module);
        }
        Self { modules }
    }

    fn files(&self) -> impl Iterator<Item = (&'a str, &Module<'a>)> {
        self.modules.values().map(|module| (module.file, module))
    }

    /// The module that defines what a path names.
    fn definition(&self, path: &[String]) -> &Path {
        self.look_up(path, 8)
            .unwrap_or_else(|| &self.nearest(path).path)
    }

    fn nearest(&self, path: &[String]) -> &Module<'a> {
        let mut lengths = (0..=path.len()).rev();
        let found = lengths.find_map(|length| self.modules.get(&path[..length]));
        found.unwrap()
    }

    fn look_up(&self, path: &[String], depth: usize) -> Option<&Path> {
        let module = self.nearest(path);
        let Some(name) = path.get(module.path.len()) else {
            return Some(&module.path);
        };
        if module.items.contains(name) {
            return Some(&module.path);
        }
        let depth = depth.checked_sub(1)?;
        if let Some((_, target)) = module.names.iter().find(|(known, _)| known == name) {
            return self.look_up(target, depth);
        }
        let globs = module.names.iter().filter(|(known, _)| known == "*");
        globs
            .map(|(_, target)| [target, std::slice::from_ref(name)].concat())
            .find_map(|target| self.look_up(&target, depth))
    }

    /// The files that a file imports from.
    fn uses(&self, file: &str) -> BTreeSet<&'a str> {
        let found = self.modules.values().find(|module| module.file == file);
        let paths = found.into_iter().flat_map(|module| &module.imports);
        paths
            .map(|path| self.modules[self.definition(path)].file)
            .filter(|used| *used != file)
            .collect()
    }

    /// Files that can be reached from themselves, with those that are on the way there and back.
    fn circles(&self) -> Vec<Vec<&'a str>> {
        let direct: BTreeMap<&str, BTreeSet<&str>> = self
            .files()
            .filter(|(_, module)| !module.path.is_empty())
            .map(|(file, _)| (file, self.uses(file)))
            .collect();
        let reached = |from: &'a str| {
            let mut reached = BTreeSet::new();
            let mut open = vec![from];
            while let Some(file) = open.pop() {
                let next = direct.get(file).into_iter().flatten();
                open.extend(next.filter(|file| reached.insert(**file)));
            }
            reached
        };
        let all: BTreeMap<&str, BTreeSet<&str>> = self
            .files()
            .map(|(file, _)| (file, reached(file)))
            .collect();
        let mut circles = BTreeSet::new();
        for (file, reached) in &all {
            let circle: Vec<&str> = reached
                .iter()
                .filter(|other| all[**other].contains(file))
                .copied()
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

fn path_of(file: &File) -> Path {
    let path = file.path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

impl<'a> Module<'a> {
    fn read(file: &'a File, modules: &BTreeSet<Path>) -> Self {
        let path = path_of(file);
        let mut reader = Reader {
            tokens: tokens(&file.code),
            modules,
            own: path.clone(),
            inside: Vec::new(),
            items: BTreeSet::new(),
            uses: Vec::new(),
            paths: Vec::new(),
            others: BTreeSet::new(),
        };
        reader.run();
        let mut imports: BTreeSet<Path> = reader.paths.iter().cloned().collect();
        for used in &reader.uses {
            if !used.again || reader.others.contains(&used.name) {
                imports.insert(used.path.clone());
            }
        }
        let names = reader.uses.into_iter().map(|used| (used.name, used.path));
        Self {
            file: &file.path,
            path,
            items: reader.items,
            names: names.collect(),
            imports,
        }
    }
}

struct Used {
    name: String,
    path: Path,
    /// It is a re-export.
    again: bool,
}

struct Reader<'a> {
    tokens: Vec<&'a str>,
    modules: &'a BTreeSet<Path>,
    own: Path,
    /// For each open brace the name of the module that it opened.
    inside: Vec<Option<&'a str>>,
    items: BTreeSet<String>,
    uses: Vec<Used>,
    /// Paths outside of `use` items.
    paths: Vec<Path>,
    /// All names outside of `use` items.
    others: BTreeSet<String>,
}

const ITEMS: &[&str] = &["struct", "enum", "trait", "fn", "const", "static", "type"];

impl<'a> Reader<'a> {
    fn run(&mut self) {
        let mut at = 0;
        // First what names mean, then where they are used.
        while at < self.tokens.len() {
            at = self.declaration(at);
        }
        at = 0;
        self.inside.clear();
        while at < self.tokens.len() {
            match self.tokens[at] {
                "use" => at = self.end_of_use(at),
                token => {
                    self.brace(at);
                    self.others.insert(token.to_owned());
                    at = self.inline_path(at);
                }
            }
        }
    }

    fn token(&self, at: usize) -> &'a str {
        self.tokens.get(at).copied().unwrap_or_default()
    }

    fn brace(&mut self, at: usize) {
        match self.tokens[at] {
            "{" => {
                let module = at >= 2 && self.tokens[at - 2] == "mod";
                self.inside.push(module.then(|| self.tokens[at - 1]));
            }
            "}" => drop(self.inside.pop()),
            _ => {}
        }
    }

    fn declaration(&mut self, at: usize) -> usize {
        self.brace(at);
        let token = self.tokens[at];
        if ITEMS.contains(&token) {
            self.items.insert(self.token(at + 1).to_owned());
        }
        if token != "use" {
            return at + 1;
        }
        let before = |back: usize| at.checked_sub(back).map_or("", |at| self.tokens[at]);
        let again = before(1) == "pub" || before(1) == ")";
        let attribute: Vec<&str> = (1..=4).rev().map(before).collect();
        let end = self.end_of_use(at);
        if attribute != ["(", "doc", ")", "]"] {
            let mut position = at + 1;
            self.use_tree(&mut position, &mut Vec::new(), again);
        }
        end
    }

    fn end_of_use(&self, at: usize) -> usize {
        let rest = self.tokens[at..].iter();
        at + rest.take_while(|token| **token != ";").count() + 1
    }

    fn use_tree(&mut self, at: &mut usize, before: &mut Vec<&'a str>, again: bool) {
        let length = before.len();
        loop {
            match self.token(*at) {
                "{" => {
                    *at += 1;
                    while self.token(*at) != "}" && *at < self.tokens.len() {
                        self.use_tree(at, before, again);
                        if self.token(*at) == "," {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    break;
                }
                "::" => *at += 1,
                name => {
                    *at += 1;
                    before.push(name);
                    if self.token(*at) != "::" {
                        self.leaf(at, before.clone(), again);
                        break;
                    }
                }
            }
        }
        before.truncate(length);
    }

    fn leaf(&mut self, at: &mut usize, mut path: Vec<&'a str>, again: bool) {
        if path.len() > 1 && path.last() == Some(&"self") {
            path.pop();
        }
        let glob = path.last() == Some(&"*");
        let mut name = path.last().copied().unwrap_or_default();
        if self.token(*at) == "as" {
            name = self.token(*at + 1);
            *at += 2;
        }
        if glob {
            path.pop();
        }
        if let Some(path) = self.absolute(&path) {
            let name = name.to_owned();
            self.uses.push(Used { name, path, again });
        }
    }

    /// A path from the root on; `None` if it leads out of the crate.
    fn absolute(&self, path: &[&str]) -> Option<Path> {
        let inline = self.inside.iter().flatten().map(|name| (*name).to_owned());
        let mut base: Path = self.own.iter().cloned().chain(inline).collect();
        let (first, mut rest) = path.split_first()?;
        match *first {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            name => {
                let child = [&self.own[..], &[name.to_owned()]].concat();
                let known = self.uses.iter().find(|used| used.name == name);
                base = match known {
                    Some(used) => used.path.clone(),
                    None if self.modules.contains(&child) => child,
                    None => return None,
                };
            }
        }
        while let Some((&"super", after)) = rest.split_first() {
            base.pop();
            rest = after;
        }
        base.extend(rest.iter().map(|name| (*name).to_owned()));
        Some(base)
    }

    /// Takes a path that begins here; returns where to go on.
    fn inline_path(&mut self, at: usize) -> usize {
        let before = at.checked_sub(1).map_or("", |at| self.tokens[at]);
        if self.token(at + 1) != "::" || before == "::" || before == "in" {
            return at + 1;
        }
        let mut path = vec![self.tokens[at]];
        let mut end = at + 1;
        while self.token(end) == "::" && is_name(self.token(end + 1)) {
            path.push(self.token(end + 1));
            end += 2;
        }
        // The variants of an imported enum, say, are its import's matter.
        let module = path[0] != "Self" && !path[0].starts_with(char::is_uppercase);
        if module && let Some(path) = self.absolute(&path) {
            self.paths.push(path);
        }
        end
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let in_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if in_name(c) => rest.find(|c| !in_name(c)).unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn imports_are_seen_where_they_lead() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
        code: text.to_owned(),
        test: false,
    };
    let files = [
        file("src/lib.rs", "pub use a::One; mod a; mod b;"),
        file(
            "src/a/mod.rs",
            "pub(crate) use self::inner::{One, Two as Second}; mod inner; struct Own;",
        ),
        file(
            "src/a/inner.rs",
            "use super::Own; pub struct One; struct Two;",
        ),
        file(
            "src/b.rs",
            "use crate::a::{self, Second}; mod c { use super::super::a::Own; } fn f() { a::One; }",
        ),
    ];
    let tree = Tree(files.map(|file| (file.path.clone(), file)).into());
    let crate_ = Crate::read(&tree);
    let uses = |file: &str| crate_.uses(file).into_iter().collect::<Vec<_>>();
    assert_eq!(uses("src/a/mod.rs"), [""; 0], "re-exports are no imports");
    assert_eq!(uses("src/a/inner.rs"), ["src/a/mod.rs"]);
    assert_eq!(uses("src/b.rs"), ["src/a/inner.rs", "src/a/mod.rs"]);
    assert!(crate_.circles().is_empty());
}
