//! Burn data loaders of the digits.

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_wsam_support::digits::data::{Batch, Digits, batch};
use std::sync::Arc;

/// Makes batches from indices of images.
struct Images;

impl Batcher<usize, Batch> for Images {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        batch(&items, device)
    }
}

type Loader = Arc<dyn DataLoader<Batch>>;

/// Loaders for training, shuffled in each epoch, and for validation.
pub(crate) fn loaders(batch_size: usize) -> (Loader, Loader) {
    let (train, valid) = Digits::split();
    let builder = || DataLoaderBuilder::new(Images).batch_size(batch_size);
    let train = builder().shuffle(1).build(InMemDataset::new(train.indices));
    (train, builder().build(InMemDataset::new(valid.indices)))
}
