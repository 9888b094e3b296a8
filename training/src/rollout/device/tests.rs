use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::test_support::{END, PARAMS, model, model_of, requests};
use super::super::{CpuSampler, FinishReason};
use super::*;
use crate::model::{Architecture, Pretrained};

fn generate(concurrent: usize, requests: &[RolloutRequest], params: &SamplingParams) -> Vec<Rollout> {
    let mut sampler = DeviceSampler::new(model().layered().unwrap(), &[END], concurrent).unwrap();
    sampler.generate(requests, params, &mut |_| true).unwrap()
}

fn on_slices(requests: &[RolloutRequest], params: &SamplingParams) -> Vec<Rollout> {
    on_slices_of(&model(), requests, params)
}

fn on_slices_of(model: &Pretrained, requests: &[RolloutRequest], params: &SamplingParams) -> Vec<Rollout> {
    let mut sampler = CpuSampler::new(&model.decoder().unwrap(), &[END], 64).unwrap();
    sampler.generate(requests, params, &mut |_| true).unwrap()
}

#[track_caller]
fn assert_same(found: &[Rollout], expected: &[Rollout]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!((&found.ids, found.finish), (&expected.ids, expected.finish), "response {index}");
        for (a, b) in found.logprobs.iter().zip(&expected.logprobs) {
            assert!((a - b).abs() < 3e-5, "response {index}: {a} {b}");
        }
    }
}

#[test]
fn texts_are_those_of_the_sampler_on_slices() {
    let requests = requests(40);
    for params in [
        PARAMS,
        SamplingParams { temperature: 0.6, ..PARAMS },
        SamplingParams { top_p: 0.8, ..PARAMS },
        SamplingParams { top_k: Some(5), min_p: 0.02, ..PARAMS },
        SamplingParams { temperature: 0.0, ..PARAMS },
    ] {
        assert_same(&generate(64, &requests, &params), &on_slices(&requests, &params));
    }
}

#[test]
fn every_architecture_is_sampled_alike() {
    let requests = requests(12);
    let texts = Architecture::ALL.map(|architecture| {
        let model = model_of(architecture, 6);
        let mut sampler = DeviceSampler::new(model.layered().unwrap(), &[END], 8).unwrap();
        let found = sampler.generate(&requests, &PARAMS, &mut |_| true).unwrap();
        assert_same(&found, &on_slices_of(&model, &requests, &PARAMS));
        found
    });
    let [qwen2, qwen3, llama] = texts;
    assert!(qwen2 != qwen3 && qwen3 != llama && llama != qwen2, "they are not the same function");
}

#[test]
fn slots_are_given_up_and_taken_again() {
    let requests = requests(40);
    let expected = on_slices(&requests, &PARAMS);
    let lengths: Vec<usize> = expected.iter().map(|rollout| rollout.ids.len()).collect();
    assert!(lengths.iter().min() < lengths.iter().max(), "lengths differ: {lengths:?}");
    for concurrent in [1, 5, 17] {
        assert_same(&generate(concurrent, &requests, &PARAMS), &expected);
    }
}

/// Levels of 31, 62, 124 and 157 tokens: all go up together, some wait for the others, or each is alone.
#[test]
fn long_responses_wait_where_the_caches_are_full_and_end_the_same() {
    let params = SamplingParams { max_new_tokens: 130, ..PARAMS };
    let requests: Vec<RolloutRequest> = requests(60).into_iter().filter(|request| request.prompt.len() < 30).collect();
    let expected = on_slices(&requests, &params);
    let longer = |tokens: usize| expected.iter().filter(|rollout| rollout.ids.len() > tokens).count();
    assert!(longer(4) > 20 && longer(57) > 6 && longer(119) > 1, "{} {} {}", longer(4), longer(57), longer(119));
    for (concurrent, cache_tokens) in [(64, usize::MAX), (8, 8 * 62), (8, 300), (64, 1000), (3, 1)] {
        let mut sampler = DeviceSampler::new(model().layered().unwrap(), &[END], concurrent).unwrap();
        sampler.first_level = 4;
        sampler.set_cache_tokens(cache_tokens);
        let (mut most, mut finished) = (0, 0);
        let found = sampler.generate(&requests, &params, &mut |progress| {
            most = most.max(progress.tokens);
            finished = progress.finished;
            true
        });
        assert_same(&found.unwrap(), &expected);
        let all: usize = expected.iter().map(|rollout| rollout.ids.len()).sum();
        assert_eq!((finished, most), (requests.len(), all), "no token is counted twice");
    }
}

