//! `serve eval`: measure a family, or any model folder, on a suite of problems.

mod files;
mod subject;

use std::path::{Path, PathBuf};

use brevity::eval::{
    self, Behaviours, Comparison, Evaluation, Graded, NamedColumns, Response, Settings, Suite, Summary,
};
use brevity::family::{Hub, Manifest, SamplingDefaults, Source, TierCard};
use brevity::report::number;
use brevity::routing::ignored_cards;
use brevity_training::Error;
use brevity_training::compute::DeviceName;
use brevity_training::recipe::{BehavioursSection, ComputeSection, DataSection, EvalSection, Recipe};
use brevity_training::rollout::SamplingParams;
use brevity_training::tasks::grader::GraderMode;
use brevity_training::tasks::mini;
use clap::{Args, ValueEnum};

use self::subject::{Place, Subject};
use super::columns::Columns;
use super::dtype::Dtype;
use super::progress::{self, Fetching, Sampling};
use super::{Failure, Result, interrupt, place, remote};

/// Most tokens of a response, as in the released code.
const MAX_NEW_TOKENS: usize = 32_768;
/// The same on the mini suite, whose traces end well before.
const MINI_MAX_NEW_TOKENS: usize = 640;
/// Problems of a level of the mini suite.
const MINI_PROBLEMS: usize = 500;
/// Responses decoded at the same time, unless asked otherwise.
const CONCURRENT: usize = 256;
/// Seed of the bootstrap behind the intervals of comparisons.
const BOOTSTRAP: u64 = 0;

const EXAMPLES: &str = "\
Examples:
  serve eval
      the bundled family on the mini suite: every tier, 500 held-out problems a level
  serve eval --tier base --tier alpha-0.2 --problems 100 --samples 4
      two tiers, fewer problems, pass@k in eval.json
  serve eval --family models/r1-1.5b --suite math:math500.jsonl \\
      --recipe training/recipes/deepseek-r1-distill-qwen-1.5b.toml
      a family on MATH500 with the paper's prompt and sampling
  serve eval --model runs/checkpoint --grader strict \\
      --suite gsm8k:hf://datasets/openai/gsm8k/main/test-00000-of-00001.parquet
      a model folder that belongs to no family
  serve eval --family models/r1-1.5b --suite gsm8k:gsm8k.jsonl --device cuda:0 --dtype bf16
      on a GPU, in a build with CUDA
  serve eval --suite file:own.jsonl --question-column ask --answer-column gold
      problems of your own";

/// Measure accuracy, tokens and behaviours of a family's tiers
///
/// Every tier answers the same problems under the same random numbers. Prints a table for each tier with 95 % intervals
/// and what it saves and costs against the base; writes eval.json, frontier.svg and every response to the output folder.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Folder of the family, or `organisation/name[@revision]` on the Hugging Face hub
    #[arg(long, env = "BREVITY_FAMILY", hide_env_values = true, value_name = "FAMILY", default_value = "models/mini")]
    family: Source,

    /// Measure only these tiers [default: the base, then every tier by alpha]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "model")]
    tier: Vec<String>,

    /// Measure this Hugging Face folder instead of a family
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,

    /// Problems: `mini`, some of its levels as `mini:LEVEL,…`, or a JSONL, Parquet or Arrow file as `gsm8k:FILE`,
    /// `math:FILE`, `aime:FILE` or, of any other form, `file:FILE`. FILE may be on the hub,
    /// `hf://datasets/ORGANISATION/NAME/PATH`
    #[arg(long, value_name = "SUITE", default_value = "mini")]
    suite: Suite,

    #[command(flatten)]
    columns: Columns,

    /// Recipe whose sections `eval`, `behaviours` and `grader` and prompt (in `data`) hold; options here go before it.
    /// Without one, problems of a file are asked with the paper's instruction to put the answer into a box, and what follows
    /// the thoughts is graded
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    /// Responses to each problem [default: 3 of `math`, 10 of `aime`, else 1, as in the paper]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,

    /// Most problems of a level [default: 500 of the mini suite, all of a file]
    #[arg(long, value_name = "N")]
    problems: Option<usize>,

    /// Softmax temperature; 0 takes the most likely token [default: the recipe's, else as requests that do not say are
    /// sampled: the model's generation_config.json, else 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,

    /// Nucleus mass in (0, 1] [default: likewise, else 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,

    /// Only the N most likely tokens, 0 for all [default: likewise, else all]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,

    /// Only tokens at least this share as likely as the most likely one [default: likewise, else 0]
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,

    /// Most tokens of a response; one that is cut off counts as incorrect [default: 640 for the mini suite, else 32768]
    #[arg(long, alias = "max-tokens", value_name = "N")]
    max_new_tokens: Option<usize>,

    /// Seed of the sampling [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Where to compute: `cpu`, or `cuda:N` in a build with CUDA [default: the recipe's, else cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceName>,

    /// Number format of weights and activations [default: the recipe's, else f32]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,

    /// What counts as right [default: qwen]
    #[arg(long, value_name = "MODE")]
    grader: Option<GraderName>,

    /// Folder for eval.json, frontier.svg and responses-TIER.jsonl [default: runs/eval-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Put the results into the cards of family.toml, and the picture of all tiers beside it
    #[arg(long, conflicts_with = "model")]
    write_cards: bool,

    /// Responses decoded at the same time; more is faster and takes more memory
    #[arg(long, alias = "concurrency", value_name = "N", default_value_t = CONCURRENT)]
    concurrent: usize,
}

