//! The public API, compared with the list in `docs/api.txt`.
//!
//! The list is read from the sources, line by line, which works because they are formatted by rustfmt and because
//! the lint `unreachable_pub` leaves `pub` to what a user can reach. `WSAM_UPDATE_API=1 cargo test --test api` writes
//! the list again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Starts of items.
const ITEMS: [&str; 9] =
    ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ", "mod ", "use "];

/// The library's files. The command is in `src/bin`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() && !path.ends_with("bin") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Path under which users find the items of a file: private modules re-export their items from the public one above.
fn module(file: &str) -> &'static str {
    let public = [
        ("src/engine", "engine::"),
        ("src/layout", "layout::"),
        ("src/method", "method::"),
        ("src/reference", "reference::"),
        ("src/optim/sharpness", "sharpness::"),
        ("src/optim/train", "train::"),
    ];
    public.iter().find(|(folder, _)| file.starts_with(folder)).map_or("", |(_, module)| module)
}

/// A block that items stand in.
#[derive(Clone)]
enum Block {
    /// Its items are public with their type, and named after it: `impl`, `struct`, `enum`, `trait`.
    Named { name: String, all_public: bool },
    /// Nothing in it is public API.
    Private,
}

/// The name in `struct Name<T> {`.
fn name(rest: &str) -> String {
    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The type in `impl<T> Name<T> {`; `None` for an implementation of a trait.
fn inherent(line: &str) -> Option<String> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
    let rest = rest.trim_start();
    (!rest.contains(" for ")).then(|| name(rest.rsplit("::").next().unwrap_or(rest)))
}

/// What was found in the sources.
#[derive(Default)]
struct Api {
    /// A line for each public item.
    items: BTreeSet<String>,
    /// Names of the public types.
    types: BTreeSet<String>,
    /// Implementations of traits, each with the name of its type.
    impls: BTreeSet<(String, String)>,
}

/// Attributes of the next item.
#[derive(Default)]
struct Attributes {
    feature: Option<String>,
    derives: Option<String>,
    is_non_exhaustive: bool,
}

impl Attributes {
    fn add(&mut self, attribute: &str) {
        let inside = |start| attribute.strip_prefix(start).and_then(|rest| rest.strip_suffix(")]"));
        if let Some(feature) = inside("#[cfg(feature = ") {
            self.feature = Some(feature.trim_matches('"').to_owned());
        } else if let Some(derives) = inside("#[derive(") {
            self.derives = Some(derives.to_owned());
        }
        self.is_non_exhaustive |= attribute == "#[non_exhaustive]";
    }
}

impl std::fmt::Display for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_non_exhaustive {
            f.write_str(", non_exhaustive")?;
        }
        if let Some(derives) = &self.derives {
            write!(f, ", derives {derives}")?;
        }
        self.feature.as_ref().map_or(Ok(()), |feature| write!(f, ", feature {feature}"))
    }
}

