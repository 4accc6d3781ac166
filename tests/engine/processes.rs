//! The same steps give the same bits in every process.

use super::*;
use burn_wsam_support::engine_route::engine;
use burn_wsam_support::gpu::adapters;
use burn_wsam_support::lean_route::LeanRoute;
use std::process::Command;

/// Environment variable that makes this program print hashes and exit.
const CHILD: &str = "WSAM_PRINT_BITS";

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// One line for each adapter and variant, with a hash of the bits of some steps.
fn hashes() -> Result<Vec<String>, String> {
    let lens = [70_001, 259, 4096, 1];
    let clip = burn_wsam::method::Clip { max_norm: 0.5, scope: Default::default() };
    let mut lines = Vec::new();
    for gpu in adapters() {
        let engine = engine(&gpu)?;
        for (variant, hyper) in [
            ("clipped momentum", Hyperparameters { clip: Some(clip), ..sgd_momentum() }),
            ("AMSGrad, adaptive, coupled", amsgrad()),
        ] {
            let weight = model(1, &lens);
            let mut routes: Vec<Box<dyn Route>> = vec![Box::new(EngineRoute::new(
                &engine,
                hyper.clone(),
                Placement::OutOfPlace,
                &weight,
            ))];
            if hyper.coupling == Coupling::Decoupled {
                routes.push(Box::new(LeanRoute::new(&engine, hyper, 0.01, &weight)));
            }
            for (mode, mut route) in ["ordinary", "lean"].into_iter().zip(routes) {
                let mut hash = 0xcbf2_9ce4_8422_2325_u64;
                for step in 0..3 {
                    route.ascend(&model(100 + step, &lens))?;
                    let after = route.descend(0.01, &model(200 + step, &lens))?;
                    for bits in after.iter().flatten().map(|x| x.to_bits()) {
                        // FNV-1a over 64-bit words.
                        hash = (hash ^ bits).wrapping_mul(0x0100_0000_01b3);
                    }
                }
                lines.push(format!("bits [{}] {variant}, {mode}: {hash:016x}", gpu.name));
            }
        }
    }
    Ok(lines)
}

pub(crate) fn print() {
    match hashes() {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(error) => println!("failed: {error}"),
    }
}

/// Compares the output of two child processes.
pub(crate) fn trial() -> libtest_mimic::Trial {
    let run = || -> Result<(), libtest_mimic::Failed> {
        let child = || -> Result<Vec<String>, String> {
            let program = std::env::current_exe().map_err(|error| error.to_string())?;
            let output = Command::new(program).env(CHILD, "1").output();
            let output = output.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let lines: Vec<_> =
                text.lines().filter(|line| line.starts_with("bits")).map(str::to_owned).collect();
            let adapters = adapters().len();
            if adapters == 0 || lines.len() != 3 * adapters {
                return Err(format!("{} lines for {adapters} adapters: {text}", lines.len()));
            }
            Ok(lines)
        };
        let (one, other) = (child()?, child()?);
        if one == other { Ok(()) } else { Err(format!("{one:#?} and {other:#?}").into()) }
    };
    let ignored = adapters().is_empty() && std::env::var_os("CI").is_none();
    libtest_mimic::Trial::test("the same bits in every process", run).with_ignored_flag(ignored)
}
