//! The two halves of a step: which dispatches they need, with which constants.

use super::Engine;
use super::constants::descent_constants;
use super::error::EngineError;
use super::plan::{Group, cut};
use super::record::{Bound, Planned};
use super::slices::{
    AscentTensor, COLUMNS, Columns, DescentTensor, Placement, check_ascent, check_descent, column,
};
use super::stats::StepStats;
use crate::layout::{
    AscentUniforms, BlendUniforms, DescentUniforms, NormFinishUniforms, NormUniforms, Norms,
    Specialisation,
};
use crate::method::{Blend, Hyperparameters, validate_lr};
use bytemuck::bytes_of;
use std::sync::PoisonError;
use std::time::Instant;

/// Choices of an ascent that are not the method's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AscentOptions {
    /// Where the perturbed weights go.
    pub placement: Placement,
    /// Compute `||g||` and `||g~||` even where the step has no use for them: 4 bytes more a
    /// parameter in the descent, and 4 in the ascent if adaptive.
    pub track_norms: bool,
}

/// Where a descent takes its blend from.
#[derive(Clone, Copy, Debug)]
pub enum BlendSource<'a> {
    /// The method's own: [`Hyperparameters::blend`].
    Method,
    /// Another blend, chosen by the host.
    Host(Blend),
    /// A device buffer with `BufferUsages::UNIFORM` that holds a
    /// [`BlendUniforms`](crate::layout::BlendUniforms), so that a kernel may choose the blend.
    Device(&'a wgpu::Buffer),
}

/// A recorded ascent, to be handed to its [`descent`](Engine::descent).
#[derive(Debug)]
#[must_use = "weights stay perturbed until the descent"]
pub struct Ascent {
    norms: wgpu::Buffer,
    tensors: usize,
    track_norms: bool,
    stats: StepStats,
}

impl Ascent {
    /// Device buffer with the step's [`Norms`]; complete once the descent has run.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// What the ascent cost.
    pub fn stats(&self) -> StepStats {
        self.stats
    }
}

type NormGroups = (Vec<Group<()>>, u32, bool);

