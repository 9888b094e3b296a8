use super::*;
use crate::family::{Dialect, LevelCard};
use proptest::prelude::*;

const BASE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const TIER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn card(weights: &str) -> TierCard {
    TierCard {
        dataset: "mini:test".to_owned(),
        date: "2025-03-31".to_owned(),
        seed: 7,
        temperature: 1.0,
        top_p: 1.0,
        top_k: Some(20),
        min_p: 0.0,
        samples: 4,
        weights_sha256: weights.to_owned(),
        levels: vec![LevelCard {
            level: "easy".to_owned(),
            problems: 500,
            responses: 2000,
            accuracy: 0.95,
            accuracy_low: 0.94,
            accuracy_high: 0.96,
            tokens_mean: 41.5,
            tokens_p50: 40.0,
            tokens_p95: 61.25,
            truncated: 0.0,
            verification: 0.02,
            backtracking: 0.01,
            exploration: 0.0,
        }],
    }
}

fn sample() -> Manifest {
    let base = Base { path: Some("base".into()), hub: None, sha256: Some(BASE.to_owned()) };
    let mut manifest = Manifest::new("family.toml", "brevity-mini", base);
    manifest.description = "Arithmetic, as briefly as it can be done.".to_owned();
    manifest.upsert_tier(Tier::new("alpha-0.1", 0.1).with_adapter("alpha-0.1", TIER));
    manifest.upsert_tier(Tier {
        training: Some(TierTraining {
            recipe: "mini-rl".to_owned(),
            fingerprint: "00ff".to_owned(),
            steps: 120,
            seed: 1,
            wall_seconds: 612.5,
            command: "serve train mini-rl --alpha 0.05".to_owned(),
            base_sha256: Some(BASE.to_owned()),
        }),
        card: Some(card(TIER)),
        ..Tier::new("alpha-0.05", 0.05).with_checkpoint("alpha-0.05", TIER)
    });
    manifest.upsert_tier(Tier::new("base", 0.0));
    manifest
}

fn fault(change: impl Fn(&mut Manifest)) -> String {
    let mut manifest = sample();
    change(&mut manifest);
    manifest.to_toml().unwrap_err().to_string()
}

fn refused(from: &str, to: &str) -> String {
    let text = sample().to_toml().unwrap();
    assert!(text.contains(from), "{text}");
    Manifest::parse(&text.replacen(from, to, 1), Path::new("family.toml")).unwrap_err().to_string()
}

#[test]
fn the_text_is_stable() {
    insta::assert_snapshot!(sample().to_toml().unwrap(), @r#"
    name = "brevity-mini"
    description = "Arithmetic, as briefly as it can be done."
    default_effort = "medium"

    [base]
    path = "base"
    sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

    [effort]
    none = "alpha-0.1"
    minimal = "alpha-0.1"
    low = "alpha-0.1"
    medium = "alpha-0.05"
    high = "base"
    xhigh = "base"
    max = "base"

    [[tier]]
    name = "base"
    alpha = 0.0

    [[tier]]
    name = "alpha-0.05"
    alpha = 0.05
    checkpoint = "alpha-0.05"
    sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

    [tier.training]
    recipe = "mini-rl"
    fingerprint = "00ff"
    steps = 120
    seed = 1
    wall_seconds = 612.5
    command = "serve train mini-rl --alpha 0.05"
    base_sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

    [tier.card]
    dataset = "mini:test"
    date = "2025-03-31"
    seed = 7
    temperature = 1.0
    top_p = 1.0
    top_k = 20
    samples = 4
    weights_sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

    [[tier.card.level]]
    level = "easy"
    problems = 500
    responses = 2000
    accuracy = 0.95
    accuracy_low = 0.94
    accuracy_high = 0.96
    tokens_mean = 41.5
    tokens_p50 = 40.0
    tokens_p95 = 61.25
    truncated = 0.0
    verification = 0.02
    backtracking = 0.01
    exploration = 0.0

    [[tier]]
    name = "alpha-0.1"
    alpha = 0.1
    adapter = "alpha-0.1"
    sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    "#);
}

#[test]
fn what_is_saved_loads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = Manifest { path: folder.path().join("family.toml"), ..sample() };
    manifest.tiers.reverse();
    manifest.save().unwrap();
    assert_eq!(Manifest::load(manifest.path()).unwrap(), manifest);
    assert_eq!(
        manifest.tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>(),
        ["base", "alpha-0.05", "alpha-0.1"]
    );
}

