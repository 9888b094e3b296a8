//! The kernels against attention written out in f64. Where there is no GPU, or no kernel in the build, only the latter
//! is checked: against differences of its own loss.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// Packed sequences with random queries, keys, values and a random gradient of the output, all of them bf16 values.
#[derive(Clone)]
struct Attention {
    lengths: Vec<usize>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f64,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    d_out: Vec<f64>,
}

/// Laid out as the kernels write it: `dk` and `dv` for every query head.
struct Answer {
    out: Vec<f64>,
    log_sums: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

impl Attention {
    fn random(lengths: &[usize], heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let tokens: usize = lengths.iter().sum();
        let mut state = 1u64;
        let mut values = |count: usize| -> Vec<f64> {
            let mut uniform = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
            };
            // Nearly normal, so that a few scores stand out.
            (0..count).map(|_| from_bf16(to_bf16(2.0 * (0..4).map(|_| uniform()).sum::<f64>()))).collect()
        };
        let (queries, keys) = (tokens * heads * head_dim, tokens * kv_heads * head_dim);
        Self {
            lengths: lengths.to_vec(),
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f64).sqrt(),
            q: values(queries),
            k: values(keys),
            v: values(keys),
            d_out: values(queries),
        }
    }

    fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn answer(&self) -> Answer {
        let (heads, width, tokens) = (self.heads, self.head_dim, self.tokens());
        let zeros = || vec![0.0; tokens * heads * width];
        let (mut out, mut dq, mut dk, mut dv) = (zeros(), zeros(), zeros(), zeros());
        let mut log_sums = vec![0.0; heads * tokens];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let add = |to: &mut [f64], times: f64, from: &[f64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += times * from);
        };
        for head in 0..heads {
            let kv_head = head / (heads / self.kv_heads);
            let of_query = |row: usize| (row * heads + head) * width..(row * heads + head + 1) * width;
            let of_key =
                |row: usize| (row * self.kv_heads + kv_head) * width..(row * self.kv_heads + kv_head + 1) * width;
            let mut start = 0;
            for &length in &self.lengths {
                for row in start..start + length {
                    let q = &self.q[of_query(row)];
                    let d_out = &self.d_out[of_query(row)];
                    let scores: Vec<f64> = (start..=row).map(|key| self.scale * dot(q, &self.k[of_key(key)])).collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let log_sum = largest + scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln();
                    log_sums[head * tokens + row] = log_sum;
                    for (key, score) in (start..).zip(&scores) {
                        add(&mut out[of_query(row)], (score - log_sum).exp(), &self.v[of_key(key)]);
                    }
                    let mean = dot(d_out, &out[of_query(row)]);
                    for (key, score) in (start..).zip(&scores) {
                        let share = (score - log_sum).exp();
                        let d_score = self.scale * share * (dot(d_out, &self.v[of_key(key)]) - mean);
                        add(&mut dv[of_query(key)], share, d_out);
                        add(&mut dq[of_query(row)], d_score, &self.k[of_key(key)]);
                        add(&mut dk[of_query(key)], d_score, q);
                    }
                }
                start += length;
            }
        }
        Answer { out, log_sums, dq, dk, dv }
    }

    /// The number whose gradients [`Self::answer`] has.
    fn loss(&self) -> f64 {
        self.answer().out.iter().zip(&self.d_out).map(|(out, weight)| out * weight).sum()
    }
}

