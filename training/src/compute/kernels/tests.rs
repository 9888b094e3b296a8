//! Every kernel against plain loops in f64. Without a GPU these tests say so and pass; the sources are compiled all the same.

use candle_core::{DType, Device, Tensor};

use super::launch::{Kernels, Source};
use super::rows::slices;
use super::{AdamWFactors, RowScores};

/// The first GPU, where there is one.
fn gpu() -> Option<Device> {
    let device = Device::new_cuda(0).ok();
    if device.is_none() {
        println!("skipped: no GPU here");
    }
    device
}

/// Values in about -2 to 2 without a pattern that would hide a wrong index.
fn values(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32)
        .map(|i| {
            let mixed = (i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)).wrapping_mul(2_246_822_519);
            (mixed >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

/// A tensor on the device in `dtype`, and its values as they were rounded.
fn tensor(shape: &[usize], seed: u32, dtype: DType, device: &Device) -> (Tensor, Vec<f64>) {
    let host = Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap();
    let x = host.to_device(device).unwrap().to_dtype(dtype).unwrap();
    let rounded = read(&x);
    (x, rounded)
}

fn read(x: &Tensor) -> Vec<f64> {
    let host = x.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap().flatten_all().unwrap();
    host.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// Asserts that the norm of the difference is at most `tolerance` of the norm.
#[track_caller]
fn near(found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = read(found);
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
    assert!(apart <= tolerance, "{apart} apart, allowed {tolerance}");
}

/// The formats with what a rounded result may be away from the exact one.
const FORMATS: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::BF16, 4e-3)];

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn the_sources_compile_for_every_generation() {
    for capability in [(8, 0), (8, 9), (9, 0)] {
        for source in [
            Source::Tensors,
            Source::Logits,
            Source::Decode { head_dim: 32, group: 1 },
            Source::Decode { head_dim: 64, group: 7 },
            Source::Decode { head_dim: 128, group: 8 },
        ] {
            match source.ptx(capability) {
                Ok(ptx) => assert!(ptx.contains(".entry")),
                // What the stand-in for the library returns where there is none: scripts/cuda-lazy-libraries.py.
                Err(error) if error.to_string().contains("INTERNAL_ERROR") => {
                    return println!("skipped: no libnvrtc here");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn norms() {
    let Some(device) = gpu() else { return };
    // Rows of hidden states, and of a head.
    for ((rows, width), (dtype, tolerance)) in [(37, 1544), (41, 128)].into_iter().flat_map(|s| FORMATS.map(|f| (s, f)))
    {
        let ((x, of_x), (dy, of_dy)) =
            (tensor(&[rows, width], 1, dtype, &device), tensor(&[rows, width], 2, dtype, &device));
        let (weight, w) = tensor(&[width], 3, DType::F32, &device);
        let (mut y, mut dx, mut dw) = (vec![0.0; rows * width], vec![0.0; rows * width], vec![0.0; width]);
        for row in 0..rows {
            let at = |i: usize| row * width + i;
            let squares: f64 = (0..width).map(|i| of_x[at(i)].powi(2)).sum();
            let inverse = (squares / width as f64 + 1e-6).sqrt().recip();
            let along = (0..width).map(|i| w[i] * of_dy[at(i)] * of_x[at(i)] * inverse).sum::<f64>() / width as f64;
            for i in 0..width {
                let normed = of_x[at(i)] * inverse;
                y[at(i)] = normed * w[i];
                dx[at(i)] = (w[i] * of_dy[at(i)] - normed * along) * inverse;
                dw[i] += of_dy[at(i)] * normed;
            }
        }
        let kernels = Kernels::of(&x, width).unwrap();
        near(&kernels.rms_norm(&x, &weight, 1e-6).unwrap(), &y, tolerance);
        let (found, inverses) = kernels.rms_norm_backward(&x, &dy, &weight, 1e-6).unwrap();
        near(&found, &dx, tolerance);
        near(&kernels.column_sums(&dy, Some((&x, &inverses))).unwrap(), &dw, 1e-5);
    }
}

#[test]
fn sums_and_biases() {
    let Some(device) = gpu() else { return };
    let (rows, width) = (333, 264);
    for (dtype, tolerance) in FORMATS {
        let ((y, of_y), (bias, b)) = (tensor(&[rows, width], 1, dtype, &device), tensor(&[width], 2, dtype, &device));
        let sums: Vec<f64> = (0..width).map(|i| (0..rows).map(|row| of_y[row * width + i]).sum()).collect();
        let kernels = Kernels::of(&y, width).unwrap();
        let squares: f64 = of_y.iter().map(|y| y * y).sum();
        near(&kernels.sum_of_squares(&y).unwrap(), &[squares], 1e-6);
        near(&kernels.column_sums(&y, None).unwrap(), &sums, 1e-5);
        kernels.add_bias(&y, &bias).unwrap();
        let sum: Vec<f64> = of_y.iter().enumerate().map(|(at, y)| y + b[at % width]).collect();
        near(&y, &sum, tolerance);
    }
}

#[test]
fn positions() {
    let Some(device) = gpu() else { return };
    let (tokens, heads, half) = (29, 3, 32);
    for (dtype, tolerance) in FORMATS {
        let (x, of_x) = tensor(&[tokens, heads, 2 * half], 1, dtype, &device);
        let (cos, c) = tensor(&[tokens, 1, half], 2, DType::F32, &device);
        let (sin, s) = tensor(&[tokens, 1, half], 3, DType::F32, &device);
        let kernels = Kernels::of(&x, half).unwrap();
        for back in [false, true] {
            let mut y = vec![0.0; of_x.len()];
            for row in 0..tokens * heads {
                for i in 0..half {
                    let (a, b) = (of_x[row * 2 * half + i], of_x[row * 2 * half + half + i]);
                    let (c, s) = (c[row / heads * half + i], s[row / heads * half + i] * if back { -1.0 } else { 1.0 });
                    y[row * 2 * half + i] = a * c - b * s;
                    y[row * 2 * half + half + i] = b * c + a * s;
                }
            }
            near(&kernels.rotary(&x, &cos, &sin, back).unwrap(), &y, tolerance);
        }
    }
}

#[test]
fn gates() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in FORMATS {
        let of = |seed| tensor(&[61, 264], seed, dtype, &device);
        let ((gate, g), (up, u), (dy, d)) = (of(1), of(2), of(3));
        let of_all = |f: &dyn Fn(usize) -> f64| (0..g.len()).map(f).collect::<Vec<_>>();
        let silu = |x: f64| x * sigmoid(x);
        let slope = |x: f64| sigmoid(x) + silu(x) * (1.0 - sigmoid(x));
        let kernels = Kernels::of(&gate, 264).unwrap();
        near(&kernels.gated(&gate, &up).unwrap(), &of_all(&|i| silu(g[i]) * u[i]), tolerance);
        let (d_gate, d_up) = kernels.gated_backward(&gate, &up, &dy).unwrap();
        near(&d_gate, &of_all(&|i| d[i] * u[i] * slope(g[i])), tolerance);
        near(&d_up, &of_all(&|i| d[i] * silu(g[i])), tolerance);
    }
}

#[test]
fn products() {
    let Some(device) = gpu() else { return };
    let (m, k, n) = (70, 40, 56);
    let ((a, of_a), (b, of_b)) = (tensor(&[m, k], 1, DType::BF16, &device), tensor(&[k, n], 2, DType::BF16, &device));
    let mut exact = vec![0.0; m * n];
    for (at, value) in exact.iter_mut().enumerate() {
        *value = (0..k).map(|i| of_a[at / n * k + i] * of_b[i * n + at % n]).sum();
    }
    let transposed = |x: &Tensor| x.t().unwrap().contiguous().unwrap();
    let (at, bt) = (transposed(&a), transposed(&b));
    let kernels = Kernels::in_half(&a, 8).unwrap();
    for a in [a.clone(), at.t().unwrap()] {
        for b in [b.clone(), bt.t().unwrap()] {
            let scaled: Vec<f64> = exact.iter().map(|x| x * 0.5).collect();
            near(&kernels.product(&a, &b, 0.5, DType::F32).unwrap(), &scaled, 1e-6);
            near(&kernels.product(&a, &b, 0.5, DType::BF16).unwrap(), &scaled, 4e-3);
            for (dtype, tolerance) in FORMATS {
                let (y, of_y) = tensor(&[m, n], 3, dtype, &device);
                kernels.add_product(&y, &a, &b).unwrap();
                let sum: Vec<f64> = exact.iter().zip(of_y).map(|(x, y)| x + y).collect();
                near(&y, &sum, tolerance);
            }
        }
    }
    assert!(kernels.product(&a, &a, 1.0, DType::F32).unwrap_err().to_string().contains("no product of"));
}

#[test]
fn scores_of_rows() {
    let Some(device) = gpu() else { return };
    let (rows, vocabulary, scale) = (9, 5003, 1.0 / 0.7);
    let (logits, l) = tensor(&[rows, vocabulary], 1, DType::F32, &device);
    let targets: Vec<u32> = (0..rows as u32).map(|row| (row * 1907) % vocabulary as u32).collect();
    let (coefficients, c) = tensor(&[rows], 2, DType::F32, &device);
    let (mut logprobs, mut log_sums, mut nats, mut gradient) = (vec![], vec![], vec![], vec![]);
    for row in 0..rows {
        let of_row: Vec<f64> = l[row * vocabulary..][..vocabulary].iter().map(|x| x * scale).collect();
        let log_sum = of_row.iter().map(|x| x.exp()).sum::<f64>().ln();
        logprobs.push(of_row[targets[row] as usize] - log_sum);
        log_sums.push(log_sum);
        nats.push(-of_row.iter().map(|x| (x - log_sum).exp() * (x - log_sum)).sum::<f64>());
        let onehot = |id: usize| f64::from(u8::from(id == targets[row] as usize));
        gradient.extend(of_row.iter().enumerate().map(|(id, x)| c[row] * (onehot(id) - (x - log_sum).exp())));
    }
    let targets = Tensor::new(targets, &device).unwrap();
    let kernels = Kernels::of(&logits, 8).unwrap();
    let RowScores { logprobs: found, log_sums: of_rows, entropies } =
        kernels.score_rows(&logits, &targets, scale).unwrap();
    near(&found, &logprobs, 1e-5);
    near(&of_rows, &log_sums, 1e-6);
    near(&entropies, &nats, 1e-5);
    let found = kernels.score_rows_backward(&logits, &targets, &of_rows, &coefficients, scale).unwrap();
    near(&found, &gradient, 4e-3);
}

#[test]
fn draws_of_rows() {
    let Some(device) = gpu() else { return };
    let (rows, vocabulary, scale) = (500, 3001, 1.5);
    let (logits, l) = tensor(&[1, vocabulary], 1, DType::F32, &device);
    let logits = logits.broadcast_as((rows, vocabulary)).unwrap().contiguous().unwrap();
    // Both ends of the unit interval are among the draws.
    let uniform: Vec<f32> =
        (0..rows).map(|row| (row as f32 / (rows - 1) as f32).min(1.0 - f32::EPSILON / 2.0)).collect();
    let weights: Vec<f64> = l.iter().map(|x| (x * scale).exp()).collect();
    let total: f64 = weights.iter().sum();
    let kernels = Kernels::of(&logits, 8).unwrap();
    let (ids, logprobs) =
        kernels.draw_rows(&logits, &Tensor::new(uniform.as_slice(), &device).unwrap(), scale).unwrap();
    let (ids, logprobs) = (ids.to_vec1::<u32>().unwrap(), logprobs.to_vec1::<f32>().unwrap());
    for ((id, logprob), uniform) in ids.into_iter().zip(logprobs).zip(uniform) {
        let id = id as usize;
        let before = weights[..id].iter().sum::<f64>() / total;
        let after = before + weights[id] / total;
        let uniform = f64::from(uniform);
        assert!(before - 1e-5 <= uniform && uniform <= after + 1e-5, "{uniform} is not in {before}..{after}");
        assert!((f64::from(logprob) - (weights[id] / total).ln()).abs() < 1e-4);
    }
}

#[test]
fn updates() {
    let Some(device) = gpu() else { return };
    let factors = AdamWFactors {
        clip: 0.5,
        beta1: 0.9,
        rest1: 0.1,
        beta2: 0.95,
        rest2: 0.05,
        keep: 0.99,
        step: 0.1,
        root: 1.3,
        eps: 1e-8,
    };
    let wide = f64::from;
    for (dtype, tolerance) in FORMATS {
        for of_gradient in [DType::F32, DType::BF16] {
            let (parameter, p) = tensor(&[1008], 1, dtype, &device);
            let (gradient, g) = tensor(&[1008], 2, of_gradient, &device);
            let ((m, of_m), (v, _)) =
                (tensor(&[1008], 3, DType::F32, &device), tensor(&[1008], 4, DType::F32, &device));
            let v = v.sqr().unwrap();
            let of_v = read(&v);
            let master = (dtype == DType::BF16).then(|| parameter.to_dtype(DType::F32).unwrap());
            let kernels = Kernels::of(&parameter, 8).unwrap();
            kernels.adamw(&parameter, master.as_ref(), (&m, &v), &gradient, factors).unwrap();
            let (mut first, mut second, mut now) = (vec![], vec![], vec![]);
            for i in 0..p.len() {
                let g = g[i] * wide(factors.clip);
                first.push(of_m[i] * wide(factors.beta1) + g * wide(factors.rest1));
                second.push(of_v[i] * wide(factors.beta2) + g * g * wide(factors.rest2));
                let direction = first[i] / (second[i].sqrt() * wide(factors.root) + wide(factors.eps));
                now.push(p[i] * wide(factors.keep) - direction * wide(factors.step));
            }
            near(&m, &first, 1e-6);
            near(&v, &second, 1e-6);
            near(&parameter, &now, tolerance);
            if let Some(master) = master {
                near(&master, &now, 2e-6);
            }
        }
    }
}

#[test]
fn attention_of_new_tokens() {
    let shapes = [(128, 2, 6), (128, 4, 7), (64, 3, 1), (32, 1, 8)];
    // Few rows of many keys are read in slices, of which the last are empty for short sequences; few keys are not.
    let sizes = [(2100, vec![0, 2099, 31, 524, 1050]), (200, vec![0, 199, 31, 32, 150])];
    assert_eq!(sizes.each_ref().map(|(capacity, _)| slices(10, *capacity)), [8, 1]);
    assert_eq!((slices(512, 32_768), slices(16, 32_768), slices(0, 0)), (1, 16, 1));
    let Some(device) = gpu() else { return };
    for ((head_dim, kv_heads, group), (capacity, positions)) in
        shapes.into_iter().flat_map(|shape| sizes.clone().map(|size| (shape, size)))
    {
        let (slots, positions): (usize, Vec<u32>) = (positions.len(), positions);
        let shape = [slots, kv_heads, capacity, head_dim];
        let of = |shape: &[usize], seed| tensor(shape, seed, DType::BF16, &device).0;
        let (keys, values) = (of(&shape, 1), of(&shape, 2));
        let token = [slots, kv_heads, head_dim];
        let ((new_k, of_k), (new_v, of_v)) =
            (tensor(&token, 3, DType::BF16, &device), tensor(&token, 4, DType::BF16, &device));
        let (q, of_q) = tensor(&[slots, kv_heads * group, head_dim], 5, DType::BF16, &device);
        let on_device = Tensor::new(positions.as_slice(), &device).unwrap();
        let kernels = Kernels::in_half(&keys, head_dim).unwrap();
        kernels.store_tokens((&new_k, &new_v), (&keys, &values), &on_device, group).unwrap();
        let (of_keys, of_values) = (read(&keys), read(&values));
        let mut expected = vec![];
        for slot in 0..slots {
            for head in 0..kv_heads * group {
                let row = slot * kv_heads + head / group;
                let cached =
                    |cache: &[f64], position: usize, i: usize| cache[(row * capacity + position) * head_dim + i];
                let last = positions[slot] as usize;
                for i in 0..head_dim {
                    assert_eq!(cached(&of_keys, last, i), of_k[row * head_dim + i]);
                    assert_eq!(cached(&of_values, last, i), of_v[row * head_dim + i]);
                }
                let query = &of_q[(slot * kv_heads * group + head) * head_dim..][..head_dim];
                let score = |at: usize| (0..head_dim).map(|i| query[i] * cached(&of_keys, at, i)).sum::<f64>() * 0.1;
                let weights: Vec<f64> = (0..=last).map(|at| score(at).exp()).collect();
                let sum: f64 = weights.iter().sum();
                expected.extend((0..head_dim).map(|i| {
                    weights.iter().enumerate().map(|(at, w)| w * cached(&of_values, at, i)).sum::<f64>() / sum
                }));
            }
        }
        near(&kernels.decode_attention(&q, (&keys, &values), &on_device, 0.1).unwrap(), &expected, 4e-3);
    }
}

#[test]
#[cfg(feature = "flash")]
fn attention_of_whole_sequences() {
    let Some(device) = gpu() else { return };
    let offsets = [0, 300, 301, 301, 700];
    let tokens = 700;
    for (head_dim, kv_heads, group) in [(128, 2, 6), (64, 1, 7), (64, 3, 1)] {
        let heads = kv_heads * group;
        let of = |heads, seed| tensor(&[tokens, heads, head_dim], seed, DType::BF16, &device);
        let ((q, of_q), (k, of_k), (v, of_v), (d_out, of_d)) =
            (of(heads, 1), of(kv_heads, 2), of(kv_heads, 3), of(heads, 4));
        let scale = 0.07;
        let (mut out, mut dq, mut dk, mut dv) =
            (vec![0.0; of_q.len()], vec![0.0; of_q.len()], vec![0.0; of_k.len()], vec![0.0; of_k.len()]);
        for pair in offsets.windows(2) {
            for head in 0..heads {
                let query = |token: usize| (token * heads + head) * head_dim;
                let key = |token: usize| (token * kv_heads + head / group) * head_dim;
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                for i in pair[0]..pair[1] {
                    let row = |all: &[f64], at: usize| all[at..at + head_dim].to_vec();
                    let (q_i, d_i) = (row(&of_q, query(i)), row(&of_d, query(i)));
                    let weights: Vec<f64> =
                        (pair[0]..=i).map(|j| (dot(&q_i, &of_k[key(j)..key(j) + head_dim]) * scale).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for (j, weight) in (pair[0]..=i).zip(&weights) {
                        for x in 0..head_dim {
                            out[query(i) + x] += weight / sum * of_v[key(j) + x];
                        }
                    }
                    let along = dot(&d_i, &out[query(i)..query(i) + head_dim]);
                    for (j, weight) in (pair[0]..=i).zip(&weights) {
                        let p = weight / sum;
                        let ds = p * (dot(&d_i, &of_v[key(j)..key(j) + head_dim]) - along) * scale;
                        for x in 0..head_dim {
                            dv[key(j) + x] += p * d_i[x];
                            dq[query(i) + x] += ds * of_k[key(j) + x];
                            dk[key(j) + x] += ds * q_i[x];
                        }
                    }
                }
            }
        }
        let kernels = Kernels::attending(&q, head_dim).unwrap();
        let (found, log_sums) = kernels.attention((&q, &k, &v), &offsets, scale).unwrap();
        near(&found, &out, 5e-3);
        let (of_queries, of_keys, of_values) =
            kernels.attention_backward((&q, &k, &v), (&found, &log_sums), &d_out, &offsets, scale).unwrap();
        near(&of_queries, &dq, 1e-2);
        near(&of_keys, &dk, 1e-2);
        near(&of_values, &dv, 1e-2);
    }
}