/// The grader's rules.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraderName {
    /// Those of the paper's released code
    Qwen,
    /// The same without its known errors
    Strict,
}

/// One tier after its measurement.
struct Measured<'a> {
    subject: &'a Subject,
    summary: Summary,
    comparison: Vec<Comparison>,
}

/// Runs `serve eval`.
///
/// # Errors
/// When something does not fit, cannot be read or written, or somebody asked to stop.
pub fn run(arguments: &Arguments) -> Result<()> {
    let recipe = arguments.recipe.as_deref().map(|path| Recipe::load(path, &[])).transpose()?;
    check(arguments)?;
    let work_place = Place::of(arguments, recipe.as_ref())?;
    let suite = remote::suite(&arguments.suite)?;
    let (name, subjects, mut manifest) = subjects(arguments)?;
    let served = subjects.first().map_or_else(|| Ok(SamplingDefaults::default()), Subject::sampling)?;
    let settings = settings(arguments, recipe.as_ref(), &served);
    let out = arguments.out.clone().unwrap_or_else(|| format!("runs/eval-{}", place::file_name(&name)).into());
    let problems =
        suite.problems_of(problems_per_level(arguments, recipe.as_ref())?, &columns(arguments, recipe.as_ref()))?;
    place::writable(&out, "--out")?;
    let date = place::today();

    let mut measured: Vec<Measured<'_>> = Vec::new();
    let mut base: Option<Vec<Response>> = None;
    for subject in &subjects {
        let graded = measure(subject, &problems, &settings, &work_place)?;
        files::responses(&out, &subject.name, &graded)?;
        let responses: Vec<Response> = graded.into_iter().map(|graded| graded.response).collect();
        let summary = Summary::of(&responses).ok_or_else(|| Error::config("no response was measured"))?;
        let comparison = base.as_ref().map_or(Vec::new(), |base| eval::compare(base, &responses, BOOTSTRAP));
        if subject.is_base {
            base = Some(responses);
        }
        let table = summary.table(&comparison).to_terminal();
        progress::print(&format!("{}\n{table}{}\n", subject.label, verdict(&comparison)));
        // What was measured stays, should the rest be interrupted.
        if let Some(manifest) = manifest.as_mut().filter(|_| arguments.write_cards) {
            write_card(manifest, &subject.name, card(arguments, &settings, &date, subject, &summary))?;
        }
        measured.push(Measured { subject, summary, comparison });
        files::report(&out, &files::Head { name: &name, suite: &arguments.suite, date: &date }, &settings, &measured)?;
    }
    let title = format!("{name} on {}", arguments.suite);
    files::frontier(&out, &title, &measured)?;
    progress::say(&format!("written to {}", out.display()));
    if let Some(manifest) = manifest.filter(|_| arguments.write_cards) {
        progress::say(&format!("cards written to {}", manifest.path().display()));
        for ignored in ignored_cards(&manifest) {
            progress::say(&format!("warning: {ignored}"));
        }
        // A picture of some tiers is no picture of the family.
        if arguments.tier.is_empty() {
            files::frontier(&manifest.resolve(Path::new("")), &title, &measured)?;
        }
    }
    Ok(())
}

