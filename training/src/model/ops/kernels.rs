//! Loops over plain `f32` slices that the fused operations and the sampler share.
//!
//! Everything here is row-major, single precision and free of tensors. Reductions run over fixed pieces that are added in
//! order, so that a result does not depend on how many threads worked on it. Inner loops are compiled for several
//! instruction sets and chosen when the program runs. Nothing here knows a model.

use multiversion::multiversion;
use rayon::prelude::*;

/// Rows that one parallel task works on: large enough to hide the cost of a task, small enough to balance.
const ROWS_PER_TASK: usize = 64;

/// A strided matrix view for [`gemm()`].
#[derive(Clone, Copy)]
pub struct MatrixRef<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatrixRef<'a> {
    /// `rows x columns` values in `data`, rows `row_stride` apart.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let view = Self { data, rows, columns, row_stride, column_stride: 1 };
        assert!(view.fits(), "matrix view of {rows}x{columns} outside its {} values", data.len());
        view
    }

    /// The transposed view of the same values.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.data.len()
    }
}

/// What [`gemm()`] does with the old content of its result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Result = product.
    Replace,
    /// Result += product.
    Add,
}

/// Products of more elements than this sum every element in one and the same order, whatever the number of rows;
/// smaller ones, and those of a single row, take other paths in the `gemm` crate.
pub const UNIFORM_ABOVE: usize = 256;

/// Whether [`gemm()`] may use the thread pool, or is itself called from a task of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Split the work over the pool.
    Pool,
    /// Stay on the calling thread.
    One,
}

/// `c (+)= scale * a b`, where `c` has rows `c_row_stride` apart.
///
/// # Panics
/// When the shapes do not fit together or into `c`.
pub fn gemm(
    c: &mut [f32],
    c_row_stride: usize,
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    scale: f32,
    write: Write,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "inner dimensions of a matrix product");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * c_row_stride + n <= c.len(), "result of a matrix product outside its slice");
    let parallelism = match threads {
        Threads::Pool if rayon::current_num_threads() > 1 => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: both views were checked against their slices when they were made, `c` just above, and `c` is borrowed
    // mutably, so it cannot overlap `a` or `b`. The crate takes strides as (column, row).
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_row_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// e^x to about one part in ten million, in a form that compilers turn into vector instructions.
///
/// Range reduction by powers of two and the degree-5 minimax polynomial of the Cephes library.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding and removing 1.5 * 2^23 rounds to the nearest integer.
    let n = (x * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    (p * r * r + r + 1.0) * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// The inner product, summed in 32 lanes.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let (a_blocks, b_blocks) = (a.chunks_exact(32), b.chunks_exact(32));
    let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for i in 0..32 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let blocks = x.chunks_exact(16);
    let rest = blocks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for block in blocks {
        for i in 0..16 {
            lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
        }
    }
    lanes.iter().copied().fold(rest, f32::max)
}

#[inline(always)]
fn total(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let blocks = x.chunks_exact(16);
    let rest: f32 = blocks.remainder().iter().sum();
    for block in blocks {
        for i in 0..16 {
            lanes[i] += block[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest value of a row without `NaN`; −∞ for none.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn largest(row: &[f32]) -> f32 {
    maximum(row)
}

/// The weights e^((x − largest) · scale) of a row, which its softmax divides by their sum; 0 from −87 in the exponent on.
/// `weights` is as long as the row.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn softmax_weights(row: &[f32], largest: f32, scale: f32, weights: &mut [f32]) {
    for (weight, &x) in weights.iter_mut().zip(row) {
        let exponent = (x - largest) * scale;
        *weight = if exponent > -87.0 { exp(exponent) } else { 0.0 };
    }
}

/// Replaces a row of scores by its softmax and returns nothing else: the row sums to one.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn softmax(row: &mut [f32]) {
    let largest = maximum(row);
    for value in row.iter_mut() {
        *value = exp(*value - largest);
    }
    let scale = 1.0 / total(row);
    for value in row.iter_mut() {
        *value *= scale;
    }
}

/// log Σ exp of a row of logits.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let largest = maximum(row);
    let mut lanes = [0f32; 16];
    let blocks = row.chunks_exact(16);
    let rest: f32 = blocks.remainder().iter().map(|&x| exp(x - largest)).sum();
    for block in blocks {
        for i in 0..16 {
            lanes[i] += exp(block[i] - largest);
        }
    }
    largest + (lanes.iter().sum::<f32>() + rest).ln()
}

/// −Σ p log p of the softmax of a row of logits, in nats.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn entropy(row: &[f32]) -> f32 {
    let log_sum = log_sum_exp(row);
    let mut lanes = [0f32; 16];
    let blocks = row.chunks_exact(16);
    let rest: f32 = blocks.remainder().iter().map(|&x| exp(x - log_sum) * x).sum();
    for block in blocks {
        for i in 0..16 {
            lanes[i] += exp(block[i] - log_sum) * block[i];
        }
    }
    log_sum - (lanes.iter().sum::<f32>() + rest)
}

/// The gradient of `row[target] - log_sum_exp(row)` times `scale`, where `log_sum` is that log Σ exp.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn log_prob_backward(row: &[f32], target: usize, log_sum: f32, scale: f32, d_row: &mut [f32]) {
    for (d, &x) in d_row.iter_mut().zip(row) {
        *d = -exp(x - log_sum) * scale;
    }
    d_row[target] += scale;
}

