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
    use specialisations::{Specialisation, Stage, WORKGROUPS, Width};
    use std::{fs, process::exit};

    const COMMON: &str = "common.wgsl";

    pub(super) fn validate() {
        println!("cargo::rerun-if-changed=shaders");
        println!("cargo::rerun-if-changed=src/layout/specialisations.rs");
        for stage in Stage::ALL {
            for width in Width::ALL {
                validate_stage(stage, width);
            }
        }
    }

    fn validate_stage(stage: Stage, width: Width) {
        let files = [COMMON, width.file(), stage.file()].map(|file| format!("shaders/{file}"));
        let texts = [read(&files[0]), read(&files[1]), read(&files[2])];
        let source = texts.concat();
        let place = |span: Option<naga::SourceLocation>| {
            let mut line = span.map_or(1, |at| at.line_number as usize);
            for (file, text) in files.iter().zip(&texts) {
                let lines = text.lines().count();
                if line <= lines {
                    return format!("{file}:{line}");
                }
                line -= lines;
            }
            files[2].clone()
        };

        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| {
            fail(&place(error.location(&source)), &error.emit_to_string(&source))
        });
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::default());
        let info = validator.validate(&module).unwrap_or_else(|error| {
            fail(&place(error.location(&source)), &error.emit_to_string(&source))
        });
        for specialisation in Specialisation::all() {
            if (specialisation.stage(), specialisation.width()) != (stage, width) {
                continue;
            }
            let entry = Some((naga::ShaderStage::Compute, stage.entry_point()));
            for workgroup in WORKGROUPS {
                let constants: PipelineConstants = specialisation
                    .constants(workgroup)
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect();
                // Processing the overrides validates the module that results.
                if let Err(error) = process_overrides(&module, &info, entry, &constants) {
                    fail(&place(None), &format!("{specialisation:?} of {workgroup}: {error}"));
                }
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