/// Puts a card into the manifest, read again: tiers may have come or gone while this one was measured.
fn write_card(manifest: &mut Manifest, tier: &str, card: TierCard) -> Result<()> {
    let _lock = Manifest::lock(manifest.path())?;
    *manifest = Manifest::load(manifest.path())?;
    // The base is measured even where it is no tier.
    if manifest.tier(tier).is_ok() {
        manifest.set_card(tier, card)?;
        manifest.save()?;
    }
    Ok(())
}

/// What is to be measured, the base first: a name for the whole, its members, and the manifest they are from.
fn subjects(arguments: &Arguments) -> Result<(String, Vec<Subject>, Option<Manifest>)> {
    if let Some(folder) = &arguments.model {
        let name = place::name_of(folder);
        return Ok((name.clone(), vec![Subject::model(&name, folder)?], None));
    }
    let (hub, mut fetching) = (Hub::from_env(), Fetching::default());
    let opened = arguments.family.open(&hub, &mut fetching).map_err(|error| {
        let hint = "train one with `serve train`, or measure a model folder with `serve eval --model FOLDER`";
        Failure::from(error).hint(hint)
    })?;
    if arguments.write_cards && (opened.origin.is_some() || opened.is_single) {
        let message =
            format!("`{}` has no family.toml on this machine that --write-cards could change", arguments.family);
        return Err(Failure::usage(message));
    }
    let subjects = Subject::of_family(&opened, &arguments.tier, &hub, &mut fetching)?;
    Ok((opened.manifest.name.clone(), subjects, Some(opened.manifest)))
}

/// Refuses options out of range, before anything is fetched or read.
fn check(arguments: &Arguments) -> Result<()> {
    let Arguments { temperature, top_p, min_p, max_new_tokens, samples, concurrent, .. } = *arguments;
    let holds = |value: Option<f64>, range: fn(f64) -> bool| value.is_none_or(range);
    let checks = [
        (holds(temperature, |value| value.is_finite() && value >= 0.0), "--temperature must be at least 0"),
        (holds(top_p, |value| value > 0.0 && value <= 1.0), "--top-p must be in (0, 1]"),
        (holds(min_p, |value| (0.0..=1.0).contains(&value)), "--min-p must be in [0, 1]"),
        (max_new_tokens != Some(0), "--max-new-tokens must be at least 1"),
        (samples != Some(0), "--samples must be at least 1"),
        (concurrent > 0, "--concurrent must be at least 1"),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, message)) => Err(Failure::usage(message)),
        None => Ok(()),
    }
}

/// Options before recipe before what is served before defaults.
fn settings(arguments: &Arguments, recipe: Option<&Recipe>, served: &SamplingDefaults) -> Settings {
    let is_mini = arguments.suite.is_mini();
    let section = recipe.map_or_else(EvalSection::default, |recipe| recipe.eval.clone());
    let of_suite = if is_mini { MINI_MAX_NEW_TOKENS } else { MAX_NEW_TOKENS };
    let mode = arguments.grader.map(|name| match name {
        GraderName::Qwen => GraderMode::Qwen,
        GraderName::Strict => GraderMode::Strict,
    });
    Settings {
        sampling: SamplingParams {
            temperature: arguments.temperature.or(section.temperature).unwrap_or(served.temperature),
            top_p: arguments.top_p.or(section.top_p).unwrap_or(served.top_p),
            // 0 is all, here and in recipes.
            top_k: arguments.top_k.or(section.top_k).or(served.top_k).filter(|&k| k > 0),
            min_p: arguments.min_p.or(section.min_p).unwrap_or(served.min_p),
            max_new_tokens: arguments.max_new_tokens.or(section.max_new_tokens).unwrap_or(of_suite),
        },
        samples: arguments.samples.or(section.samples).unwrap_or_else(|| arguments.suite.samples()),
        seed: arguments.seed.unwrap_or(section.seed),
        grader: mode.or(recipe.map(|recipe| recipe.grader.mode)).unwrap_or_default(),
        // As users read it, unless a recipe says otherwise, as those of the paper do.
        after_thoughts: recipe.is_none_or(|recipe| recipe.grader.after_thoughts),
        behaviours: behaviours(recipe.map(|recipe| &recipe.behaviours), is_mini),
        data: recipe.map_or_else(|| asked(&arguments.suite), |recipe| recipe.data.clone()),
    }
}

