//! Targets of naga's writers: the languages that a shader is translated to before a driver compiles it.

use crate::tools::{DirectX, Program};
use crate::writers::{self, Shader};
use naga::back::hlsl::ShaderModel;
use std::path::{Path, PathBuf};

/// How far a passing shader was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// A compiler produced machine code or bytecode.
    Compiled,
    /// A validator or a compiler's front end accepted the code.
    Validated,
    /// naga wrote the code, and no tool here reads it.
    Generated,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    SpirV { vulkan: &'static str, version: (u8, u8), robust: bool },
    DirectX { model: ShaderModel, profile: &'static str },
    Hlsl { model: ShaderModel, name: &'static str },
    Metal { version: (u8, u8) },
    Gles { version: u16 },
}

impl Target {
    pub(crate) const ALL: [Target; 12] = [
        Target::SpirV { vulkan: "1.1", version: (1, 3), robust: false },
        Target::SpirV { vulkan: "1.1", version: (1, 3), robust: true },
        Target::SpirV { vulkan: "1.3", version: (1, 6), robust: false },
        Target::SpirV { vulkan: "1.3", version: (1, 6), robust: true },
        Target::DirectX { model: ShaderModel::V6_0, profile: "cs_6_0" },
        Target::DirectX { model: ShaderModel::V6_6, profile: "cs_6_6" },
        Target::Hlsl { model: ShaderModel::V5_0, name: "5.0" },
        Target::Hlsl { model: ShaderModel::V5_1, name: "5.1" },
        Target::Metal { version: (2, 4) },
        Target::Metal { version: (3, 1) },
        Target::Gles { version: 310 },
        Target::Gles { version: 320 },
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Target::SpirV { vulkan, version: (major, minor), robust } => {
                let bounds = if robust { "by the device" } else { "in the shader" };
                format!("Vulkan {vulkan}: SPIR-V {major}.{minor}, bounds checks {bounds}")
            }
            Target::DirectX { profile, .. } => format!("DX12: HLSL, DXC {profile}"),
            Target::Hlsl { name, .. } => format!("DX12: HLSL for FXC, shader model {name}"),
            Target::Metal { version: (major, minor) } => format!("Metal: MSL {major}.{minor}"),
            Target::Gles { version } => {
                format!("GL: GLSL ES {}.{}", version / 100, version / 10 % 10)
            }
        }
    }

    pub(crate) fn status(self) -> Status {
        match self {
            Target::DirectX { .. } => Status::Compiled,
            Target::SpirV { .. } | Target::Gles { .. } => Status::Validated,
            Target::Hlsl { .. } | Target::Metal { .. } => Status::Generated,
        }
    }
}

/// The installed tools, or for each missing one the reason.
pub(crate) struct Tools {
    pub(crate) spirv_val: Result<Program, String>,
    pub(crate) glslang: Result<Program, String>,
    /// Path of libdxcompiler.
    pub(crate) dxc: Result<PathBuf, String>,
    pub(crate) dxc_version: String,
}

impl Tools {
    pub(crate) fn find(dxc: Option<&str>) -> Self {
        let dxc = dxc.map(PathBuf::from).ok_or_else(|| "no libdxcompiler".to_owned());
        let loaded = dxc.and_then(|path| Ok((DirectX::load(&path)?.version()?, path)));
        let (dxc_version, dxc) = match loaded {
            Ok((version, path)) => (version, Ok(path)),
            Err(reason) => (String::new(), Err(reason)),
        };
        Self {
            spirv_val: Program::find("spirv-val"),
            glslang: Program::find("glslangValidator"),
            dxc,
            dxc_version,
        }
    }

    /// Name and version of the tool that reads a target's output, or the reason why it is missing.
    pub(crate) fn reader(&self, target: Target) -> Result<String, String> {
        let version = |program: &Result<Program, String>| match program {
            Ok(program) => Ok(program.version.clone()),
            Err(reason) => Err(reason.clone()),
        };
        match target {
            Target::SpirV { .. } => Ok(format!("spirv-val, {}", version(&self.spirv_val)?)),
            Target::Gles { .. } => Ok(format!("glslangValidator, {}", version(&self.glslang)?)),
            Target::DirectX { .. } => match &self.dxc {
                Ok(_) => Ok(self.dxc_version.clone()),
                Err(reason) => Err(reason.clone()),
            },
            Target::Hlsl { .. } => Ok("no tool: FXC exists on Windows only".to_owned()),
            Target::Metal { .. } => Ok("no tool: Metal's compiler exists on macOS only".to_owned()),
        }
    }
}

/// Checks shaders on one thread.
pub(crate) struct Checker<'a> {
    tools: &'a Tools,
    directx: Option<DirectX>,
    folder: PathBuf,
}

impl<'a> Checker<'a> {
    /// `folder` is for the tools' input files.
    pub(crate) fn new(tools: &'a Tools, folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let directx = tools.dxc.as_ref().ok().map(|path| DirectX::load(path)).transpose()?;
        Ok(Self { tools, directx, folder: folder.to_owned() })
    }

    /// Translates a shader to a target and checks the output.
    pub(crate) fn check(&self, target: Target, shader: &Shader<'_>) -> Result<(), String> {
        match target {
            Target::SpirV { vulkan, version, robust } => {
                let program = self.tools.spirv_val.as_ref().map_err(Clone::clone)?;
                let words = writers::spirv(shader, version, robust)?;
                let environment = format!("vulkan{vulkan}");
                let file = self.folder.join("shader.spv");
                program.accepts(
                    &["--target-env", &environment],
                    &file,
                    bytemuck::cast_slice(&words),
                )
            }
            Target::DirectX { model, profile } => {
                let (source, entry_point) = writers::hlsl(shader, model)?;
                let directx = self.directx.as_ref().ok_or("no libdxcompiler")?;
                directx.compile(&source, &entry_point, profile).map(drop)
            }
            Target::Hlsl { model, .. } => {
                let (source, _) = writers::hlsl(shader, model)?;
                match source
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .find(|w| is_unknown_to_fxc(w))
                {
                    Some(word) => Err(format!("{word} in HLSL for FXC")),
                    None => Ok(()),
                }
            }
            Target::Metal { version } => writers::msl(shader, version).map(drop),
            Target::Gles { version } => {
                let program = self.tools.glslang.as_ref().map_err(Clone::clone)?;
                let source = writers::glsl(shader, version)?;
                let file = self.folder.join("shader.comp");
                program.accepts(&["-S", "comp"], &file, source.as_bytes())
            }
        }
    }
}

/// Whether FXC does not support a word of HLSL: a wave operation or a 16-bit type of any size.
fn is_unknown_to_fxc(word: &str) -> bool {
    let sized = |name| {
        let size = word.strip_prefix(name);
        size.is_some_and(|size| size.chars().all(|c| c.is_ascii_digit() || c == 'x'))
    };
    word.starts_with("Wave") || sized("half") || sized("float16_t")
}

#[cfg(test)]
mod tests {
    use super::is_unknown_to_fxc;

    #[test]
    fn words_unknown_to_fxc() {
        for word in ["half", "half4", "half2x2", "float16_t", "float16_t3", "WaveActiveSum"] {
            assert!(is_unknown_to_fxc(word), "{word}");
        }
        for word in ["below_half", "half_", "halfway", "float4", "wave"] {
            assert!(!is_unknown_to_fxc(word), "{word}");
        }
    }
}