#[test]
fn unknown_keys_and_values_name_the_nearest() {
    let message = refused("description", "descriptoin");
    assert!(message.ends_with("line 2: unknown key `descriptoin`, did you mean `description`?"), "{message}");
    let message = refused("wall_seconds", "walltime_seconds");
    assert!(message.contains("unknown key `walltime_seconds`, did you mean `wall_seconds`?"), "{message}");
    let message = refused("default_effort = \"medium\"", "default_effort = \"mediun\"");
    assert!(message.contains("line 3: unknown value `mediun`, did you mean `medium`?"), "{message}");
    let message = refused("tokens_p50", "zzz");
    assert!(message.contains("unknown key `zzz`, known are `level`, `problems`"), "{message}");
    let message = refused("xhigh =", "ultra =");
    assert!(message.contains("unknown value `ultra`, known are `none`, `minimal`"), "{message}");
    let message = refused("alpha = 0.05", "alpha = \"a lot\"");
    assert!(message.contains("invalid type: string \"a lot\", expected f64"), "{message}");
    let message = refused("alpha = 0.05", "");
    assert!(message.contains("missing field `alpha`"), "{message}");
}

#[test]
fn whole_numbers_are_numbers_too() {
    let text = sample()
        .to_toml()
        .unwrap()
        .replace("alpha = 0.0\n", "alpha = 0\n")
        .replace("temperature = 1.0", "temperature = 1");
    assert_eq!(Manifest::parse(&text, Path::new("family.toml")).unwrap(), sample());
}

#[test]
fn faults_name_key_and_remedy() {
    let text = fault(|m| m.tiers[1].alpha = 1.0);
    assert!(text.contains("tier \"alpha-0.05\" alpha: 1 is outside [0, 1)"), "{text}");
    let text = fault(|m| m.tiers[1].alpha = f64::NAN);
    assert!(text.contains("alpha: NaN is outside"), "{text}");
    let text = fault(|m| m.tiers[2].name = "alpha-0.05".to_owned());
    assert!(text.contains("tier \"alpha-0.05\" name: used twice"), "{text}");
    let text = fault(|m| {
        m.effort.insert(Effort::High, "alpha-0.5".to_owned());
    });
    assert!(text.contains("effort.high: there is no tier `alpha-0.5`, did you mean `alpha-0.05`?"), "{text}");
    let text = fault(|m| {
        m.effort.remove(&Effort::Max);
    });
    assert!(text.contains("effort: no tier for `max`"), "{text}");
    let text = fault(|m| m.base.hub = Some("org/name".to_owned()));
    assert!(text.contains("base: both `path` and `hub`"), "{text}");
    let text = fault(|m| m.base = Base { hub: Some("name@".to_owned()), ..Base::default() });
    assert!(text.contains("base.hub: `name@` is no repository"), "{text}");
    let text = fault(|m| m.base.sha256 = None);
    assert!(text.contains("base.sha256: missing"), "{text}");
    let text = fault(|m| m.tiers[1].sha256 = Some("1234".to_owned()));
    assert!(text.contains("tier \"alpha-0.05\" sha256: `1234` is no SHA-256"), "{text}");
    let text = fault(|m| m.tiers[1].adapter = Some("x".into()));
    assert!(text.contains("both `adapter` and `checkpoint`"), "{text}");
    let text = fault(|m| m.tiers[1].hub = Some("org/name".to_owned()));
    assert!(text.contains("both `checkpoint` and `hub`"), "{text}");
    let text = fault(|m| {
        m.tiers[1] = Tier { hub: Some("name".to_owned()), sha256: Some(TIER.to_owned()), ..Tier::new("far", 0.2) }
    });
    assert!(text.contains("tier \"far\" hub: `name` is no repository"), "{text}");
    let text = fault(|m| m.tiers[1].training.as_mut().unwrap().base_sha256 = Some("12".to_owned()));
    assert!(text.contains("training.base_sha256: `12` is no SHA-256"), "{text}");
    let text = fault(|m| m.tiers.push(Tier::new("second", 0.0)));
    assert!(text.contains("\"base\", \"second\" all name neither"), "{text}");
    let text = fault(|m| m.tiers.clear());
    assert!(text.contains("tier: none, add at least the base"), "{text}");
    let text = fault(|m| m.tiers[1].card.as_mut().unwrap().levels[0].accuracy = 95.0);
    assert!(text.contains("tier \"alpha-0.05\" card.level \"easy\" accuracy: 95 is outside [0, 1]"), "{text}");
    let text = fault(|m| m.tiers[1].card.as_mut().unwrap().date = "yesterday".to_owned());
    assert!(text.contains("card.date: `yesterday` is no day"), "{text}");
    let both = fault(|m| (m.name, m.base.sha256) = (String::new(), None));
    assert!(both.contains("name: empty") && both.contains("; base.sha256"), "all faults at once: {both}");
}

