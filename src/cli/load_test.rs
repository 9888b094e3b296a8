//! `serve load-test`: what each effort costs and saves, measured on any OpenAI-compatible server.

mod aims;
mod compare;
mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use brevity::eval::Suite;
use brevity::load::goodput::duration;
use brevity::load::judge::{self, Knowledge};
use brevity::load::prompt::Prompt;
use brevity::load::summary::Aims;
use brevity::load::{Client, Judge, Objectives, Server, Summary, Threshold, run, table};
use brevity_training::Error;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::Instant;

use super::columns::Columns;
use super::progress::{self, Loading};
use super::{Failure, Result, place, remote};

const EXAMPLES: &str = "\
Examples:
  serve load-test --url http://127.0.0.1:8080/v1
      four efforts on the mini suite, one request at a time
  serve load-test --url http://127.0.0.1:8080/v1 --efforts low,high --suite mini:easy,medium --concurrency 4
      two efforts, two levels, four users
  serve load-test --url http://127.0.0.1:8080/v1 --efforts low,high --suite math:math500.jsonl --max-tokens 16384
      a benchmark's problems, asked as `serve eval` asks them
  serve load-test --url http://127.0.0.1:8080/v1 --rate 5 --duration 60s --goodput ttft:500ms,e2e:2s
      users who come on their own, and how many of them are served well
  serve load-test --url http://127.0.0.1:8080/v1 --sweep rate:auto --duration 20s
      how much the server can do under each effort
  serve load-test --url https://api.example.com/v1 --model m --api-key-env KEY --prompts mine.jsonl \\
      --price-per-million-output 4
      a hosted server, own prompts, and what they cost
  serve load-test --compare runs/old runs/new --fail-if p95:+10%
      two runs against each other; exit status 1 when the second is slower than allowed";