/// y = x / rms(x) * weight, row by row (RMSNorm, arXiv 1910.07467).
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) {
    let width = weight.len();
    let task = width * ROWS_PER_TASK;
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| rms_norm_rows(x, weight, epsilon, y));
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn rms_norm_rows(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) {
    let width = weight.len();
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let scale = inverse_rms(x, epsilon);
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// The same of one row, in its place.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = inverse_rms(x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

/// The gradient of [`rms_norm`]: fills `dx` and returns the gradient of the weight.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]) -> Vec<f32> {
    let width = weight.len();
    let task = width * ROWS_PER_TASK;
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(dy.par_chunks(task))
        .map(|((dx, x), dy)| rms_norm_backward_rows(x, weight, epsilon, dy, dx))
        .collect();
    add_in_order(partial, width)
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn rms_norm_backward_rows(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]) -> Vec<f32> {
    let width = weight.len();
    let mut d_weight = vec![0f32; width];
    let mut weighted = vec![0f32; width];
    for ((dx, x), dy) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width)) {
        let scale = inverse_rms(x, epsilon);
        for i in 0..width {
            d_weight[i] += dy[i] * x[i] * scale;
            weighted[i] = dy[i] * weight[i];
        }
        let along = dot(&weighted, x) * scale * scale * scale / width as f32;
        for i in 0..width {
            dx[i] = weighted[i] * scale - x[i] * along;
        }
    }
    d_weight
}

/// Column sums of `[n, width]`: the gradient of a bias.
pub fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let partial = x
        .par_chunks(width * ROWS_PER_TASK)
        .map(|x| {
            let mut sums = vec![0f32; width];
            for row in x.chunks_exact(width) {
                for i in 0..width {
                    sums[i] += row[i];
                }
            }
            sums
        })
        .collect();
    add_in_order(partial, width)
}

fn add_in_order(partial: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut sums = vec![0f32; width];
    for part in partial {
        for i in 0..width {
            sums[i] += part[i];
        }
    }
    sums
}

/// `y[n, out] = x[n, in] weight[out, in]ᵀ (+ bias)`.
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inputs: usize, outputs: usize, y: &mut [f32]) {
    let rows = x.len() / inputs;
    let write = match bias {
        Some(bias) => {
            y.par_chunks_mut(outputs * ROWS_PER_TASK).for_each(|y| {
                y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
            });
            Write::Add
        }
        None => Write::Replace,
    };
    let x = MatrixRef::new(x, rows, inputs, inputs);
    let weight = MatrixRef::new(weight, outputs, inputs, inputs);
    gemm(y, outputs, x, weight.t(), 1.0, write, Threads::Pool);
}

