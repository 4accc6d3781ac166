//! Every shader module and pipeline that [`sampled_modules`] lists, through naga's front end and validator.

use burn_wsam::layout::{
    COLUMN_NAMES, Frames, Stage, Width, framed, sampled_constants, sampled_modules, source,
};
use burn_wsam_support::repository;
use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Fails with the file and line of each error.
#[test]
fn shaders_are_valid() {
    let errors: Vec<String> = sampled_modules().filter_map(|module| check(module).err()).collect();
    assert!(errors.is_empty(), "{} invalid shader modules:\n{}", errors.len(), errors.join("\n"));
}

/// An undeclared name in each file is reported with that file's name and the line it stands on.
#[test]
fn errors_name_the_file_and_line() {
    for (stage, width) in super::single_frames() {
        let mut files = Files::read(stage, width).unwrap_or_else(|error| panic!("{error}"));
        for planted in 0..files.texts.len() {
            let intact = files.texts[planted].clone();
            files.texts[planted] += "fn planted() -> u32 { return undeclared; }\n";
            let error = validate(&files, &files.texts.concat()).expect_err("an undeclared name");
            let line = intact.lines().count() + 1;
            let place = format!("shaders/{}:{line}: ", files.names[planted]);
            assert!(error.starts_with(&place), "{place} expected: {error}");
            files.texts[planted] = intact;
        }
    }
}

/// Parses and validates one module, and its pipelines with their constants.
fn check((stage, width, frames): (Stage, Width, Frames)) -> Result<(), String> {
    let files = Files::read(stage, width)?;
    let text = files.texts.concat();
    if text != source(stage, width) {
        return Err(format!("{stage:?}, {width:?}: `source` and `Stage::files` differ"));
    }
    let (place, (module, info)) = if frames == Frames::SINGLE {
        (files.names.join(" + "), validate(&files, &text)?)
    } else {
        // Lines of the generated text are in no file.
        let place = format!("{} with {frames:?}", files.names.join(" + "));
        let text = framed(&text, frames);
        let valid = validate_text(&text).map_err(|error| format!("{place}: {}", error.message))?;
        (place, valid)
    };
    check_frames(&module, frames).map_err(|error| format!("{place}: {error}"))?;
    let entry = Some((naga::ShaderStage::Compute, stage.entry_point()));
    for (kernel, constants) in sampled_constants((stage, width, frames)) {
        let named = constants.iter().map(|(name, value)| ((*name).to_owned(), *value));
        // Validates the module again after it has set the constants.
        process_overrides(&module, &info, entry, &PipelineConstants::from_iter(named))
            .map_err(|error| format!("{place}: {kernel:?} with {constants:?}: {error}"))?;
    }
    Ok(())
}

/// The files of a stage, in the order in which they are concatenated.
struct Files {
    names: Vec<&'static str>,
    texts: Vec<String>,
}

impl Files {
    fn read(stage: Stage, width: Width) -> Result<Self, String> {
        let folder = repository().join("shaders");
        let names = stage.files(width);
        let read = |name: &&str| {
            std::fs::read_to_string(folder.join(name)).map_err(|e| format!("shaders/{name}: {e}"))
        };
        let texts = names.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { names, texts })
    }

    /// `shaders/file.wgsl:line` of a line of the concatenation, counted from 1.
    fn place(&self, mut line: usize) -> String {
        for (name, text) in self.names.iter().zip(&self.texts) {
            let lines = text.lines().count();
            if line <= lines {
                return format!("shaders/{name}:{line}");
            }
            line -= lines;
        }
        format!("after the end of {}", self.names.join(" + "))
    }
}

/// What naga reports of a text.
struct Invalid {
    /// Counted from 1; 1 if naga names no place.
    line: usize,
    message: String,
}

fn validate(files: &Files, text: &str) -> Result<(naga::Module, ModuleInfo), String> {
    validate_text(text).map_err(|error| format!("{}: {}", files.place(error.line), error.message))
}

fn validate_text(text: &str) -> Result<(naga::Module, ModuleInfo), Invalid> {
    let invalid = |location: Option<naga::SourceLocation>, message| Invalid {
        line: location.map_or(1, |location| location.line_number as usize),
        message,
    };
    let module = naga::front::wgsl::parse_str(text)
        .map_err(|error| invalid(error.location(text), error.emit_to_string(text)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::default())
        .validate(&module)
        .map_err(|error| invalid(error.location(text), error.emit_to_string(text)))?;
    Ok((module, info))
}

/// Checks that each frame declares its own variable for every varying column, and that the other columns
/// are declared once.
fn check_frames(module: &naga::Module, frames: Frames) -> Result<(), String> {
    for (column, name) in COLUMN_NAMES.iter().enumerate() {
        let variables = module.global_variables.iter();
        let names = variables.filter_map(|(_, variable)| variable.name.as_deref());
        let of_column = names.filter(|found| {
            let frame = found.strip_prefix(name).and_then(|rest| rest.strip_prefix('_'));
            found == name || frame.is_some_and(|frame| frame.parse::<u32>().is_ok())
        });
        let expected = if frames.varies(column) { frames.count } else { 1 };
        let found = of_column.count();
        if found != expected as usize {
            return Err(format!(
                "{found} variables of column {name} are declared, {expected} expected"
            ));
        }
    }
    Ok(())
}
