//! The same request gives the same text whatever else is in the batch.

use std::sync::Arc;

use futures::stream;

use super::*;

/// `count` sampled requests, tiers in turn, each with a seed of its own.
fn mixed(engine: &MistralEngine, count: usize) -> Vec<Generation> {
    let (tiers, problems) = (engine.tiers(), questions(count.div_ceil(3)));
    let requests = (0..count).map(|index| {
        let mut request = ask(&tiers[index % tiers.len()], &problems[index * 7 % problems.len()]);
        request.sampling = Sampling { temperature: 1.0, seed: index as u64, ..Sampling::default() };
        request
    });
    requests.collect()
}

/// Requests whose text beside up to `concurrent` others is not the text they get alone, with both texts.
async fn differing(count: usize, concurrent: usize) -> Vec<(usize, Answer, Answer)> {
    let engine = Arc::new(family(concurrent).await);
    let requests = mixed(&engine, count);
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(answer(&engine, request.clone()).await.unwrap());
    }
    let together: Vec<Answer> = stream::iter(requests)
        .map(|request| {
            let engine = engine.clone();
            async move { tokio::spawn(async move { answer(&engine, request).await.unwrap() }).await.unwrap() }
        })
        .buffered(concurrent)
        .collect()
        .await;
    assert_eq!(together.len(), count);
    let pairs = alone.into_iter().zip(together).enumerate();
    pairs.filter(|(_, (alone, together))| alone != together).map(|(index, (a, b))| (index, a, b)).collect()
}

/// Rounding differs between batch sizes by about 1e-6, so a draw may once in many thousand tokens fall on the other side of
/// a boundary; tiers or caches mixed up would show in most texts.
#[tokio::test(flavor = "multi_thread")]
async fn company_does_not_change_a_text() {
    let differing = differing(50, 50).await;
    assert!(differing.len() <= 1, "{} of 50 texts differ: {differing:#?}", differing.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides_the_text() {
    let engine = family(8).await;
    let mut texts = Vec::new();
    for seed in [1, 1, 2] {
        let mut request = ask("base", "What is 58 + 68?");
        request.sampling = Sampling { seed, ..Sampling::default() };
        let answer = answer(&engine, request).await.unwrap();
        texts.push(answer.thinking + &answer.content);
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}
