//! The operations on rows of values, scores and draws, and the optimizer's update.

use candle_core::{DType, Tensor};

use super::launch::{Argument, Grid, Kernels, Source, THREADS, pointer, variant};
use super::{AdamWFactors, RowScores};
use crate::{Error, Result};

/// Threads that share one row of logits.
const LOGIT_THREADS: u32 = 1024;

/// Most blocks of a sum of squares, each of which leaves one number.
const SQUARE_BLOCKS: usize = 1024;

/// Blocks that a step's keys and values are read by, where there are enough of them. Slots are half full at least, so half of
/// the blocks have something to read: one for each of the 132 processors of an H100 or H200.
const DECODE_BLOCKS: usize = 264;

/// Fewest keys that a block is started for.
const DECODE_KEYS: usize = 256;

/// Rows whose sum one block takes.
const RUN: usize = 128;

use Argument::{Float, Int, Long};

impl Kernels {
    /// `x / rms(x) * weight` of every row; `weight` is f32.
    pub(crate) fn rms_norm(&self, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let y = self.room(x.shape(), x.dtype())?;
        let arguments = [pointer(x)?, of_width(weight, width)?, pointer(&y)?, Int(width as i32), Float(epsilon as f32)];
        let grid = Grid::of_rows(rows, threads(width));
        // SAFETY: the kernel's arguments; one block a row of `x` and `y`, `weight` has a row's width.
        unsafe { self.start(Source::Tensors, &variant("rms_norm", x.dtype())?, grid, &arguments)? };
        Ok(y)
    }

