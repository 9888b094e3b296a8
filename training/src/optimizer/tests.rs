use candle_core::{Device, Shape};

use super::*;

const PLAIN: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_clip: Some(1.0) };

/// Small numbers without a pattern that are exact in f32: the `index`-th value of series `series`.
fn value(index: usize, series: usize) -> f32 {
    ((index * 37 + series * 53) % 17) as f32 / 8.0 - 1.0
}

fn series(count: usize, series: usize) -> Vec<f32> {
    (0..count).map(|index| value(index, series)).collect()
}

fn tensor(series_number: usize, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    Tensor::from_vec(series(shape.elem_count(), series_number), shape, &Device::Cpu).unwrap()
}

/// A matrix `[2, 3]` and a bias `[3]`.
fn parameters(dtype: DType) -> Vec<(String, Var)> {
    let var = |tensor: Tensor| Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap();
    vec![("weight".to_owned(), var(tensor(0, (2, 3)))), ("bias".to_owned(), var(tensor(1, 3)))]
}

fn gradients(step: usize) -> Gradients {
    let mut gradients = Gradients::new(2);
    gradients.add(0, &tensor(step + 2, (2, 3))).unwrap();
    gradients.add(1, &tensor(step + 9, 3)).unwrap();
    gradients
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    flat(tensor).into_iter().map(f32::to_bits).collect()
}

fn near<T: Into<f64> + Copy + std::fmt::Debug>(got: &[f32], expected: &[T], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (&left, &right) in got.iter().zip(expected) {
        assert!((f64::from(left) - right.into()).abs() <= tolerance, "{got:?} is not {expected:?}");
    }
}

fn optimizer(dtype: DType, config: AdamWConfig) -> AdamW {
    AdamW::new(parameters(dtype), config).unwrap()
}

/// Four steps of `torch.optim.AdamW(betas=(0.9, 0.95), eps=1e-8)` with weight decay 0.1 on the matrix only and
/// `clip_grad_norm_` at 1, on the same numbers (PyTorch 2.11).
fn check_against_pytorch(mut adam: AdamW) {
    let norms = [1.820_027_47, 1.605_654_12, 1.561_249_49, 1.620_185_14];
    for (step, (learning_rate, norm)) in [0.0, 0.01, 0.02, 0.02].into_iter().zip(norms).enumerate() {
        let outcome = adam.step(&gradients(step), learning_rate).unwrap();
        assert!((outcome.grad_norm - norm).abs() < 1e-6 && !outcome.skipped, "step {step}: {outcome:?}");
    }
    let weight = [-0.964_740_634, -0.650_116_444, -0.295_467_824, 0.116_765_149, 0.512_824_059, 0.914_339_602];
    near(&flat(&adam.parameters()[0].1), &weight, 2e-7);
    near(&flat(&adam.parameters()[1].1), &[-0.703_933_835, -0.344_664_425, -0.028_265_379], 2e-7);
    let state = adam.state().unwrap();
    let m = [-0.017_208_509, 0.061_492_153, 0.140_192_807, -0.034_762_274, -0.063_260_846, -0.069_675_617];
    near(&flat(&state["m.weight"]), &m, 1e-7);
    near(&flat(&state["v.bias"]), &[0.019_783_445, 0.005_519_787, 0.010_656_545], 1e-8);
    assert_eq!(adam.updates(), 4);
}

#[test]
fn the_fused_pass_agrees_with_pytorch() {
    check_against_pytorch(optimizer(DType::F32, PLAIN));
}

#[test]
fn tensor_operations_agree_with_pytorch() {
    check_against_pytorch(AdamW::with_states(parameters(DType::F32), PLAIN, State::tensors).unwrap());
}

#[test]
fn fused_pass_and_tensor_operations_agree_to_the_bit_over_several_chunks() {
    let shape = (130, 400);
    let make = |state: fn(&Var) -> Result<State>| {
        let var = Var::from_tensor(&tensor(3, shape)).unwrap();
        AdamW::with_states(vec![("w".to_owned(), var)], PLAIN, state).unwrap()
    };
    let (mut fused, mut tensors) = (make(State::new), make(State::tensors));
    for step in 0..3 {
        let mut gradients = fused.gradients();
        gradients.add(0, &tensor(step, shape)).unwrap();
        let outcomes = (fused.step(&gradients, 1e-2).unwrap(), tensors.step(&gradients, 1e-2).unwrap());
        assert_eq!(outcomes.0, outcomes.1);
    }
    assert_eq!(bits(&fused.parameters()[0].1), bits(&tensors.parameters()[0].1));
    let (left, right) = (fused.state().unwrap(), tensors.state().unwrap());
    assert!(left.keys().eq(right.keys()));
    assert!(left.iter().all(|(key, tensor)| bits(tensor) == bits(&right[key])));
}

