//! Keys and values of the sequences in flight: one tensor each a layer, `[slots, kv_heads, capacity, head_dim]`.

use candle_core::Tensor;

use crate::Result;
use crate::compute::kernels::Kernels;
use crate::model::Layered;
use crate::model::layered::{CausalAttention, Heads};

/// The caches of all layers.
pub(super) struct Caches {
    /// Keys and values by layer.
    layers: Vec<(Tensor, Tensor)>,
    kv_heads: usize,
    head_dim: usize,
}

impl Caches {
    /// Room for `slots` sequences of up to `capacity` tokens.
    pub(super) fn new(model: &Layered, slots: usize, capacity: usize) -> Result<Self> {
        let config = model.config();
        let (kv_heads, head_dim) = (config.num_key_value_heads, config.head_dim);
        let room = || Tensor::zeros((slots, kv_heads, capacity, head_dim), model.dtype(), model.device());
        let layers = (0..config.num_hidden_layers).map(|_| Ok((room()?, room()?))).collect::<Result<_>>()?;
        Ok(Self { layers, kv_heads, head_dim })
    }

    /// Room for `slots` sequences of up to `capacity` tokens, no fewer than before; the first `kept` slots, of which there are
    /// no more than `slots`, keep what they hold. One layer's old and new tensors are there at a time.
    pub(super) fn resize(&mut self, slots: usize, capacity: usize, kept: usize) -> Result<()> {
        for cache in self.layers.iter_mut().flat_map(|(keys, values)| [keys, values]) {
            let (_, kv_heads, before, head_dim) = cache.dims4()?;
            let resized = Tensor::zeros((slots, kv_heads, capacity, head_dim), cache.dtype(), cache.device())?;
            if kept > 0 {
                let old = cache.narrow(0, 0, kept)?.reshape((kept * kv_heads, before, head_dim))?;
                let room = resized.reshape((slots * kv_heads, capacity, head_dim))?;
                room.narrow(0, 0, kept * kv_heads)?.slice_set(&old, 1, 0)?;
            }
            *cache = resized;
        }
        Ok(())
    }

    /// Stores tokens `start..start + length` of `heads` at the beginning of every slot of `slots`.
    pub(super) fn fill(&self, layer: usize, slots: &[usize], heads: &Heads, start: usize, length: usize) -> Result<()> {
        let (keys, values) = &self.layers[layer];
        for (cache, rows) in [(keys, &heads.k), (values, &heads.v)] {
            let rows = rows.narrow(0, start, length)?.transpose(0, 1)?.unsqueeze(0)?.to_dtype(cache.dtype())?;
            let rows = rows.contiguous()?;
            for &slot in slots {
                cache.narrow(0, slot, 1)?.slice_set(&rows, 2, 0)?;
            }
        }
        Ok(())
    }

    /// The kernels for one new token a sequence, where there are some for the caches' format and shape.
    pub(super) fn kernels(&self, attention: &CausalAttention) -> Option<Kernels> {
        let fits = matches!(self.head_dim, 32 | 64 | 128) && attention.group() <= 8;
        let (keys, _) = self.layers.first().filter(|_| fits)?;
        Kernels::in_half(keys, self.head_dim)
    }

    /// Stores one token of each of the first slots at `positions` `[sequences]` and attends to all up to it: the queries'
    /// shape and format.
    pub(super) fn attend(
        &self,
        kernels: &Kernels,
        layer: usize,
        heads: &Heads,
        positions: &Tensor,
        scale: f64,
    ) -> Result<Tensor> {
        let (keys, values) = &self.layers[layer];
        kernels.store_tokens((&heads.k, &heads.v), (keys, values), positions, heads.q.dim(1)? / self.kv_heads)?;
        kernels.decode_attention(&heads.q, (keys, values), positions, scale)
    }

    /// Where the next token of each of the first slots goes, for [`Caches::append`]; `positions` is `[sequences]`.
    pub(super) fn place(&self, positions: &Tensor) -> Result<Tensor> {
        let shape = (positions.dim(0)?, self.kv_heads, 1, self.head_dim);
        Ok(positions.reshape(((), 1, 1, 1))?.broadcast_as(shape)?.contiguous()?)
    }

    /// Stores one token of each of the first slots.
    pub(super) fn append(&self, layer: usize, heads: &Heads, place: &Tensor) -> Result<()> {
        let (keys, values) = &self.layers[layer];
        for (cache, rows) in [(keys, &heads.k), (values, &heads.v)] {
            let rows = rows.unsqueeze(2)?.to_dtype(cache.dtype())?.contiguous()?;
            cache.narrow(0, 0, rows.dim(0)?)?.scatter_set(place, &rows, 2)?;
        }
        Ok(())
    }

    /// Keys and values of the first `window` positions of the first `sequences` slots,
    /// `[sequences * kv_heads, window, head_dim]`, without a copy.
    pub(super) fn window(&self, layer: usize, sequences: usize, window: usize) -> Result<(Tensor, Tensor)> {
        let of = |cache: &Tensor| {
            let slots = cache.narrow(0, 0, sequences)?;
            slots.reshape((sequences * self.kv_heads, (), self.head_dim))?.narrow(1, 0, window)
        };
        let (keys, values) = &self.layers[layer];
        Ok((of(keys)?, of(values)?))
    }

    /// Copies the first `length` tokens of slot `from` into slot `to`.
    pub(super) fn take_over(&self, to: usize, from: usize, length: usize) -> Result<()> {
        for cache in self.layers.iter().flat_map(|(keys, values)| [keys, values]) {
            let length = length.min(cache.dim(2)?);
            let rows = cache.narrow(0, from, 1)?.narrow(2, 0, length)?.force_contiguous()?;
            cache.narrow(0, to, 1)?.slice_set(&rows, 2, 0)?;
        }
        Ok(())
    }
}
