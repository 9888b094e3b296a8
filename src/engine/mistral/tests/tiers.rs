//! Tiers that come, change and go while the engine runs.

use brevity_training::files;
use serde_json::{Value, json};

use super::*;

fn adapter(manifest: &Manifest, name: &str, tier: &str) -> TierSpec {
    TierSpec { name: name.to_owned(), weights: weights(manifest, tier), fingerprint: None, device: None }
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_is_added_replaced_and_removed() {
    let whole = family(8).await;
    let (manifest, spec) = bare();
    let engine =
        MistralEngine::load(spec.with_tier("base", Weights::Base, manifest.base.sha256.clone())).await.unwrap();
    let question = |tier: &str| ask(tier, "What is 58 + 68?");
    assert!(matches!(answer(&engine, question("new")).await, Err(EngineError::UnknownTier(_))));
    let base = answer(&engine, question("base")).await.unwrap();
    assert_eq!(base.finish.fingerprint, manifest.base.sha256);

    engine.load_tier(adapter(&manifest, "new", "alpha-0.05")).await.unwrap();
    let long = answer(&engine, question("new")).await.unwrap();
    assert_eq!(long, answer(&whole, question("alpha-0.05")).await.unwrap());
    assert!(long.finish.fingerprint.as_ref().is_some_and(|hash| hash.len() == 64));

    let mut sampled = question("new");
    sampled.sampling = Sampling { seed: 3, ..Sampling::default() };
    let mut begun = engine.generate(sampled.clone()).await.unwrap();
    begun.next().await.unwrap().unwrap();
    engine.load_tier(adapter(&manifest, "new", "alpha-0.4")).await.unwrap();
    let short = answer(&engine, question("new")).await.unwrap();
    assert_eq!(short, answer(&whole, question("alpha-0.4")).await.unwrap());
    assert_ne!(short.finish.fingerprint, long.finish.fingerprint);
    let last = begun.fold(None, async |_, event| Some(event.unwrap())).await;
    let Some(Event::Finished(finish)) = last else { panic!("{last:?}") };
    assert_eq!(finish.fingerprint, long.finish.fingerprint, "what had begun keeps its weights");

    let missing = Weights::Adapter("/nowhere/at/all".into());
    let broken = TierSpec { name: "new".to_owned(), weights: missing, fingerprint: None, device: None };
    let error = engine.load_tier(broken).await.unwrap_err().to_string();
    assert!(error.contains("`new`") && error.contains("/nowhere/at/all"), "{error}");
    assert_eq!(answer(&engine, question("new")).await.unwrap(), short, "the old tier stays");

    engine.remove_tier("new").await.unwrap();
    assert!(matches!(answer(&engine, question("new")).await, Err(EngineError::UnknownTier(_))));
    assert!(matches!(engine.remove_tier("new").await, Err(EngineError::UnknownTier(_))));
    assert_eq!(engine.tiers(), ["base"]);
    assert_eq!(answer(&engine, question("base")).await.unwrap(), base);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_a_tier_many_times_runs_out_of_nothing() {
    let (manifest, spec) = bare();
    let engine = MistralEngine::load(spec).await.unwrap();
    let mut fingerprints = Vec::new();
    for round in 0..300 {
        let tier = ["alpha-0.05", "alpha-0.4"][round % 2];
        engine.load_tier(adapter(&manifest, "tier", tier)).await.unwrap();
        if round >= 298 {
            fingerprints.push(answer(&engine, ask("tier", "What is 1 + 2?")).await.unwrap().finish.fingerprint);
        }
    }
    assert_ne!(fingerprints[0], fingerprints[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_load_says_which_folder() {
    let (_, spec) = bare();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let broken = || EngineSpec::new(folder.path()).with_tier("base", Weights::Base, None);
    let error = MistralEngine::load(broken()).await.err().unwrap().to_string();
    assert!(error.contains(&place), "{error}");
    copy(&spec.base, folder.path());
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    std::fs::write(folder.path().join("config.json"), config.replace("Qwen2ForCausalLM", "UnheardOf")).unwrap();
    let error = MistralEngine::load(broken()).await.err().unwrap().to_string();
    assert!(error.contains(&place) && error.contains("UnheardOf"), "{error}");
    let yarn =
        config.replace("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}, \"rope_theta\"");
    assert_ne!(yarn, config);
    std::fs::write(folder.path().join("config.json"), yarn).unwrap();
    let error = MistralEngine::load(broken()).await.err().unwrap().to_string();
    assert!(error.contains(&place) && error.contains("yarn"), "{error}");
}

/// As transformers 5 writes it.
#[tokio::test(flavor = "multi_thread")]
async fn newer_files_of_a_model_answer_the_same() {
    let (_, spec) = bare();
    let folder = tempfile::tempdir().unwrap();
    copy(&spec.base, folder.path());
    let place = folder.path().join("config.json");
    let mut config: Value = files::read_json(&place).unwrap();
    let keys = config.as_object_mut().unwrap();
    let theta = keys.remove("rope_theta").unwrap();
    let dtype = keys.remove("torch_dtype").unwrap();
    keys.extend([
        ("rope_parameters".to_owned(), json!({"rope_type": "default", "rope_theta": theta})),
        ("dtype".to_owned(), dtype),
    ]);
    std::fs::write(&place, config.to_string()).unwrap();
    let mut answers = Vec::new();
    for folder in [spec.base.as_path(), folder.path()] {
        let spec = EngineSpec::new(folder).with_tier("base", Weights::Base, None);
        answers.push(answer(&MistralEngine::load(spec).await.unwrap(), ask("base", "What is 1 + 2?")).await.unwrap());
    }
    assert!(!answers[0].content.is_empty());
    assert_eq!(answers[0], answers[1]);
}
