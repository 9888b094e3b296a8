//! Keys and values of one sequence, in blocks that are taken as the sequence grows and given back when it ends.
//!
//! Keys lie transposed, so that the scores of one query against a whole block are a few vector operations.

use crate::model::ops::HeadShape;

/// Positions a block holds.
pub(super) const BLOCK: usize = 64;

/// Where things lie in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockLayout {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl BlockLayout {
    pub(super) fn new(layers: usize, shape: HeadShape) -> Self {
        Self { layers, kv_heads: shape.kv_heads, head_dim: shape.head_dim }
    }

    fn size(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * BLOCK
    }

    /// Start of the keys `[head_dim, BLOCK]` of a head; its values `[BLOCK, head_dim]` follow.
    fn keys(&self, layer: usize, kv_head: usize) -> usize {
        2 * (layer * self.kv_heads + kv_head) * self.head_dim * BLOCK
    }
}

/// Blocks that are free for the next sequence.
#[derive(Debug, Default)]
pub(super) struct BlockPool {
    free: Vec<Box<[f32]>>,
}

impl BlockPool {
    pub(super) fn release(&mut self, cache: SequenceCache) {
        self.free.extend(cache.blocks);
    }
}

/// The cache of one sequence.
#[derive(Debug)]
pub(super) struct SequenceCache {
    layout: BlockLayout,
    blocks: Vec<Box<[f32]>>,
}

impl SequenceCache {
    pub(super) fn new(layout: BlockLayout) -> Self {
        Self { layout, blocks: Vec::new() }
    }

    /// Makes room for positions below `length`.
    pub(super) fn reserve(&mut self, length: usize, pool: &mut BlockPool) {
        while self.blocks.len() * BLOCK < length {
            let block = pool.free.pop().unwrap_or_else(|| vec![0f32; self.layout.size()].into_boxed_slice());
            self.blocks.push(block);
        }
    }

    /// A second sequence with the same past.
    pub(super) fn fork(&self, pool: &mut BlockPool) -> Self {
        let mut copy = Self::new(self.layout);
        copy.reserve(self.blocks.len() * BLOCK, pool);
        for (to, from) in copy.blocks.iter_mut().zip(&self.blocks) {
            to.copy_from_slice(from);
        }
        copy
    }

    /// Stores key and value of one head at one position.
    pub(super) fn store(&mut self, layer: usize, kv_head: usize, position: usize, key: &[f32], value: &[f32]) {
        let BlockLayout { head_dim, .. } = self.layout;
        let start = self.layout.keys(layer, kv_head);
        let (block, at) = (&mut self.blocks[position / BLOCK], position % BLOCK);
        let (keys, values) = block[start..start + 2 * head_dim * BLOCK].split_at_mut(head_dim * BLOCK);
        for (i, &k) in key.iter().enumerate() {
            keys[i * BLOCK + at] = k;
        }
        values[at * head_dim..][..head_dim].copy_from_slice(value);
    }

    /// Keys `[head_dim, BLOCK]` and values `[BLOCK, head_dim]` of one head, block by block.
    pub(super) fn blocks(&self, layer: usize, kv_head: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
        let (start, size) = (self.layout.keys(layer, kv_head), self.layout.head_dim * BLOCK);
        self.blocks.iter().map(move |block| block[start..start + 2 * size].split_at(size))
    }
}