    /// The gradient of a norm's input, and one over each row's root mean square for [`Kernels::column_sums`].
    pub(crate) fn rms_norm_backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        weight: &Tensor,
        epsilon: f64,
    ) -> Result<(Tensor, Tensor)> {
        let (rows, width) = x.dims2()?;
        same(x, dy)?;
        let (dx, inverses) = (self.room(x.shape(), x.dtype())?, self.room(rows, DType::F32)?);
        let arguments = [
            pointer(x)?,
            pointer(dy)?,
            of_width(weight, width)?,
            pointer(&dx)?,
            pointer(&inverses)?,
            Int(width as i32),
            Float(epsilon as f32),
        ];
        let name = variant("rms_norm_backward", x.dtype())?;
        // SAFETY: the kernel's arguments; one block a row of `x`, `dy` and `dx`, one value of `inverses` a row.
        unsafe { self.start(Source::Tensors, &name, Grid::of_rows(rows, threads(width)), &arguments)? };
        Ok((dx, inverses))
    }

    /// Sums over the rows of `dy`, each first multiplied by a row of `x` and its scale where those are given; f32.
    pub(crate) fn column_sums(&self, dy: &Tensor, scaled: Option<(&Tensor, &Tensor)>) -> Result<Tensor> {
        let (rows, width) = dy.dims2()?;
        let runs = rows.div_ceil(RUN);
        let partial = self.room((runs, width), DType::F32)?;
        let (x, scales) = match scaled {
            Some((x, scales)) => {
                same(x, dy)?;
                (pointer(x)?, of_width(scales, rows)?)
            }
            None => (Argument::Pointer(0), Argument::Pointer(0)),
        };
        let sizes = [Int(rows as i32), Int(width as i32), Int(RUN as i32)];
        let arguments = [&[pointer(dy)?, x, scales, pointer(&partial)?][..], &sizes].concat();
        let grid = Grid { blocks: (width.div_ceil(THREADS as usize), runs), threads: THREADS, shared: 0 };
        // SAFETY: the kernel's arguments; it checks its column, and its runs end with the rows.
        unsafe { self.start(Source::Tensors, &variant("column_sums", dy.dtype())?, grid, &arguments)? };
        Ok(partial.sum(0)?)
    }

    /// Adds `bias` to every row of `y` in its place; nothing else may hold `y`'s storage.
    pub(crate) fn add_bias(&self, y: &Tensor, bias: &Tensor) -> Result<()> {
        let (rows, width) = y.dims2()?;
        if bias.dtype() != y.dtype() || bias.elem_count() != width {
            return Err(Error::config(format!("no bias {:?} for rows {:?}", bias.shape(), y.shape())));
        }
        let eights = rows * width / 8;
        let arguments = [pointer(y)?, pointer(bias)?, Long(eights as i64), Int(width as i32)];
        // SAFETY: the kernel's arguments; it checks its item against `eights`.
        unsafe { self.start(Source::Tensors, &variant("add_bias", y.dtype())?, Grid::of_items(eights), &arguments) }
    }

    /// Turns the pairs of every head, `x` `[tokens, heads, head_dim]`, by angles `[tokens, …, head_dim / 2]`; back for a
    /// gradient.
    pub(crate) fn rotary(&self, x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Result<Tensor> {
        let (tokens, heads, head_dim) = x.dims3()?;
        let (half, y) = (head_dim / 2, self.room(x.shape(), x.dtype())?);
        let items = tokens * heads * half / 8;
        let arguments = [
            pointer(x)?,
            of_width(cos, tokens * half)?,
            of_width(sin, tokens * half)?,
            pointer(&y)?,
            Long(items as i64),
            Int(heads as i32),
            Int(half as i32),
            Float(if back { -1.0 } else { 1.0 }),
        ];
        // SAFETY: the kernel's arguments; it checks its item, of which there is one for 8 pairs.
        unsafe { self.start(Source::Tensors, &variant("rotary", x.dtype())?, Grid::of_items(items), &arguments)? };
        Ok(y)
    }

    /// `silu(gate) * up`.
    pub(crate) fn gated(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        same(gate, up)?;
        let (eights, y) = (gate.elem_count() / 8, self.room(gate.shape(), gate.dtype())?);
        let arguments = [pointer(gate)?, pointer(up)?, pointer(&y)?, Long(eights as i64)];
        // SAFETY: the kernel's arguments; it checks its item against `eights`.
        unsafe {
            self.start(Source::Tensors, &variant("gated", gate.dtype())?, Grid::of_items(eights), &arguments)?;
        }
        Ok(y)
    }

    /// The gradients of `gate` and `up`.
    pub(crate) fn gated_backward(&self, gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        same(gate, up)?;
        same(gate, dy)?;
        let room = || self.room(gate.shape(), gate.dtype());
        let (eights, d_gate, d_up) = (gate.elem_count() / 8, room()?, room()?);
        let arguments =
            [pointer(gate)?, pointer(up)?, pointer(dy)?, pointer(&d_gate)?, pointer(&d_up)?, Long(eights as i64)];
        let name = variant("gated_backward", gate.dtype())?;
        // SAFETY: the kernel's arguments; it checks its item against `eights`.
        unsafe { self.start(Source::Tensors, &name, Grid::of_items(eights), &arguments)? };
        Ok((d_gate, d_up))
    }

    /// Scores one target (u32) a row of f32 `logits` `[rows, vocabulary]`, which are multiplied by `scale` first.
    pub(crate) fn score_rows(&self, logits: &Tensor, targets: &Tensor, scale: f64) -> Result<RowScores> {
        let (rows, vocabulary) = logits.dims2()?;
        let room = || self.room(rows, DType::F32);
        let scores = RowScores { logprobs: room()?, log_sums: room()?, entropies: room()? };
        let arguments = [
            pointer(logits)?,
            of_width(targets, rows)?,
            pointer(&scores.logprobs)?,
            pointer(&scores.log_sums)?,
            pointer(&scores.entropies)?,
            Int(vocabulary as i32),
            Float(scale as f32),
        ];
        // SAFETY: the kernel's arguments; one block a row, targets were checked against the vocabulary.
        unsafe { self.start(Source::Logits, "score_rows", Grid::of_rows(rows, LOGIT_THREADS), &arguments)? };
        Ok(scores)
    }

    /// The gradient of the logits in bf16 from that of the log-probabilities, `coefficients` f32 `[rows]`.
    pub(crate) fn score_rows_backward(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        log_sums: &Tensor,
        coefficients: &Tensor,
        scale: f64,
    ) -> Result<Tensor> {
        let (rows, vocabulary) = logits.dims2()?;
        let gradient = self.room(logits.shape(), DType::BF16)?;
        let arguments = [
            pointer(logits)?,
            of_width(targets, rows)?,
            of_width(log_sums, rows)?,
            of_width(coefficients, rows)?,
            pointer(&gradient)?,
            Int(vocabulary as i32),
            Float(scale as f32),
        ];
        let grid = Grid::of_rows(rows, LOGIT_THREADS);
        // SAFETY: the kernel's arguments; one block a row of `logits` and `gradient`.
        unsafe { self.start(Source::Logits, "score_rows_backward", grid, &arguments)? };
        Ok(gradient)
    }

    /// Draws one id a row from softmax(`scale` logits) by inversion of f32 `uniform` `[rows]`; returns ids and their
    /// log-probabilities.
    pub(crate) fn draw_rows(&self, logits: &Tensor, uniform: &Tensor, scale: f64) -> Result<(Tensor, Tensor)> {
        let (rows, vocabulary) = logits.dims2()?;
        let (ids, logprobs) = (self.room(rows, DType::U32)?, self.room(rows, DType::F32)?);
        let arguments = [
            pointer(logits)?,
            of_width(uniform, rows)?,
            pointer(&ids)?,
            pointer(&logprobs)?,
            Int(vocabulary as i32),
            Float(scale as f32),
        ];
        let masses = vocabulary.div_ceil(LOGIT_THREADS as usize) + LOGIT_THREADS as usize;
        let grid = Grid { blocks: (rows, 1), threads: LOGIT_THREADS, shared: masses * size_of::<f32>() };
        // SAFETY: the kernel's arguments; one block a row, with room for a mass a tile and one a thread.
        unsafe { self.start(Source::Logits, "draw_rows", grid, &arguments)? };
        Ok((ids, logprobs))
    }

    /// One AdamW update of `parameter` in its place, with its moments and its f32 master where it has one.
    pub(crate) fn adamw(
        &self,
        parameter: &Tensor,
        master: Option<&Tensor>,
        (m, v): (&Tensor, &Tensor),
        gradient: &Tensor,
        factors: AdamWFactors,
    ) -> Result<()> {
        let count = parameter.elem_count();
        let AdamWFactors { clip, beta1, rest1, beta2, rest2, keep, step, root, eps } = factors;
        let master = match master {
            Some(master) => of_width(master, count)?,
            None => Argument::Pointer(0),
        };
        let arguments = [
            &[pointer(parameter)?, master, of_width(m, count)?, of_width(v, count)?, pointer(gradient)?][..],
            &[Long(count as i64 / 8)],
            &[clip, beta1, rest1, beta2, rest2, keep, step, root, eps].map(Float),
        ]
        .concat();
        let name = variant(&variant("adamw", parameter.dtype())?, gradient.dtype())?;
        // SAFETY: the kernel's arguments, all of `count` values; it checks its item, of which there is one for 8 values.
        unsafe { self.start(Source::Tensors, &name, Grid::of_items(count / 8), &arguments) }
    }

    /// The sum of squares of all values, a scalar in f32.
    pub(crate) fn sum_of_squares(&self, x: &Tensor) -> Result<Tensor> {
        let eights = x.elem_count() / 8;
        let blocks = eights.div_ceil(THREADS as usize).clamp(1, SQUARE_BLOCKS);
        let sums = self.room(blocks, DType::F32)?;
        let arguments = [pointer(x)?, pointer(&sums)?, Long(eights as i64)];
        let grid = Grid::of_rows(blocks, THREADS);
        // SAFETY: the kernel's arguments; one sum a block, and it checks its items against `eights`.
        unsafe { self.start(Source::Tensors, &variant("squares", x.dtype())?, grid, &arguments)? };
        Ok(sums.sum_all()?)
    }

    /// Puts one new token a sequence, `k` and `v` `[sequences, kv_heads, head_dim]`, at `positions` (u32) of the caches
    /// `[slots, kv_heads, capacity, head_dim]`.
    pub(crate) fn store_tokens(
        &self,
        (k, v): (&Tensor, &Tensor),
        (keys, values): (&Tensor, &Tensor),
        positions: &Tensor,
        group: usize,
    ) -> Result<()> {
        let (sequences, kv_heads, head_dim) = k.dims3()?;
        let capacity = keys.dim(2)?;
        let eights = k.elem_count() / 8;
        let arguments = [
            pointer(k)?,
            pointer(v)?,
            pointer(keys)?,
            pointer(values)?,
            of_width(positions, sequences)?,
            Long(eights as i64),
            Int(kv_heads as i32),
            Long(capacity as i64),
        ];
        // SAFETY: the kernel's arguments; it checks its item, and positions lie below the capacity.
        unsafe { self.start(Source::Decode { head_dim, group }, "store_tokens", Grid::of_items(eights), &arguments) }
    }

    /// Attention of one query a sequence, `q` bf16 `[sequences, heads, head_dim]`, over positions 0 to `positions[i]` of
    /// its cache; the same shape.
    pub(crate) fn decode_attention(
        &self,
        q: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        positions: &Tensor,
        scale: f64,
    ) -> Result<Tensor> {
        let (sequences, heads, head_dim) = q.dims3()?;
        let (kv_heads, capacity) = (keys.dim(1)?, keys.dim(2)?);
        let (rows, group) = (sequences * kv_heads, heads / kv_heads);
        let slices = slices(rows, capacity);
        let y = self.room(q.shape(), DType::BF16)?;
        let several =
            if slices > 1 { Some(self.room(rows * slices * group * (head_dim + 2), DType::F32)?) } else { None };
        let parts = several.as_ref().map_or(Ok(Argument::Pointer(0)), pointer)?;
        let arguments = [
            pointer(q)?,
            pointer(keys)?,
            pointer(values)?,
            of_width(positions, sequences)?,
            pointer(&y)?,
            parts,
            Int(kv_heads as i32),
            Long(capacity as i64),
            Int(capacity.div_ceil(slices) as i32),
            Float(scale as f32),
        ];
        let source = Source::Decode { head_dim, group };
        let grid = Grid { blocks: (rows, slices), threads: THREADS, shared: 0 };
        // SAFETY: the kernel's arguments; one block a slice of a key head of a sequence, positions lie below the capacity,
        // `parts` has room for what each slice says where there are several.
        unsafe { self.start(source, "decode_attention", grid, &arguments)? };
        if several.is_some() {
            let eights = rows * group * head_dim / 8;
            let arguments = [parts, pointer(&y)?, Int(slices as i32), Long(eights as i64)];
            // SAFETY: the kernel's arguments; it checks its item against `eights`, and every part was written above.
            unsafe { self.start(source, "join_slices", Grid::of_items(eights), &arguments)? };
        }
        Ok(y)
    }
}

