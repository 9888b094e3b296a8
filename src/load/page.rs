//! The summary as a page: the tables of the terminal with pictures between them.

use brevity_training::Result;

use super::comparison::Estimate as Measured;
use super::metric::Metric;
use super::record::{Record, compared};
use super::summary::{StageSummary, Summary};
use super::table;
use crate::eval::statistics::mean_interval;
use crate::report::frontier::{self, Cost, Estimate, FrontierPoint};
use crate::report::page::Page;
use crate::report::spread::{self, Climb, Titles, Values};

/// What the numbers of a report are.
const DEFINITIONS: &str = "First token: until the first text, thought or answer. First answer token: until the first text after \
    the thoughts. Inter-token: from chunk of text to chunk of text, over all gaps of all requests; chunks that were read within \
    0.1 ms share the time before them. Per output token: (end to end − first token) / (tokens − 1) of each request. The change \
    of the mean time is taken apart exactly: mean time = mean first token + mean further tokens × time per further token, and \
    each part is what its factor changes at the mean of the other's two values, over the reference's mean time. Accuracy is of \
    requests that ended well, with Wilson's interval; its difference has Newcombe's paired score interval (method 10). Goodput: \
    requests that ended well within every limit, over all requests. Requests/s of users who wait for their answers are \
    answered ones, the parts of those cut by the beginning and end of the measurement counted as parts; of requests at a rate \
    those of the time in which the server was under its load. Tokens/s are these times the mean tokens of one. A rate is called \
    saturated where the requests under way grow by more than a tenth of those that come, or more than a tenth fails. Ratios \
    over fewer than ten prompts have no interval.";

/// The report as one HTML file.
///
/// # Errors
/// When a picture cannot be drawn.
pub fn html(summary: &Summary, records: &[Record]) -> Result<String> {
    let mut page = Page::new(&format!("Load test {}", summary.head.name), &table::heading(summary));
    for note in table::notes(summary) {
        page.paragraph(&note);
    }
    let of_effort = |effort: &str| compared(records, effort);
    let records = summary.efforts.iter().flat_map(|effort| of_effort(&effort.effort));
    let records: Vec<&Record> = records.filter(|record| record.succeeded()).collect();
    let mut pictures = pictures(summary, &records)?.into_iter();
    for (title, table) in table::sections(summary) {
        if !table.is_empty() {
            page.heading(&title);
            page.table(&table);
            if let Some(picture) = pictures.next() {
                page.picture(&picture);
            }
        }
    }
    for picture in pictures {
        page.picture(&picture);
    }
    page.heading("How this was measured");
    page.paragraph(&method(summary));
    page.paragraph(DEFINITIONS);
    page.verbatim(&summary.head.command);
    Ok(page.finish())
}

/// Every picture for which there are numbers.
fn pictures(summary: &Summary, records: &[&Record]) -> Result<Vec<String>> {
    let mut pictures = Vec::new();
    let values = |metric: Metric, scale: f64| -> Vec<Values> {
        let series = summary.efforts.iter().map(|effort| {
            let own = records.iter().filter(|record| record.effort == effort.effort);
            let values = own.filter_map(|record| record.value(metric)).map(|value| value * scale).collect();
            Values { name: effort.effort.clone(), values, missing: effort.requests - effort.succeeded }
        });
        series.filter(|series| !series.values.is_empty()).collect()
    };
    let lightest = table::lightest(summary);
    let times = values(Metric::EndToEnd, 1000.0);
    if !times.is_empty() {
        let titles = Titles {
            title: "Time end to end",
            subtitle: &format!(
                "Share of all requests that were answered within a time{lightest}. Further left is faster"
            ),
            x: "Time from the intended sending to the end (ms)",
            y: "Requests answered",
        };
        pictures.push(spread::cumulative(titles, &times)?);
    }
    let tokens = values(Metric::Tokens, 1.0);
    if !tokens.is_empty() {
        let titles = Titles {
            title: "Tokens per answer",
            subtitle: &format!("Share of answers by their length, thoughts included{lightest}"),
            x: "Completion tokens",
            y: "Answers",
        };
        pictures.push(spread::histogram(titles, &tokens)?);
    }
    pictures.extend(accuracy(summary, records)?);
    pictures.extend(load(summary)?);
    Ok(pictures)
}

