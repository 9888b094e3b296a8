//! From arguments to what a run does.

use std::str::FromStr;

use brevity::eval::{NamedColumns, Suite};
use brevity::family::Effort;
use brevity::load::prompt::{Frame, Prompt, Prompts};
use brevity::load::summary::Head;
use brevity::load::{Arrival, Options, Pace, Prices, Server, Settings, Shape, Sweep};
use brevity_training::Error;
use brevity_training::tasks::grader::GraderMode;
use serde_json::Value;

use super::{Arguments, ArrivalName, GraderName};
use crate::cli::{Failure, Result, command, place};

/// Problems of a level of the mini suite, unless asked otherwise.
const MINI_PROBLEMS: usize = 50;

/// The effort that stands for a request without one.
const DEFAULT: &str = "default";

/// Sees that numbers can be what they should be.
///
/// # Errors
/// A usage error that names the option.
pub fn check(arguments: &Arguments) -> Result<()> {
    let is_price = |price: Option<f64>| price.is_none_or(|price| price.is_finite() && price >= 0.0);
    let mut efforts = arguments.efforts.clone();
    efforts.sort();
    efforts.dedup();
    let checks = [
        (!efforts.iter().any(|effort| effort.trim().is_empty()), "--efforts must not be empty"),
        (efforts.len() == arguments.efforts.len(), "--efforts names an effort twice"),
        (arguments.concurrency != Some(0), "--concurrency must be at least 1"),
        (arguments.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "--rate must be above 0"),
        (arguments.problems != Some(0), "--problems must be at least 1"),
        (arguments.requests != Some(0), "--requests must be at least 1"),
        (arguments.max_in_flight > 0, "--max-in-flight must be at least 1"),
        (!arguments.timeout.is_zero(), "--timeout must be above 0"),
        (arguments.duration.is_none_or(|duration| !duration.is_zero()), "--duration must be above 0"),
        (arguments.temperature.is_none_or(|t| t.is_finite() && t >= 0.0), "--temperature must be at least 0"),
        (is_price(arguments.price_per_million_output), "--price-per-million-output must be at least 0"),
        (is_price(arguments.price_per_million_input), "--price-per-million-input must be at least 0"),
        (
            arguments.prompts.is_none() || arguments.columns.or(NamedColumns::default()) == NamedColumns::default(),
            "columns are those of a --suite; a file of --prompts has its own",
        ),
        (prompt_template(arguments).contains("{question}"), "--prompt-template must contain {question}"),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, message)) => Err(Failure::usage(message)),
        None => Ok(()),
    }
}

/// The prompts; of a suite those of `fetched`, whose file is on this machine.
///
/// # Errors
/// When they cannot be read.
pub fn prompts(arguments: &Arguments, fetched: Suite) -> Result<Vec<Prompt>> {
    let frame = Frame { template: prompt_template(arguments), system: arguments.system.clone() };
    let source = source(arguments, fetched);
    let is_mini = arguments.prompts.is_none() && arguments.suite.is_mini();
    Ok(source.load(&frame, arguments.problems.or(is_mini.then_some(MINI_PROBLEMS)))?)
}

/// How a problem becomes the user's message: as asked, else in the suite's way; prompts of a file stay as they are.
pub fn prompt_template(arguments: &Arguments) -> String {
    let usual = || match &arguments.prompts {
        Some(_) => Frame::default().template,
        None => arguments.suite.prompt_template(),
    };
    arguments.prompt_template.clone().unwrap_or_else(usual)
}

fn source(arguments: &Arguments, suite: Suite) -> Prompts {
    match &arguments.prompts {
        Some(path) => Prompts::File(path.clone()),
        None => Prompts::Suite(suite, arguments.columns.or(NamedColumns::default())),
    }
}