/// Measure what each effort costs and saves, on any OpenAI-compatible server
///
/// Sends the same prompts under the same seeds to every effort, in random order, and reports times, tokens, accuracy and
/// cost with the saving of each effort against a reference. Writes summary.json, requests.jsonl, config.toml, summary.csv
/// and report.html to the output folder. Interrupted, it reports what was measured.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where the server's API begins, such as http://127.0.0.1:8080/v1
    #[arg(long, env = "BREVITY_URL", hide_env_values = true, value_name = "URL", required_unless_present = "compare")]
    url: Option<String>,

    /// Model to ask for [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Environment variable that holds the API key
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,

    /// Values of `reasoning_effort` to measure; `default` leaves the field away
    #[arg(long, value_name = "E,…", value_delimiter = ',', default_value = "none,low,medium,high")]
    efforts: Vec<String>,

    /// The effort that the others are compared with [default: the highest]
    #[arg(long, value_name = "EFFORT")]
    reference: Option<String>,

    /// Prompts, a JSON object a line with `prompt`, `question` or `messages`, and perhaps `answer`, `level` and `id`
    #[arg(long, value_name = "FILE", conflicts_with = "suite")]
    prompts: Option<PathBuf>,

    /// Problems, as in `serve eval`: `mini`, `mini:LEVEL,…`, `gsm8k:FILE`, `math:FILE`, `aime:FILE` or `file:FILE`,
    /// where FILE may be `hf://datasets/ORGANISATION/NAME/PATH`
    #[arg(long, value_name = "SUITE", default_value = "mini")]
    suite: Suite,

    #[command(flatten)]
    columns: Columns,

    /// Most problems of a level, or prompts of a file [default: 50 of the mini suite, all of a file]
    #[arg(long, value_name = "N")]
    problems: Option<usize>,

    /// The user's message, `{question}` standing for the problem [default: that alone; before problems of `gsm8k:FILE` and
    /// its like, the paper's instruction to put the answer into a box]
    #[arg(long, value_name = "TEXT")]
    prompt_template: Option<String>,

    /// A system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Users who each ask again as soon as they were answered [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "sweep"])]
    concurrency: Option<usize>,

    /// Requests a second, sent whether or not earlier ones were answered; latency counts from when each was due
    #[arg(long, value_name = "R", conflicts_with = "sweep")]
    rate: Option<f64>,

    /// How requests at a rate are spread
    #[arg(long, value_name = "KIND", default_value = "poisson")]
    arrival: ArrivalName,

    /// Raise the load until the server is saturated, each effort for itself: concurrency:1,2,4,… or rate:auto or rate:1,2,…
    #[arg(long, value_name = "LOADS")]
    sweep: Option<String>,

    /// How long requests are sent; in a sweep, in each stage
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Requests over all efforts; in a sweep, in each stage [default: every prompt once under every effort]
    #[arg(long, value_name = "N")]
    requests: Option<usize>,

    /// Requests before the measurement under the same load, in a sweep before every stage, left out of every number
    /// [default: one of each user, or those of a second or of as long as answers took before; one for each effort at least]
    #[arg(long, value_name = "N")]
    warmup: Option<usize>,

    /// Seed of order, request seeds, arrivals and intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Longest time of one request; what takes longer has failed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "120s")]
    timeout: Duration,

    /// Most requests under way at a time when they come at a rate
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_in_flight: usize,

    /// Softmax temperature [default: the server's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Most tokens of an answer, sent as max_completion_tokens [default: the server's]
    #[arg(long, alias = "max-new-tokens", value_name = "N")]
    max_tokens: Option<u64>,

    /// JSON object whose members are put into every request; null takes a member away
    #[arg(long, value_name = "JSON")]
    extra_body: Option<String>,

    /// Ask for whole answers instead of streams; there is then no time to the first token
    #[arg(long)]
    no_stream: bool,

    /// Model folder whose tokenizer counts tokens where the server does not, and checks it where it does
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// What counts as right
    #[arg(long, value_name = "MODE", default_value = "qwen")]
    grader: GraderName,

    /// Limits that make a request good, such as ttft:500ms,e2e:2s; a sweep then tells how many users are served within them
    #[arg(long, value_name = "LIMITS")]
    goodput: Option<Objectives>,

    /// Price of a million completion tokens
    #[arg(long, value_name = "PRICE")]
    price_per_million_output: Option<f64>,

    /// Price of a million prompt tokens
    #[arg(long, value_name = "PRICE", requires = "price_per_million_output")]
    price_per_million_input: Option<f64>,

    /// From request to request of one user, for the users that a machine serves
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    user_interval: Duration,

    /// Keep thoughts and answers in requests.jsonl
    #[arg(long)]
    save_texts: bool,

    /// Folder for the report [default: runs/load-MODEL]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Compare two runs, each its folder or its summary.json, instead of making one
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"])]
    compare: Option<Vec<PathBuf>>,

    /// With --compare: fail when a quantity changed by more, such as e2e.p95:+10% (p95 alone means e2e.p95),
    /// requests_per_second:-5%, accuracy:-2% or failed:+1% (points); may be given several times
    #[arg(long, value_name = "LIMIT", requires = "compare", allow_hyphen_values = true)]
    fail_if: Vec<Threshold>,
}

/// How requests at a rate are spread.
#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum ArrivalName {
    /// Evenly
    Constant,
    /// As of many users who know nothing of each other
    Poisson,
}

/// The grader's rules.
#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum GraderName {
    /// Those of the paper's released code
    Qwen,
    /// The same without its known errors
    Strict,
}

/// Runs `serve load-test`.
///
/// # Errors
/// When arguments do not fit, the server cannot be asked, nothing was answered, a file cannot be read or written, or a
/// compared run is worse than allowed.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some([first, second]) = arguments.compare.as_deref() {
        return compare::run(first, second, &arguments.fail_if);
    }
    aims::check(arguments)?;
    let suite = remote::suite(&arguments.suite)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(arguments, suite))
}

