//! Weights from a hub: fetched once, of one commit, and found again without a network.

use std::path::Path;

use brevity::family::{Base, Downloads, Hub, HubId, Kind, Manifest, Source, Tier, Upstream, hash, load};

use crate::hub_server::HubServer;
use crate::support::{TINY, Workspace};

/// Counts what comes.
#[derive(Default)]
struct Counted {
    files: Vec<(String, u64)>,
    received: u64,
    ended: usize,
}

impl Downloads for Counted {
    fn begin(&mut self, _: &HubId, name: &str, bytes: u64) {
        self.files.push((name.to_owned(), bytes));
    }

    fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    fn end(&mut self) {
        self.ended += 1;
    }
}

fn id(text: &str) -> HubId {
    text.parse().unwrap()
}

fn hub(space: &Workspace, server: &HubServer) -> Hub {
    Hub::new(space.path("cache/hub")).with_endpoint(server.address())
}

#[test]
fn a_checkpoint_is_fetched_once_and_found_offline() {
    let space = Workspace::with_base();
    space.write("base/README.md", "not needed");
    space.write("base/pytorch_model.bin", "not needed");
    let server = HubServer::start("org/model", &space.path("base"), None);
    let hub = hub(&space, &server);
    let mut counted = Counted::default();
    let source = Source::Hub(id("org/model@v1"));
    let family = load(&source, false, &hub, &mut counted).unwrap();
    assert_eq!(family.manifest.name, "model");
    let tiers: Vec<_> = family.local().map(|tier| (tier.name.clone(), tier.kind)).collect();
    assert_eq!(tiers, [("base".to_owned(), Kind::Base)]);
    let base = family.base.unwrap();
    assert!(base.folder.ends_with(format!("snapshots/{}", server.commit())));
    let names: Vec<&str> = counted.files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"model.safetensors") && names.contains(&"tokenizer.json"), "{names:?}");
    assert!(!names.contains(&"README.md") && !names.contains(&"pytorch_model.bin"), "{names:?}");
    assert_eq!(counted.received, counted.files.iter().map(|(_, bytes)| bytes).sum::<u64>());
    assert_eq!(counted.ended, names.len());

    server.requests();
    let mut second = Counted::default();
    load(&source, false, &hub, &mut second).unwrap();
    assert!(second.files.is_empty());
    assert_eq!(server.requests(), ["/api/models/org/model/revision/v1"], "only the commit is asked for");
    let offline = hub.clone().offline(true);
    let again = load(&source, false, &offline, &mut second).unwrap();
    assert_eq!(again.base.unwrap().sha256, base.sha256);
    let commit = format!("org/model@{}", server.commit());
    load(&Source::Hub(id(&commit)), false, &offline, &mut second).unwrap();
    assert!(server.requests().is_empty() && second.files.is_empty());

    let missing = load(&Source::Hub(id("org/model")), false, &offline, &mut second).unwrap_err().to_string();
    assert!(missing.contains("HF_HUB_OFFLINE") && missing.contains("hf download org/model"), "{missing}");
    std::fs::remove_file(base.folder.join("model.safetensors")).unwrap();
    let missing = load(&source, false, &offline, &mut second).unwrap_err().to_string();
    assert!(missing.contains("model.safetensors") && missing.contains("--revision v1"), "{missing}");
}

#[test]
fn a_new_commit_is_a_new_folder() {
    let space = Workspace::with_base();
    let server = HubServer::start("org/model", &space.path("base"), None);
    let hub = hub(&space, &server);
    let first = hub.fetch(&id("org/model"), &mut Counted::default()).unwrap();
    server.push("generation_config.json", b"{\"eos_token_id\": 5}");
    let second = hub.fetch(&id("org/model"), &mut Counted::default()).unwrap();
    assert_ne!(first, second);
    let read = |folder: &Path| std::fs::read_to_string(folder.join("generation_config.json")).unwrap();
    assert!(read(&second).contains('5') && read(&first) != read(&second));
}