#[test]
fn tiers_of_other_servers_need_neither_base_nor_hash() {
    let upstream = Upstream {
        url: "http://127.0.0.1:8000/v1".to_owned(),
        model: "org/short".to_owned(),
        api_key_env: Some("SHORT_KEY".to_owned()),
        ..Upstream::default()
    };
    let tier = Tier::new("short", 0.4).with_upstream(upstream);
    let mut manifest = Manifest::new("family.toml", "far", Base::default());
    manifest.upsert_tier(tier);
    manifest.budget = BTreeMap::from([(Effort::Low, 256), (Effort::High, 4096)]);
    let text = manifest.to_toml().unwrap();
    assert!(text.contains("[tier.upstream]\nurl = ") && text.contains("[budget]\nlow = 256\nhigh = 4096\n"), "{text}");
    assert_eq!(Manifest::parse(&text, Path::new("family.toml")).unwrap(), manifest);
    assert!(!manifest.tiers[0].is_base());

    let extra = text.replace("model = ", "dialect = \"openai\"\nextra_body = { service_tier = \"flex\" }\nmodel = ");
    let parsed = Manifest::parse(&extra, Path::new("family.toml")).unwrap();
    let upstream = parsed.tiers[0].upstream.as_ref().unwrap();
    assert_eq!((upstream.dialect, &upstream.extra_body["service_tier"]), (Dialect::Openai, &"flex".into()));

    let fault = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        Manifest::parse(&text.replace(from, to), Path::new("family.toml")).unwrap_err().to_string()
    };
    let message = fault("http://127.0.0.1:8000/v1", "127.0.0.1:8000");
    assert!(message.contains("tier \"short\" upstream.url: `127.0.0.1:8000` is no address"), "{message}");
    let message = fault("http://", "http://me:secret@");
    assert!(message.contains("upstream.url: holds a user name") && !message.contains("secret"), "{message}");
    let message = fault("SHORT_KEY", "sk-12345");
    assert!(message.contains("never the key itself") && !message.contains("sk-12345"), "{message}");
    let message = fault("high = 4096", "high = 128");
    assert!(message.contains("budget.high: 128 tokens are fewer than the 256 of `low`"), "{message}");
}

#[test]
fn a_tier_may_have_a_device_of_its_own() {
    let mut manifest = sample();
    manifest.tiers[1].device = Some(DeviceName::Cuda(1));
    let text = manifest.to_toml().unwrap();
    assert!(text.contains("device = \"cuda:1\"\n"), "{text}");
    assert_eq!(Manifest::parse(&text, Path::new("family.toml")).unwrap(), manifest);
    let message = refused("alpha = 0.1\n", "alpha = 0.1\ndevice = \"gpu\"\n");
    assert!(message.contains("no device is called `gpu`"), "{message}");
    let upstream = Upstream { url: "http://127.0.0.1:1/v1".to_owned(), ..Upstream::default() };
    let tier = Tier { device: Some(DeviceName::Cpu), ..Tier::new("far", 0.5).with_upstream(upstream) };
    let message = fault(|manifest| manifest.upsert_tier(tier.clone()));
    assert!(message.contains("tier \"far\" device: another server computes this tier"), "{message}");
}

