//! Prints every shader module that the engine compiles, as one JSON object a line. Run by
//! `scripts/dawn/shipped.mjs`.

use burn_wsam::layout::{Frames, Stage, Width, framed, sampled_constants, sampled_modules, source};

fn main() {
    for (stage, width, frames) in sampled_modules() {
        let source = source(stage, width);
        assert!(source.is_ascii(), "Rust and JSON quote other text differently");
        let source = match frames {
            Frames::SINGLE => source.to_owned(),
            frames => framed(source, frames),
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