/// Accuracy over mean time end to end, where answers were graded.
fn accuracy(summary: &Summary, records: &[&Record]) -> Result<Option<String>> {
    let point = |effort: &super::effort::EffortSummary| {
        let Measured { value, interval } = effort.accuracy?;
        let mut groups = std::collections::BTreeMap::<&str, Vec<f64>>::new();
        for record in records.iter().filter(|record| record.effort == effort.effort) {
            groups.entry(&record.prompt).or_default().push(record.end_to_end * 1000.0);
        }
        let (mean, spread) = mean_interval(&groups.into_values().collect::<Vec<_>>())?;
        Some(FrontierPoint {
            tier: effort.effort.clone(),
            is_base: effort.effort == summary.head.reference,
            level: String::new(),
            tokens: Estimate {
                value: mean,
                low: spread.map_or(mean, |spread| spread.low),
                high: spread.map_or(mean, |spread| spread.high),
            },
            accuracy: Estimate {
                value,
                low: interval.map_or(value, |interval| interval.low),
                high: interval.map_or(value, |interval| interval.high),
            },
        })
    };
    let points: Vec<FrontierPoint> = summary.efforts.iter().filter_map(point).collect();
    if points.is_empty() {
        return Ok(None);
    }
    let cost = Cost { axis: "Mean time end to end (ms)", base: "the reference effort" };
    frontier::frontier_over("Accuracy and time", cost, &points).map(Some)
}

/// Time over load, for a sweep.
fn load(summary: &Summary) -> Result<Vec<String>> {
    let figure = |of: fn(&StageSummary) -> Option<(f64, f64)>| -> Vec<Climb> {
        let series = summary.efforts.iter().map(|effort| Climb {
            name: effort.effort.clone(),
            points: summary.stages.iter().filter(|stage| stage.effort == effort.effort).filter_map(of).collect(),
        });
        series.filter(|series| !series.points.is_empty()).collect()
    };
    let subtitle = "Every point is a stage of the sweep; an effort's line ends where the server is saturated";
    let mut pictures = Vec::new();
    let offered = figure(|stage| Some((stage.offered?, stage.end_to_end?.p95)));
    if !offered.is_empty() {
        let x = "Requests asked for a second";
        let titles = Titles { title: "Latency over load", subtitle, x, y: "Time end to end, p95 (s)" };
        pictures.push(spread::climb(titles, &offered)?);
    }
    let users = figure(|stage| Some((stage.users? as f64, stage.rates.requests_per_second)));
    if !users.is_empty() && offered.is_empty() {
        let titles = Titles { title: "Throughput over users", subtitle, x: "Users", y: "Requests answered a second" };
        pictures.push(spread::climb(titles, &users)?);
        let times = figure(|stage| Some((stage.users? as f64, stage.end_to_end?.p95)));
        let titles = Titles { title: "Latency over users", subtitle, x: "Users", y: "Time end to end, p95 (s)" };
        if !times.is_empty() {
            pictures.push(spread::climb(titles, &times)?);
        }
    }
    Ok(pictures)
}

fn method(summary: &Summary) -> String {
    let head = &summary.head;
    format!(
        "{} on {}, from {}. The same prompts went to every effort under the same seeds, in random order (seed {}); times \
         count from the moment a request was meant to be sent. Ratios are over prompts that both efforts answered, with \
         95 % intervals from 2,000 bootstrap draws of prompts. Percentiles are exact, inter-token times to three digits. \
         {} requests before the measurement, under the same load, left out. Requests that took longer than {} \
         count as failed. Program version {}.",
        head.name,
        head.date,
        head.host,
        head.seed,
        summary.warm_up,
        table::seconds(head.timeout),
        head.version
    )
}
