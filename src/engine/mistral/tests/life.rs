//! Cancellation, faults and death.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mistralrs::{CustomLogitsProcessor, Tensor};
use tokio::sync::mpsc::unbounded_channel;

use super::*;

/// The host of a tier.
fn host(engine: &MistralEngine, tier: &str) -> Arc<Host> {
    engine.tier(tier).unwrap().loaded.host
}

/// A long sequence on the base whose tokens `processor` decides.
fn raw(processor: impl CustomLogitsProcessor + 'static) -> Ask {
    Ask { prompt: vec![5, 6, 7], max_tokens: 1000, ignore_eos: true, processor: Arc::new(processor), adapter: None }
}

/// A processor of a real request, handed logits of a type it cannot read from the third token on.
struct Poison(Processor, AtomicUsize);

impl CustomLogitsProcessor for Poison {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
        if self.1.fetch_add(1, Ordering::SeqCst) < 3 {
            return self.0.apply(logits, context);
        }
        let wrong = Tensor::zeros(logits.elem_count(), mistralrs::DType::U32, logits.device())?;
        self.0.apply(&wrong, context)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_frees_its_place() {
    let engine = family(1).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let counted = move |logits: &Tensor, _: &[u32]| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(logits.clone())
    };
    let mut admitted = host(&engine, "base").send(&raw(counted)).await.unwrap();
    admitted.responses.recv().await.unwrap();
    drop(admitted);
    // Counted after the drop: what was computed before nobody had asked to stop.
    let before = calls.load(Ordering::SeqCst);
    answer(&engine, ask("alpha-0.4", "What is 58 + 68?")).await.unwrap();
    let after = calls.load(Ordering::SeqCst) - before;
    assert!(after <= 2, "{after} steps were computed for nobody");
    let mut endless = ask("base", "What is 58 + 68?");
    endless.sampling.ignore_eos = true;
    for taken in 0..20 {
        let mut events = engine.generate(endless.clone()).await.unwrap();
        for _ in 0..taken {
            events.next().await.unwrap().unwrap();
        }
    }
    answer(&engine, ask("base", "What is 58 + 68?")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_frees_the_place_while_the_reader_holds_the_stream() {
    let engine = family(1).await;
    let mut request = ask("alpha-0.4", "What is 58 + 68?");
    (request.sampling.ignore_eos, request.stop) = (true, vec!["1".to_owned()]);
    let mut held = engine.generate(request).await.unwrap();
    while !matches!(held.next().await.unwrap().unwrap(), Event::Finished(_)) {}
    answer(&engine, ask("base", "What is 58 + 68?")).await.unwrap();
    assert!(held.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_sampler_fails_fails_alone() {
    let engine = Arc::new(family(16).await);
    let question = ask("base", "What is 58 + 68?");
    let alone = answer(&engine, question.clone()).await.unwrap();
    let model = engine.tier("base").unwrap().loaded.model;
    let Sequence { prompt, max_tokens, sampler, assembler } = model.start(&question).unwrap();
    let (steps, chosen) = unbounded_channel();
    let processor = Arc::new(Poison(Processor::new(sampler, steps, 2), AtomicUsize::new(0)));
    let others: Vec<_> = (0..8)
        .map(|_| {
            let (engine, question) = (engine.clone(), question.clone());
            tokio::spawn(async move { answer(&engine, question).await })
        })
        .collect();
    let poisoned = Ask { prompt, max_tokens, ignore_eos: false, processor, adapter: None };
    let admitted = host(&engine, "base").send(&poisoned).await.unwrap();
    let poisoned =
        collect(stream::events(host(&engine, "base"), admitted, chosen, assembler, Room::default().until_dropped()))
            .await;
    assert!(matches!(&poisoned, Err(EngineError::Failed { upstream: false, .. })), "{poisoned:?}");
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), alone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_fails_what_it_had_and_comes_back() {
    let engine = Arc::new(family(16).await);
    let (manifest, spec) = bare();
    let sha256 = manifest.base.sha256.clone();
    let own = TierSpec {
        name: "own".to_owned(),
        weights: Weights::Checkpoint(spec.base),
        fingerprint: sha256.clone(),
        device: None,
    };
    engine.load_tier(own).await.unwrap();
    let question = |tier: &str| ask(tier, "What is 58 + 68?");
    let (before, own) =
        (answer(&engine, question("alpha-0.1")).await.unwrap(), answer(&engine, question("own")).await.unwrap());
    assert_eq!(own.finish.fingerprint, sha256);

    let mut endless = question("base");
    endless.sampling.ignore_eos = true;
    let mut victims = Vec::new();
    for _ in 0..8 {
        let mut events = engine.generate(endless.clone()).await.unwrap();
        events.next().await.unwrap().unwrap();
        events.next().await.unwrap().unwrap();
        victims.push(events);
    }
    let base = host(&engine, "base");
    let mut health = base.subscribe();
    let deadly = |_: &Tensor, _: &[u32]| -> mistralrs::Result<Tensor> { panic!("meant to happen in this test") };
    let admitted = base.send(&raw(deadly)).await.unwrap();
    for victim in victims {
        let last = victim.fold(None, async |_, event| Some(event)).await;
        assert!(matches!(&last, Some(Err(EngineError::Unavailable { .. }))), "{last:?}");
    }
    drop(admitted);
    assert_eq!(answer(&engine, question("own")).await.unwrap(), own, "a model of its own does not notice");
    health.wait_for(Option::is_some).await.unwrap();
    engine.probe("base").await.unwrap();
    assert_eq!(answer(&engine, question("alpha-0.1")).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_loaded_again_has_its_adapters() {
    let engine = family(16).await;
    let before = answer(&engine, ask("alpha-0.2", "What is 58 + 68?")).await.unwrap();
    let base = host(&engine, "base");
    base.reload().await.unwrap();
    assert_eq!(answer(&engine, ask("alpha-0.2", "What is 58 + 68?")).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_restarts_the_engine_is_unavailable_and_not_broken() {
    let engine = family(16).await;
    let base = host(&engine, "base");
    let running = base.running().unwrap();
    let mut health = base.subscribe();
    base.died(&running);
    match engine.probe("alpha-0.2").await {
        Err(EngineError::Unavailable { retry_after, .. }) => assert!(retry_after.is_some()),
        // The restart may be quicker than the probe.
        other => other.unwrap(),
    }
    health.wait_for(Option::is_some).await.unwrap();
    base.died(&running);
    engine.probe("alpha-0.2").await.unwrap();
}
