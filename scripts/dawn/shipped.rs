//! Prints what the crate compiles, as one JSON object a line and shader module: the crate's own
//! lists and its own text for several buffer sets, from the files of `src/layout` that are std only.
//! Built by `shipped.mjs` with plain rustc, so that no second list has to be kept.

#[path = "../../src/layout/buffer_sets.rs"]
#[allow(dead_code)]
mod buffer_sets;
#[path = "../../src/layout/samples.rs"]
mod samples;
#[path = "../../src/layout/specialisations.rs"]
#[allow(dead_code)]
mod specialisations;
#[path = "../../src/layout/stages.rs"]
#[allow(dead_code)]
mod stages;

use buffer_sets::for_buffer_sets;
use samples::{sampled_constants, sampled_modules};
use stages::{BufferSets, Stage, Width};

fn main() {
    let shaders = std::env::args().nth(1).expect("the folder of the shaders");
    let read = |file: &&str| {
        let path = format!("{shaders}/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    for (stage, width, sets) in sampled_modules() {
        let files = stage.files(width);
        let source: String = files.iter().map(read).collect();
        assert!(source.is_ascii(), "Rust and JSON quote other text differently");
        let source = match sets {
            BufferSets::SINGLE => source,
            sets => for_buffer_sets(&source, sets),
        };
        println!(
            r#"{{"stage":{:?},"width":{:?},"bufferSets":{},"source":{source:?},"variants":[{}]}}"#,
            stage.entry_point(),
            name(width),
            sets.count,
            variants(stage, width, sets),
        );
    }
}

fn name(width: Width) -> &'static str {
    match width {
        Width::Wide => "wide",
        Width::Narrow => "narrow",
        _ if width.has_master() => "half, with master weights",
        Width::Packed(_) => "half",
    }
}

/// Values of the `override` constants of every pipeline from one module.
fn variants(stage: Stage, width: Width, sets: BufferSets) -> String {
    let object = |(_, constants): (_, Vec<(&str, f64)>)| {
        let fields = constants.iter().map(|(name, value)| format!("{name:?}:{value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    sampled_constants((stage, width, sets)).map(object).collect::<Vec<_>>().join(",")
}
