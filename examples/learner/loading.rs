//! The digits as Burn's loaders want them.

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_wsam_support::digits::data::{Batch, Digits, batch};
use std::sync::Arc;

/// An image is its index.
struct Images;

impl Batcher<usize, Batch> for Images {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        batch(&items, device)
    }
}

type Loader = Arc<dyn DataLoader<Batch>>;

/// For training, in a new order each epoch, and for validation.
pub(crate) fn loaders(batch_size: usize) -> (Loader, Loader) {
    let (train, valid) = Digits::split();
    let builder = || DataLoaderBuilder::new(Images).batch_size(batch_size);
    let train = builder().shuffle(1).build(InMemDataset::new(train.indices));
    (train, builder().build(InMemDataset::new(valid.indices)))
}
