//! Shader modules of the crate, from its own lists, sources and bindings.

use burn_wsam::layout::{
    self, Access, COLUMNS, Frames, Stage, Width, column_binding, sampled_constants, sampled_modules,
};
use naga::back::PipelineConstants;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Type of a buffer binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Uniform,
    /// A storage buffer that is only read.
    Table,
    /// A storage buffer bound read_write.
    Storage,
}

/// A buffer binding of a shader module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) at: naga::ResourceBinding,
    pub(crate) kind: Kind,
}

/// A shader module of the crate, parsed and validated as wgpu does.
pub(crate) struct Module {
    pub(crate) stage: Stage,
    pub(crate) name: String,
    pub(crate) parsed: naga::Module,
    pub(crate) info: ModuleInfo,
    /// Sorted by group and number.
    pub(crate) slots: Vec<Slot>,
    /// Constants of each pipeline.
    pub(crate) variants: Vec<PipelineConstants>,
}

/// Every module that tests/layout validates.
pub(crate) fn modules() -> Result<Vec<Module>, String> {
    sampled_modules().map(|(stage, width, frames)| module(stage, width, frames)).collect()
}

fn module(stage: Stage, width: Width, frames: Frames) -> Result<Module, String> {
    let name = format!("{}, {width:?}, {} frames", stage.entry_point(), frames.count);
    let source = match frames {
        Frames::SINGLE => layout::source(stage, width).to_owned(),
        frames => layout::framed(layout::source(stage, width), frames),
    };
    let fail = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let parsed =
        naga::front::wgsl::parse_str(&source).map_err(|e| fail(&e.emit_to_string(&source)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::default())
        .validate(&parsed)
        .map_err(|e| fail(&e.emit_to_string(&source)))?;
    let named = |(_, constants): (_, Vec<(&str, f64)>)| {
        constants.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let variants = sampled_constants((stage, width, frames)).map(named).collect();
    Ok(Module { stage, name, parsed, info, slots: slots(stage, width, frames), variants })
}

/// Bindings of the pipeline's layout. A varying column has one in each frame.
fn slots(stage: Stage, width: Width, frames: Frames) -> Vec<Slot> {
    let mut slots = Vec::new();
    for binding in layout::bindings(stage, width) {
        let kind = match binding.access {
            Access::Uniform(_) => Kind::Uniform,
            Access::Table => Kind::Table,
            Access::Storage => Kind::Storage,
        };
        let column = (0..COLUMNS)
            .find(|c| binding.group == 0 && column_binding(*c, 0) == binding.number)
            .filter(|column| frames.varies(*column));
        let numbers: Vec<_> = match column {
            Some(column) => (0..frames.count).map(|f| column_binding(column, f)).collect(),
            None => vec![binding.number],
        };
        slots.extend(numbers.into_iter().map(|number| {
            let at = naga::ResourceBinding { group: binding.group, binding: number };
            Slot { at, kind }
        }));
    }
    slots.sort_by_key(|slot| slot.at);
    slots
}
