//! Parameters of a step, concatenated into fewer and longer tensors.
//!
//! On a device that launches kernels, each operation on a tensor costs a launch, and Burn's fusion searches
//! through pending operations for what it can run as one kernel. So parameters with the same settings are
//! concatenated once, and a step is a fixed number of operations on the result, whatever the number of
//! parameters. Elsewhere each parameter is a batch of its own, and nothing is copied.

use crate::optim::param_entries::ParamEntry;
use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor};

/// Parameters with more elements are not concatenated: copying them costs more than a few launches, and memory.
const LARGEST_MEMBER: usize = 1 << 20;

/// Largest number of elements of a concatenation. 64 MiB of `f32`; a WebGPU binding may be limited to 128 MiB.
const LARGEST_BATCH: usize = 1 << 24;

/// A concatenation is padded with zeros to a multiple of this length, so that reductions can run in two stages:
/// over rows of this length, and over the results.
pub(super) const ROW: usize = 1024;

/// Slices that start at multiples of this many elements share the memory of the concatenation in CubeCL, whose
/// bindings start at multiples of 256 bytes or less. Other slices are copied.
const ALIGNED: usize = 64;

/// Parameters with at most this many elements are concatenated with each other first.
const SMALL: usize = 1 << 12;

/// Tensors in one concatenation of small ones. Burn's fusion makes a kernel that selects among all of them for
/// each element, if the device has enough bindings.
const TENSORS_AT_ONCE: usize = 16;

/// Whether operations on `device` launch kernels, so that concatenating tensors pays: devices of CubeCL (CUDA,
/// ROCm, Metal, Vulkan, WebGPU), with or without fusion. They report the memory pools that their kernels work
/// on; flex and ndarray, which compute on the calling thread, have none.
pub(super) fn launches_kernels(device: &Device) -> bool {
    device.memory_pool_usage().is_some()
}

/// A parameter in a batch.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Index among the parameters of the step.
    place: usize,
    id: ParamId,
    len: usize,
}

/// The parameters of a batch, in the order of their concatenation.
#[derive(Clone, Debug)]
pub(super) struct Members(Vec<Member>);

impl Members {
    /// A parameter alone, outside of a step.
    pub(super) fn one(id: ParamId, len: usize) -> Self {
        Self(vec![Member { place: 0, id, len }])
    }

    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = ParamId> + '_ {
        self.0.iter().map(|member| member.id)
    }

    pub(super) fn places(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.0.iter().map(|member| member.place)
    }

    /// The rate of a batch that has one rate.
    pub(super) fn rate(&self, rates: &[f64]) -> f64 {
        self.places().next().map_or(0.0, |place| rates[place])
    }

    /// The rate that all parameters have.
    pub(super) fn one_rate(&self, rates: &[f64]) -> Option<f64> {
        let rate = self.rate(rates);
        self.places().all(|place| rates[place] == rate).then_some(rate)
    }

    /// Id, start and length of each parameter in the concatenation.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (ParamId, usize, usize)> + '_ {
        self.0.iter().scan(0, |end, member| {
            let start = *end;
            *end += member.len;
            Some((member.id, start, member.len))
        })
    }

    /// Concatenates one tensor of each parameter, in their order.
    pub(super) fn join(&self, tensors: Vec<Tensor<1>>) -> Tensor<1> {
        let lens: Vec<usize> = tensors.iter().map(|tensor| tensor.dims()[0]).collect();
        let len: usize = lens.iter().sum();
        let (device, dtype) = match tensors.as_slice() {
            [tensor] => return tensor.clone(),
            [] => return Tensor::zeros([0], &Default::default()),
            [first, ..] => (first.device(), first.dtype()),
        };
        let zeros = |len: usize| Tensor::zeros([len], (&device, dtype));
        let padding = len.next_multiple_of(ROW) - len;
        if lens.iter().all(|len| *len <= SMALL) {
            let padding = (padding > 0).then(|| zeros(padding));
            return cat(tensors.into_iter().chain(padding).collect());
        }
        // Larger ones are written into their places one by one. Small ones follow each other.
        let mut parts: Vec<Tensor<1>> = Vec::new();
        let mut small = Vec::new();
        for tensor in tensors {
            if tensor.dims()[0] <= SMALL {
                small.push(tensor);
                continue;
            }
            parts.extend((!small.is_empty()).then(|| cat(std::mem::take(&mut small))));
            parts.push(tensor);
        }
        parts.extend((!small.is_empty()).then(|| cat(small)));
        let write = |(joined, start): (Tensor<1>, usize), part: Tensor<1>| {
            let end = start + part.dims()[0];
            (joined.slice_assign(start..end, part), end)
        };
        parts.into_iter().fold((zeros(len + padding), 0), write).0
    }

    /// Concatenates the tensors of these parameters, among those of all parameters of the step. Takes them.
    pub(super) fn join_of(&self, tensors: &mut [Option<Tensor<1>>]) -> Tensor<1> {
        self.join(self.places().filter_map(|place| tensors[place].take()).collect())
    }

    /// Cuts a concatenation into the tensors of the parameters.
    pub(super) fn split(&self, joined: Tensor<1>) -> Vec<Tensor<1>> {
        if self.0.len() == 1 {
            return vec![joined];
        }
        let slice = |(_, start, len)| joined.clone().slice(start..start + len);
        self.ranges().map(slice).collect()
    }
}

