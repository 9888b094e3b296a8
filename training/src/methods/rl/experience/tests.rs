//! What must hold of a step, shown on the parts that the loop is put together from.

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;

use super::super::prompts::Prompts;
use super::super::update::{UpdateSummary, Updater};
use super::super::{objective, step_rng};
use super::*;
use crate::model::{Architecture, ModelConfig, Pretrained, SpecialTokens};
use crate::tasks::Problem;
use crate::tasks::mini::tokenizer;
use crate::trainer::Silent;

const RECIPE: &str = "
name = 'step'
stage = 'rl'
base = 'b'
seed = 5
data.source = 'mini'
objective.alpha = 0.2

[rollout]
prompts_per_step = 6
samples_per_prompt = 4
max_new_tokens = 24
max_prompt_tokens = 200

[optimizer]
learning_rate = 1e-2
warmup_updates = 1
updates_per_step = 1
microbatch_tokens = 100
";

const LORA: &str = "tuning = { mode = 'lora', rank = 2 }\n";

/// A policy and what surrounds it, small enough that products of few rows are summed in another order than larger ones.
struct Bench {
    _folder: tempfile::TempDir,
    recipe: Recipe,
    policy: Policy,
    codec: Codec,
}

impl Bench {
    fn new(changes: &str) -> Self {
        let recipe = Recipe::parse(&format!("{changes}{RECIPE}"), &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer::write(folder.path(), 0).unwrap();
        let config = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: tokenizer::VOCABULARY_SIZE,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            max_position_embeddings: 256,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
        };
        // With every fourth token an end, responses have all lengths from 1.
        let ends = (0..tokenizer::VOCABULARY_SIZE as u32).filter(|id| id % 4 == 2).collect();
        let tokens = SpecialTokens { bos: None, eos: ends, pad: Some(0) };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let base = Pretrained::random(config, tokens, &mut rng, &Device::Cpu).unwrap();
        let policy = Policy::new(base, &recipe.tuning.tuning(), &mut rng).unwrap();
        let codec = Codec::from_folder(folder.path()).unwrap();
        Self { _folder: folder, recipe, policy, codec }
    }

    fn passes(&self) -> Passes {
        Passes::new(&self.recipe.compute, &self.policy).unwrap()
    }

    fn collector(&self) -> Collector<'_> {
        let objective = objective(&self.recipe, self.recipe.objective.alpha[0]).unwrap();
        Collector::new(&self.recipe, &self.policy, &self.passes(), &self.codec, objective).unwrap()
    }

    /// The experience of the first step, its random numbers where an update goes on from.
    fn collect(&self) -> (Experience, ChaCha8Rng) {
        let mut rng = step_rng(self.recipe.seed, 1);
        let prompts = Prompts::from_recipe(&self.recipe, &self.codec).unwrap().step(0, &mut rng).unwrap();
        let experience =
            self.collector().collect(1, &self.policy, &self.passes(), prompts, &mut rng, &mut Silent).unwrap();
        (experience, rng)
    }

    fn update(&self, updater: &mut Updater, experience: &Experience, done: u64, rng: &mut ChaCha8Rng) -> UpdateSummary {
        updater.update(&self.policy, &self.passes(), experience, done, rng, &mut Silent).unwrap()
    }

    fn parameters(&self) -> Vec<Vec<u32>> {
        let bits = |tensor: &Tensor| -> Vec<u32> {
            let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        self.policy.parameters().iter().map(|(_, var)| bits(var.as_tensor())).collect()
    }
}

#[test]
fn the_first_update_is_on_policy_to_the_bit_and_moves_nothing() {
    for changes in ["", LORA] {
        let bench = Bench::new(changes);
        let mut updater = Updater::new(&bench.recipe, &bench.policy).unwrap();
        let (mut experience, mut rng) = bench.collect();
        // A random model earns nothing, so that nothing would be learnt.
        for (index, response) in experience.responses.iter_mut().enumerate() {
            response.advantages.fill(if index % 2 == 0 { 1.0 } else { -1.0 });
        }
        let lengths: Vec<usize> = experience.responses.iter().map(Response::tokens).collect();
        assert!(lengths.contains(&1) && lengths.iter().any(|&length| length > 4), "{lengths:?}");
        let size = |response: &Response| response.sequence.ids.len();
        let micro = micro_batches(&experience.responses, bench.recipe.optimizer.microbatch_tokens, size);
        assert!(micro.count() > 4, "several micro-batches");

        let before = bench.parameters();
        let first = bench.update(&mut updater, &experience, 0, &mut rng);
        assert_eq!((first.stats.clipped, first.stats.max_ratio), (0, 1.0), "{changes}");
        assert_eq!((first.stats.drift_k1, first.stats.drift_k3), (0.0, 0.0), "{changes}");
        assert_eq!(first.stats.tokens, lengths.iter().sum::<usize>());
        assert!(first.grad_norm > 0.0, "there was something to learn");
        assert_eq!(first.learning_rate, 0.0, "the warm-up begins at 0");
        assert!(bench.parameters() == before, "{changes}: the first update moved weights");

        // The second has a learning rate, and is on-policy only because the first had none.
        let second = bench.update(&mut updater, &experience, 1, &mut rng);
        assert_eq!(second.stats.max_ratio, 1.0, "{changes}");
        assert!(second.learning_rate > 0.0 && bench.parameters() != before);
        let third = bench.update(&mut updater, &experience, 2, &mut rng);
        assert!(third.stats.max_ratio > 1.0, "{changes}: by now the policy is another one");
    }
}

