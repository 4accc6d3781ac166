//! Finding, choosing and describing this machine's adapters.

use crate::environment::hints;
use crate::error::Error;
use crate::options::AdaptersOptions;
use crate::output;
use burn_wsam::engine::{Engine, EngineError};
use burn_wsam_support::adapters::{Gpu, adapters_of as adapters, backends};
use serde_json::{Value, json};

/// Returns the adapters that `--adapter` selects: `all`, `best`, or part of their names.
///
/// # Errors
///
/// [`Error::Backend`], [`Error::NoAdapter`] or [`Error::NoSuchAdapter`].
pub(crate) fn chosen(name: &str) -> Result<Vec<Gpu>, Error> {
    let mut found = backends().map(adapters).map_err(Error::Backend)?;
    if found.is_empty() {
        return Err(Error::NoAdapter { hints: hints() });
    }
    match name {
        "all" => {}
        "best" => {
            // wgpu's order for high performance. The sort is stable.
            found.sort_by_key(|gpu| match gpu.adapter.get_info().device_type {
                wgpu::DeviceType::DiscreteGpu => 0,
                wgpu::DeviceType::IntegratedGpu => 1,
                wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
                wgpu::DeviceType::Cpu => 3,
            });
            found.truncate(1);
        }
        part => {
            let names: Vec<_> = found.iter().map(full_name).collect();
            found.retain(|gpu| full_name(gpu).to_lowercase().contains(&part.to_lowercase()));
            if found.is_empty() {
                let wanted = part.to_owned();
                return Err(Error::NoSuchAdapter { wanted, found: names, hints: hints() });
            }
        }
    }
    Ok(found)
}

/// Returns the name that the driver reports.
pub(crate) fn full_name(gpu: &Gpu) -> String {
    gpu.adapter.get_info().name
}

/// Creates an engine on the adapter.
pub(crate) fn engine(gpu: &Gpu) -> Result<Engine, Error> {
    match Engine::on_adapter(&gpu.adapter) {
        Ok((engine, _)) => Ok(engine),
        Err(source) => Err(Error::Engine { at: full_name(gpu), source }),
    }
}

/// `wsam adapters`.
pub(crate) fn list(options: &AdaptersOptions) -> Result<(), Error> {
    let found = backends().map(adapters).map_err(Error::Backend)?;
    if options.json {
        output::line(format_args!("{:#}", found.iter().map(describe).collect::<Value>()))?;
    } else {
        for gpu in &found {
            output::line(format_args!("{}", text(&describe(gpu))))?;
        }
    }
    if found.is_empty() { Err(Error::NoAdapter { hints: hints() }) } else { Ok(()) }
}

/// Describes an adapter as JSON: driver, limits, features and route.
fn describe(gpu: &Gpu) -> Value {
    let (info, limits) = (gpu.adapter.get_info(), gpu.adapter.limits());
    let has = |feature| gpu.adapter.features().contains(feature);
    json!({
        "name": info.name,
        "backend": info.backend.to_string(),
        "type": format!("{:?}", info.device_type),
        "driver": format!("{} {}", info.driver, info.driver_info),
        "limits": {
            "max_storage_buffers_per_shader_stage": limits.max_storage_buffers_per_shader_stage,
            "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
            "max_buffer_size": limits.max_buffer_size,
            "min_storage_buffer_offset_alignment": limits.min_storage_buffer_offset_alignment,
            "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
            "max_compute_workgroups_per_dimension": limits.max_compute_workgroups_per_dimension,
        },
        "features": {
            "TIMESTAMP_QUERY": has(wgpu::Features::TIMESTAMP_QUERY),
            "SHADER_F16": has(wgpu::Features::SHADER_F16),
            "SUBGROUP": has(wgpu::Features::SUBGROUP),
        },
        "route": route(Engine::on_adapter(&gpu.adapter).map(|(engine, _)| engine)),
    })
}

/// Describes the route that steps take on the adapter, with the reason.
fn route(engine: Result<Engine, EngineError>) -> Value {
    match engine {
        Ok(engine) => {
            let tuning = engine.tuning();
            json!({
                "fused": true,
                "why": "all kernels run on its device",
                "workgroup": tuning.workgroup,
                "chunk_len": tuning.chunk_len,
                "max_buffer_sets": tuning.max_buffer_sets,
            })
        }
        Err(error) => json!({ "fused": false, "why": error.to_string() }),
    }
}

fn text(adapter: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut text = format!(
        "{} ({}, {})\n",
        word(&adapter["name"]),
        word(&adapter["backend"]),
        word(&adapter["type"])
    );
    let mut line = |name: &str, value: String| text += &format!("  {name:<40} {value}\n");
    line("driver", word(&adapter["driver"]));
    let route = &adapter["route"];
    let name = if route["fused"] == true { "fused" } else { "tensor operations" };
    line("route", format!("{name}: {}", word(&route["why"])));
    if route["fused"] == true {
        let [workgroup, chunk, buffer_sets] =
            ["workgroup", "chunk_len", "max_buffer_sets"].map(|name| word(&route[name]));
        let tuning = format!(
            "workgroups of {workgroup}, chunks of {chunk} elements, up to {buffer_sets} buffer sets per dispatch"
        );
        line("tuning", tuning);
    }
    for group in ["limits", "features"] {
        for (name, value) in adapter[group].as_object().into_iter().flatten() {
            let bytes = value.as_u64().filter(|_| name.ends_with("_size"));
            line(name, bytes.map_or_else(|| word(value), mebibytes));
        }
    }
    // `output::line` ends the last line.
    text.pop();
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{bytes} ({} MiB)", bytes >> 20)
}
