//! FlashAttention-2 for training: causal attention over packed sequences, forward and backward, on raw device pointers.
//!
//! The kernels are those of Tri Dao's flash-attn 2.8.3 (BSD licence), compiled by this crate's build script when the
//! feature `kernels` is on: bf16, heads of 64 or 128, grouped queries, each token seeing its sequence up to itself.
//! Memory grows with the number of tokens and not with its square: the forward pass keeps one number per token and
//! head, from which the backward pass computes the scores anew. Without the feature every call returns
//! [`FlashError::NotBuilt`], so that callers compile everywhere.

mod error;
#[cfg_attr(not(feature = "kernels"), path = "no_kernels.rs")]
mod kernels;

use std::ffi::c_void;
use std::fmt::{self, Display, Formatter};

pub use error::FlashError;

/// The result of this crate's functions.
pub type Result<T, E = FlashError> = std::result::Result<T, E>;

/// Rows that the backward pass may write beyond the end of a sequence, in its workspaces.
const PADDING: usize = 128;

/// Most sequences and heads of a call: the grid of a launch has no more places.
const GRID: usize = 65_535;

/// The sizes of one call. Sequences lie one after another in the rows of every tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of every tensor: the lengths of all sequences together.
    pub tokens: usize,
    /// Sequences.
    pub sequences: usize,
    /// The length of the longest sequence, or more.
    pub longest: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; query head `i` reads head `i / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values of a head: 64 or 128.
    pub head_dim: usize,
}

impl Shape {
    /// Elements of [`Forward::log_sums`] (f32): `[heads, tokens]`.
    #[must_use]
    pub fn log_sums(&self) -> usize {
        self.heads * self.tokens
    }

    /// Elements of [`Backward::dk`] and of [`Backward::dv`] (bf16): `[tokens, heads, head_dim]`, for every query head.
    #[must_use]
    pub fn d_keys(&self) -> usize {
        self.tokens * self.heads * self.head_dim
    }

    /// Elements of the workspace [`Backward::dq_sums`] (f32): `[tokens + 128 * sequences, heads, head_dim]`.
    #[must_use]
    pub fn dq_sums(&self) -> usize {
        (self.tokens + PADDING * self.sequences) * self.heads * self.head_dim
    }

    /// Elements of the workspace [`Backward::d_softmax`] (f32): `[heads, tokens + 128 * sequences]`.
    #[must_use]
    pub fn d_softmax(&self) -> usize {
        self.heads * (self.tokens + PADDING * self.sequences)
    }

    /// Whether the kernels can take it; [`forward`] and [`backward`] ask this themselves.
    ///
    /// # Errors
    /// [`FlashError::Shape`] saying which size does not fit.
    pub fn check(&self) -> Result<()> {
        let Self { tokens, sequences, longest, heads, kv_heads, head_dim } = *self;
        // The kernels count in 32 bits over every head's rows.
        let rows = sequences.checked_mul(PADDING).and_then(|rows| rows.checked_add(tokens)?.checked_mul(heads));
        let problem = if [tokens, sequences, longest, heads, kv_heads].contains(&0) {
            "every size must be at least 1; leave out a call without tokens".to_owned()
        } else if ![64, 128].contains(&head_dim) {
            format!("there are kernels for heads of 64 and of 128, not of {head_dim}; take another attention")
        } else if heads % kv_heads != 0 {
            format!("{heads} heads are not a multiple of {kv_heads} for keys and values")
        } else if sequences > GRID || heads > GRID {
            format!("at most {GRID} sequences and heads go into one call; split the batch")
        } else if longest > tokens {
            format!("no sequence of {longest} is in {tokens} tokens; give the longest sequence's length")
        } else if longest.checked_mul(sequences).is_some_and(|most| most < tokens) {
            format!(
                "{sequences} sequences of up to {longest} hold fewer than {tokens} tokens; give the longest's length"
            )
        } else if rows.is_none_or(|rows| i32::try_from(rows).is_err()) {
            "heads × (tokens + 128 × sequences) must be less than 2³¹; split the batch".to_owned()
        } else {
            return Ok(());
        };
        Err(FlashError::Shape { shape: *self, problem })
    }

    fn check_with_scale(&self, scale: f32) -> Result<()> {
        self.check()?;
        if scale.is_finite() && scale > 0.0 {
            return Ok(());
        }
        let problem = format!("scores cannot be scaled by {scale}; 1 / √{} is usual", self.head_dim);
        Err(FlashError::Shape { shape: *self, problem })
    }

    fn check_pointers<const N: usize>(&self, pointers: [(&'static str, u64, Holds); N]) -> Result<()> {
        for (name, address, holds) in pointers {
            let alignment = match holds {
                Holds::Vectors => 16,
                Holds::Numbers => 4,
            };
            if address == 0 || address % alignment != 0 {
                return Err(FlashError::Pointer { shape: *self, name, address, alignment });
            }
        }
        Ok(())
    }
}

impl Display for Shape {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { tokens, sequences, longest, heads, kv_heads, head_dim } = self;
        write!(
            formatter,
            "{tokens} tokens in {sequences} sequences of up to {longest}, {heads} heads of {head_dim} with {kv_heads} \
             for keys and values"
        )
    }
}

/// How memory behind a pointer is accessed, which says how it must be aligned.
#[derive(Clone, Copy)]
enum Holds {
    /// 16 bytes at a time.
    Vectors,
    /// 4 bytes at a time.
    Numbers,
}

/// Addresses in device memory for [`forward`]; every tensor is contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Forward {
    /// Queries: bf16 `[tokens, heads, head_dim]`, aligned to 16 bytes.
    pub q: u64,
    /// Keys: bf16 `[tokens, kv_heads, head_dim]`, aligned to 16 bytes.
    pub k: u64,
    /// Values: bf16 `[tokens, kv_heads, head_dim]`, aligned to 16 bytes.
    pub v: u64,
    /// Written: bf16 `[tokens, heads, head_dim]`, aligned to 16 bytes.
    pub out: u64,
    /// Written: the logarithm of each softmax's denominator, of scaled scores, f32 `[heads, tokens]`.
    pub log_sums: u64,
    /// Where each sequence begins, and the number of tokens at the end: i32 `[sequences + 1]`, ascending from 0.
    pub offsets: u64,
}

/// Addresses in device memory for [`backward`]; every tensor is contiguous. No memory has to be zeroed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Backward {
    /// Queries of the forward pass: bf16 `[tokens, heads, head_dim]`, aligned to 16 bytes.
    pub q: u64,
    /// Keys of the forward pass: bf16 `[tokens, kv_heads, head_dim]`, aligned to 16 bytes.
    pub k: u64,
    /// Values of the forward pass: bf16 `[tokens, kv_heads, head_dim]`, aligned to 16 bytes.
    pub v: u64,
    /// What the forward pass wrote: bf16 `[tokens, heads, head_dim]`, aligned to 16 bytes.
    pub out: u64,
    /// The gradient of `out`: bf16 `[tokens, heads, head_dim]`, aligned to 16 bytes.
    pub d_out: u64,
    /// What the forward pass wrote: f32 `[heads, tokens]`.
    pub log_sums: u64,
    /// The forward pass's: i32 `[sequences + 1]`.
    pub offsets: u64,
    /// Written: bf16 `[tokens, heads, head_dim]`, aligned to 16 bytes.
    pub dq: u64,
    /// Written: bf16 `[tokens, heads, head_dim]` **for every query head**, aligned to 16 bytes. The gradient of the
    /// keys is the sum over the `heads / kv_heads` neighbours that share a head.
    pub dk: u64,
    /// Written: bf16 `[tokens, heads, head_dim]` for every query head as with `dk`, aligned to 16 bytes.
    pub dv: u64,
    /// Workspace: f32 `[tokens + 128 * sequences, heads, head_dim]` ([`Shape::dq_sums`]), aligned to 16 bytes. Need not
    /// be zeroed: the first kernel clears what the second adds to.
    pub dq_sums: u64,
    /// Workspace: f32 `[heads, tokens + 128 * sequences]` ([`Shape::d_softmax`]). Need not be zeroed.
    pub d_softmax: u64,
}

/// Whether the kernels are in this build and run on the device of the calling thread's CUDA context.
///
/// # Errors
/// [`FlashError::NotBuilt`]; [`FlashError::Device`] without a driver or GPU, or with one older than Ampere.
pub fn available() -> Result<()> {
    let (code, said) = match kernels::ready() {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal.known()?,
    };
    Err(FlashError::Device { code, said, advice: error::advice(code) })
}

/// Starts the forward pass: `out = softmax(scale * q kᵀ, causal within each sequence) v`.
///
/// Returns as soon as the kernel is queued on `stream`; what goes wrong while it runs is reported by the next call that
/// waits for the stream.
///
/// # Errors
/// [`FlashError::Shape`] or [`FlashError::Pointer`] for what the kernels cannot take, [`FlashError::Launch`] with
/// CUDA's words, [`FlashError::NotBuilt`] without the feature `kernels`.
///
/// # Safety
/// Every address in `pointers` must be device memory of the size and content that [`Forward`] tells for `shape`, in
/// the primary context that is current on this thread, and stay allocated until the kernel is done; what is written
/// must overlap nothing else. `offsets` must hold ascending numbers from 0 to `tokens`, no two neighbours further apart
/// than `longest`. `stream` must be a stream of that context (`CUstream` and `cudaStream_t` are the same), or null for
/// the default stream.
pub unsafe fn forward(shape: Shape, pointers: &Forward, scale: f32, stream: *mut c_void) -> Result<()> {
    shape.check_with_scale(scale)?;
    let Forward { q, k, v, out, log_sums, offsets } = *pointers;
    shape.check_pointers([
        ("q", q, Holds::Vectors),
        ("k", k, Holds::Vectors),
        ("v", v, Holds::Vectors),
        ("out", out, Holds::Vectors),
        ("log_sums", log_sums, Holds::Numbers),
        ("offsets", offsets, Holds::Numbers),
    ])?;
    // SAFETY: the caller's promises are those that the kernels need; sizes and alignments were checked just above.
    unsafe { kernels::forward(shape, pointers, scale, stream) }.map_err(|refusal| refusal.of("forward", shape))
}

/// Starts the backward pass: the gradients of `q`, `k` and `v` from that of `out`.
///
/// Sums of queries' gradients are taken by atomic additions, so two runs differ in the last bits. Returns as soon as
/// the kernels are queued on `stream`, like [`forward`].
///
/// # Errors
/// As with [`forward`].
///
/// # Safety
/// As with [`forward`], for the memory that [`Backward`] tells; `out` and `log_sums` must be what [`forward`] wrote for
/// the same `shape`, `q`, `k`, `v`, `offsets` and `scale`, or is to write earlier on the same stream.
pub unsafe fn backward(shape: Shape, pointers: &Backward, scale: f32, stream: *mut c_void) -> Result<()> {
    shape.check_with_scale(scale)?;
    let Backward { q, k, v, out, d_out, log_sums, offsets, dq, dk, dv, dq_sums, d_softmax } = *pointers;
    shape.check_pointers([
        ("q", q, Holds::Vectors),
        ("k", k, Holds::Vectors),
        ("v", v, Holds::Vectors),
        ("out", out, Holds::Vectors),
        ("d_out", d_out, Holds::Vectors),
        ("log_sums", log_sums, Holds::Numbers),
        ("offsets", offsets, Holds::Numbers),
        ("dq", dq, Holds::Vectors),
        ("dk", dk, Holds::Vectors),
        ("dv", dv, Holds::Vectors),
        ("dq_sums", dq_sums, Holds::Vectors),
        ("d_softmax", d_softmax, Holds::Numbers),
    ])?;
    // SAFETY: the caller's promises are those that the kernels need; sizes and alignments were checked just above.
    unsafe { kernels::backward(shape, pointers, scale, stream) }.map_err(|refusal| refusal.of("backward", shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { tokens: 300, sequences: 3, longest: 200, heads: 14, kv_heads: 2, head_dim: 64 };
    const FORWARD: Forward = Forward { q: 16, k: 32, v: 48, out: 64, log_sums: 80, offsets: 84 };
    const BACKWARD: Backward = Backward {
        q: 16,
        k: 32,
        v: 48,
        out: 64,
        d_out: 80,
        log_sums: 96,
        offsets: 100,
        dq: 112,
        dk: 128,
        dv: 144,
        dq_sums: 160,
        d_softmax: 180,
    };

    fn problem(change: impl FnOnce(&mut Shape)) -> String {
        let mut shape = SHAPE;
        change(&mut shape);
        shape.check().unwrap_err().to_string()
    }

    #[test]
    fn workspaces_have_room_beyond_each_sequence() {
        assert_eq!(SHAPE.check(), Ok(()));
        assert_eq!(SHAPE.log_sums(), 14 * 300);
        assert_eq!(SHAPE.d_keys(), 300 * 14 * 64);
        assert_eq!(SHAPE.dq_sums(), (300 + 3 * 128) * 14 * 64);
        assert_eq!(SHAPE.d_softmax(), 14 * (300 + 3 * 128));
    }

    #[test]
    fn shapes_that_no_kernel_takes_are_refused() {
        for (said, words) in [
            (problem(|shape| shape.head_dim = 96), "not of 96"),
            (problem(|shape| shape.kv_heads = 4), "14 heads are not a multiple of 4"),
            (problem(|shape| shape.kv_heads = 0), "at least 1"),
            (problem(|shape| shape.tokens = 0), "at least 1"),
            (problem(|shape| shape.longest = 301), "no sequence of 301"),
            (problem(|shape| shape.longest = 99), "fewer than 300 tokens"),
            (problem(|shape| shape.sequences = 65_536), "split the batch"),
            (problem(|shape| (shape.tokens, shape.longest) = (1 << 28, 1 << 28)), "2³¹"),
            (problem(|shape| (shape.tokens, shape.longest) = (usize::MAX, usize::MAX)), "2³¹"),
        ] {
            assert!(said.contains(words) && said.contains("sequences of up to"), "{said}");
        }
    }

    #[test]
    fn pointers_and_scales_are_checked_before_anything_starts() {
        let refused = |shape, pointers, scale| {
            // SAFETY: nothing gets to a kernel: each call has something that is refused before.
            unsafe { forward(shape, &pointers, scale, std::ptr::null_mut()) }.unwrap_err().to_string()
        };
        let said = refused(SHAPE, Forward { k: 0, ..FORWARD }, 0.125);
        assert!(said.contains("`k` is 0x0"), "{said}");
        let said = refused(SHAPE, Forward { v: 8, ..FORWARD }, 0.125);
        assert!(said.contains("`v` is 0x8") && said.contains("16 bytes"), "{said}");
        let said = refused(SHAPE, FORWARD, f32::NAN);
        assert!(said.contains("NaN") && said.contains("√64"), "{said}");
        // SAFETY: as above.
        let said = unsafe { backward(SHAPE, &Backward { dq_sums: 4, ..BACKWARD }, 0.125, std::ptr::null_mut()) };
        assert!(matches!(said, Err(FlashError::Pointer { name: "dq_sums", address: 4, .. })), "{said:?}");
    }

    #[test]
    fn without_kernels_or_a_gpu_a_call_says_so() {
        let Err(reason) = available() else { return };
        // SAFETY: no kernel starts where `available` refuses.
        let calls = unsafe {
            [
                forward(SHAPE, &FORWARD, 0.125, std::ptr::null_mut()),
                backward(SHAPE, &BACKWARD, 0.125, std::ptr::null_mut()),
            ]
        };
        for (call, pass) in calls.into_iter().zip(["forward", "backward"]) {
            let error = call.unwrap_err();
            if cfg!(feature = "kernels") {
                let said = error.to_string();
                assert!(said.contains(pass) && said.contains("14 heads of 64"), "{said}");
                assert!(matches!(error, FlashError::Launch { .. }) && matches!(reason, FlashError::Device { .. }));
            } else {
                assert_eq!(error, FlashError::NotBuilt);
                assert_eq!(reason, FlashError::NotBuilt);
            }
        }
    }
}
