//! Validates every shader, and every specialisation the engine can ask for, at build time: a
//! broken shader fails `cargo build` with its file and line.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    shaders::validate();
}

mod shaders {
    #[path = "../src/layout/specialisations.rs"]
    #[allow(dead_code, unreachable_pub)]
    mod specialisations;

    use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use specialisations::{Specialisation, Stage};
    use std::{fs, process::exit};

    const COMMON: &str = "shaders/common.wgsl";

    pub(super) fn validate() {
        println!("cargo::rerun-if-changed=shaders");
        println!("cargo::rerun-if-changed=src/layout/specialisations.rs");
        for stage in Stage::ALL {
            validate_stage(stage);
        }
    }

    fn validate_stage(stage: Stage) {
        let file = format!("shaders/{}", stage.file());
        let common = read(COMMON);
        let source = common.clone() + &read(&file);
        let place = |span: Option<naga::SourceLocation>| {
            let line = span.map_or(1, |at| at.line_number as usize);
            let head = common.lines().count();
            if line <= head {
                format!("{COMMON}:{line}")
            } else {
                format!("{file}:{}", line - head)
            }
        };

        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| {
            fail(&place(error.location(&source)), &error.emit_to_string(&source))
        });
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::default());
        let info = validator.validate(&module).unwrap_or_else(|error| {
            fail(&place(error.location(&source)), &error.emit_to_string(&source))
        });
        for specialisation in Specialisation::all() {
            if specialisation.stage() != stage {
                continue;
            }
            let constants: PipelineConstants = specialisation
                .constants()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let entry = Some((naga::ShaderStage::Compute, stage.entry_point()));
            // Processing the overrides validates the module that results.
            if let Err(error) = process_overrides(&module, &info, entry, &constants) {
                fail(&place(None), &format!("{specialisation:?}: {error}"));
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
