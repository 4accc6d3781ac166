//! Validates the shaders with naga at build time, in the combinations that `layout/samples.rs`
//! lists. A broken shader fails `cargo build` with its file and line.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    shaders::validate();
}

mod shaders {
    #[path = "../src/layout/buffer_sets.rs"]
    #[allow(dead_code, unreachable_pub)]
    mod buffer_sets;
    #[path = "../src/layout/samples.rs"]
    #[allow(unreachable_pub)]
    mod samples;
    #[path = "../src/layout/specialisations.rs"]
    #[allow(dead_code, unreachable_pub)]
    mod specialisations;
    #[path = "../src/layout/stages.rs"]
    #[allow(dead_code, unreachable_pub)]
    mod stages;

    use buffer_sets::{COLUMN_NAMES, for_buffer_sets};
    use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use samples::{sampled_constants, sampled_modules};
    use stages::{BufferSets, Stage, Width};
    use std::{fs, process::exit};

    pub(super) fn validate() {
        println!("cargo::rerun-if-changed=shaders");
        println!("cargo::rerun-if-changed=src/layout");
        for (stage, width, buffer_sets) in sampled_modules() {
            validate_stage(stage, width, buffer_sets);
        }
    }

    fn validate_stage(stage: Stage, width: Width, buffer_sets: BufferSets) {
        let files: Vec<_> =
            stage.files(width).iter().map(|file| format!("shaders/{file}")).collect();
        let texts: Vec<_> = files.iter().map(|file| read(file)).collect();
        let source = match buffer_sets {
            BufferSets::SINGLE => texts.concat(),
            _ => for_buffer_sets(&texts.concat(), buffer_sets),
        };
        let place = |span: Option<naga::SourceLocation>| {
            let last = files[files.len() - 1].clone();
            if buffer_sets != BufferSets::SINGLE {
                return format!("{last}, {} buffer sets", buffer_sets.count);
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
        check_buffer_sets(&module, buffer_sets, &place(None));
        let entry = Some((naga::ShaderStage::Compute, stage.entry_point()));
        for (kernel, constants) in sampled_constants((stage, width, buffer_sets)) {
            let named = constants.iter().map(|(name, value)| ((*name).to_owned(), *value));
            // `process_overrides` validates the module again after it has set the constants.
            let processed =
                process_overrides(&module, &info, entry, &PipelineConstants::from_iter(named));
            if let Err(error) = processed {
                fail(&place(None), &format!("{kernel:?} with {constants:?}: {error}"));
            }
        }
    }

    /// Checks that each buffer set declares its own variable for every varying column, and that the other
    /// columns are declared once.
    fn check_buffer_sets(module: &naga::Module, buffer_sets: BufferSets, place: &str) {
        for (column, name) in COLUMN_NAMES.iter().enumerate() {
            let variables = module.global_variables.iter();
            let names = variables.filter_map(|(_, variable)| variable.name.as_deref());
            let stem = name.trim_end_matches("SET");
            let found = names.filter(|found| {
                let set = found.strip_prefix(stem);
                found == name || set.is_some_and(|set| set.parse::<u32>().is_ok())
            });
            let (found, want) =
                (found.count(), if buffer_sets.varies(column) { buffer_sets.count } else { 1 });
            if found != want as usize {
                fail(
                    place,
                    &format!(
                        "{name}: {found} variables are declared, but {buffer_sets:?} needs {want}"
                    ),
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