/// What the run does.
///
/// # Errors
/// When the sweep cannot be read.
pub fn settings(arguments: &Arguments, prompts: &[Prompt]) -> Result<Settings> {
    let arrival = match arguments.arrival {
        ArrivalName::Constant => Arrival::Constant,
        ArrivalName::Poisson => Arrival::Poisson,
    };
    let shape = match (&arguments.sweep, arguments.rate) {
        (Some(text), _) => Shape::Sweep(sweep(text, arrival)?),
        (None, Some(per_second)) => Shape::Steady(Pace::Rate { per_second, arrival }),
        (None, None) => Shape::Steady(Pace::Concurrency(arguments.concurrency.unwrap_or(1))),
    };
    Ok(Settings {
        prompts: prompts.iter().map(|prompt| prompt.id.clone()).collect(),
        efforts: arguments.efforts.len(),
        shape,
        requests: arguments.requests,
        duration: arguments.duration,
        warm_up: arguments.warmup,
        timeout: arguments.timeout,
        most_in_flight: arguments.max_in_flight,
        seed: arguments.seed,
    })
}

fn sweep(text: &str, arrival: Arrival) -> Result<Sweep> {
    fn rising<T: FromStr + PartialOrd + Default>(list: &str) -> Option<Vec<T>> {
        let values: Vec<T> = list.split(',').map(|value| value.trim().parse().ok()).collect::<Option<_>>()?;
        let rises = values.windows(2).all(|pair| matches!(pair, [low, high] if low < high));
        (rises && values.first().is_some_and(|first| *first > T::default())).then_some(values)
    }
    let read = match text.split_once(':') {
        Some(("concurrency", list)) => rising(list).map(Sweep::Concurrency),
        Some(("rate", "auto")) => Some(Sweep::AutoRate(arrival)),
        Some(("rate", list)) => {
            let finite = |rates: &Vec<f64>| rates.iter().all(|rate| rate.is_finite());
            rising(list).filter(finite).map(|rates| Sweep::Rates(rates, arrival))
        }
        _ => None,
    };
    read.ok_or_else(|| {
        let message = "write concurrency:1,2,4 or rate:auto or rate:0.5,1,2, with rising numbers above 0";
        Failure::usage(format!("--sweep: `{text}` is no sweep; {message}"))
    })
}

/// The value of `reasoning_effort` for every effort; `None` where the field is left away.
pub fn effort_values(efforts: &[String]) -> Vec<Option<String>> {
    efforts.iter().map(|effort| (effort != DEFAULT).then(|| effort.clone())).collect()
}

/// What every request carries.
///
/// # Errors
/// When `--extra-body` is no JSON object.
pub fn options(arguments: &Arguments) -> Result<Options> {
    let extra = match &arguments.extra_body {
        Some(text) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(members))
                if members.contains_key("reasoning_effort") && arguments.efforts != [DEFAULT] =>
            {
                let message =
                    "--extra-body would set `reasoning_effort` under every effort; give it with --efforts default";
                return Err(Failure::usage(message));
            }
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(Failure::usage("--extra-body must be a JSON object, such as '{\"top_k\": 20}'")),
            Err(error) => return Err(Failure::usage(format!("--extra-body is not JSON: {error}"))),
        },
        None => serde_json::Map::new(),
    };
    Ok(Options {
        temperature: arguments.temperature,
        max_tokens: arguments.max_tokens,
        stream: !arguments.no_stream,
        extra,
    })
}

/// What counts as right.
pub fn grader(arguments: &Arguments) -> GraderMode {
    match arguments.grader {
        GraderName::Qwen => GraderMode::Qwen,
        GraderName::Strict => GraderMode::Strict,
    }
}

/// What tokens cost.
pub fn prices(arguments: &Arguments) -> Prices {
    Prices { input: arguments.price_per_million_input, output: arguments.price_per_million_output }
}

/// Where, when and how, for the report.
///
/// # Errors
/// When `--reference` is none of the efforts.
pub fn head(
    arguments: &Arguments,
    settings: &Settings,
    server: &Server,
    model: &str,
    prompts: &[Prompt],
) -> Result<Head> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Head {
        name: model.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: place::today(),
        command: command::typed(),
        url: server.shown().to_owned(),
        model: model.to_owned(),
        host: format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH),
        prompts: source(arguments, arguments.suite.clone()).to_string(),
        prompt_count: prompts.len(),
        load: load(&settings.shape),
        seed: arguments.seed,
        reference: reference(arguments)?,
        timeout: arguments.timeout.as_secs_f64(),
        objectives: arguments.goodput.as_ref().map(ToString::to_string),
        user_interval: arguments.user_interval.as_secs_f64(),
    })
}