#[test]
fn refusals_say_what_to_do() {
    let space = Workspace::with_base();
    let server = HubServer::start("org/model", &space.path("base"), Some("hf_good"));
    let hub = hub(&space, &server);
    let fetch =
        |hub: &Hub, text: &str| hub.fetch(&id(text), &mut Counted::default()).map_err(|error| error.to_string());
    let refused = fetch(&hub, "org/model").unwrap_err();
    assert!(refused.contains("401") && refused.contains("set HF_TOKEN"), "{refused}");
    let wrong = fetch(&hub.clone().with_token(Some("hf_wrong".to_owned())), "org/model").unwrap_err();
    assert!(wrong.contains("may not read") && !wrong.contains("hf_wrong"), "{wrong}");
    let known = hub.clone().with_token(Some("hf_good".to_owned()));
    fetch(&known, "org/model").unwrap();
    let missing = fetch(&known, "org/model@v2").unwrap_err();
    assert!(missing.contains("`org/model@v2`") && missing.contains("check the name and the revision"), "{missing}");
    assert!(fetch(&known, "org/other").unwrap_err().contains("there is no `org/other`"));
    // A port that was free a moment ago and on which nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = fetch(&hub.with_endpoint(&format!("http://{free}")), "org/model").unwrap_err();
    assert!(unreachable.contains("HF_ENDPOINT") && unreachable.contains(&free.to_string()), "{unreachable}");
}

#[test]
fn a_family_on_the_hub_is_loaded_with_its_folders() {
    let space = Workspace::with_family();
    std::fs::rename(space.path("base"), space.path("family/base")).unwrap();
    let manifest = space.read("family/family.toml").replace("path = \"../base\"", "path = \"base\"");
    space.write("family/family.toml", &manifest);
    let server = HubServer::start("org/family", &space.path("family"), None);
    let hub = hub(&space, &server);
    let mut counted = Counted::default();
    let family = load(&Source::Hub(id("org/family")), false, &hub, &mut counted).unwrap();
    assert_eq!(family.local().count(), 3);
    assert!(!counted.files.iter().any(|(name, _)| name.contains("curves")), "{:?}", counted.files);
    let offline = hub.offline(true);
    assert_eq!(load(&Source::Hub(id("org/family")), false, &offline, &mut counted).unwrap().local().count(), 3);
}

#[test]
fn base_and_tiers_on_the_hub_are_used_by_every_command() {
    let space = Workspace::with_family();
    let server = HubServer::start("org/base", &space.path("base"), Some("hf_good"));
    let tier = HubServer::start("org/tier", &space.path("family/alpha-0.2"), None);
    let with = |server: &HubServer, arguments: &[&str]| {
        let mut command = space.command(arguments);
        command.env("HF_HOME", space.path("home")).env("HF_ENDPOINT", server.address()).env("HF_TOKEN", "hf_good");
        command.env_remove("HF_HUB_OFFLINE");
        crate::support::Finished::new(command.output().unwrap())
    };
    let manifest = space.read("family/family.toml").replace("path = \"../base\"", "hub = \"org/base@v1\"");
    space.write("family/family.toml", &manifest);
    let eval = ["eval", "--family", "family", "--suite", "mini", "--problems", "1", "--max-new-tokens", "4"];
    let measured = with(&server, &eval);
    assert_eq!(measured.code, Some(0), "{}", measured.stderr);
    assert!(measured.stderr.contains("fetching model.safetensors of org/base@v1"), "{}", measured.stderr);

    // The other hub has the tier; the base is in the cache, but its commit must be asked for unless offline.
    let name = format!("org/tier@{}", tier.commit());
    let fetched = with(&tier, &["tiers", "add", "org/tier", "--name", "far", "--alpha", "0.3", "--family", "family"]);
    assert_eq!(fetched.code, Some(1), "{}", fetched.stderr);
    assert!(fetched.stderr.contains("there is no `org/base@v1`"), "{}", fetched.stderr);
    let manifest = space.read("family/family.toml").replace("hub = \"org/base@v1\"", "path = \"../base\"");
    space.write("family/family.toml", &manifest);
    let fetched = with(&tier, &["tiers", "add", "org/tier", "--name", "far", "--alpha", "0.3", "--family", "family"]);
    assert_eq!(fetched.code, Some(0), "{}", fetched.stderr);
    assert!(space.read("family/family.toml").contains(&format!("hub = \"{name}\"")), "pinned to the commit");
    let verified = with(&tier, &["tiers", "verify", "--family", "family"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.stdout.contains("ok: far (adapter, sha256 "), "{}", verified.stdout);
}

#[test]
fn a_recipe_takes_its_base_and_its_data_from_the_hub() {
    let space = Workspace::with_base();
    let server = HubServer::start("org/base", &space.path("base"), None);
    server.push("data/train.jsonl", &space.bytes("problems.jsonl"));
    let text = TINY
        .replace("base = \"base\"", "base = \"hf://org/base\"")
        .replace("\"problems.jsonl\"", "\"hf://datasets/org/base@v1/data/train.jsonl\"");
    space.write("tiny.toml", &text);
    let train = ["train", "--recipe", "tiny.toml", "--alpha", "0.3", "--out", "family", "--runs", "runs"];
    let with = |offline: &str| {
        let mut command = space.command(&train);
        command.env("HF_HOME", space.path("home")).env("HF_ENDPOINT", server.address()).env("HF_HUB_OFFLINE", offline);
        crate::support::Finished::new(command.output().unwrap())
    };
    let trained = with("0");
    assert_eq!(trained.code, Some(0), "{}", trained.stderr);
    let fetched = "fetching data/train.jsonl of datasets/org/base@v1";
    assert!(trained.stderr.contains(fetched) && trained.stderr.contains("fetching model.safetensors of org/base"));
    let manifest = space.read("family/family.toml");
    assert!(manifest.contains(&format!("hub = \"org/base@{}\"", server.commit())), "{manifest}");
    assert!(space.read("family/alpha-0.3/adapter_config.json").contains("\"org/base\""));

    // The same run goes on from the cache alone, and knows itself.
    let again = with("1");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("alpha-0.3 was finished before"), "{}", again.stderr);

    space.write("tiny.toml", &text.replace("hf://org/base", "hf://base"));
    let refused = with("1");
    assert!(refused.stderr.contains("base: `base` is no repository"), "{}", refused.stderr);
}

