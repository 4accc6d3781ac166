//! Prints what the crate compiles, as one JSON object a line and shader module: the crate's own
//! lists and its own text of several frames, from the two files of `src/layout` that are std only.
//! Built by `shipped.mjs` with plain rustc, so that no second list has to be kept.

#[path = "../../src/layout/frames.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../../src/layout/specialisations.rs"]
#[allow(dead_code)]
mod specialisations;

use frames::framed;
use specialisations::{Frames, Kernel, Specialisation, Stage, WORKGROUPS, Width};

fn main() {
    let shaders = std::env::args().nth(1).expect("the folder of the shaders");
    let read = |file: &&str| {
        let path = format!("{shaders}/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    for stage in Stage::ALL {
        for width in Width::ALL {
            let files = stage.files(width);
            let source: String = files.iter().filter(|file| !file.is_empty()).map(read).collect();
            assert!(source.is_ascii(), "Rust and JSON quote other text differently");
            for frames in Frames::SAMPLES {
                let source = match frames {
                    Frames::SINGLE => source.clone(),
                    frames => framed(&source, frames),
                };
                println!(
                    r#"{{"stage":{:?},"width":{:?},"frames":{},"source":{source:?},"variants":[{}]}}"#,
                    stage.entry_point(),
                    format!("{width:?}").to_lowercase(),
                    frames.count,
                    variants(stage, width, frames),
                );
            }
        }
    }
}

/// Values of the `override` constants of every pipeline from one module.
fn variants(stage: Stage, width: Width, frames: Frames) -> String {
    let kernels = Kernel::all().into_iter().filter(|kernel| kernel.stage() == stage);
    let object = |kernel, workgroup| {
        let constants = Specialisation { kernel, width, frames }.constants(workgroup);
        let fields = constants.iter().map(|(name, value)| format!("{name:?}:{value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    let all = kernels.flat_map(|kernel| WORKGROUPS.map(|workgroup| object(kernel, workgroup)));
    all.collect::<Vec<_>>().join(",")
}
