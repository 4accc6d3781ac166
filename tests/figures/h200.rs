//! Checks the H200 table in `benches/results/nvidia-h200/README.md` against its reports.

use super::{agrees, table};
use burn_wsam_support::repository;
use serde_json::Value;

const FOLDER: &str = "benches/results/nvidia-h200";
const SETS: [&str; 5] = ["ResNet-50", "ViT-B/16", "GPT-2 124M", "1000 x 1000", "134M + 3"];
const BASE: &str = "SGD + momentum";

fn read(name: &str) -> String {
    let file = repository().join(FOLDER).join(name);
    std::fs::read_to_string(file).expect("committed")
}

/// Time of PyTorch's implementation `who`, in ms.
fn pytorch(set: &str, who: &str) -> f64 {
    let rows: Vec<Value> = serde_json::from_str(&read("pytorch.json")).expect("JSON");
    let found =
        rows.iter().find(|row| row["set"] == set && row["base"] == BASE && row["who"] == who);
    found.and_then(|row| row["ms"].as_f64()).unwrap_or_else(|| panic!("no {who} over {set}"))
}

/// The number before `unit` in the first line that has these cells.
fn line(file: &str, cells: &[&str], unit: &str) -> f64 {
    let text = read(file);
    let is_row = |line: &&str| cells.iter().all(|cell| line.split(" | ").any(|c| c == *cell));
    let row = text.lines().find(is_row).unwrap_or_else(|| panic!("no {cells:?} in {file}"));
    let cell = row.split(" | ").find_map(|cell| cell.strip_suffix(unit));
    cell.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no {unit}: {row}"))
}

/// Time of the engine's pipelined step in ms, from the fourth column.
fn engine(set: &str) -> f64 {
    let text = read("pipelined.txt");
    let mut rows = text.lines().map(|line| line.split(" | ").collect::<Vec<_>>());
    let row = rows.find(|row| row.len() > 3 && row[0] == set && row[1] == BASE);
    row.and_then(|row| row[3].parse().ok()).unwrap_or_else(|| panic!("no {set}"))
}

#[test]
fn the_table_is_of_the_reports() {
    let header = "| | ResNet-50 | ViT-B/16 | GPT-2 124M | 1000 x 1000 | 134M + 3 |";
    let burn =
        |set, cells: [&str; 2], unit| line("routes-wgpu.txt", &[set, cells[0], cells[1]], unit);
    for row in table(&format!("{FOLDER}/README.md"), header) {
        for (set, printed) in SETS.iter().zip(&row[1..]).filter(|(_, printed)| !printed.is_empty())
        {
            let value = match row[0].as_str() {
                "this engine, pipelined" => engine(set),
                "PyTorch: CUDA graph of foreach + fused SGD" => {
                    pytorch(set, "the same in a CUDA graph, pipelined")
                }
                "PyTorch: foreach + fused SGD, pipelined" => {
                    pytorch(set, "foreach + fused base, pipelined")
                }
                "PyTorch: public WSAM" => pytorch(set, "pytorch_optimizer WSAM"),
                "this crate in Burn, fused, pipelined" => {
                    burn(set, [BASE, "fused"], "ms pipelined")
                }
                "this crate in Burn, tensor operations" => {
                    burn(set, [BASE, "tensor ops"], "ms pipelined")
                }
                "Burn's own SGD alone, one gradient" => {
                    burn(set, [BASE, "Burn's own alone"], "ms pipelined")
                }
                other => panic!("no report has {other}"),
            };
            assert!(agrees(printed, value), "{}, {set}: {printed}, expected {value}", row[0]);
        }
    }
}
