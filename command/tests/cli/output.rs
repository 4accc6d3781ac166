//! Output that cannot be written, measurements that fail, and parameters from pipes.

use super::measurements::{row, small};
use super::{finished, folder, name, text, wsam};
use assert_cmd::Command;
use burn_wsam_support::gpu::Gpu;
use serde_json::Value;
use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::process::{Command as Process, Output, Stdio};

#[cfg(unix)]
fn process(arguments: &[&str]) -> Process {
    let mut process = Process::new(assert_cmd::cargo::cargo_bin!("wsam"));
    process.args(arguments).stdin(Stdio::null());
    process
}

/// Lines that the command wrote to standard error, without those of drivers.
#[cfg(unix)]
fn error_lines(stderr: Vec<u8>) -> Vec<String> {
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr.lines().filter(|line| !line.contains("XDG_RUNTIME_DIR")).map(str::to_owned).collect()
}

/// The writing end of a pipe whose reading end is closed.
#[cfg(unix)]
fn closed_writer() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

#[cfg(unix)]
fn exits_by_closed_pipe(arguments: &[&str]) {
    let Output { status, stderr, .. } =
        process(arguments).stdout(closed_writer()).output().unwrap();
    let lines = error_lines(stderr);
    assert_eq!(status.code(), Some(141), "{arguments:?}: {lines:?}");
    assert!(lines.is_empty(), "{arguments:?}: {lines:?}");
}

/// Commands that print and need no adapter.
#[cfg(unix)]
const PRINTING: &[&[&str]] =
    &[&["--help"], &["bench", "--help"], &["help", "toy"], &["--version"], &["toy"], &["adapters"]];

#[cfg(unix)]
pub(crate) fn closed_pipe() {
    for arguments in PRINTING {
        if *arguments != ["adapters"] {
            exits_by_closed_pipe(arguments);
        }
    }
    // `adapters` prints a list in JSON even without adapters.
    let list = process(&["adapters", "--json"]).stdout(closed_writer()).output().unwrap();
    assert_eq!(list.status.code(), Some(141));
}

/// With a closed standard error, messages are lost and the exit code is kept.
#[cfg(unix)]
pub(crate) fn closed_stderr() {
    let code = |arguments: &[&str], stdout| {
        let mut process = process(arguments);
        process.stderr(closed_writer()).stdout(stdout).status().unwrap().code()
    };
    let picture = folder("closed-stderr").join("toy.svg");
    assert_eq!(code(&["toy", "--plot", text(&picture)], Stdio::null()), Some(0));
    assert!(picture.exists());
    assert_eq!(code(&["toy", "--plot", "toy.jpg"], Stdio::null()), Some(2));
    assert_eq!(code(&["plot", "/nonexistent", "--out", text(&picture)], Stdio::null()), Some(1));
    assert_eq!(code(&["toy"], closed_writer()), Some(141));
}

#[cfg(target_os = "linux")]
fn full_device() -> fs::File {
    fs::File::options().write(true).open("/dev/full").unwrap()
}

#[cfg(target_os = "linux")]
fn exits_by_full_disk(arguments: &[&str]) {
    let Output { status, stderr, .. } = process(arguments).stdout(full_device()).output().unwrap();
    let lines = error_lines(stderr);
    assert_eq!(status.code(), Some(4), "{arguments:?}: {lines:?}");
    let one = lines.len() == 1 && lines[0].starts_with("wsam: standard output: ");
    assert!(one, "{arguments:?}: {lines:?}");
}

