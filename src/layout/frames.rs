// WGSL source for dispatches over several frames. `common.wgsl` explains the `// frame` comments. The engine,
// scripts/backends and scripts/dawn include this file, so it may only use std.

use super::specialisations::{COLUMNS, Frames};
use std::collections::HashSet;

/// Binding numbers that one frame takes in group 0: one for each column, and one that the first frame uses for
/// the partial sums.
const FRAME_STRIDE: u32 = COLUMNS as u32 + 1;

/// Names of the columns' WGSL variables, indexed by `column`.
pub const COLUMN_NAMES: [&str; COLUMNS] =
    ["weight", "anchor", "grad", "grad_perturbed", "partner", "state_0", "state_1", "state_2"];

/// Returns the binding number of a column in a frame.
pub const fn column_binding(column: usize, frame: u32) -> u32 {
    1 + column as u32 + FRAME_STRIDE * frame
}

/// Derives the source for `frames` frames from the source for one frame.
pub fn framed(source: &str, frames: Frames) -> String {
    let mut out = String::with_capacity(source.len() * frames.count as usize);
    let mut names = HashSet::new();
    let mut region: Option<Vec<&str>> = None;
    for line in source.lines() {
        match (line.trim(), &mut region) {
            ("// frame", _) => region = Some(Vec::new()),
            ("// end frame", found) => {
                let lines = found.take().unwrap_or_default();
                names.extend(lines.iter().filter_map(|line| declared(line, frames)));
                for frame in 0..frames.count {
                    lines.iter().for_each(|line| copy(line, frame, frames, &names, &mut out));
                }
            }
            (_, Some(lines)) => lines.push(line),
            (trimmed, None) if trimmed.ends_with("// each frame") => {
                for frame in 0..frames.count {
                    let len = format!("select(0u, chunk.len, chunk.frame == {frame}u)");
                    let line = line.replace("chunk.len", &len);
                    copy(&line, frame, frames, &names, &mut out);
                }
            }
            (_, None) => push(line, &mut out),
        }
    }
    out
}

/// Returns the name that a line of a region declares, if each frame needs a separate copy of it: a function, or
/// the variable of a varying column.
fn declared(line: &str, frames: Frames) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("fn ") {
        return rest.split('(').next();
    }
    let name = variable(line)?;
    let column = COLUMN_NAMES.iter().position(|column| *column == name)?;
    frames.varies(column).then_some(name)
}

/// Returns the name of the storage variable that a line declares.
fn variable(line: &str) -> Option<&str> {
    let rest = line.split_once("var<storage, read_write> ")?.1;
    rest.split(':').next()
}

/// Appends a line's copy for one frame. The frame's number is appended to `names`, except in frame 0.
fn copy(line: &str, frame: u32, frames: Frames, names: &HashSet<&str>, out: &mut String) {
    if frame == 0 {
        return push(line, out);
    }
    if let Some(name) = variable(line) {
        let column = COLUMN_NAMES.iter().position(|column| *column == name);
        if let Some(column) = column.filter(|column| frames.varies(*column)) {
            let old = format!("@binding({})", column_binding(column, 0));
            let new = format!("@binding({})", column_binding(column, frame));
            return push(&renamed(&line.replace(&old, &new), frame, names), out);
        }
        return; // Frame 0 has declared the variable for all frames.
    }
    push(&renamed(line, frame, names), out);
}

fn renamed(line: &str, frame: u32, names: &HashSet<&str>) -> String {
    let mut out = String::with_capacity(line.len() + 8);
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (word, after) = from.split_at(end.unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(word);
        // Not renamed after a dot: struct fields may have a column's name.
        if names.contains(word) && !out[..out.len() - word.len()].ends_with('.') {
            out.push_str(&format!("_{frame}"));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn push(line: &str, out: &mut String) {
    out.push_str(line);
    out.push('\n');
}
