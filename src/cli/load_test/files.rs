//! What a load test leaves behind.

use std::path::Path;

use brevity::load::judge::Listener;
use brevity::load::{Record, Statistic, Summary, page};
use brevity_training::Error;
use brevity_training::files::{self, Growing};
use serde::Serialize;

use super::{Arguments, ArrivalName, GraderName, aims};
use crate::cli::Result;

/// `config.toml`: every option as it was, defaults included, the API key's value and a password in the address excluded.
#[derive(Serialize)]
struct Config<'a> {
    url: &'a str,
    model: &'a str,
    api_key_env: &'a Option<String>,
    efforts: &'a [String],
    reference: &'a Option<String>,
    prompts: Option<String>,
    suite: Option<String>,
    question_column: &'a Option<String>,
    answer_column: &'a Option<String>,
    level_column: &'a Option<String>,
    problems: Option<usize>,
    prompt_template: String,
    system: &'a Option<String>,
    concurrency: Option<usize>,
    rate: Option<f64>,
    arrival: ArrivalName,
    sweep: &'a Option<String>,
    duration_seconds: Option<f64>,
    requests: Option<usize>,
    warmup: Option<usize>,
    seed: u64,
    timeout_seconds: f64,
    max_in_flight: usize,
    temperature: Option<f64>,
    max_tokens: Option<u64>,
    extra_body: &'a Option<String>,
    stream: bool,
    tokenizer: Option<String>,
    grader: GraderName,
    goodput: Option<String>,
    price_per_million_output: Option<f64>,
    price_per_million_input: Option<f64>,
    user_interval_seconds: f64,
}

/// Writes `config.toml`.
///
/// # Errors
/// When it cannot be written.
pub fn config(out: &Path, arguments: &Arguments, (url, model): (&str, &str)) -> Result<()> {
    let config = Config {
        url,
        model,
        api_key_env: &arguments.api_key_env,
        efforts: &arguments.efforts,
        reference: &arguments.reference,
        prompts: arguments.prompts.as_ref().map(|path| path.display().to_string()),
        suite: arguments.prompts.is_none().then(|| arguments.suite.to_string()),
        question_column: &arguments.columns.question_column,
        answer_column: &arguments.columns.answer_column,
        level_column: &arguments.columns.level_column,
        problems: arguments.problems,
        prompt_template: aims::prompt_template(arguments),
        system: &arguments.system,
        concurrency: arguments.concurrency,
        rate: arguments.rate,
        arrival: arguments.arrival,
        sweep: &arguments.sweep,
        duration_seconds: arguments.duration.map(|duration| duration.as_secs_f64()),
        requests: arguments.requests,
        warmup: arguments.warmup,
        seed: arguments.seed,
        timeout_seconds: arguments.timeout.as_secs_f64(),
        max_in_flight: arguments.max_in_flight,
        temperature: arguments.temperature,
        max_tokens: arguments.max_tokens,
        extra_body: &arguments.extra_body,
        stream: !arguments.no_stream,
        tokenizer: arguments.tokenizer.as_ref().map(|path| path.display().to_string()),
        grader: arguments.grader,
        goodput: arguments.goodput.as_ref().map(ToString::to_string),
        price_per_million_output: arguments.price_per_million_output,
        price_per_million_input: arguments.price_per_million_input,
        user_interval_seconds: arguments.user_interval.as_secs_f64(),
    };
    let path = out.join("config.toml");
    let text = toml::to_string(&config).map_err(|error| Error::format(&path, error.to_string()))?;
    Ok(files::write(&path, text.as_bytes())?)
}

/// `requests.jsonl`, which grows while the test runs.
pub struct Requests {
    file: Growing,
}

impl Requests {
    /// An empty one in the folder.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(out: &Path) -> Result<Self> {
        Ok(Self { file: Growing::create(&out.join("requests.jsonl"))? })
    }
}

impl Listener for Requests {
    fn on_record(&mut self, record: &Record) -> brevity_training::Result<()> {
        let line = serde_json::to_vec(record)
            .map_err(|error| Error::config(format!("cannot write a request as JSON: {error}")))?;
        self.file.line(line)
    }

    fn on_end(self) -> brevity_training::Result<()> {
        self.file.finish()
    }
}

/// Writes `summary.json`, `summary.csv` and `report.html`.
///
/// # Errors
/// When one cannot be written, or a picture not drawn.
pub fn write(out: &Path, summary: &Summary, records: &[Record]) -> Result<()> {
    files::write_json(&out.join("summary.json"), summary)?;
    files::write(&out.join("summary.csv"), csv(summary).as_bytes())?;
    files::write(&out.join("report.html"), page::html(summary, records)?.as_bytes())?;
    Ok(())
}

/// A line an effort and metric: times in seconds, tokens, or money.
fn csv(summary: &Summary) -> String {
    let mut text = "effort,metric,count,mean,p50,p90,p95,p99,max\n".to_owned();
    for effort in &summary.efforts {
        for (metric, figures) in &effort.metrics {
            let numbers = Statistic::ALL.map(|statistic| figures.get(statistic).to_string()).join(",");
            text.push_str(&format!("{},{metric},{},{numbers}\n", field(&effort.effort), figures.count));
        }
    }
    text
}

/// A field as RFC 4180 writes it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(field("low"), "low");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