#[cfg(target_os = "linux")]
pub(crate) fn full_disk() {
    for arguments in PRINTING {
        if *arguments != ["adapters"] {
            exits_by_full_disk(arguments);
        }
    }
    let list = process(&["adapters", "--json"]).stdout(full_device()).output().unwrap();
    assert_eq!(list.status.code(), Some(4));
    // Standard error is full as well.
    let silent = process(&["toy"]).stdout(full_device()).stderr(full_device()).status().unwrap();
    assert_eq!(silent.code(), Some(4));
    // A picture's file is full.
    let folder = folder("full-disk");
    for ending in ["svg", "png"] {
        let picture = folder.join("full").with_extension(ending);
        std::os::unix::fs::symlink("/dev/full", &picture).unwrap();
        wsam(&["toy", "--plot", text(&picture)]).fails(4, text(&picture));
    }
}

#[cfg(unix)]
pub(crate) fn output_of_measurements(gpu: &Gpu) -> Result<(), String> {
    let folder = folder("closed");
    let (sizes, name) = (small(&folder), name(gpu));
    let picture = folder.join("bars.svg");
    let adapter = ["--adapter", &name];
    let moment = [&adapter as &[&str], &["--seconds", "0.01"]].concat();
    let bench = [&["bench", "--params", text(&sizes)], &moment as &[&str]].concat();
    let commands = [
        [&["check"], &adapter as &[&str]].concat(),
        [&["toy"], &adapter as &[&str]].concat(),
        [&bench as &[&str], &["--json"]].concat(),
        [&["tune", "--params", text(&sizes), "--workgroup", "64"], &moment as &[&str]].concat(),
        [&["scaling", "--max-params", "1"], &moment as &[&str]].concat(),
        vec!["adapters"],
    ];
    for arguments in &commands {
        exits_by_closed_pipe(arguments);
        #[cfg(target_os = "linux")]
        exits_by_full_disk(arguments);
    }
    // The picture is written although standard output is closed.
    let arguments = [&bench as &[&str], &["--plot", text(&picture)]].concat();
    let ran = process(&arguments).stdout(closed_writer()).output().unwrap();
    assert_eq!(ran.status.code(), Some(141));
    assert!(fs::read_to_string(&picture).unwrap().contains("small: "));
    Ok(())
}

/// The small set's rows are printed and drawn, although the sets before and after it fail.
pub(crate) fn bench_keeps_results(gpu: &Gpu) -> Result<(), String> {
    let folder = folder("kept");
    let (sizes, name, picture) = (small(&folder), name(gpu), folder.join("bars.svg"));
    let [first, last] = ["first.txt", "last.txt"].map(|file| folder.join(file));
    let len = gpu.adapter.limits().max_buffer_size / 4 + 1;
    for file in [&first, &last] {
        fs::write(file, format!("{len}\n")).unwrap();
    }
    let sets = [&first, &sizes, &last].map(|file| text(file)).join(",");
    let mut arguments = vec!["bench", "--adapter", &name, "--params", &sets, "--seconds", "0.01"];
    let table = wsam(&arguments);
    assert!(table.out.contains("| small | copy |"), "{}", table.out);
    arguments.extend(["--json", "--plot", text(&picture)]);
    let ran = wsam(&arguments);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    row(&json[0], "step, SGD + momentum");
    row(&json[0], "copy");
    for set in ["first", "last"] {
        let line = ran.err.lines().find(|line| line.starts_with(&format!("wsam: {set}: ")));
        assert!(line.is_some_and(|line| line.contains("more than the largest buffer")));
    }
    assert!(fs::read_to_string(&picture).unwrap().contains("small: "));
    ran.fails(1, "last");
    Ok(())
}

/// The valid tuning's row is printed, although the tunings before and after it are refused.
pub(crate) fn tune_keeps_results(gpu: &Gpu) -> Result<(), String> {
    let (sizes, name) = (small(&folder("tuned")), name(gpu));
    let tune = ["tune", "--adapter", &name, "--params", text(&sizes), "--seconds", "0.01"];
    let tunings = ["--workgroup", "7,64,9", "--chunk-len", "4096"];
    let ran = wsam(&[&tune as &[&str], &tunings].concat());
    assert!(ran.out.contains("workgroups of 64, chunks of 4096"), "{}", ran.out);
    assert!(ran.out.contains("fastest with Tuning { workgroup: 64"), "{}", ran.out);
    for workgroup in [7, 9] {
        let what = format!("workgroups of {workgroup}, chunks of 4096: ");
        assert!(ran.err.contains(&what), "no {what:?} in {}", ran.err);
    }
    ran.fails(1, "workgroup");
    Ok(())
}

