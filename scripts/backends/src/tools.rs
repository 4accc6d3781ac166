//! The compilers and validators behind naga, where they are installed.

use hassle_rs::{Dxc, DxcCompiler, DxcLibrary};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that reads a file and exits with 0 if it is right.
pub(crate) struct Program {
    path: PathBuf,
    /// The first line of what it says of itself.
    pub(crate) version: String,
}

impl Program {
    /// Finds a program by name, or says why not.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let output = Command::new(name)
            .arg("--version")
            .output()
            .map_err(|error| format!("no {name}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.lines().next().unwrap_or_default().trim().to_owned();
        Ok(Self { path: name.into(), version })
    }

    /// Runs it over `content`, put into `file`.
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
        let said = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&said).trim().to_owned())
    }
}

/// Microsoft's compiler; one for each thread.
pub(crate) struct DirectX {
    compiler: DxcCompiler,
    library: DxcLibrary,
    // Last, so that it is unloaded after what came from it.
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

    /// Compiles with wgpu's arguments; anything that the compiler says is an error, as in wgpu.
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
        let said = result.get_error_buffer().map_err(text)?;
        let said = self.library.get_blob_as_string(&said.into()).unwrap_or_default();
        // It validates, but cannot sign what it made: that needs Windows' dxil.dll.
        let objections = said.trim_end_matches('\0').lines().filter(|line| {
            !line.trim().is_empty() && !line.contains("DXIL signing library (dxil.dll,libdxil.so)")
        });
        let objections: Vec<_> = objections.collect();
        if code.is_some() || !objections.is_empty() {
            return Err(format!("{code:?} {}", objections.join("\n")));
        }
        let bytes = result.get_result().map_err(text)?.to_vec::<u8>();
        if bytes.starts_with(b"DXBC") { Ok(bytes) } else { Err("no DXIL came out".to_owned()) }
    }

    /// What the compiler writes of itself into what it compiles.
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
        Ok(quoted.ok_or("a compiler that does not say its version")?.to_owned())
    }
}