#[test]
fn a_response_has_the_same_log_probabilities_in_whatever_company() {
    for changes in ["", LORA] {
        let mut bench = Bench::new(changes);
        let (experience, _) = bench.collect();
        let bits = |response: &Response| response.old_logprobs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let expected: Vec<_> = experience.responses.iter().map(bits).collect();
        for tokens in [1, 60, 10_000] {
            bench.recipe.optimizer.microbatch_tokens = tokens;
            let (again, _) = bench.collect();
            for (response, expected) in again.responses.iter().zip(&expected) {
                assert!(bits(response) == *expected, "{changes}: {} tokens, micro-batch {tokens}", response.tokens());
            }
        }
    }
}

/// Two responses that box the right answer, the first of them cut off.
fn boxed(bench: &Bench) -> (Vec<Prompt>, Vec<Response>) {
    let problem = Problem { id: "1".into(), question: "3 + 4".into(), answer: "7".into(), level: None };
    let ids = bench.codec.encode("3 + 4 = ").unwrap();
    let response = |truncated: bool| Response {
        sequence: Sequence::response(&ids, &bench.codec.encode(r"So it is \boxed{7}.").unwrap()),
        prompt_tokens: ids.len(),
        correct: false,
        truncated,
        undecided: false,
        extracted: None,
        level: None,
        reward: 0.0,
        sampler_logprobs: Vec::new(),
        old_logprobs: Vec::new(),
        reference_logprobs: None,
        advantages: Vec::new(),
    };
    let responses = [true, false, false, false].map(response).into();
    (vec![Prompt { problem, ids: ids.clone().into() }], responses)
}

#[test]
fn a_response_that_was_cut_off_earns_nothing_though_it_boxes_the_right_answer() {
    let bench = Bench::new("");
    let (prompts, mut responses) = boxed(&bench);
    let rewards = bench.collector().reward(&prompts, &mut responses).unwrap();
    assert_eq!(rewards, [vec![0.0, 0.9, 0.9, 0.9]], "equal lengths: 1 - alpha / 2");
    assert!(!responses[0].correct && responses[1].correct && responses.iter().all(|response| !response.undecided));

    let bench = Bench::new("algorithm.truncated = 'grade'\n");
    let (prompts, mut responses) = boxed(&bench);
    let rewards = bench.collector().reward(&prompts, &mut responses).unwrap();
    assert_eq!(rewards, [vec![0.9; 4]], "the released code pays it");
}

#[test]
fn a_sampler_that_is_off_is_corrected_for_up_to_a_limit() {
    let mut response = Response {
        sequence: Sequence::response(&[1], &[2, 3, 4, 5]),
        prompt_tokens: 1,
        correct: true,
        truncated: false,
        undecided: false,
        extracted: None,
        level: None,
        reward: 1.0,
        sampler_logprobs: vec![-1.0, -1.0, -1.0, -1.0],
        old_logprobs: vec![-1.0, -1.0 + 1.5f32.ln(), -1.0 - 2f32.ln(), -1.0 + 9f32.ln()],
        reference_logprobs: None,
        advantages: vec![1.0, 1.0, -4.0, 1.0],
    };
    response.correct_for_sampler(2.0);
    for (found, expected) in response.advantages.iter().zip([1.0, 1.5, -2.0, 2.0]) {
        assert!((found - expected).abs() < 1e-5, "{:?}", response.advantages);
    }
}

#[test]
fn a_response_without_a_verdict_is_counted() {
    let bench = Bench::new("");
    let (prompts, mut responses) = boxed(&bench);
    responses[3].sequence = Sequence::response(&prompts[0].ids, &bench.codec.encode(r"\boxed{+*)}").unwrap());
    bench.collector().reward(&prompts, &mut responses).unwrap();
    assert!(responses[3].undecided && !responses[3].correct);
    assert!(responses[..3].iter().all(|response| !response.undecided));
}