impl Engine {
    /// Records the ascent: the global norm of `g` and the climb to `w + e_w`.
    ///
    /// `tensors` are all tensors of the model: the norm is one number over them. Empty tensors and
    /// an empty list are allowed.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor; nothing was recorded then.
    pub fn ascent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        options: AscentOptions,
        tensors: &[AscentTensor],
    ) -> Result<Ascent, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        check_ascent(tensors, options.placement)?;

        let clips_g = hyper.clips_gradient();
        let (scaled, plain) = if hyper.adaptive {
            (Norms::PERTURBATION, if clips_g || options.track_norms { Norms::GRADIENT } else { 0 })
        } else {
            (Norms::PERTURBATION | Norms::GRADIENT, 0)
        };
        let elements = tensors.iter().map(|tensor| tensor.weight.len).sum::<u64>();
        let norm_len = self.tuning.norm_chunk_len(elements);
        let columns = |adaptive: bool| {
            tensors.iter().map(move |tensor| {
                let mut columns = [None; COLUMNS];
                columns[column::GRAD] = Some(&tensor.grad);
                if adaptive {
                    columns[column::WEIGHT] = Some(&tensor.weight);
                }
                ((), tensor.weight.len, columns)
            })
        };
        let mut norm_groups: Vec<NormGroups> = vec![(
            cut(columns(hyper.adaptive), self.window_limits, norm_len),
            scaled,
            hyper.adaptive,
        )];
        if plain != 0 {
            norm_groups.push((cut(columns(false), self.window_limits, norm_len), plain, false));
        }
        let groups = cut(
            tensors.iter().map(|tensor| ((), tensor.weight.len, tensor.columns())),
            self.window_limits,
            u64::from(self.tuning.chunk_len),
        );

        let norms = self.norms_buffer();
        let partials = self.partials_for(&norm_groups);
        let mut planned = self.plan_norms(&norm_groups, &partials, &norms)?;
        let in_place = options.placement == Placement::InPlace;
        for group in &groups {
            let grid = self.grid(group.chunks.len())?;
            let uniforms = AscentUniforms {
                chunk_count: group.chunks.len() as u32,
                grid_width: grid[0],
                rho: hyper.rho as f32,
                epsilon: hyper.epsilon as f32,
            };
            planned.push(Planned {
                specialisation: Specialisation::Ascent {
                    width: group.width,
                    adaptive: hyper.adaptive,
                    in_place,
                },
                grid,
                uniforms: bytes_of(&uniforms).to_vec(),
                chunks: &group.chunks,
                bindings: vec![
                    Bound::Uniforms,
                    Bound::Chunks,
                    Bound::Whole(&norms),
                    bound(group, column::WEIGHT),
                    bound(group, column::GRAD),
                    bound(group, column::PARTNER),
                ],
            });
        }
        let mut stats = self.record(encoder, "wsam.ascent", &planned)?;
        let bytes = 4 * elements;
        let norm_reads = 1 + u64::from(hyper.adaptive) + u64::from(plain != 0);
        stats.bytes_read = bytes * (norm_reads + 2);
        stats.bytes_written = bytes * (1 + u64::from(in_place));
        stats.recording = start.elapsed();
        Ok(Ascent { norms, tensors: tensors.len(), track_norms: options.track_norms, stats })
    }

    /// Records the descent: restoration of `w`, blend, base step.
    ///
    /// `tensors` are those of `ascent`, in any order. Returns what the descent cost.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor; nothing was recorded then.
    pub fn descent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        lr: f64,
        blend: BlendSource<'_>,
        ascent: &Ascent,
        tensors: &[DescentTensor],
    ) -> Result<StepStats, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        validate_lr(lr)?;
        if tensors.len() != ascent.tensors {
            return Err(EngineError::TensorCount {
                ascent: ascent.tensors,
                descent: tensors.len(),
            });
        }
        let states = hyper.base.state_names().len();
        check_descent(tensors, states)?;
        let blend = self.blend_buffer(hyper, blend)?;

        let elements = tensors.iter().map(|tensor| tensor.weight.len).sum::<u64>();
        let norm_len = self.tuning.norm_chunk_len(elements);
        let mut norm_groups: Vec<NormGroups> = Vec::new();
        if hyper.clip.is_some() || ascent.track_norms {
            let columns = tensors.iter().map(|tensor| {
                let mut columns: Columns<'_> = [None; COLUMNS];
                columns[column::GRAD] = Some(&tensor.grad_perturbed);
                ((), tensor.weight.len, columns)
            });
            norm_groups.push((cut(columns, self.window_limits, norm_len), Norms::PERTURBED, false));
        }
        let groups = cut(
            tensors.iter().map(|tensor| {
                let variant = (tensor.step, tensor.anchor.is_some());
                (variant, tensor.weight.len, tensor.columns())
            }),
            self.window_limits,
            u64::from(self.tuning.chunk_len),
        );

        let partials = self.partials_for(&norm_groups);
        let mut planned = self.plan_norms(&norm_groups, &partials, &ascent.norms)?;
        for group in &groups {
            let (step, anchored) = group.variant;
            let grid = self.grid(group.chunks.len())?;
            let uniforms = DescentUniforms {
                chunk_count: group.chunks.len() as u32,
                grid_width: grid[0],
                ..descent_constants(hyper, lr, step)
            };
            let mut bindings = vec![
                Bound::Uniforms,
                Bound::Chunks,
                Bound::Whole(&ascent.norms),
                Bound::Whole(&blend),
                bound(group, column::WEIGHT),
                bound(group, column::GRAD),
                bound(group, column::GRAD_PERTURBED),
                bound(group, column::PARTNER),
            ];
            bindings.extend((column::STATE..COLUMNS).map(|column| bound(group, column)));
            planned.push(Planned {
                specialisation: Specialisation::Descent {
                    width: group.width,
                    states: states as u32,
                    anchored,
                },
                grid,
                uniforms: bytes_of(&uniforms).to_vec(),
                chunks: &group.chunks,
                bindings,
            });
        }
        let mut stats = self.record(encoder, "wsam.descent", &planned)?;
        let bytes = 4 * elements;
        let (states, norms) = (states as u64, norm_groups.len() as u64);
        stats.bytes_read = bytes * (3 + states + norms);
        stats.bytes_written = bytes * (1 + states);
        stats.recording = start.elapsed();
        Ok(stats)
    }

    fn plan_norms<'a>(
        &self,
        norm_groups: &'a [NormGroups],
        partials: &'a wgpu::Buffer,
        norms: &'a wgpu::Buffer,
    ) -> Result<Vec<Planned<'a>>, EngineError> {
        let mut planned = Vec::new();
        for (groups, slots, adaptive) in norm_groups {
            let mut first_partial = 0;
            for group in groups {
                let grid = self.grid(group.chunks.len())?;
                let uniforms = NormUniforms {
                    chunk_count: group.chunks.len() as u32,
                    grid_width: grid[0],
                    first_partial,
                    padding: 0,
                };
                first_partial += group.chunks.len() as u32;
                planned.push(Planned {
                    specialisation: Specialisation::Norm {
                        width: group.width,
                        adaptive: *adaptive,
                    },
                    grid,
                    uniforms: bytes_of(&uniforms).to_vec(),
                    chunks: &group.chunks,
                    bindings: vec![
                        Bound::Uniforms,
                        Bound::Chunks,
                        bound(group, column::WEIGHT),
                        bound(group, column::GRAD),
                        Bound::Whole(partials),
                    ],
                });
            }
            let uniforms =
                NormFinishUniforms { partial_count: first_partial, slots: *slots, padding: [0; 2] };
            planned.push(Planned {
                specialisation: Specialisation::NormFinish,
                grid: [1, 1],
                uniforms: bytes_of(&uniforms).to_vec(),
                chunks: &[],
                bindings: vec![Bound::Whole(partials), Bound::Uniforms, Bound::Whole(norms)],
            });
        }
        Ok(planned)
    }

    /// The scratch buffer, grown if need be; an older one lives on in what was recorded with it.
    fn partials_for(&self, norm_groups: &[NormGroups]) -> wgpu::Buffer {
        let chunks = |(groups, ..): &NormGroups| -> usize {
            groups.iter().map(|group| group.chunks.len()).sum()
        };
        let need = 16 * norm_groups.iter().map(chunks).max().unwrap_or(0) as u64;
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        if partials.size() < need {
            *partials = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("wsam.partials"),
                size: need.next_power_of_two(),
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            });
        }
        partials.clone()
    }

    /// A fresh buffer for the norms, zero as wgpu makes it.
    fn norms_buffer(&self) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("wsam.norms"),
            size: size_of::<Norms>() as u64,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::UNIFORM
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }

    fn blend_buffer(
        &self,
        hyper: &Hyperparameters,
        source: BlendSource<'_>,
    ) -> Result<wgpu::Buffer, EngineError> {
        use wgpu::util::DeviceExt;
        let blend = match source {
            BlendSource::Method => hyper.blend(),
            BlendSource::Host(blend) => blend,
            BlendSource::Device(buffer) => {
                let (usage, size) = (buffer.usage(), buffer.size());
                let need = size_of::<BlendUniforms>() as u64;
                if !usage.contains(wgpu::BufferUsages::UNIFORM) || size < need {
                    return Err(EngineError::BlendBuffer { usage, size, need });
                }
                return Ok(buffer.clone());
            }
        };
        let uniforms = BlendUniforms {
            a: blend.a as f32,
            b: blend.b as f32,
            sharpness: blend.sharpness as f32,
            padding: 0.0,
        };
        Ok(self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("wsam.blend"),
            contents: bytes_of(&uniforms),
            usage: wgpu::BufferUsages::UNIFORM,
        }))
    }
}

fn bound<V>(group: &Group<V>, column: usize) -> Bound<'_> {
    Bound::Column(column, group.windows[column].as_ref())
}
