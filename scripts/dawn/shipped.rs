//! Prints each shader module of the crate as a line of JSON, from the crate's own lists and frame
//! generator in those files of `src/layout` that use only std. `shipped.mjs` builds it with plain rustc,
//! so that there is no second list.

#[path = "../../src/layout/frames.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../../src/layout/samples.rs"]
mod samples;
#[path = "../../src/layout/specialisations.rs"]
#[allow(dead_code)]
mod specialisations;

use frames::framed;
use samples::{sampled_constants, sampled_modules};
use specialisations::{Frames, Stage, Width};

fn main() {
    let shaders = std::env::args().nth(1).expect("the folder of the shaders");
    let read = |file: &&str| {
        let path = format!("{shaders}/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    for (stage, width, frames) in sampled_modules() {
        let files = stage.files(width);
        let source: String = files.iter().map(read).collect();
        assert!(source.is_ascii(), "Rust and JSON quote non-ASCII text differently");
        let source = match frames {
            Frames::SINGLE => source,
            frames => framed(&source, frames),
        };
        println!(
            r#"{{"stage":{:?},"width":{:?},"frames":{},"source":{source:?},"variants":[{}]}}"#,
            stage.entry_point(),
            name(width),
            frames.count,
            variants(stage, width, frames),
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
fn variants(stage: Stage, width: Width, frames: Frames) -> String {
    let object = |(_, constants): (_, Vec<(&str, f64)>)| {
        let fields = constants.iter().map(|(name, value)| format!("{name:?}:{value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    sampled_constants((stage, width, frames)).map(object).collect::<Vec<_>>().join(",")
}