#[test]
fn an_evaluation_takes_its_problems_from_the_hub() {
    let space = Workspace::with_base();
    let server = HubServer::start("org/set", &space.path("base"), None);
    server.push("data/test.jsonl", &space.bytes("problems.jsonl"));
    let eval = |suite: &str, offline: &str| {
        let arguments = ["eval", "--model", "base", "--suite", suite, "--max-new-tokens", "4", "--out", "out"];
        let mut command = space.command(&arguments);
        command.env("HF_HOME", space.path("home")).env("HF_ENDPOINT", server.address()).env("HF_HUB_OFFLINE", offline);
        crate::support::Finished::new(command.output().unwrap())
    };
    let suite = "file:hf://datasets/org/set@v1/data/test.jsonl";
    let first = eval(suite, "0");
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stderr.contains("fetching data/test.jsonl of datasets/org/set@v1"), "{}", first.stderr);
    assert!(space.read("out/eval.json").contains(&format!("\"{suite}\"")));
    let again = eval(suite, "1");
    assert_eq!((again.code, again.stderr.contains("fetching")), (Some(0), false), "{}", again.stderr);
    let refused = eval("file:hf://datasets/org", "1");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("--suite: `hf://datasets/org`"), "{}", refused.stderr);
}

#[test]
fn a_downloaded_family_may_not_choose_where_prompts_go() {
    let space = Workspace::with_base();
    let sha256 = hash::weights_sha256(&space.path("base")).unwrap();
    let base = Base { path: Some(".".into()), hub: None, sha256: Some(sha256) };
    let mut manifest = Manifest::new(space.path("base/family.toml"), "theirs", base);
    manifest.upsert_tier(Tier::new("base", 0.0));
    let upstream = Upstream {
        url: "http://127.0.0.1:9/v1".to_owned(),
        model: "any".to_owned(),
        // Any variable of the environment could be named.
        api_key_env: Some("PATH".to_owned()),
        ..Upstream::default()
    };
    manifest.upsert_tier(Tier::new("elsewhere", 0.2).with_upstream(upstream));
    manifest.save().unwrap();
    let server = HubServer::start("org/family", &space.path("base"), None);
    let hub = hub(&space, &server);
    let source = Source::Hub(id("org/family"));
    let refused = load(&source, false, &hub, &mut Counted::default()).unwrap_err().to_string();
    assert!(
        refused.contains("`elsewhere`: a family from the hub may not send prompts to http://127.0.0.1:9/v1"),
        "{refused}"
    );
    let family = load(&source, true, &hub, &mut Counted::default()).unwrap();
    assert_eq!((family.local().count(), family.remote().count(), family.broken().count()), (1, 0, 1));
    // Whoever has it on disk has decided.
    let own = load(&Source::Folder(space.path("base")), false, &hub, &mut Counted::default()).unwrap();
    assert_eq!(own.remote().count(), 1);
}
