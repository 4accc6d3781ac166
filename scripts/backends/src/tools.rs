//! Compilers and validators that read naga's output, if they are installed.

use hassle_rs::{Dxc, DxcCompiler, DxcLibrary};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that reads a file and exits with 0 if the file is valid.
pub(crate) struct Program {
    path: PathBuf,
    /// First line of the output of `--version`.
    pub(crate) version: String,
}

impl Program {
    /// Finds a program by name.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let output = Command::new(name)
            .arg("--version")
            .output()
            .map_err(|error| format!("no {name}: {error}"))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let version = printed.lines().next().unwrap_or_default().trim().to_owned();
        Ok(Self { path: name.into(), version })
    }

    /// Writes `content` to `file` and runs the program on it.
    pub(crate) fn accepts(
        &self,
        arguments: &[&str],
        file: &Path,
        content: &[u8],
    ) -> Result<(), String> {
        std::fs::write(file, content).map_err(|error| error.to_string())?;
        let output = Command::new(&self.path)
            .args(arguments)
            .arg(file)
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let printed = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&printed).trim().to_owned())
    }
}

/// Microsoft's DXC. Each thread has its own.
pub(crate) struct DirectX {
    compiler: DxcCompiler,
    library: DxcLibrary,
    // The last field, so that the library is unloaded after the objects from it.
    _loaded: Dxc,
}

impl DirectX {
    /// Loads libdxcompiler.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let fail = |error| format!("{}: {error}", path.display());
        let loaded = Dxc::new(Some(path.to_owned())).map_err(fail)?;
        let compiler = loaded.create_compiler().map_err(fail)?;
        let library = loaded.create_library().map_err(fail)?;
        Ok(Self { compiler, library, _loaded: loaded })
    }

    /// Compiles with wgpu's arguments. As in wgpu, every message of the compiler is an error.
    pub(crate) fn compile(
        &self,
        source: &str,
        entry_point: &str,
        profile: &str,
    ) -> Result<Vec<u8>, String> {
        let text = |error: hassle_rs::HassleError| error.to_string();
        let blob = self.library.create_blob_with_encoding_from_str(source).map_err(text)?;
        let arguments = ["-HV", "2018", "-no-warnings", "-Ges"];
        let compiled =
            self.compiler.compile(&blob, "", entry_point, profile, &arguments, None, &[]);
        let (result, code) = match compiled {
            Ok(result) => (result, None),
            Err((result, code)) => (result, Some(code)),
        };
        let messages = result.get_error_buffer().map_err(text)?;
        let messages = self.library.get_blob_as_string(&messages.into()).unwrap_or_default();
        // DXC validates the DXIL, but signing it requires Windows' dxil.dll.
        let errors = messages.trim_end_matches('\0').lines().filter(|line| {
            !line.trim().is_empty() && !line.contains("DXIL signing library (dxil.dll,libdxil.so)")
        });
        let errors: Vec<_> = errors.collect();
        if code.is_some() || !errors.is_empty() {
            return Err(format!("{code:?} {}", errors.join("\n")));
        }
        let bytes = result.get_result().map_err(text)?.to_vec::<u8>();
        if bytes.starts_with(b"DXBC") {
            Ok(bytes)
        } else {
            Err("the compiler produced no DXIL".to_owned())
        }
    }

    /// The version that the compiler writes into its output.
    pub(crate) fn version(&self) -> Result<String, String> {
        let text = |error: hassle_rs::HassleError| error.to_string();
        let source = "[numthreads(1, 1, 1)] void main() {}";
        let blob = self.library.create_blob_with_encoding_from_str(source).map_err(text)?;
        let result = self
            .compiler
            .compile(&blob, "", "main", "cs_6_0", &[], None, &[])
            .map_err(|(_, code)| format!("{code:?}"))?;
        let listing = self
            .compiler
            .disassemble(&result.get_result().map_err(text)?)
            .and_then(|listing| self.library.get_blob_as_string(&listing.into()))
            .map_err(text)?;
        let ident = listing.lines().skip_while(|line| !line.starts_with("!llvm.ident"));
        let named = ident.filter(|line| line.contains("!\"")).nth(0);
        let quoted = named.and_then(|line| line.split('"').nth(1));
        Ok(quoted.ok_or("the compiler's output has no version")?.to_owned())
    }
}