/// `y[n, f] = silu(gate) * up`, where a row of `gate_up` is `[gate f | up f]` (SwiGLU, arXiv 2002.05202).
pub fn swiglu(gate_up: &[f32], width: usize, y: &mut [f32]) {
    let task = width * ROWS_PER_TASK;
    y.par_chunks_mut(task).zip(gate_up.par_chunks(2 * task)).for_each(|(y, gate_up)| swiglu_rows(gate_up, width, y));
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn swiglu_rows(gate_up: &[f32], width: usize, y: &mut [f32]) {
    for (y, row) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = row.split_at(width);
        for i in 0..width {
            y[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
        }
    }
}

/// The gradient of [`swiglu`].
pub fn swiglu_backward(gate_up: &[f32], width: usize, dy: &[f32], d_gate_up: &mut [f32]) {
    let task = width * ROWS_PER_TASK;
    d_gate_up
        .par_chunks_mut(2 * task)
        .zip(gate_up.par_chunks(2 * task))
        .zip(dy.par_chunks(task))
        .for_each(|((d_gate_up, gate_up), dy)| swiglu_backward_rows(gate_up, width, dy, d_gate_up));
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn swiglu_backward_rows(gate_up: &[f32], width: usize, dy: &[f32], d_gate_up: &mut [f32]) {
    let rows = d_gate_up.chunks_exact_mut(2 * width).zip(gate_up.chunks_exact(2 * width)).zip(dy.chunks_exact(width));
    for ((d_row, row), dy) in rows {
        let (gate, up) = row.split_at(width);
        let (d_gate, d_up) = d_row.split_at_mut(width);
        for i in 0..width {
            let sigmoid = 1.0 / (1.0 + exp(-gate[i]));
            let silu = gate[i] * sigmoid;
            d_up[i] = dy[i] * silu;
            d_gate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0 - sigmoid));
        }
    }
}

/// Rotates one head by its position (RoPE, arXiv 2104.09864; halves as in the Hugging Face weights). `direction` -1 turns
/// back, which is also the gradient.
#[inline(always)]
pub fn rotate(x: &[f32], cos: &[f32], sin: &[f32], direction: f32, y: &mut [f32]) {
    let half = cos.len();
    for i in 0..half {
        let (a, b) = (x[i], x[i + half]);
        let sin = sin[i] * direction;
        y[i] = a * cos[i] - b * sin;
        y[i + half] = b * cos[i] + a * sin;
    }
}