fn to_bf16(value: f64) -> u16 {
    let bits = (value as f32).to_bits();
    // To the nearest, and to the even one of two.
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn from_bf16(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

#[test]
fn the_reference_has_the_gradients_of_its_loss() {
    let attention = Attention::random(&[3, 1, 5], 4, 2, 6);
    let answer = attention.answer();
    let width = attention.head_dim;
    // The second sequence is one token, which sees itself alone.
    let of_itself: f64 = (0..width).map(|i| attention.q[12 * width + i] * attention.k[6 * width + i]).sum();
    assert!((answer.log_sums[3] - attention.scale * of_itself).abs() < 1e-12);
    assert_eq!(answer.out[12 * width..13 * width], attention.v[6 * width..7 * width]);
    let difference = |change: &dyn Fn(&mut Attention, f64)| {
        let [after, before] = [1e-4, -1e-4].map(|by| {
            let mut changed = attention.clone();
            change(&mut changed, by);
            changed.loss()
        });
        (after - before) / 2e-4
    };
    // A key's or value's gradient: the sum over its two query heads.
    let of_group = |gradients: &[f64], index: usize| {
        let (row, within) = (index / (2 * width), index % (2 * width));
        let first = row * 4 * width + (within / width) * 2 * width + within % width;
        gradients[first] + gradients[first + width]
    };
    for index in 0..attention.q.len() {
        let expected = difference(&|changed, by| changed.q[index] += by);
        assert!((answer.dq[index] - expected).abs() < 1e-6, "q[{index}]");
    }
    for index in 0..attention.k.len() {
        let expected = difference(&|changed, by| changed.k[index] += by);
        assert!((of_group(&answer.dk, index) - expected).abs() < 1e-6, "k[{index}]");
        let expected = difference(&|changed, by| changed.v[index] += by);
        assert!((of_group(&answer.dv, index) - expected).abs() < 1e-6, "v[{index}]");
    }
}

#[cfg(feature = "kernels")]
mod device {
    use std::ffi::{c_int, c_void};
    use std::ptr;

    use brevity_flash::{Backward, Forward, Shape, available, backward, forward};

    use super::{Attention, from_bf16, to_bf16};

    unsafe extern "C" {
        fn cudaMalloc(pointer: *mut *mut c_void, bytes: usize) -> c_int;
        fn cudaMemcpy(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int) -> c_int;
        fn cudaFree(pointer: *mut c_void) -> c_int;
        fn cudaDeviceSynchronize() -> c_int;
    }

    const TO_DEVICE: c_int = 1;
    const TO_HOST: c_int = 2;

    /// Device memory with numbers of one kind.
    struct Buffer {
        pointer: *mut c_void,
        bytes: usize,
    }

    impl Buffer {
        fn new<T: Copy>(values: &[T]) -> Self {
            let (mut pointer, bytes) = (ptr::null_mut(), size_of_val(values));
            // SAFETY: the memory allocated here is as large as the slice that is copied to it.
            let codes = unsafe {
                [cudaMalloc(&mut pointer, bytes), cudaMemcpy(pointer, values.as_ptr().cast(), bytes, TO_DEVICE)]
            };
            assert_eq!(codes, [0, 0], "CUDA's codes for an allocation of {bytes} bytes and a copy to it");
            Self { pointer, bytes }
        }

        fn of_bf16(values: &[f64]) -> Self {
            Self::new(&values.iter().map(|&value| to_bf16(value)).collect::<Vec<_>>())
        }

        /// Memory in which every number is NaN: what is not written shows, and what need not be zeroed is not.
        fn bf16_to_write(count: usize) -> Self {
            Self::new(&vec![0xffff_u16; count])
        }

        fn f32_to_write(count: usize) -> Self {
            Self::new(&vec![f32::NAN; count])
        }

        fn address(&self) -> u64 {
            self.pointer as u64
        }

        fn read<T: Copy + Default>(&self) -> Vec<T> {
            let mut values = vec![T::default(); self.bytes / size_of::<T>()];
            // SAFETY: the vector is as large as the memory.
            let code = unsafe { cudaMemcpy(values.as_mut_ptr().cast(), self.pointer, self.bytes, TO_HOST) };
            assert_eq!(code, 0, "CUDA's code for a copy of {} bytes from the device", self.bytes);
            values
        }

        fn read_bf16(&self) -> Vec<f64> {
            self.read().into_iter().map(from_bf16).collect()
        }

        fn read_f32(&self) -> Vec<f64> {
            self.read::<f32>().into_iter().map(f64::from).collect()
        }
    }

    impl Drop for Buffer {
        fn drop(&mut self) {
            // SAFETY: it was allocated by `new` and is freed once.
            let _code = unsafe { cudaFree(self.pointer) };
        }
    }

    /// The root of the squared differences, against that of the squares.
    fn distance(found: &[f64], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        let difference: f64 = found.iter().zip(expected).map(|(found, expected)| (found - expected).powi(2)).sum();
        (difference / expected.iter().map(|expected| expected.powi(2)).sum::<f64>()).sqrt()
    }

    fn compare(lengths: &[usize], heads: usize, kv_heads: usize, head_dim: usize) {
        let attention = Attention::random(lengths, heads, kv_heads, head_dim);
        let shape = Shape {
            tokens: attention.tokens(),
            sequences: lengths.len(),
            longest: lengths.iter().copied().max().unwrap(),
            heads,
            kv_heads,
            head_dim,
        };
        let mut offsets = vec![0i32];
        offsets.extend(lengths.iter().scan(0, |end, &length| {
            *end += length as i32;
            Some(*end)
        }));
        let offsets = Buffer::new(&offsets);
        let [q, k, v, d_out] = [&attention.q, &attention.k, &attention.v, &attention.d_out].map(|x| Buffer::of_bf16(x));
        let out = Buffer::bf16_to_write(attention.q.len());
        let log_sums = Buffer::f32_to_write(shape.log_sums());
        let [dq, dk, dv] = [(); 3].map(|()| Buffer::bf16_to_write(shape.d_keys()));
        let dq_sums = Buffer::f32_to_write(shape.dq_sums());
        let d_softmax = Buffer::f32_to_write(shape.d_softmax());

        let forward_pointers = Forward {
            q: q.address(),
            k: k.address(),
            v: v.address(),
            out: out.address(),
            log_sums: log_sums.address(),
            offsets: offsets.address(),
        };
        let backward_pointers = Backward {
            q: q.address(),
            k: k.address(),
            v: v.address(),
            out: out.address(),
            d_out: d_out.address(),
            log_sums: log_sums.address(),
            offsets: offsets.address(),
            dq: dq.address(),
            dk: dk.address(),
            dv: dv.address(),
            dq_sums: dq_sums.address(),
            d_softmax: d_softmax.address(),
        };
        let scale = attention.scale as f32;
        // SAFETY: every buffer has the size and content that its field asks for, and outlives the wait.
        unsafe {
            forward(shape, &forward_pointers, scale, ptr::null_mut()).unwrap();
            backward(shape, &backward_pointers, scale, ptr::null_mut()).unwrap();
            assert_eq!(cudaDeviceSynchronize(), 0, "CUDA's code after both passes over {shape}");
        }

        let expected = attention.answer();
        let distances = [
            ("out", distance(&out.read_bf16(), &expected.out)),
            ("log_sums", distance(&log_sums.read_f32(), &expected.log_sums)),
            ("dq", distance(&dq.read_bf16(), &expected.dq)),
            ("dk", distance(&dk.read_bf16(), &expected.dk)),
            ("dv", distance(&dv.read_bf16(), &expected.dv)),
        ];
        eprintln!("{shape}: {distances:?}");
        for (name, distance) in distances {
            // bf16 has 8 bits; written so that NaN fails.
            assert!(distance < 0.01, "{name} is off by {distance} over {shape}");
        }
    }

    #[test]
    fn both_passes_agree_with_the_reference() {
        if let Err(reason) = available() {
            eprintln!("not compared: {reason}");
            return;
        }
        for head_dim in [64, 128] {
            compare(&[256], 2, 2, head_dim);
            compare(&[1, 130, 77, 300, 128, 2], 4, 2, head_dim);
            compare(&[45, 513], 7, 1, head_dim);
        }
    }
}