impl Place {
    /// Options before recipe before the processor.
    fn of(arguments: &Arguments, recipe: Option<&Recipe>) -> Result<Self> {
        let mut compute = recipe.map_or_else(ComputeSection::default, |recipe| recipe.compute.clone());
        compute.device = arguments.device.unwrap_or(compute.device);
        compute.dtype = arguments.dtype.map_or(compute.dtype, Into::into);
        let device = compute.device.open(compute.dtype)?;
        Ok(Self { compute, device, concurrent: arguments.concurrent })
    }
}

/// How problems are asked without a recipe.
fn asked(suite: &Suite) -> DataSection {
    DataSection { prompt_template: suite.prompt_template(), ..DataSection::default() }
}

/// The columns that options name or, of a file without a known form, the recipe.
fn columns(arguments: &Arguments, recipe: Option<&Recipe>) -> NamedColumns {
    let is_any = matches!(&arguments.suite, Suite::File { preset, .. } if preset == "file");
    let of_recipe = recipe.filter(|_| is_any).map_or_else(NamedColumns::default, |recipe| NamedColumns {
        question: Some(recipe.data.question_column.clone()),
        answer: Some(recipe.data.answer_column.clone()),
        level: recipe.data.level_column.clone(),
    });
    arguments.columns.or(of_recipe)
}

fn problems_per_level(arguments: &Arguments, recipe: Option<&Recipe>) -> Result<usize> {
    let of_recipe = recipe.and_then(|recipe| recipe.eval.problems_per_level);
    let otherwise = if arguments.suite.is_mini() { MINI_PROBLEMS } else { usize::MAX };
    match arguments.problems.or(of_recipe).unwrap_or(otherwise) {
        0 => Err(Failure::usage("--problems must be at least 1")),
        count => Ok(count),
    }
}

/// The phrases that a recipe lists, else those of the mini suite's traces, else those of large models.
fn behaviours(section: Option<&BehavioursSection>, is_mini: bool) -> Behaviours {
    let owned = |phrases: &[&str]| phrases.iter().map(|&phrase| phrase.to_owned()).collect();
    match section.filter(|section| **section != BehavioursSection::default()) {
        Some(BehavioursSection { verification, backtracking, exploration }) => Behaviours {
            verification: verification.clone(),
            backtracking: backtracking.clone(),
            exploration: exploration.clone(),
        },
        None if is_mini => Behaviours {
            verification: owned(mini::VERIFICATION),
            backtracking: owned(mini::BACKTRACKING),
            exploration: owned(mini::EXPLORATION),
        },
        None => Behaviours::default(),
    }
}

fn measure(
    subject: &Subject,
    problems: &[brevity_training::tasks::Problem],
    settings: &Settings,
    place: &Place,
) -> Result<Vec<Graded>> {
    let model = subject.load(place)?;
    let evaluation = Evaluation::new(&model.codec, problems, settings)?;
    let longest = evaluation.longest_prompt() + settings.sampling.max_new_tokens;
    let mut sampler = model.sampler(place, longest)?;
    let mut shown = Sampling::new(&subject.name, evaluation.responses());
    let graded = evaluation.run(&mut *sampler, &mut |progress| {
        shown.update(progress);
        !interrupt::requested()
    });
    shown.finish();
    graded.map_err(|error| match error {
        Error::Interrupted => Failure::interrupted("interrupted; the evaluation was not finished"),
        other => other.into(),
    })
}

/// One sentence on what a tier saves and costs.
fn verdict(comparison: &[Comparison]) -> String {
    let Some(all) = comparison.last() else { return String::new() };
    let (low, high) = (all.accuracy_difference_interval.low * 100.0, all.accuracy_difference_interval.high * 100.0);
    format!(
        "against the base: tokens {}, accuracy {} points (95 %: {} to {})\n",
        number::signed_percent(all.tokens_change, 1),
        number::signed(all.accuracy_difference * 100.0, 1),
        number::signed(low, 1),
        number::signed(high, 1)
    )
}

fn card(arguments: &Arguments, settings: &Settings, date: &str, subject: &Subject, summary: &Summary) -> TierCard {
    TierCard {
        dataset: arguments.suite.to_string(),
        date: date.to_owned(),
        seed: settings.seed,
        temperature: settings.sampling.temperature,
        top_p: settings.sampling.top_p,
        top_k: settings.sampling.top_k,
        min_p: settings.sampling.min_p,
        samples: settings.samples,
        weights_sha256: subject.sha256.clone(),
        levels: summary.level_cards(),
    }
}