/// [`rotate`] forwards, within one head.
#[inline(always)]
pub fn rotate_in_place(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (left, right) = x.split_at_mut(cos.len());
    for i in 0..cos.len() {
        let (a, b) = (left[i], right[i]);
        left[i] = a * cos[i] - b * sin[i];
        right[i] = b * cos[i] + a * sin[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exponentials_and_nothing_has_none() {
        let row: Vec<f32> = (0..37).map(|i| -((i * i) as f32) / 10.0).chain([f32::NEG_INFINITY, 0.5]).collect();
        assert_eq!((largest(&row), largest(&[])), (0.5, f32::NEG_INFINITY));
        let mut weights = vec![f32::NAN; row.len()];
        softmax_weights(&row, 0.5, 0.7, &mut weights);
        for (weight, x) in weights.iter().zip(&row) {
            let exponent = (f64::from(*x) - 0.5) * 0.7;
            // The exponent itself is rounded to f32, twice; one part in 2^24 of it each.
            let (expected, error) = match exponent > -87.0 {
                true => (exponent.exp(), (3e-7 + exponent.abs() * 1.2e-7) * exponent.exp()),
                false => (0.0, 0.0),
            };
            assert!((f64::from(*weight) - expected).abs() <= error, "{weight} {expected}");
        }
        assert_eq!(weights[37], 0.0);
    }

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for i in -8_000..8_000 {
            let x = i as f32 * 0.01;
            assert!((exp(x) / x.exp() - 1.0).abs() < 4e-7, "exp({x})");
        }
        assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
    }

    #[test]
    fn products_by_hand() {
        // [1 2; 3 4] [5 6; 7 8] = [19 22; 43 50]; with the right side transposed [17 23; 39 53].
        let (a, b) = ([1., 2., 3., 4.], [5., 6., 7., 8.]);
        let mut c = [1f32; 4];
        let (a, b) = (MatrixRef::new(&a, 2, 2, 2), MatrixRef::new(&b, 2, 2, 2));
        gemm(&mut c, 2, a, b, 1.0, Write::Replace, Threads::One);
        assert_eq!(c, [19., 22., 43., 50.]);
        gemm(&mut c, 2, a, b.t(), 2.0, Write::Add, Threads::One);
        assert_eq!(c, [19. + 34., 22. + 46., 43. + 78., 50. + 106.]);
    }

    #[test]
    fn a_head_turns_the_same_in_place_and_back_again() {
        let x: Vec<f32> = (0..16).map(|i| i as f32 - 7.5).collect();
        let (cos, sin): (Vec<f32>, Vec<f32>) = (0..8).map(|i| ((i as f32).cos(), (i as f32).sin())).unzip();
        let (mut turned, mut in_place, mut back) = (vec![0f32; 16], x.clone(), vec![0f32; 16]);
        rotate(&x, &cos, &sin, 1.0, &mut turned);
        rotate_in_place(&mut in_place, &cos, &sin);
        assert_eq!(turned, in_place);
        rotate(&turned, &cos, &sin, -1.0, &mut back);
        assert!(x.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5), "{back:?}");
    }

    #[test]
    fn reductions_do_not_depend_on_the_number_of_threads() {
        let x: Vec<f32> = (0..1000 * 48).map(|i| ((i * 7919) % 1013) as f32 * 0.01 - 5.0).collect();
        let weight: Vec<f32> = (0..48).map(|i| 0.5 + i as f32 * 0.01).collect();
        let matrix: Vec<f32> = (0..48 * 96).map(|i| ((i * 31) % 97) as f32 * 0.02 - 1.0).collect();
        let run = || {
            let (mut dx, mut y) = (vec![0f32; x.len()], vec![0f32; 1000 * 96]);
            let dw = rms_norm_backward(&x, &weight, 1e-6, &x, &mut dx);
            linear(&x, &matrix, None, 48, 96, &mut y);
            (dw, column_sums(&x, 48), dx, y)
        };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool(1).install(run), pool(4).install(run));
    }

    #[test]
    fn a_row_of_a_product_does_not_depend_on_the_other_rows() {
        for (inputs, outputs) in
            [(24, 37), (24, 60), (40, 24), (48, 32), (128, 256), (128, 768), (384, 128), (128, 384)]
        {
            let x: Vec<f32> = (0..300 * inputs).map(|i| ((i * 7919) % 1013) as f32 * 0.01 - 5.0).collect();
            let weight: Vec<f32> = (0..inputs * outputs).map(|i| ((i * 31) % 97) as f32 * 0.02 - 1.0).collect();
            let mut all = vec![0f32; 300 * outputs];
            linear(&x, &weight, None, inputs, outputs, &mut all);
            let fewest = UNIFORM_ABOVE / outputs + 1;
            for rows in [fewest.max(2), fewest + 1, fewest + 17, 64, 200] {
                let mut some = vec![0f32; rows * outputs];
                linear(&x[..rows * inputs], &weight, None, inputs, outputs, &mut some);
                let equal = some == all[..rows * outputs];
                assert!(equal, "{rows} rows of {inputs} by {outputs}");
            }
        }
    }
}