/// Threads for a row of `width` values, eight to a thread: whole warps, and no more than have something to do, as heads are
/// rows of 128 values or fewer.
fn threads(width: usize) -> u32 {
    ((width / 8) as u32).next_multiple_of(32).clamp(32, THREADS)
}

/// Slices that the keys of each of `rows` are read in: enough that every processor of the GPU has some, and not so many that
/// a slice has few keys.
pub(super) fn slices(rows: usize, capacity: usize) -> usize {
    (DECODE_BLOCKS / rows.max(1)).min(capacity / DECODE_KEYS).max(1)
}

fn same(x: &Tensor, y: &Tensor) -> Result<()> {
    if x.shape() == y.shape() && x.dtype() == y.dtype() {
        return Ok(());
    }
    let of = |tensor: &Tensor| format!("{:?} {:?}", tensor.dtype(), tensor.shape());
    Err(Error::config(format!("a kernel takes two tensors alike, not {} and {}", of(x), of(y))))
}

/// The address of a contiguous tensor of 32-bit values that has to hold `count` of them.
fn of_width(x: &Tensor, count: usize) -> Result<Argument> {
    if x.elem_count() == count && x.dtype().size_in_bytes() == 4 {
        return pointer(x);
    }
    Err(Error::config(format!("a kernel takes {count} 32-bit values, not {:?} {:?}", x.dtype(), x.shape())))
}