/// Parameters that a step handles as one.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) members: Members,
    /// The concatenations, with the group and the type of all members. The id is that of the first one.
    pub(super) entry: ParamEntry<Tensor<1>>,
    /// Whether reductions run over rows of length [`ROW`] first.
    pub(super) by_rows: bool,
}

type Placed = (usize, ParamEntry<Tensor<1>>);

impl Batch {
    /// `placed` has at least one entry.
    fn new(mut placed: Vec<Placed>, by_rows: bool) -> Option<Self> {
        // Aligned members first, so that one odd length does not misalign the others, and small ones together.
        placed.sort_by_key(|(_, entry)| match (entry.len % ALIGNED != 0, entry.len <= SMALL) {
            (false, false) => 0,
            (false, true) => 1,
            (true, true) => 2,
            (true, false) => 3,
        });
        let member =
            |(place, entry): &Placed| Member { place: *place, id: entry.id, len: entry.len };
        let members = Members(placed.iter().map(member).collect());
        let (_, first) = placed.first()?;
        let (id, group, dtype) = (first.id, first.group, first.dtype);
        let (weights, grads) =
            placed.into_iter().map(|(_, entry)| (entry.weight, entry.grad)).unzip();
        let (weight, grad) = (members.join(weights), members.join(grads));
        let len = weight.dims()[0];
        let by_rows = by_rows && len > ROW && len % ROW == 0;
        let entry = ParamEntry { id, path: String::new(), group, len, dtype, weight, grad };
        Some(Self { members, entry, by_rows })
    }

    fn into_placed(self) -> Vec<Placed> {
        let ParamEntry { group, dtype, weight, grad, .. } = self.entry;
        let tensors = self.members.split(weight).into_iter().zip(self.members.split(grad));
        let entry = |(member, (weight, grad)): (&Member, _)| {
            let Member { place, id, len } = *member;
            (place, ParamEntry { id, path: String::new(), group, len, dtype, weight, grad })
        };
        self.members.0.iter().zip(tensors).map(entry).collect()
    }

    /// Removes the parameters at `places`, which must be sorted, and numbers the others again. Returns `None` if
    /// no parameter is left.
    pub(super) fn without(mut self, places: &[usize]) -> Option<Self> {
        let removed = |place: &usize| places.binary_search(place).is_ok();
        if self.members.places().any(|place| removed(&place)) {
            let by_rows = self.by_rows;
            let kept = self.into_placed().into_iter().filter(|(place, _)| !removed(place));
            self = Self::new(kept.collect(), by_rows)?;
        }
        for member in &mut self.members.0 {
            member.place -= places.partition_point(|place| *place < member.place);
        }
        Some(self)
    }

    /// The gradient of the parameter at `place`.
    pub(super) fn gradient_of(&self, place: usize) -> Option<Tensor<1>> {
        let mut ranges = self.members.places().zip(self.members.ranges());
        let (_, (_, start, len)) = ranges.find(|(other, _)| *other == place)?;
        let grad = self.entry.grad.clone();
        Some(if self.members.0.len() == 1 { grad } else { grad.slice(start..start + len) })
    }
}

/// What parameters of one batch have in common: group, type, step count, whether they have master weights and a state
/// of the method, and the rate of the step, if it is known.
pub(super) type Key = (usize, DType, u64, [bool; 2], Option<u64>);

/// Makes batches of parameters with the same key, or of one parameter each unless `joins`.
pub(super) fn batches(
    entries: Vec<ParamEntry<Tensor<1>>>,
    joins: bool,
    key: impl Fn(usize, &ParamEntry<Tensor<1>>) -> Key,
) -> Vec<Batch> {
    grouped(entries.into_iter().enumerate().collect(), joins, key)
}

/// Splits batches in which the keys of the parameters differ.
pub(super) fn regrouped(
    old: Vec<Batch>,
    joins: bool,
    key: impl Fn(usize, ParamId) -> (u64, u64),
) -> Vec<Batch> {
    let mut new = Vec::with_capacity(old.len());
    for batch in old {
        let mut keys = batch.members.0.iter().map(|member| key(member.place, member.id));
        let first = keys.next();
        if keys.all(|key| Some(key) == first) {
            new.push(batch);
            continue;
        }
        let of = |place: usize, entry: &ParamEntry<Tensor<1>>| {
            let (step, rate) = key(place, entry.id);
            (entry.group, entry.dtype, step, [false; 2], Some(rate))
        };
        new.extend(grouped(batch.into_placed(), joins, of));
    }
    new
}