/// The load in words.
fn load(shape: &Shape) -> String {
    match shape {
        Shape::Steady(Pace::Concurrency(1)) => "one user".to_owned(),
        Shape::Steady(Pace::Concurrency(users)) => format!("{users} users"),
        Shape::Steady(Pace::Rate { per_second, arrival }) => format!("{per_second} requests/s, {}", arrival.name()),
        Shape::Sweep(Sweep::Concurrency(users)) => format!("sweep over {users:?} users"),
        Shape::Sweep(Sweep::Rates(rates, arrival)) => format!("sweep over {rates:?} requests/s, {}", arrival.name()),
        Shape::Sweep(Sweep::AutoRate(arrival)) => format!("sweep over rates, {}", arrival.name()),
    }
}

/// The named reference, else the highest effort that OpenAI's API knows, else the last.
fn reference(arguments: &Arguments) -> Result<String> {
    let efforts = &arguments.efforts;
    match &arguments.reference {
        Some(reference) if efforts.contains(reference) => Ok(reference.clone()),
        Some(reference) => {
            let message = format!("--reference `{reference}` is none of the efforts {}", efforts.join(", "));
            Err(Failure::usage(message))
        }
        None => {
            let rank = |effort: &str| Effort::ALL.iter().position(|known| known.name() == effort);
            let highest = efforts.iter().max_by_key(|effort| rank(effort)).filter(|effort| rank(effort).is_some());
            let reference = highest.or(efforts.last()).cloned();
            reference.ok_or_else(|| Error::config("there are no efforts to measure; name some with --efforts").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(options: &[&str]) -> Arguments {
        let line = ["load-test", "--url", "http://h/v1"].iter().chain(options);
        Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).arguments
    }

    #[test]
    fn the_reference_is_the_highest_unless_named() {
        let of = |options: &[&str]| reference(&arguments(options));
        assert_eq!(of(&[]).unwrap(), "high");
        assert_eq!(of(&["--efforts", "max,low"]).unwrap(), "max");
        assert_eq!(of(&["--efforts", "fast,slow"]).unwrap(), "slow");
        assert_eq!(of(&["--reference", "low"]).unwrap(), "low");
        assert_eq!(of(&["--reference", "max"]).unwrap_err().code(), 2);
    }

    #[test]
    fn loads_are_read() {
        let shape = |options: &[&str]| settings(&arguments(options), &[]).map(|settings| settings.shape);
        assert_eq!(shape(&[]).unwrap(), Shape::Steady(Pace::Concurrency(1)));
        let rate = Pace::Rate { per_second: 2.5, arrival: Arrival::Constant };
        assert_eq!(shape(&["--rate", "2.5", "--arrival", "constant"]).unwrap(), Shape::Steady(rate));
        let sweep = |text| shape(&["--sweep", text]);
        assert_eq!(sweep("concurrency:1,2,8").unwrap(), Shape::Sweep(Sweep::Concurrency(vec![1, 2, 8])));
        assert_eq!(sweep("rate:auto").unwrap(), Shape::Sweep(Sweep::AutoRate(Arrival::Poisson)));
        assert_eq!(sweep("rate:0.5,1").unwrap(), Shape::Sweep(Sweep::Rates(vec![0.5, 1.0], Arrival::Poisson)));
        for wrong in ["concurrency:0,1", "concurrency:2,1", "rate:inf", "rate:", "users:1", "rate:nan"] {
            assert_eq!(sweep(wrong).unwrap_err().code(), 2, "{wrong}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        assert!(check(&arguments(&[])).is_ok());
        let wrong: [&[&str]; 7] = [
            &["--concurrency", "0"],
            &["--rate", "0"],
            &["--efforts", "low,low"],
            &["--efforts", "low,"],
            &["--timeout", "0s"],
            &["--prompt-template", "no place"],
            &["--requests", "0"],
        ];
        for options in wrong {
            assert_eq!(check(&arguments(options)).unwrap_err().code(), 2, "{options:?}");
        }
        assert_eq!(options(&arguments(&["--extra-body", "[1]"])).unwrap_err().code(), 2);
        assert_eq!(effort_values(&["default".to_owned(), "low".to_owned()]), [None, Some("low".to_owned())]);
    }
}
