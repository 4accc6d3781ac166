//! Prints every shader module that the engine compiles, as one JSON object a line. Run by
//! `scripts/dawn/shipped.mjs`.

use burn_wsam::layout::{
    BufferSets, Stage, Width, for_buffer_sets, sampled_constants, sampled_modules, source,
};

fn main() {
    for (stage, width, sets) in sampled_modules() {
        let source = source(stage, width);
        assert!(source.is_ascii(), "Rust and JSON quote other text differently");
        let source = match sets {
            BufferSets::SINGLE => source.to_owned(),
            sets => for_buffer_sets(source, sets),
        };
        println!(
            r#"{{"stage":{:?},"ofRelatives":{},"width":{:?},"bufferSets":{},"source":{source:?},"variants":[{}]}}"#,
            stage.entry_point(),
            stage.is_of_relatives(),
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
