//! What single requests get.

use brevity_training::model::{DType as TrainingDType, Device as TrainingDevice, LoraAdapter, Pretrained};
use brevity_training::rollout::{CpuSampler, RolloutRequest, Sampler, SamplingParams};
use brevity_training::text::Codec;

use super::*;
use crate::engine::{FinishReason, Logprobs};

#[tokio::test(flavor = "multi_thread")]
async fn every_tier_thinks_and_answers() {
    let engine = family(8).await;
    assert_eq!(engine.tiers(), ["alpha-0.05", "alpha-0.1", "alpha-0.15", "alpha-0.2", "alpha-0.4", "base"]);
    for tier in engine.tiers() {
        let answer = answer(&engine, ask(&tier, "What is 58 + 68?")).await.unwrap();
        println!("{tier}: {} tokens: {}", answer.finish.usage.completion_tokens, answer.content);
        assert!(answer.content.contains("126"), "{tier}: {answer:?}");
        assert!(!answer.thinking.is_empty() && !answer.thinking.contains("think>"), "{tier}: {answer:?}");
        assert!(!answer.content.contains("think>") && !answer.content.contains("<|"), "{tier}: {answer:?}");
        assert_eq!(answer.finish.reason, FinishReason::Stop);
        assert!(!answer.finish.forced_close);
        assert_eq!(answer.prompt_tokens, answer.finish.usage.prompt_tokens);
        assert!(answer.finish.usage.reasoning_tokens < answer.finish.usage.completion_tokens);
        engine.probe(&tier).await.unwrap();
        assert_eq!(engine.context_length(&tier), Some(1024));
    }
    assert!(matches!(engine.probe("alpha-9").await, Err(EngineError::UnknownTier(name)) if name == "alpha-9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_texts_are_those_of_the_training_sampler() {
    let (manifest, spec) = bare();
    let engine = family(32).await;
    let codec = Codec::from_folder(&spec.base).unwrap();
    let pretrained = Pretrained::load(&spec.base, TrainingDType::F32, &TrainingDevice::Cpu).unwrap();
    let problems = questions(7);
    for tier in engine.tiers() {
        let decoder = match weights(&manifest, &tier) {
            Weights::Adapter(folder) => {
                let adapter = LoraAdapter::load(&folder, &pretrained.config, &TrainingDevice::Cpu).unwrap();
                pretrained.with_adapter(&adapter).unwrap()
            }
            _ => pretrained.decoder().unwrap(),
        };
        let prompt = |question: &str| {
            let message = brevity_training::tasks::chat::Message::user(question);
            codec.prompt(&[message], None).unwrap().into()
        };
        let requests: Vec<_> =
            problems.iter().map(|problem| RolloutRequest { prompt: prompt(problem), seed: 0 }).collect();
        let greedy = SamplingParams::whole(0.0, 600);
        let mut sampler = CpuSampler::new(&decoder, &pretrained.tokens.eos, 32).unwrap();
        let rollouts = sampler.generate(&requests, &greedy, &mut |_| true).unwrap();
        for (problem, rollout) in problems.iter().zip(&rollouts) {
            let mut question = ask(&tier, problem);
            question.max_tokens = Some(600);
            let ours = answer(&engine, question).await.unwrap();
            let theirs = codec.decode(&rollout.ids).unwrap();
            let (thinking, content) = theirs.split_once("</think>").unwrap_or((&theirs, ""));
            assert_eq!((ours.thinking.trim(), ours.content.trim()), (thinking.trim(), content.trim()), "{tier}");
            assert_eq!(ours.finish.usage.completion_tokens, rollout.ids.len(), "{tier}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_closes_the_thoughts_and_leaves_an_answer() {
    let engine = family(8).await;
    for (thinking, most) in [(Thinking::Closed, 0), (Thinking::Budget(0), 0), (Thinking::Budget(5), 5)] {
        let answer = answer(&engine, Generation { thinking, ..ask("base", "What is 58 + 68?") }).await.unwrap();
        assert!(!answer.content.trim().is_empty(), "{thinking:?}: {answer:?}");
        assert!(answer.finish.usage.reasoning_tokens <= most + 1, "{thinking:?}: {answer:?}");
        assert_eq!(answer.finish.forced_close, matches!(thinking, Thinking::Budget(_)), "{thinking:?}: {answer:?}");
        assert_eq!(answer.thinking.is_empty(), most == 0, "{thinking:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_stop_strings_end_an_answer() {
    let engine = family(8).await;
    let short = answer(&engine, Generation { max_tokens: Some(9), ..ask("base", "What is 58 + 68?") }).await.unwrap();
    assert_eq!((short.finish.reason, short.finish.usage.completion_tokens), (FinishReason::Length, 9));
    let whole = answer(&engine, ask("alpha-0.4", "What is 58 + 68?")).await.unwrap();
    let stop: String = whole.content.chars().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
    let cut = Generation { stop: vec![stop.clone()], ..ask("alpha-0.4", "What is 58 + 68?") };
    let cut = answer(&engine, cut).await.unwrap();
    assert_eq!((cut.finish.reason, cut.finish.stop.as_deref()), (FinishReason::Stop, Some(stop.as_str())));
    assert_eq!(cut.content, whole.content.split(&stop).next().unwrap());
    let mut endless = ask("base", "What is 58 + 68?");
    (endless.sampling.ignore_eos, endless.max_tokens) = (true, Some(400));
    let endless = answer(&engine, endless).await.unwrap();
    assert_eq!((endless.finish.reason, endless.finish.usage.completion_tokens), (FinishReason::Length, 400));
    let long = "1 + ".repeat(2000);
    assert!(matches!(answer(&engine, ask("base", &long)).await, Err(EngineError::TooLong { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_natural_and_sum_to_one() {
    let engine = family(8).await;
    let mut generation = ask("base", "What is 58 + 68?");
    generation.logprobs = Some(Logprobs { top: 20 });
    let answer = answer(&engine, generation).await.unwrap();
    assert!(answer.logprobs.len() >= answer.finish.usage.completion_tokens - 3, "one entry a token but for the marks");
    for token in &answer.logprobs {
        assert_eq!(token.top.len(), 20);
        let mass: f32 = token.top.iter().map(|alternative| alternative.logprob.exp()).sum();
        assert!((0.5..1.0001).contains(&mass), "{mass}");
        assert!(token.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        assert!((token.logprob - token.top[0].logprob).abs() < 1e-5 && token.logprob <= 0.0, "greedy takes the top");
    }
    let mean = answer.logprobs.iter().map(|token| token.logprob.exp()).sum::<f32>() / answer.logprobs.len() as f32;
    assert!(mean > 0.6, "a trained model is mostly sure of itself: {mean}");
}
