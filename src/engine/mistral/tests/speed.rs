//! Figures for people: run with `--ignored --nocapture`, in release. Nothing is asserted about time.

use std::sync::Arc;
use std::time::Instant;

use futures::stream;

use super::*;

/// Resident memory of this process in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints tokens per second"]
async fn tokens_per_second() {
    let engine = Arc::new(family(64).await);
    let tiers = engine.tiers();
    for concurrent in [1, 4, 16, 64] {
        let (count, started) = (concurrent * 6, Instant::now());
        let tokens: Vec<usize> = stream::iter(0..count)
            .map(|index| {
                let (engine, mut request) = (engine.clone(), ask(&tiers[index % tiers.len()], "What is 58 + 68?"));
                request.sampling = Sampling { seed: index as u64, ignore_eos: true, ..Sampling::default() };
                request.max_tokens = Some(200);
                async move {
                    tokio::spawn(async move { answer(&engine, request).await.unwrap().finish.usage.completion_tokens })
                        .await
                        .unwrap()
                }
            })
            .buffer_unordered(concurrent)
            .collect()
            .await;
        let seconds = started.elapsed().as_secs_f64();
        let total: usize = tokens.iter().sum();
        println!("{concurrent:3} concurrent: {:7.0} tok/s ({total} tokens in {seconds:.2} s)", total as f64 / seconds);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints the growth of memory"]
async fn memory_stays() {
    let engine = family(16).await;
    for round in 0..6 {
        println!("after {:4} answered and as many cancelled: {:6.1} MiB", round * 100, resident());
        for seed in 0..100 {
            let mut request = ask("alpha-0.1", "What is 58 + 68?");
            request.sampling.seed = seed;
            let mut cancelled = engine.generate(ask("base", "What is 58 + 68?")).await.unwrap();
            for _ in 0..seed % 10 {
                cancelled.next().await;
            }
            drop(cancelled);
            answer(&engine, request).await.unwrap();
        }
    }
}