/// The command's sources use no `println!`, which panics on a closed pipe.
pub(crate) fn one_writer() {
    fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    assert!(found.len() > 15);
    for path in found {
        for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for printing in ["print!(", "println!(", ".println("] {
                assert!(!code.contains(printing), "{}, line {}: {line}", path.display(), i + 1);
            }
        }
    }
}

/// The help lists every exit code that these tests check.
pub(crate) fn help_lists_exit_codes() {
    let help = wsam(&["--help"]).ok();
    for code in ["  0 ", "  1 ", "  2 ", "  3 ", "  4 ", "  141 "] {
        assert!(help.lines().any(|line| line.starts_with(code)), "no {code:?} in\n{help}");
    }
}

/// Parameters from pipes, with byte order marks and line endings as editors write them. The error names the line, which
/// shows that the lines before it were parsed.
#[cfg(unix)]
pub(crate) fn params_from_pipes() {
    let from = |input: &str, content: &[u8]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
        finished(command.args(["bench", "--params", input]).write_stdin(content))
    };
    from("/dev/stdin", b"64x3\n3y4\n").fails(1, "line 2: \"3y4\" is not a tensor shape");
    from("/dev/fd/0", b"64x3\r\n3y4\r\n").fails(1, "line 2: \"3y4\" is not a tensor shape");
    from("/dev/stdin", b"\xef\xbb\xbf64x3\r\n\r\n3y4")
        .fails(1, "line 3: \"3y4\" is not a tensor shape");
    from("/dev/stdin", b"\xef\xbb\xbf").fails(1, "no tensor shape found");
    from("/dev/stdin", b"").fails(1, "/dev/stdin: no tensor shape found");
    from("/dev/stdin", b"\xff\xfe1\x000\x00").fails(1, "/dev/stdin: ");
    from("/dev/zero", b"").fails(1, "/dev/zero: more than");

    let folder = folder("pipes");
    from(text(&folder), b"").fails(2, "a folder, not a file");
    let fifo = folder.join("fifo");
    assert!(Process::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::thread::scope(|threads| {
        threads.spawn(|| fs::write(&fifo, "\u{feff}10\n3y4\n").unwrap());
        from(text(&fifo), b"").fails(1, "line 2: \"3y4\" is not a tensor shape");
    });
    // A process substitution, if bash is installed.
    if Process::new("bash").arg("--version").output().is_ok() {
        let script = "\"$0\" bench --params <(printf '10\\n3y4\\n')";
        let mut bash = Command::new("bash");
        let bash = bash.args(["-c", script]).arg(assert_cmd::cargo::cargo_bin!("wsam"));
        finished(bash).fails(1, "line 2: \"3y4\" is not a tensor shape");
    }
}

/// The set from standard input is measured.
#[cfg(unix)]
pub(crate) fn bench_from_stdin(gpu: &Gpu) -> Result<(), String> {
    let name = name(gpu);
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
    command.args(["bench", "--adapter", &name, "--params", "/dev/stdin", "--json"]);
    let piped = command.args(["--seconds", "0.01"]).write_stdin("\u{feff}64x3x7x7\r\n64\r\n");
    let json: Value = serde_json::from_str(&finished(piped).ok()).unwrap();
    let step = row(&json[0], "step, SGD + momentum");
    assert_eq!(step["set"], "stdin");
    assert_eq!(step["counts"]["parameters"], 64 * 3 * 49 + 64);
    assert_eq!(step["counts"]["tensors"], 2);
    Ok(())
}