#[test]
fn a_first_step_moves_by_the_learning_rate_against_the_gradients_sign() {
    let mut adam = optimizer(DType::F32, AdamWConfig { weight_decay: 0.0, grad_clip: None, ..PLAIN });
    let before = flat(&adam.parameters()[0].1);
    adam.step(&gradients(0), 0.01).unwrap();
    let after = flat(&adam.parameters()[0].1);
    for ((before, after), gradient) in before.iter().zip(&after).zip(series(6, 2)) {
        let expected = if gradient == 0.0 { 0.0 } else { -0.01 * gradient.signum() };
        assert!((after - before - expected).abs() < 1e-6);
    }
}

#[test]
fn decay_spares_vectors() {
    let mut adam = optimizer(DType::F32, AdamWConfig { weight_decay: 0.5, ..PLAIN });
    let mut gradients = adam.gradients();
    for (index, (_, parameter)) in parameters(DType::F32).iter().enumerate() {
        gradients.add(index, &parameter.zeros_like().unwrap()).unwrap();
    }
    adam.step(&gradients, 0.1).unwrap();
    let expected: Vec<f32> = series(6, 0).iter().map(|weight| weight * 0.95).collect();
    near(&flat(&adam.parameters()[0].1), &expected, 1e-7);
    assert_eq!(flat(&adam.parameters()[1].1), series(3, 1));
}

#[test]
fn half_precision_keeps_what_it_rounds_away_in_a_master_copy() {
    for dtype in [DType::BF16, DType::F16] {
        let mut adam = optimizer(dtype, PLAIN);
        let mut full = optimizer(DType::F32, PLAIN);
        for step in 0..40 {
            adam.step(&gradients(step % 3), 1e-4).unwrap();
            full.step(&gradients(step % 3), 1e-4).unwrap();
        }
        let state = adam.state().unwrap();
        for (name, parameter) in full.parameters() {
            near(&flat(&state[&format!("master.{name}")]), &flat(parameter), 1e-6);
        }
        for (name, parameter) in adam.parameters() {
            assert_eq!(parameter.dtype(), dtype);
            let rounded = state[&format!("master.{name}")].to_dtype(dtype).unwrap();
            assert_eq!(bits(parameter), bits(&rounded));
        }
    }
}

#[test]
fn a_resumed_optimizer_goes_on_to_the_bit() {
    for dtype in [DType::F32, DType::BF16] {
        let mut whole = optimizer(dtype, PLAIN);
        for step in 0..3 {
            whole.step(&gradients(step), 1e-2).unwrap();
        }
        let (state, updates) = (whole.state().unwrap(), whole.updates());
        let copy = |(name, var): &(String, Var)| (name.clone(), Var::from_tensor(&var.copy().unwrap()).unwrap());
        let mut resumed = AdamW::new(whole.parameters().iter().map(copy).collect(), PLAIN).unwrap();
        resumed.load_state(&state, updates).unwrap();
        for step in 3..6 {
            assert_eq!(whole.step(&gradients(step), 1e-2).unwrap(), resumed.step(&gradients(step), 1e-2).unwrap());
        }
        assert_eq!(resumed.updates(), 6);
        for (left, right) in whole.parameters().iter().zip(resumed.parameters()) {
            assert_eq!(bits(&left.1), bits(&right.1));
        }
        let (left, right) = (whole.state().unwrap(), resumed.state().unwrap());
        assert!(left.iter().all(|(key, tensor)| bits(tensor) == bits(&right[key])));
        assert_eq!(left.contains_key("master.bias"), dtype == DType::BF16);
    }
}

#[test]
fn an_exported_state_does_not_move_with_later_steps() {
    let mut adam = optimizer(DType::F32, PLAIN);
    adam.step(&gradients(0), 1e-2).unwrap();
    let state = adam.state().unwrap();
    let before = flat(&state["m.weight"]);
    adam.step(&gradients(1), 1e-2).unwrap();
    assert_eq!(flat(&state["m.weight"]), before);
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let mut adam = optimizer(DType::F32, PLAIN);
    adam.step(&gradients(0), 1e-2).unwrap();
    let state = adam.state().unwrap();
    let mut refuse = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), word: &str| {
        let mut changed = state.clone();
        change(&mut changed);
        let error = adam.load_state(&changed, 1).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refuse(&|state| drop(state.remove("v.bias")), "lacks `v.bias`");
    refuse(&|state| drop(state.insert("m.other".to_owned(), tensor(0, 3))), "another model");
    refuse(&|state| drop(state.insert("m.bias".to_owned(), tensor(0, 4))), "`m.bias`");
}

