//! The sums over gradients in a phase: what is summed, which kernels sum it, and which columns they read.

use super::rows::{TensorRow, gradient};
use crate::layout::{
    COLUMNS, Kernel, Moments, NormFinishUniforms, NormOf, Scaling, column, nonfinite_flag,
};

/// The operands of sums over the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sums {
    /// Norms of one gradient.
    Norm(NormOf),
    /// Moments, for WSAM's relatives.
    Moments(Moments),
}

impl Sums {
    /// Returns the number of partial sums of each chunk.
    pub(super) const fn stored(self) -> u64 {
        match self {
            Self::Norm(of) => of.count(),
            Self::Moments(moments) => moments.sums(),
        }
    }

    /// Returns the number of partial sums of each chunk that the length of chunks allows for. A length has the chunks
    /// of the products before it.
    pub(super) const fn count(self) -> u64 {
        match self {
            Self::Moments(Moments::Length) => Moments::Products.sums(),
            other => other.stored(),
        }
    }

    /// Returns how often one workgroup adds as many partial sums as there are chunks.
    pub(super) const fn added(self) -> u64 {
        match self {
            Self::Norm(of) => of.count(),
            // `b^2` is added once for the scope and once for all tensors.
            Self::Moments(_) => self.count() + 1,
        }
    }

    /// Returns whether tensors that are not perturbed take part.
    const fn covers_all(self) -> bool {
        match self {
            Self::Norm(of) => of.takes_gradient(),
            Self::Moments(moments) => !matches!(moments, Moments::Momentum),
        }
    }

    /// Returns whether each invocation may write a partial sum, and the last workgroup may add them.
    pub(super) const fn is_norm(self) -> bool {
        matches!(self, Self::Norm(_))
    }

    /// Returns the kernel that writes partial sums.
    pub(super) const fn kernel(self, by_lane: bool) -> Kernel {
        match self {
            Self::Norm(of) => Kernel::Norm { of, by_lane },
            Self::Moments(moments) => Kernel::Moments(moments),
        }
    }

    /// Returns the kernel that writes partial sums and adds them, if there is one.
    pub(super) const fn joined(self) -> Option<Kernel> {
        match self {
            Self::Norm(of) => Some(Kernel::NormAndFinish(of)),
            Self::Moments(_) => None,
        }
    }

    /// Returns the kernel that adds the partial sums.
    pub(super) const fn finish(self) -> Kernel {
        match self {
            Self::Norm(of) => Kernel::NormFinish(of),
            Self::Moments(moments) => Kernel::Coefficients(moments.unscaled()),
        }
    }

    const fn scaling(self) -> Scaling {
        match self {
            Self::Norm(of) => of.scaling(),
            Self::Moments(Moments::Direction(scaling)) => scaling,
            Self::Moments(_) => Scaling::Plain,
        }
    }
}

/// Sums over `g`, `g~` or both. They also show whether a gradient is finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SumsReduction {
    pub(crate) of: Sums,
    /// Whether a norm is taken of `g~` instead of `g`, and whether `g~` is what turns out not to be finite.
    pub(crate) perturbed: bool,
    /// Fields of [`layout::Norms`](crate::layout::Norms) that receive the norm, as bits.
    pub(crate) slots: u32,
}

impl SumsReduction {
    /// Returns the columns that the sums read of a tensor, or `None` if no sum includes the tensor.
    pub(super) fn row<'a>(&self, row: TensorRow<'a>) -> Option<TensorRow<'a>> {
        if !self.of.covers_all() && row.scope.is_none() {
            return None;
        }
        let mut columns = match self.of {
            Sums::Norm(_) => gradient(&row, self.perturbed),
            Sums::Moments(_) => [None; COLUMNS],
        };
        if let Sums::Moments(moments) = self.of {
            let read: &[usize] = match moments {
                Moments::Direction(_) => &[column::GRAD, column::STATE],
                Moments::Momentum => &[column::STATE],
                Moments::Products | Moments::Length => &[column::GRAD, column::GRAD_PERTURBED],
            };
            read.iter().for_each(|column| columns[*column] = row.columns[*column]);
        }
        if self.reads_weight(&row) {
            let (anchor, weight) = (row.columns[column::ANCHOR], row.columns[column::WEIGHT]);
            match row.has_master() {
                true => columns[column::ANCHOR] = anchor,
                false => columns[column::WEIGHT] = anchor.or(weight),
            }
        }
        // The norm of `g~` has one scope. All tensors take part in it in their own order.
        let scope = if self.of.is_norm() && self.perturbed { Some(0) } else { row.scope };
        Some(TensorRow { columns, scope, ..row })
    }

    pub(super) fn reads_weight(&self, row: &TensorRow<'_>) -> bool {
        self.of.scaling() != Scaling::Plain && row.adaptive
    }

    /// Computes the uniforms of `norm_finish` and `coefficients`. `ends` holds the end of each row's partial sums.
    pub(super) fn uniforms(
        &self,
        rows: &[TensorRow<'_>],
        scopes: u32,
        ends: impl Iterator<Item = u32>,
    ) -> NormFinishUniforms {
        let mut finish = NormFinishUniforms {
            slots_plain: self.slots,
            nonfinite_flag: nonfinite_flag(self.perturbed),
            scope_count: scopes,
            ..Default::default()
        };
        for (row, end) in rows.iter().zip(ends) {
            finish.partial_count = end;
            // A scope without rows ends where the scope before it ends.
            if let Some(scope) = row.scope {
                finish.ends.iter_mut().skip(scope).for_each(|of_scope| *of_scope = end);
            }
        }
        finish
    }
}
