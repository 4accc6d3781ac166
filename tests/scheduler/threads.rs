//! Models in use by other threads while they are stepped.

use super::nets::*;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use std::sync::Mutex;

/// A validation thread gets a clone, computes on it lazily and drops it without waiting, while training continues.
/// Its results are those of the weights that it received.
pub(crate) fn validation(device: &Device) -> Result<(), String> {
    let mut optim = init(&adamw(), device)?;
    let mut model = Deep::new(8, 16, device);
    let mut pending = Vec::new();
    for count in 0..8 {
        model = step(&mut optim, model, count)?;
        let bits = |largest: Tensor<1>| -> Vec<u32> {
            largest.into_data().iter::<f32>().map(f32::to_bits).collect()
        };
        let want = bits(model.valid().largest());
        let clone = model.valid();
        let thread = std::thread::spawn(move || {
            // A validation pass, and a result that every evaluation gives bit for bit.
            let (loss, largest) = (clone.loss(99), clone.largest());
            drop(clone);
            // Training continues before the results are read.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let _ = loss.into_scalar::<f32>();
            bits(largest)
        });
        pending.push((want, thread));
    }
    for (count, (want, thread)) in pending.into_iter().enumerate() {
        let got = thread.join().map_err(|_| "the validation thread panicked".to_owned())?;
        if got != want {
            return Err(format!("validation after step {count} gave {got:x?}, expected {want:x?}"));
        }
    }
    Ok(())
}

/// Two threads train two models on one device, and each model equals one trained alone.
pub(crate) fn side_by_side(device: &Device) -> Result<(), String> {
    use super::nets::exact::step;
    // Both threads draw parameters from the device's random number generator, one after the other.
    let generator = Mutex::new(());
    let train = |seed: u64| -> Result<Vec<Vec<u32>>, String> {
        let mut optim = init(&adamw(), device)?;
        let mut model = {
            let _guard = generator.lock().map_err(|_| "the other thread panicked")?;
            Deep::new(5, 8, device)
        };
        for count in 0..6 {
            model = step(&mut optim, model, seed + count)?;
        }
        Ok(parameters(&model))
    };
    let alone = [train(10)?, train(20)?];
    let together = std::thread::scope(|scope| {
        let train = &train;
        let threads = [10, 20].map(|seed| scope.spawn(move || train(seed)));
        threads.map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    });
    for (want, got) in alone.iter().zip(together) {
        if *want != got? {
            return Err("a model differs from the one trained alone".to_owned());
        }
    }
    Ok(())
}