#[test]
fn a_new_tier_moves_only_efforts_that_nobody_placed() {
    let mut manifest = sample();
    manifest.upsert_tier(Tier::new("alpha-0.4", 0.4).with_adapter("alpha-0.4", TIER));
    assert_eq!(manifest.effort, default_effort_map(&manifest.tiers));
    assert_eq!(manifest.effort[&Effort::None], "alpha-0.4");
    manifest.effort.insert(Effort::None, "alpha-0.1".to_owned());
    manifest.upsert_tier(Tier::new("alpha-0.6", 0.6).with_adapter("alpha-0.6", TIER));
    assert_eq!(manifest.effort[&Effort::None], "alpha-0.1");
}

#[test]
fn a_removed_tier_leaves_its_efforts_to_the_nearest() {
    let mut manifest = sample();
    assert_eq!(manifest.remove_tier("alpha-0.05").unwrap().alpha, 0.05);
    assert_eq!(manifest.effort, default_effort_map(&manifest.tiers), "spread anew");
    let mut manifest = sample();
    manifest.set_effort(Effort::Max, "alpha-0.1").unwrap();
    manifest.remove_tier("alpha-0.1").unwrap();
    assert_eq!(manifest.effort[&Effort::Max], "alpha-0.05", "a map written by hand moves only what pointed there");
    assert_eq!(manifest.effort[&Effort::High], "base");
    manifest.remove_tier("base").unwrap();
    let only = manifest.remove_tier("alpha-0.05").unwrap_err().to_string();
    assert!(only.contains("the only tier"), "{only}");
    assert!(manifest.set_effort(Effort::Low, "alpha-0.5").unwrap_err().to_string().contains("did you mean"));
    manifest.to_toml().unwrap();
}

#[test]
fn a_card_stays_with_its_weights() {
    let mut manifest = sample();
    manifest.upsert_tier(Tier::new("alpha-0.05", 0.05).with_checkpoint("elsewhere", TIER));
    assert!(manifest.tier("alpha-0.05").unwrap().card.is_some());
    manifest.upsert_tier(Tier::new("alpha-0.05", 0.05).with_checkpoint("elsewhere", BASE));
    assert!(manifest.tier("alpha-0.05").unwrap().card.is_none());
    let stale = manifest.set_card("alpha-0.05", card(TIER)).unwrap_err().to_string();
    assert!(stale.contains("evaluate the tier again"), "{stale}");
    manifest.set_card("alpha-0.05", card(BASE)).unwrap();
    manifest.set_card("base", card(BASE)).unwrap();
    assert!(manifest.tier("base").unwrap().card.is_some());
    let unknown = manifest.set_card("alpha-0.2", card(TIER)).unwrap_err().to_string();
    assert_eq!(unknown, "family `brevity-mini` has no tier `alpha-0.2`, did you mean `alpha-0.1`?");
}

fn any_tier() -> impl Strategy<Value = Tier> {
    let numbers = (0.0..1.0f64, 0.0..1e4f64, 0..i64::MAX as u64);
    (0u8..3, "[a-zäß 0-9.\"'\\\\=#-]{1,12}", numbers, any::<bool>()).prop_map(
        |(kind, name, (alpha, count, seed), carded)| {
            let tier = Tier::new(&format!("t{name}"), alpha);
            let mut tier = match kind {
                0 => tier.with_adapter(format!("dir/{name}"), TIER),
                _ => tier.with_checkpoint("full", TIER),
            };
            let mut filled = card(TIER);
            (filled.seed, filled.levels[0].tokens_mean, filled.levels[0].accuracy) = (seed, count, alpha);
            filled.dataset = name;
            tier.card = carded.then_some(filled);
            tier
        },
    )
}

proptest! {
    #[test]
    fn any_valid_family_round_trips(tiers in proptest::collection::vec(any_tier(), 1..6), description in ".*") {
        let mut manifest = sample();
        manifest.description = description;
        for tier in tiers {
            manifest.upsert_tier(tier);
        }
        let text = manifest.to_toml().unwrap();
        let back = Manifest::parse(&text, Path::new("family.toml")).unwrap();
        prop_assert_eq!(&back, &manifest);
        prop_assert_eq!(back.to_toml().unwrap(), text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".*") {
        let _ = Manifest::parse(&text, Path::new("family.toml"));
    }
}
