//! Images, as rows of pixels, and labels with noise.

use crate::Error;
use crate::options::{Data, Options};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_wsam_support::digits::data::{Digits, Shuffle};
use std::path::Path;

pub(crate) const CLASSES: usize = 10;

/// Images with labels.
pub(crate) struct Images {
    /// From 0 to 1, image by image.
    pixels: Vec<f32>,
    labels: Vec<u8>,
    /// Pixels of an image.
    pub(crate) size: usize,
}

/// The training and the test set.
pub(crate) struct Sets {
    pub(crate) train: Images,
    pub(crate) test: Images,
}

/// A part of a set, on a device.
pub(crate) struct Batch {
    /// `[images, pixels]`.
    pub(crate) images: Tensor<2>,
    pub(crate) labels: Tensor<1, Int>,
}

pub(crate) fn load(options: &Options) -> Result<Sets, Error> {
    match options.data {
        Data::Digits => {
            let (train, test) = Digits::split();
            Ok(Sets { train: digits_of(&train), test: digits_of(&test) })
        }
        Data::Mnist => Ok(Sets {
            train: mnist(&options.mnist, "train")?,
            test: mnist(&options.mnist, "t10k")?,
        }),
    }
}

fn digits_of(set: &Digits) -> Images {
    let (pixels, labels) = set.values();
    let size = pixels.len() / labels.len();
    Images { pixels, labels, size }
}

/// LeCun's IDX files.
fn mnist(folder: &Path, part: &str) -> Result<Images, Error> {
    let read = |name: String, magic: u32, head: usize| {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).map_err(|error| {
            Error::file(&path, format!("{error} (sh scripts/mnist.sh fetches MNIST)"))
        })?;
        let number = |at: usize| {
            let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
            four.map(u32::from_be_bytes)
        };
        if number(0) != Some(magic) {
            return Err(Error::file(
                &path,
                format!("magic number {:?}, expected {magic}", number(0)),
            ));
        }
        let extents: Vec<_> = (4..head).step_by(4).map(|at| number(at).unwrap_or(0)).collect();
        let want = head + extents.iter().map(|extent| *extent as usize).product::<usize>();
        if bytes.len() != want {
            return Err(Error::file(&path, format!("{} bytes, expected {want}", bytes.len())));
        }
        Ok(bytes[head..].to_vec())
    };
    let pixels = read(format!("{part}-images-idx3-ubyte"), 2051, 16)?;
    let labels = read(format!("{part}-labels-idx1-ubyte"), 2049, 8)?;
    let size = pixels.len() / labels.len().max(1);
    Ok(Images { pixels: pixels.iter().map(|p| f32::from(*p) / 255.0).collect(), labels, size })
}

impl Images {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Labels with symmetric noise: each is replaced by another class with a probability of `percent` %.
    pub(crate) fn noisy(&self, percent: u32, seed: u64) -> Vec<u8> {
        let mut draw = Shuffle::new(0x5eed_0000_0000 + seed);
        let add_noise = |label: &u8| {
            // Draws both numbers for each label, so that higher noise also changes all labels that lower noise changes.
            let (chance, other) = (draw.below(100), draw.below(CLASSES as u64 - 1) as u8 + 1);
            if chance < u64::from(percent) { (label + other) % CLASSES as u8 } else { *label }
        };
        self.labels.iter().map(add_noise).collect()
    }

    /// The true labels.
    pub(crate) fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The images with these indices, with labels from `labels`.
    pub(crate) fn batch(&self, indices: &[usize], labels: &[u8], device: &Device) -> Batch {
        let rows = indices.iter().map(|i| &self.pixels[i * self.size..][..self.size]);
        let pixels: Vec<f32> = rows.flatten().copied().collect();
        let labels: Vec<i32> = indices.iter().map(|i| i32::from(labels[*i])).collect();
        let images = TensorData::new(pixels, [indices.len(), self.size]);
        Batch {
            images: Tensor::from_data(images, device),
            labels: Tensor::from_data(TensorData::new(labels, [indices.len()]), device),
        }
    }
}

/// Draws the order of each epoch. The remaining images, fewer than a batch, are not used.
pub(crate) struct Order(Shuffle);

impl Order {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Shuffle::new(seed))
    }

    pub(crate) fn epoch(&mut self, images: usize, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..images).collect();
        self.0.shuffle(&mut order);
        order.chunks_exact(batch_size).map(<[_]>::to_vec).collect()
    }
}
