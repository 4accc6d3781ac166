//! Level lines of a function on a grid, by marching squares.

use std::collections::HashMap;

/// A function at the corners of a rectangular grid.
pub struct Grid {
    pub xs: Vec<f64>,
    pub ys: Vec<f64>,
    /// Row by row: `values[row * xs.len() + column]`.
    pub values: Vec<f64>,
}

/// The side of a cell that a line crosses: the corner where it begins, and whether it leads right or
/// up.
type Side = (usize, usize, bool);

impl Grid {
    /// Samples `f` over `x` by `y` at so many points each way.
    pub fn sample(
        [left, right]: [f64; 2],
        [bottom, top]: [f64; 2],
        count: usize,
        f: impl Fn(f64, f64) -> f64,
    ) -> Self {
        let axis = |from: f64, to: f64| -> Vec<f64> {
            let step = (to - from) / (count - 1) as f64;
            (0..count).map(|i| from + step * i as f64).collect()
        };
        let (xs, ys) = (axis(left, right), axis(bottom, top));
        let values = ys.iter().flat_map(|y| xs.iter().map(|x| f(*x, *y))).collect();
        Self { xs, ys, values }
    }

    /// The lines where the function is `level`.
    pub fn lines(&self, level: f64) -> Vec<Vec<(f64, f64)>> {
        let mut next: HashMap<Side, Vec<Side>> = HashMap::new();
        for row in 0..self.ys.len() - 1 {
            for column in 0..self.xs.len() - 1 {
                // Around the cell; two crossings of one piece of line stand beside each other.
                let sides = [
                    (row, column, true),
                    (row, column + 1, false),
                    (row + 1, column, true),
                    (row, column, false),
                ];
                let crossed: Vec<_> =
                    sides.into_iter().filter(|side| self.crosses(*side, level)).collect();
                for piece in crossed.chunks_exact(2) {
                    next.entry(piece[0]).or_default().push(piece[1]);
                    next.entry(piece[1]).or_default().push(piece[0]);
                }
            }
        }
        let mut sides: Vec<_> = next.keys().copied().collect();
        // Open lines from their ends; then what is left are rings. In a fixed order.
        sides.sort_by_key(|side| (next[side].len(), *side));
        let mut lines = Vec::new();
        for start in sides {
            let mut at = start;
            let mut line = vec![self.crossing(at, level)];
            while let Some(to) = next.get_mut(&at).and_then(Vec::pop) {
                if let Some(back) = next.get_mut(&to) {
                    back.retain(|side| *side != at);
                }
                line.push(self.crossing(to, level));
                at = to;
            }
            if line.len() > 1 {
                lines.push(line);
            }
        }
        lines
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.xs.len() + column]
    }

    fn ends(&self, (row, column, right): Side) -> [f64; 2] {
        let to = if right { (row, column + 1) } else { (row + 1, column) };
        [self.value(row, column), self.value(to.0, to.1)]
    }

    fn crosses(&self, side: Side, level: f64) -> bool {
        let [a, b] = self.ends(side);
        (a < level) != (b < level)
    }

    fn crossing(&self, side: Side, level: f64) -> (f64, f64) {
        let [a, b] = self.ends(side);
        let (share, (row, column, right)) = ((level - a) / (b - a), side);
        let between = |axis: &[f64], i: usize| axis[i] + share * (axis[i + 1] - axis[i]);
        if right {
            (between(&self.xs, column), self.ys[row])
        } else {
            (self.xs[column], between(&self.ys, row))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Grid;

    #[test]
    fn a_circle_is_one_closed_line() {
        let grid = Grid::sample([-2.0, 2.0], [-2.0, 2.0], 81, |x, y| x * x + y * y);
        let lines = grid.lines(1.0);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].first(), lines[0].last());
        for (x, y) in &lines[0] {
            assert!((x.hypot(*y) - 1.0).abs() < 1e-3, "({x}, {y})");
        }
        assert!(lines[0].len() > 100);
    }

    #[test]
    fn a_slope_has_one_open_line_and_nothing_beyond() {
        let grid = Grid::sample([0.0, 1.0], [0.0, 1.0], 5, |x, _| x);
        assert_eq!(grid.lines(0.6).len(), 1);
        assert!(grid.lines(0.6)[0].iter().all(|(x, _)| (x - 0.6).abs() < 1e-12));
        assert!(grid.lines(2.0).is_empty());
    }
}