async fn measure(arguments: &Arguments, suite: Suite) -> Result<()> {
    let server = server(arguments)?;
    let model = match &arguments.model {
        Some(model) => model.clone(),
        None => server.first_model().await?,
    };
    let name = place::file_name(&model);
    let out = arguments.out.clone().unwrap_or_else(|| format!("runs/load-{name}").into());
    place::writable(&out, "--out")?;
    let prompts: Arc<[Prompt]> = aims::prompts(arguments, suite)?.into();
    let settings = aims::settings(arguments, &prompts)?;
    let client = Arc::new(Client::new(
        &server,
        &model,
        prompts.clone(),
        aims::effort_values(&arguments.efforts),
        aims::options(arguments)?,
    ));
    let tokenizer = arguments.tokenizer.as_deref().map(judge::tokenizer).transpose()?;
    let head = aims::head(arguments, &settings, &server, &model, &prompts)?;
    files::config(&out, arguments, (server.shown(), &model))?;

    let mut shown = Loading::new(&arguments.efforts);
    let epoch = Instant::now();
    let knowledge = Knowledge {
        prompts,
        efforts: arguments.efforts.clone(),
        grader: aims::grader(arguments),
        tokenizer,
        prices: aims::prices(arguments),
        keep_texts: arguments.save_texts,
        epoch,
    };
    let judge = Judge::start(knowledge, files::Requests::create(&out)?);
    let finished = run::run(&client, &settings, (&judge, epoch), &mut shown).await;
    shown.finish();
    let judged = judge.finish()?;

    let aims = Aims { efforts: &arguments.efforts, objectives: arguments.goodput.as_ref() };
    let summary = Summary::of(head, &aims, &finished, &judged);
    files::write(&out, &summary, &judged.records)?;
    progress::print(&table::terminal(&summary));
    progress::say(&format!("written to {}", out.display()));
    if let Some(warning) = without_cost(arguments, &judged.records) {
        progress::say(&warning);
    }
    failure(&summary, &judged.records)
}

fn server(arguments: &Arguments) -> Result<Server> {
    let key = match &arguments.api_key_env {
        Some(name) => Some(
            std::env::var(name)
                .map_err(|_| Failure::usage(format!("--api-key-env: the environment variable `{name}` is not set")))?,
        ),
        None => None,
    };
    Ok(Server::new(arguments.url.as_deref().unwrap_or_default(), key.as_deref())?)
}

/// That answers have no cost because the server did not count their prompts, though those have a price.
fn without_cost(arguments: &Arguments, records: &[brevity::load::Record]) -> Option<String> {
    arguments.price_per_million_input?;
    let answered = || records.iter().filter(|record| record.succeeded());
    let uncounted = answered().filter(|record| record.prompt_tokens.is_none()).count();
    (uncounted > 0).then(|| {
        format!(
            "warning: {uncounted} of {} answers have no cost, because the server did not count the tokens of their prompts; \
             without --price-per-million-input, the cost is that of completions alone",
            answered().count()
        )
    })
}

/// A run in which nothing was answered is no success, though its report is written.
fn failure(summary: &Summary, records: &[brevity::load::Record]) -> Result<()> {
    let told = |record: &brevity::load::Record| {
        Some(format!("{}: {}", record.error.as_ref()?, record.error_message.as_deref().unwrap_or_default()))
    };
    if summary.interrupted || records.iter().any(brevity::load::Record::succeeded) {
        for effort in summary.efforts.iter().filter(|effort| effort.succeeded == 0).map(|effort| &effort.effort) {
            if let Some(said) = records.iter().filter(|record| record.effort == *effort).find_map(told) {
                progress::say(&format!(
                    "warning: nothing was answered with effort `{effort}`; the first ended with {said}"
                ));
            }
        }
        return Ok(());
    }
    let said = records.iter().find_map(told);
    let message = match said {
        Some(said) => format!("not one of {} requests was answered; the first ended with {said}", records.len()),
        None => "no request was made".to_owned(),
    };
    let hint = format!("see whether the server at {} answers, and whether it knows the model", summary.head.url);
    Err(Failure::from(Error::config(message)).hint(hint))
}
