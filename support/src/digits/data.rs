//! The UCI handwritten digits: 1,797 images of 8x8 pixels, split and shuffled the same way on
//! every machine.
//!
//! "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine
//! Learning Repository, CC BY 4.0: its test part, as shipped in scikit-learn, stored as bytes.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Rows of 64 pixels (row major, 0 to 16) and the label.
static ROWS: &[u8] = include_bytes!("../../../examples/data/digits.u8");

const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
const ROW: usize = PIXELS + 1;
const BRIGHTEST: f32 = 16.0;

const _: () = assert!(ROWS.len() == 1797 * ROW, "digits.u8 is not 1,797 rows of 65 bytes");

/// Images held out for the test, of 1,797.
const TEST_IMAGES: usize = 360;

/// Selects the held-out images. It is independent of `--seed`, so that all runs share one test set.
const SPLIT_SEED: u64 = 1998;

/// Images with their labels, on a device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[images, 1, 8, 8]`, from 0 to 1.
    pub images: Tensor<4>,
    pub labels: Tensor<1, Int>,
}

/// Indices of some images.
pub struct Digits {
    pub indices: Vec<usize>,
}

impl Digits {
    /// The training and the test set.
    pub fn split() -> (Self, Self) {
        let mut train: Vec<usize> = (0..ROWS.len() / ROW).collect();
        Shuffle::new(SPLIT_SEED).shuffle(&mut train);
        let test = train.split_off(train.len() - TEST_IMAGES);
        (Self { indices: train }, Self { indices: test })
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.indices.len()
    }

    /// Pixels from 0 to 1, image by image, and labels.
    pub fn values(&self) -> (Vec<f32>, Vec<u8>) {
        values(&self.indices)
    }

    /// All images at once.
    pub fn all(&self, device: &Device) -> Batch {
        batch(&self.indices, device)
    }

    /// One epoch of full batches in a new order. The remaining images, fewer than a batch, are not
    /// used in this epoch.
    pub fn epoch(
        &self,
        batch_size: usize,
        shuffle: &mut Shuffle,
        device: &Device,
    ) -> impl Iterator<Item = Batch> {
        let mut order = self.indices.clone();
        shuffle.shuffle(&mut order);
        let batches: Vec<_> = order.chunks_exact(batch_size).map(<[_]>::to_vec).collect();
        batches.into_iter().map(move |indices| batch(&indices, device))
    }
}

/// Pixels from 0 to 1, image by image, and labels.
fn values(indices: &[usize]) -> (Vec<f32>, Vec<u8>) {
    let rows = || indices.iter().map(|index| &ROWS[index * ROW..][..ROW]);
    let pixels = rows().flat_map(|row| &row[..PIXELS]);
    let labels = rows().map(|row| row[PIXELS]);
    (pixels.map(|pixel| f32::from(*pixel) / BRIGHTEST).collect(), labels.collect())
}

/// The images with these indices.
pub fn batch(indices: &[usize], device: &Device) -> Batch {
    let (pixels, labels) = values(indices);
    let labels: Vec<i32> = labels.into_iter().map(i32::from).collect();
    let images = TensorData::new(pixels, [indices.len(), 1, SIDE, SIDE]);
    Batch {
        images: Tensor::from_data(images, device),
        labels: Tensor::from_data(TensorData::new(labels, [indices.len()]), device),
    }
}

/// A SplitMix64 generator, so that the order does not depend on a library's version.
pub struct Shuffle {
    state: u64,
}

impl Shuffle {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`. The bias of the remainder is about `end` in 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn shuffle(&mut self, indices: &mut [usize]) {
        for last in (1..indices.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            indices.swap(last, other);
        }
    }
}
