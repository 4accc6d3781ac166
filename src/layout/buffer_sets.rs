// WGSL source for dispatches over several buffer sets. `common.wgsl` explains the placeholder SET. The engine
// and build.rs both include this file, so it may only use std.

use super::stages::{BufferSets, COLUMNS};

/// Stands for the number of a buffer set, on its own and at the end of names.
const PLACEHOLDER: &str = "SET";

/// Ends the names of the variables and functions that each buffer set has for itself.
const SUFFIX: &str = "_SET";

/// Binding numbers that one buffer set takes in group 0: one for each column, and one that the first set uses
/// for the partial sums.
const SET_STRIDE: u32 = COLUMNS as u32 + 1;

/// Names of the columns' WGSL variables, indexed by `column`.
pub const COLUMN_NAMES: [&str; COLUMNS] = [
    "weight_SET",
    "anchor_SET",
    "grad_SET",
    "grad_perturbed_SET",
    "weight_copy_SET",
    "state_0_SET",
    "state_1_SET",
    "state_2_SET",
];

/// Returns the binding number of a column in a buffer set.
pub const fn column_binding(column: usize, buffer_set: u32) -> u32 {
    1 + column as u32 + SET_STRIDE * buffer_set
}

/// Derives the source for several buffer sets from the source for a single one.
///
/// Every declaration must start at the first column of a line and end with a line, and a statement that uses a
/// name with the suffix outside a function with the suffix must be one line.
pub fn for_buffer_sets(source: &str, sets: BufferSets) -> String {
    let mut out = String::with_capacity(source.len() * sets.count as usize);
    for lines in declarations(source) {
        match declared_name(&lines) {
            // The number is written out wherever the constant is used.
            Some(PLACEHOLDER) => {}
            Some(name) if name.ends_with(SUFFIX) => {
                let column = column_of(name);
                let count = if column.is_none_or(|c| sets.varies(c)) { sets.count } else { 1 };
                for set in 0..count {
                    for line in &lines {
                        let line = match column {
                            Some(column) => rebound(line, column, set),
                            None => (*line).to_owned(),
                        };
                        push(&numbered(&line, set, sets), &mut out);
                    }
                }
            }
            _ => {
                for line in lines {
                    let count = if uses_placeholder(line) { sets.count } else { 1 };
                    (0..count).for_each(|set| push(&numbered(line, set, sets), &mut out));
                }
            }
        }
    }
    out
}

/// Splits source into declarations, each with the comments and blank lines before it.
fn declarations(source: &str) -> Vec<Vec<&str>> {
    let mut found = vec![Vec::new()];
    let mut depth = 0i32;
    for line in source.lines() {
        if let Some(last) = found.last_mut() {
            last.push(line);
        }
        let code = code_of(line).trim_end();
        let count = |brackets: [char; 2]| code.matches(brackets).count() as i32;
        depth += count(['{', '(']) - count(['}', ')']);
        if depth == 0 && code.ends_with(['}', ';']) {
            found.push(Vec::new());
        }
    }
    found
}

/// Returns a line without its comment.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Returns the name that a declaration gives to a function, a constant or a storage buffer.
fn declared_name<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let after = |line: &&'a str| {
        let code = code_of(line);
        let rest = code.strip_prefix("fn ").or_else(|| code.strip_prefix("const "));
        let rest = rest.or_else(|| Some(code.split_once("var<storage, read_write> ")?.1))?;
        rest.split(['(', ':']).next()
    };
    lines.iter().find_map(after)
}

/// Returns the column of the variable with this name.
fn column_of(name: &str) -> Option<usize> {
    COLUMN_NAMES.iter().position(|column| *column == name)
}

/// Replaces the binding number of a column in the first buffer set by the one in `set`.
fn rebound(line: &str, column: usize, set: u32) -> String {
    let binding = |set| format!("@binding({})", column_binding(column, set));
    line.replace(&binding(0), &binding(set))
}

fn uses_placeholder(line: &str) -> bool {
    words(code_of(line)).any(|word| word == PLACEHOLDER || word.ends_with(SUFFIX))
}

/// Writes the number of a buffer set in place of the placeholder. A column that all sets share has number 0.
fn numbered(line: &str, set: u32, sets: BufferSets) -> String {
    let code = code_of(line);
    let mut out = String::with_capacity(line.len());
    for word in words(code) {
        match word.strip_suffix(SUFFIX) {
            Some(name) => {
                let shared = column_of(word).is_some_and(|column| !sets.varies(column));
                out.push_str(&format!("{name}_{}", if shared { 0 } else { set }));
            }
            None if word == PLACEHOLDER => out.push_str(&format!("{set}u")),
            None => out.push_str(word),
        }
    }
    out + &line[code.len()..]
}

/// Splits text into identifiers and the pieces between them.
fn words(mut text: &str) -> impl Iterator<Item = &str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    std::iter::from_fn(move || {
        let first = in_name(text.chars().next()?);
        let end = text.find(|c| in_name(c) != first).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        text = rest;
        Some(word)
    })
}

fn push(line: &str, out: &mut String) {
    out.push_str(line);
    out.push('\n');
}
