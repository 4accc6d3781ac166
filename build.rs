//! Validates the shaders with naga at build time, in the combinations that `layout/samples.rs`
//! lists. A broken shader fails `cargo build` with its file and line.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    shaders::validate();
}

mod shaders {
    #[path = "../src/layout/frames.rs"]
    #[allow(dead_code, unreachable_pub)]
    mod frames;
    #[path = "../src/layout/samples.rs"]
    #[allow(unreachable_pub)]
    mod samples;
    #[path = "../src/layout/specialisations.rs"]
    #[allow(dead_code, unreachable_pub)]
    mod specialisations;

    use frames::{COLUMN_NAMES, framed};
    use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use samples::{sampled_constants, sampled_modules};
    use specialisations::{Frames, Stage, Width};
    use std::{fs, process::exit};

    pub(super) fn validate() {
        println!("cargo::rerun-if-changed=shaders");
        println!("cargo::rerun-if-changed=src/layout");
        for (stage, width, frames) in sampled_modules() {
            validate_stage(stage, width, frames);
        }
    }

    fn validate_stage(stage: Stage, width: Width, frames: Frames) {
        let files: Vec<_> =
            stage.files(width).iter().map(|file| format!("shaders/{file}")).collect();
        let texts: Vec<_> = files.iter().map(|file| read(file)).collect();
        let source = match frames {
            Frames::SINGLE => texts.concat(),
            _ => framed(&texts.concat(), frames),
        };
        let place = |span: Option<naga::SourceLocation>| {
            let last = files[files.len() - 1].clone();
            if frames != Frames::SINGLE {
                return format!("{last}, {} frames", frames.count);
            }
            let mut line = span.map_or(1, |at| at.line_number as usize);
            for (file, text) in files.iter().zip(&texts) {
                let lines = text.lines().count();
                if line <= lines {
                    return format!("{file}:{line}");
                }
                line -= lines;
            }
            last
        };

        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| {
            fail(&place(error.location(&source)), &error.emit_to_string(&source))
        });
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::default());
        let info = validator.validate(&module).unwrap_or_else(|error| {
            fail(&place(error.location(&source)), &error.emit_to_string(&source))
        });
        check_frames(&module, frames, &place(None));
        let entry = Some((naga::ShaderStage::Compute, stage.entry_point()));
        for (kernel, constants) in sampled_constants((stage, width, frames)) {
            let named = constants.iter().map(|(name, value)| ((*name).to_owned(), *value));
            // `process_overrides` validates the module again after it has set the constants.
            let processed =
                process_overrides(&module, &info, entry, &PipelineConstants::from_iter(named));
            if let Err(error) = processed {
                fail(&place(None), &format!("{kernel:?} with {constants:?}: {error}"));
            }
        }
    }

    /// Checks that each frame declares its own variable for every varying column, and that the other
    /// columns are declared once.
    fn check_frames(module: &naga::Module, frames: Frames, place: &str) {
        for (column, name) in COLUMN_NAMES.iter().enumerate() {
            let variables = module.global_variables.iter();
            let names = variables.filter_map(|(_, variable)| variable.name.as_deref());
            let found = names.filter(|found| {
                let frame = found.strip_prefix(name).and_then(|rest| rest.strip_prefix('_'));
                found == name || frame.is_some_and(|frame| frame.parse::<u32>().is_ok())
            });
            let (found, want) =
                (found.count(), if frames.varies(column) { frames.count } else { 1 });
            if found != want as usize {
                fail(
                    place,
                    &format!("{name}: {found} variables are declared, but {frames:?} needs {want}"),
                );
            }
        }
    }

    fn read(path: &str) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| fail(path, &error.to_string()))
    }

    fn fail(place: &str, message: &str) -> ! {
        for line in format!("{place}: {message}").lines() {
            println!("cargo::error={line}");
        }
        exit(1)
    }
}