#[test]
fn a_gradient_that_is_not_finite_skips_the_update() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut adam = optimizer(DType::F32, PLAIN);
        adam.step(&gradients(0), 1e-2).unwrap();
        let (weights, state) = (bits(&adam.parameters()[0].1), adam.state().unwrap());
        let mut gradients = gradients(1);
        gradients.add(1, &Tensor::new(&[0.0, bad, 0.0], &Device::Cpu).unwrap()).unwrap();
        let outcome = adam.step(&gradients, 1e-2).unwrap();
        assert!(outcome.skipped && !outcome.grad_norm.is_finite());
        assert_eq!((adam.updates(), bits(&adam.parameters()[0].1)), (1, weights));
        assert!(adam.state().unwrap().iter().all(|(key, tensor)| bits(tensor) == bits(&state[key])));
    }
}

#[test]
fn a_parameter_without_a_gradient_is_named() {
    let mut adam = optimizer(DType::F32, PLAIN);
    let mut gradients = adam.gradients();
    gradients.add(0, &tensor(0, (2, 3))).unwrap();
    let error = adam.step(&gradients, 1e-2).unwrap_err().to_string();
    assert!(error.contains("`bias` got no gradient"), "{error}");
    gradients.add(1, &tensor(0, 4)).unwrap();
    let error = adam.step(&gradients, 1e-2).unwrap_err().to_string();
    assert!(error.contains("`bias` is [3] but its gradient is [4]"), "{error}");
    assert!(gradients.add(2, &tensor(0, 3)).is_err());
    assert!(adam.step(&Gradients::new(1), 1e-2).is_err());
    assert!(adam.step(&self::gradients(0), f64::NAN).is_err());
    assert_eq!(adam.updates(), 0);
}

#[test]
fn micro_batches_add_up() {
    let adam = optimizer(DType::F32, PLAIN);
    let [(_, weight), (_, bias)] = adam.parameters() else { panic!("two parameters") };
    let input = tensor(5, (4, 2));
    let loss =
        |rows: &Tensor| rows.matmul(weight).unwrap().broadcast_add(bias).unwrap().sqr().unwrap().sum_all().unwrap();
    let mut whole = adam.gradients();
    whole.accumulate(&loss(&input).backward().unwrap(), adam.parameters()).unwrap();
    let mut parts = adam.gradients();
    for start in [0, 2] {
        let rows = input.narrow(0, start, 2).unwrap();
        parts.accumulate(&loss(&rows).backward().unwrap(), adam.parameters()).unwrap();
    }
    for index in 0..2 {
        near(&flat(parts.get(index).unwrap()), &flat(whole.get(index).unwrap()), 1e-5);
        assert!(!parts.get(index).unwrap().track_op(), "a kept graph would pin its activations");
    }
    parts.clear();
    assert!(parts.get(0).is_none() && parts.len() == 2);
}

#[test]
fn half_precision_micro_batches_are_summed_in_full() {
    let mut gradients = Gradients::new(1);
    for part in [256.0_f32, 1.0, 1.0] {
        gradients.add(0, &Tensor::new(&[part], &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap()).unwrap();
    }
    // In bf16, 256 + 1 is 256.
    assert_eq!(flat(gradients.get(0).unwrap()), [258.0]);
}

#[test]
fn the_norm_is_the_same_for_every_number_of_threads() {
    let values: Vec<f32> = (0..100_003).map(|index| ((index * 7919) % 10_007) as f32 * 1e-4 - 0.37).collect();
    let exact: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let gradient = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
    let norm = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradients::norm(&[&gradient, &gradient]).unwrap())
    };
    assert!((norm(1) - exact * 2.0_f64.sqrt()).abs() < 1e-9);
    assert_eq!(norm(1).to_bits(), norm(2).to_bits());
    assert_eq!(norm(1).to_bits(), norm(5).to_bits());
    // Strided gradients count every element once.
    let matrix = tensor(4, (30, 20));
    let turned = matrix.t().unwrap();
    assert!((gradients::norm(&[&matrix]).unwrap() - gradients::norm(&[&turned]).unwrap()).abs() < 1e-9);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let var = |dtype| Var::from_tensor(&tensor(0, 3).to_dtype(dtype).unwrap()).unwrap();
    let refuse = |parameters: Vec<(String, Var)>, config, word: &str| {
        let error = AdamW::new(parameters, config).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let one = |dtype| vec![("a".to_owned(), var(dtype))];
    refuse(Vec::new(), PLAIN, "no parameters");
    refuse([one(DType::F32), one(DType::F32)].concat(), PLAIN, "two parameters are named `a`");
    refuse(one(DType::F64), PLAIN, "only f32, bf16 and f16");
    refuse(one(DType::F32), AdamWConfig { beta2: 1.0, ..PLAIN }, "betas");
    refuse(one(DType::F32), AdamWConfig { eps: 0.0, ..PLAIN }, "eps");
    refuse(one(DType::F32), AdamWConfig { weight_decay: -0.1, ..PLAIN }, "weight decay");
    refuse(one(DType::F32), AdamWConfig { grad_clip: Some(0.0), ..PLAIN }, "gradient clip");
}