/// Adds the public items of one file.
fn read(file: &str, text: &str, api: &mut Api) {
    let module = module(file);
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut lines = text.lines().peekable();
    // One block for each level of indentation.
    let mut blocks: Vec<Block> = Vec::new();
    let mut attributes = Attributes::default();
    while let Some(line) = lines.next() {
        let (indent, mut item) = (line.len() - line.trim_start().len(), line.trim().to_owned());
        let depth = indent / 4;
        if item.is_empty() || item.starts_with("//") {
            continue;
        }
        blocks.truncate(depth);
        if item.starts_with('#') {
            while !item.ends_with(']') {
                let Some(next) = lines.next() else { break };
                item.push_str(next.trim());
            }
            attributes.add(&item);
            continue;
        }
        let attributes = std::mem::take(&mut attributes);
        if depth > blocks.len() || item.starts_with('}') {
            continue;
        }
        let owner = blocks.last().cloned();
        let (prefix, all_public) = match &owner {
            Some(Block::Private) => continue,
            Some(Block::Named { name, all_public }) => (format!("{name}::"), *all_public),
            None => (String::new(), false),
        };
        let is_public = item.starts_with("pub ");
        let declares = |item: &str| ITEMS.iter().any(|start| item.starts_with(start));
        let bare = item.strip_prefix("pub ").unwrap_or(&item).to_owned();
        // A signature, up to its body.
        let opens = |item: &str| item.ends_with('{') || item.ends_with(';') || item.ends_with(',');
        while !opens(&item) || (declares(&bare) && item.ends_with(',')) {
            let Some(next) = lines.next() else { break };
            let next = next.trim();
            if next.starts_with("//") || next.starts_with('#') {
                continue;
            }
            if !item.ends_with('(') && !item.ends_with('<') {
                item.push(' ');
            }
            item.push_str(next);
        }
        let bare = item.strip_prefix("pub ").unwrap_or(&item).to_owned();
        if item.ends_with('{') {
            blocks.push(match inherent(&bare) {
                Some(name) if depth == 0 => Block::Named { name, all_public: false },
                _ => match bare.split_once(' ') {
                    Some(("struct", rest)) if is_public => {
                        Block::Named { name: name(rest), all_public: false }
                    }
                    Some(("enum" | "trait", rest)) if is_public => {
                        Block::Named { name: name(rest), all_public: true }
                    }
                    // Fields of a variant.
                    _ if all_public && depth == 1 && !declares(&bare) => {
                        Block::Named { name: format!("{prefix}{}", name(&bare)), all_public: true }
                    }
                    _ => Block::Private,
                },
            });
        }
        if let Some((implemented, of)) = item.split_once(" for ")
            && implemented.starts_with("impl")
            && depth == 0
        {
            let line = item.trim_end_matches(['{', '}']).trim_end().to_owned();
            api.impls.insert((name(of.rsplit("::").next().unwrap_or(of)), line));
        }
        let is_inner_use = bare.starts_with("use ") && file != "src/lib.rs";
        if (!is_public && !all_public) || is_inner_use {
            continue;
        }
        let signature = bare.trim_end_matches(['{', ';', ',']).trim_end();
        let signature = signature.replace(", )", ")").replace(", >", ">").replace("#[from] ", "");
        let (kind, rest) = match ITEMS.iter().find(|start| signature.starts_with(**start)) {
            Some(kind) => (*kind, &signature[kind.len()..]),
            None if all_public && !signature.contains(": ") => ("variant ", signature.as_str()),
            None => ("field ", signature.as_str()),
        };
        let kind = kind.trim_end();
        if ["struct", "enum"].contains(&kind) {
            api.types.insert(name(rest));
        }
        api.items.insert(format!("{module}{prefix}{rest} ({kind}{attributes})"));
    }
}

#[test]
fn public_api_is_listed() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut api = Api::default();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source can be read");
        let file = file.strip_prefix(root).expect("below the root").to_string_lossy();
        read(&file.replace('\\', "/"), &text, &mut api);
    }
    let Api { items: mut found, types, impls } = api;
    found.extend(impls.into_iter().filter(|(of, _)| types.contains(of)).map(|(_, line)| line));
    let path = root.join("docs/api.txt");
    if std::env::var_os("WSAM_UPDATE_API").is_some_and(|value| value == "1") {
        let lines: Vec<_> = found.iter().map(String::as_str).collect();
        fs::write(&path, lines.join("\n") + "\n").expect("docs/api.txt can be written");
        return;
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let added = found.difference(&listed).map(|line| format!("added:   {line}"));
    let removed = listed.difference(&found).map(|line| format!("removed: {line}"));
    let changes: Vec<_> = removed.chain(added).collect();
    assert!(
        changes.is_empty(),
        "the public API is not that of docs/api.txt:\n{}\nName the change in CHANGELOG.md, and run: \
         WSAM_UPDATE_API=1 cargo test --test api",
        changes.join("\n")
    );
}
