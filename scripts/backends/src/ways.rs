//! The ways a shader goes before a driver sees it.

use crate::tools::{DirectX, Program};
use crate::writers::{self, Shader};
use naga::back::hlsl::ShaderModel;
use std::path::{Path, PathBuf};

/// What a way comes to for a shader that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// A compiler made machine code or bytecode.
    Compiled,
    /// A validator or a front end read it.
    Validated,
    /// naga wrote it; nothing here reads it.
    Generated,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    SpirV { vulkan: &'static str, version: (u8, u8), robust: bool },
    DirectX { model: ShaderModel, profile: &'static str },
    Hlsl { model: ShaderModel, name: &'static str },
    Metal { version: (u8, u8) },
    Gles { version: u16 },
}

impl Way {
    pub(crate) const ALL: [Way; 12] = [
        Way::SpirV { vulkan: "1.1", version: (1, 3), robust: false },
        Way::SpirV { vulkan: "1.1", version: (1, 3), robust: true },
        Way::SpirV { vulkan: "1.3", version: (1, 6), robust: false },
        Way::SpirV { vulkan: "1.3", version: (1, 6), robust: true },
        Way::DirectX { model: ShaderModel::V6_0, profile: "cs_6_0" },
        Way::DirectX { model: ShaderModel::V6_6, profile: "cs_6_6" },
        Way::Hlsl { model: ShaderModel::V5_0, name: "5.0" },
        Way::Hlsl { model: ShaderModel::V5_1, name: "5.1" },
        Way::Metal { version: (2, 4) },
        Way::Metal { version: (3, 1) },
        Way::Gles { version: 310 },
        Way::Gles { version: 320 },
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Way::SpirV { vulkan, version: (major, minor), robust } => {
                let bounds = if robust { "the device's" } else { "the shader's" };
                format!("Vulkan {vulkan}: SPIR-V {major}.{minor}, bounds checks {bounds}")
            }
            Way::DirectX { profile, .. } => format!("DX12: HLSL, DXC {profile}"),
            Way::Hlsl { name, .. } => format!("DX12: HLSL for FXC, shader model {name}"),
            Way::Metal { version: (major, minor) } => format!("Metal: MSL {major}.{minor}"),
            Way::Gles { version } => format!("GL: GLSL ES {}.{}", version / 100, version / 10 % 10),
        }
    }

    pub(crate) fn status(self) -> Status {
        match self {
            Way::DirectX { .. } => Status::Compiled,
            Way::SpirV { .. } | Way::Gles { .. } => Status::Validated,
            Way::Hlsl { .. } | Way::Metal { .. } => Status::Generated,
        }
    }
}

/// What stands behind naga's writers on this machine; in place of each that is missing, the reason.
pub(crate) struct Tools {
    pub(crate) spirv_val: Result<Program, String>,
    pub(crate) glslang: Result<Program, String>,
    /// Where libdxcompiler is.
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

    /// What reads the output of a way, with its version; why it is absent.
    pub(crate) fn reader(&self, way: Way) -> Result<String, String> {
        let version = |program: &Result<Program, String>| match program {
            Ok(program) => Ok(program.version.clone()),
            Err(reason) => Err(reason.clone()),
        };
        match way {
            Way::SpirV { .. } => Ok(format!("spirv-val, {}", version(&self.spirv_val)?)),
            Way::Gles { .. } => Ok(format!("glslangValidator, {}", version(&self.glslang)?)),
            Way::DirectX { .. } => match &self.dxc {
                Ok(_) => Ok(self.dxc_version.clone()),
                Err(reason) => Err(reason.clone()),
            },
            Way::Hlsl { .. } => Ok("nothing: FXC is Windows' own".to_owned()),
            Way::Metal { .. } => Ok("nothing: Metal's compiler is Apple's own".to_owned()),
        }
    }
}

/// One thread's share of the tools.
pub(crate) struct Bench<'a> {
    tools: &'a Tools,
    directx: Option<DirectX>,
    folder: PathBuf,
}

impl<'a> Bench<'a> {
    /// `folder` is for the files that programs read.
    pub(crate) fn new(tools: &'a Tools, folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let directx = tools.dxc.as_ref().ok().map(|path| DirectX::load(path)).transpose()?;
        Ok(Self { tools, directx, folder: folder.to_owned() })
    }

    /// Takes a shader one way, to its end.
    pub(crate) fn take(&self, way: Way, shader: &Shader<'_>) -> Result<(), String> {
        match way {
            Way::SpirV { vulkan, version, robust } => {
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
            Way::DirectX { model, profile } => {
                let (source, entry_point) = writers::hlsl(shader, model)?;
                let directx = self.directx.as_ref().ok_or("no libdxcompiler")?;
                directx.compile(&source, &entry_point, profile).map(drop)
            }
            Way::Hlsl { model, .. } => {
                let (source, _) = writers::hlsl(shader, model)?;
                match source
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .find(|w| beyond_fxc(w))
                {
                    Some(word) => Err(format!("{word} in HLSL for FXC")),
                    None => Ok(()),
                }
            }
            Way::Metal { version } => writers::msl(shader, version).map(drop),
            Way::Gles { version } => {
                let program = self.tools.glslang.as_ref().map_err(Clone::clone)?;
                let source = writers::glsl(shader, version)?;
                let file = self.folder.join("shader.comp");
                program.accepts(&["-S", "comp"], &file, source.as_bytes())
            }
        }
    }
}

/// Whether a word of HLSL is one that FXC does not have: a wave operation or a 16-bit type, of any size.
fn beyond_fxc(word: &str) -> bool {
    let sized = |name| {
        let size = word.strip_prefix(name);
        size.is_some_and(|size| size.chars().all(|c| c.is_ascii_digit() || c == 'x'))
    };
    word.starts_with("Wave") || sized("half") || sized("float16_t")
}

#[cfg(test)]
mod tests {
    use super::beyond_fxc;

    #[test]
    fn words_beyond_fxc() {
        for word in ["half", "half4", "half2x2", "float16_t", "float16_t3", "WaveActiveSum"] {
            assert!(beyond_fxc(word), "{word}");
        }
        for word in ["below_half", "half_", "halfway", "float4", "wave"] {
            assert!(!beyond_fxc(word), "{word}");
        }
    }
}