fn grouped(
    placed: Vec<Placed>,
    joins: bool,
    key: impl Fn(usize, &ParamEntry<Tensor<1>>) -> Key,
) -> Vec<Batch> {
    let mut groups: Vec<(Key, usize, Vec<Placed>)> = Vec::new();
    for (place, entry) in placed {
        let (key, len) = (key(place, &entry), entry.len);
        let fits = |group: &&mut (Key, usize, Vec<Placed>)| {
            group.0 == key && group.1 <= LARGEST_BATCH.saturating_sub(len)
        };
        let joins = joins && len <= LARGEST_MEMBER;
        match groups.iter_mut().filter(|_| joins).find(fits) {
            Some((_, sum, members)) => {
                *sum += len;
                members.push((place, entry));
            }
            // A group that takes no other parameter counts as full.
            None => {
                let sum = if joins { len } else { LARGEST_BATCH + 1 };
                groups.push((key, sum, vec![(place, entry)]));
            }
        }
    }
    groups.into_iter().filter_map(|(_, _, placed)| Batch::new(placed, joins)).collect()
}

/// Concatenates tensors, a few at once, then the results.
fn cat(mut tensors: Vec<Tensor<1>>) -> Tensor<1> {
    while tensors.len() > 1 {
        let parts = tensors.chunks(TENSORS_AT_ONCE).map(|part| match part {
            [tensor] => tensor.clone(),
            _ => Tensor::cat(part.to_vec(), 0),
        });
        tensors = parts.collect();
    }
    tensors.remove(0)
}

/// Cuts the concatenations of all batches, and puts the results in the order of the step's parameters.
pub(super) fn in_order<'a>(
    device: &Device,
    joined: impl IntoIterator<Item = (&'a Members, Tensor<1>)>,
) -> Vec<Tensor<1>> {
    let joined: Vec<_> = joined.into_iter().collect();
    if joined.iter().any(|(members, _)| members.0.len() > 1) {
        // Burn's fusion searches through all pending operations at each new one, so it runs those before the
        // slices first. If that fails, reading a tensor returns the error.
        let _ = device.flush();
    }
    let mut all: Vec<(usize, Tensor<1>)> = Vec::new();
    for (members, tensor) in joined {
        all.extend(members.places().zip(members.split(tensor)));
    }
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, tensor)| tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters of these lengths, with values that are all different.
    fn entries(lens: &[usize], device: &Device) -> Vec<ParamEntry<Tensor<1>>> {
        let mut next = 0;
        let mut numbers = |len: usize| {
            let values: Vec<f32> = (next..next + len).map(|value| value as f32).collect();
            next += len;
            Tensor::from_data(values.as_slice(), device)
        };
        let entry = |len: &usize| ParamEntry {
            id: ParamId::new(),
            path: String::new(),
            group: 0,
            len: *len,
            dtype: DType::F32,
            weight: numbers(*len),
            grad: numbers(*len),
        };
        lens.iter().map(entry).collect()
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn splitting_undoes_joining() {
        let device = Device::flex();
        let lens = [3, 64, SMALL + 1, 128, 2 * SMALL, 5, 64, SMALL, LARGEST_MEMBER + 1, 7]
            .into_iter()
            .chain(std::iter::repeat_n(10, 2 * TENSORS_AT_ONCE + 1));
        let lens: Vec<usize> = lens.collect();
        let all = entries(&lens, &device);
        let expected: Vec<_> = all.iter().map(|entry| values(entry.grad.clone())).collect();
        let batches = batches(all, true, |_, entry| (0, entry.dtype, 0, [false; 2], None));
        // The largest one stays alone.
        assert_eq!(batches.len(), 2);
        assert!(batches[0].by_rows && batches[0].entry.len % ROW == 0);
        for (place, expected) in expected.iter().enumerate() {
            let grad = batches.iter().find_map(|batch| batch.gradient_of(place));
            assert_eq!(values(grad.expect("of all")), *expected);
        }
        let joined = batches.iter().map(|batch| (&batch.members, batch.entry.grad.clone()));
        let split: Vec<_> = in_order(&device, joined).into_iter().map(values).collect();
        assert_eq!(split, expected);
        let without = |batch: Batch| batch.without(&[0, 2, 8]);
        let fewer: Vec<Batch> = batches.into_iter().filter_map(without).collect();
        let joined = fewer.iter().map(|batch| (&batch.members, batch.entry.grad.clone()));
        let split: Vec<_> = in_order(&device, joined).into_iter().map(values).collect();
        let places = (0..lens.len()).filter(|place| ![0, 2, 8].contains(place));
        let expected: Vec<_> = places.map(|place| expected[place].clone()).collect();
        assert_eq!(split, expected);
    }
}