#[test]
fn an_adapter_is_sampled_beside_its_weights() {
    use crate::model::{LoraConfig, Policy, TARGET_MODULES, Tuning};

    let target_modules = TARGET_MODULES.map(str::to_owned).to_vec();
    let tuning = Tuning::Lora(LoraConfig { rank: 2, alpha: 8.0, target_modules });
    let policy = Policy::new(model(), &tuning, &mut ChaCha8Rng::seed_from_u64(4)).unwrap();
    let mut sampler = DeviceSampler::new(policy.layered().unwrap(), &[END], 8).unwrap();
    let requests = requests(12);
    let before = sampler.generate(&requests, &PARAMS, &mut |_| true).unwrap();
    assert_same(&before, &on_slices(&requests, &PARAMS));
    for (_, var) in policy.parameters() {
        var.set(&(var.as_tensor() + 0.1).unwrap()).unwrap();
    }
    let mut expected = CpuSampler::new(&policy.decoder().unwrap(), &[END], 8).unwrap();
    let expected = expected.generate(&requests, &PARAMS, &mut |_| true).unwrap();
    let after = sampler.generate(&requests, &PARAMS, &mut |_| true).unwrap();
    assert_same(&after, &expected);
    assert!(after != before, "updates are seen without being told of");
}

#[test]
fn half_precision_samples_too() {
    let model = model().to(DType::F16, &Device::Cpu).unwrap().layered().unwrap();
    let mut sampler = DeviceSampler::new(model, &[END], 8).unwrap();
    let requests = requests(12);
    let greedy = SamplingParams { temperature: 0.0, max_new_tokens: 4, ..PARAMS };
    let rollouts = sampler.generate(&requests, &greedy, &mut |_| true).unwrap();
    for (half, full) in rollouts.iter().zip(on_slices(&requests, &greedy)) {
        assert!((half.logprobs[0] - full.logprobs[0]).abs() < 2e-2, "{half:?} {full:?}");
    }
}

#[test]
fn limits_are_kept_and_a_stop_is_obeyed() {
    let mut sampler = DeviceSampler::new(model().layered().unwrap(), &[], 2).unwrap();
    let request = RolloutRequest { prompt: vec![5; 150].into(), seed: 1 };
    let rollouts = sampler.generate(&[request], &PARAMS, &mut |_| true).unwrap();
    assert_eq!((rollouts[0].ids.len(), rollouts[0].finish), (10, FinishReason::Length));
    assert!(matches!(sampler.generate(&requests(1), &PARAMS, &mut |_| false), Err(Error::Interrupted)));
    let empty = RolloutRequest { prompt: Vec::new().into(), seed: 1 };
    assert!(sampler.generate(&[empty], &PARAMS, &mut |_| true).is_err());
    assert!(sampler.generate(&[], &PARAMS, &mut |_| true).unwrap().is_empty());
    assert!(DeviceSampler::new(model().layered().unwrap(), &[], 0).is_err());
}

#[test]
#[cfg(feature = "cuda")]
fn recorded_steps_are_the_steps() {
    use crate::compute::{DeviceName, Precision};

    let Ok(device) = DeviceName::Cuda(0).open(Precision::Bf16) else {
        println!("skipped: no GPU here");
        return;
    };
    let model = model_of(Architecture::Qwen3, 64).to(DType::BF16, &device).unwrap().layered().unwrap();
    let prompts: Vec<Arc<[u32]>> = requests(13).into_iter().map(|request| request.prompt).collect();
    let slots = prompts.len();
    let run = |recorded: bool| {
        let mut decoding = Decoding::new(&model, slots, 128).unwrap();
        if !recorded {
            decoding.replay.as_mut().unwrap().forget();
        }
        let packed: Vec<(&Arc<[u32]>, Vec<usize>)> =
            prompts.iter().enumerate().map(|(slot, prompt)| (prompt, vec![slot])).collect();
        decoding.prefill_run(&packed).unwrap();
        // Sequences leave one after another, so that several numbers of rows come up, each more than once.
        let mut found = Vec::new();
        for step in 0..40usize {
            let active = slots - step / 4;
            let ids: Vec<u32> = (0..active).map(|slot| ((step * 5 + slot * 3) % 20) as u32).collect();
            let positions: Vec<u32> = (0..active).map(|slot| (prompts[slot].len() + step) as u32).collect();
            let replay = decoding.replay.as_mut().unwrap();
            let logits = replay.step(&decoding.model, &decoding.caches, ids, positions).unwrap();
            found.push(logits.to_vec2::<f32>().unwrap());
        }
        (found, decoding.replay.unwrap().recorded())
    };
    let ((one, (played, failed)), (other, _)) = (run(true), run(false));
    assert_eq!((played, failed), (2, 0), "rows for 13 to 9 and for 8 to 4 sequences");
    assert_eq!(one, other);
}
