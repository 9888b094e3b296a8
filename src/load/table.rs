//! The summary for a terminal: one table of times and tokens, one of savings, one of outcomes, and those of a sweep.

use std::collections::BTreeMap;
use std::time::Duration;

use super::comparison::{Comparison, Estimate};
use super::metric::{Metric, Statistic};
use super::saturation::Capacity;
use super::split::Split;
use super::summary::{Rates, Summary};
use crate::report::{Align, Table, number};

/// The whole report as text.
pub fn terminal(summary: &Summary) -> String {
    let mut text = heading(summary);
    for (title, table) in sections(summary) {
        if !table.is_empty() {
            text.push_str(&format!("\n{title}\n{}", table.to_terminal()));
        }
    }
    for note in notes(summary) {
        text.push_str(&format!("\n{note}\n"));
    }
    text
}

/// The tables of a report with their titles; some may be empty.
pub fn sections(summary: &Summary) -> Vec<(String, Table)> {
    let lightest = lightest(summary);
    let saving = format!("Against `{}`{lightest}, the same prompts and seeds (95 % intervals)", summary.head.reference);
    vec![
        (format!("Times and tokens{lightest}"), figures(summary)),
        (saving, savings(summary)),
        (format!("Outcomes{lightest}"), outcomes(summary)),
        ("Sweep".to_owned(), sweep(summary)),
        ("At saturation".to_owned(), saturation(summary)),
    ]
}

/// What was measured, on two lines.
pub fn heading(summary: &Summary) -> String {
    let head = &summary.head;
    let requests: usize = summary.efforts.iter().map(|effort| effort.requests).sum();
    let all = summary.stages.iter().map(|stage| stage.requests).sum::<usize>().max(requests);
    format!(
        "{} at {}, {} from {}\n{}, {} requests in {}, {} before that left out\n",
        head.model,
        head.url,
        count(head.prompt_count, "prompt"),
        head.prompts,
        head.load,
        number::grouped(all as f64),
        seconds(summary.seconds),
        summary.warm_up
    )
}

/// What a sweep's figures of requests are of: ` under the lightest load (1 user)`; nothing without a sweep.
pub fn lightest(summary: &Summary) -> String {
    let first = summary.stages.first();
    first.map_or_else(String::new, |stage| format!(" under the lightest load ({})", stage.load()))
}

/// So many things: `1 user`, `1,200 users`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{} {thing}{}", number::grouped(number as f64), if number == 1 { "" } else { "s" })
}

/// A time with the unit that fits: `850 µs`, `12.3 ms`, `1.52 s`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "–".to_owned(),
        0.0 => "0 s".to_owned(),
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 99.95 => format!("{s:.2} s"),
        s => format!("{} s", number::grouped(s)),
    }
}

/// A value of a metric as people read it.
pub fn value(metric: Metric, value: f64) -> String {
    match metric {
        // A single request costs so little that one would count zeros.
        Metric::Cost => money(value * 1000.0),
        metric if metric.is_time() => seconds(value),
        _ if value < 100.0 => format!("{value:.1}"),
        _ => number::grouped(value),
    }
}

/// An amount with three significant digits at least: `1,234`, `12.30`, `0.0450`.
fn money(amount: f64) -> String {
    match amount.abs() {
        a if a >= 1000.0 => number::grouped(amount),
        a if a >= 1.0 || a == 0.0 => format!("{amount:.2}"),
        a => format!("{amount:.*}", (2.0 - a.log10().floor()).clamp(2.0, 12.0) as usize),
    }
}

fn figures(summary: &Summary) -> Table {
    let columns = [("effort", Align::Left), ("metric", Align::Left)];
    let numbers = Statistic::ALL.map(|statistic| (statistic.name(), Align::Right));
    let mut table = Table::new(columns.into_iter().chain(numbers));
    for effort in &summary.efforts {
        for (index, (metric, distribution)) in effort.metrics.iter().enumerate() {
            let name = if index == 0 { effort.effort.as_str() } else { "" };
            let figures = Statistic::ALL.map(|statistic| value(*metric, distribution.get(statistic)));
            table.push([name.to_owned(), metric.title().to_owned()].into_iter().chain(figures));
        }
    }
    table
}

/// A ratio as the change it is, with its interval: `−61.0 % (−64.2 … −57.1)`.
pub fn change(ratio: Option<Estimate>) -> String {
    signed(ratio, 1.0, " %")
}

/// A part of a change with its interval: `−55.1 % (−60.2 … −50.0)`.
fn part(share: Option<Estimate>) -> String {
    signed(share, 0.0, " %")
}

/// A difference of shares in points: `−0.8 (−2.1 … +0.5)`.
pub fn points(difference: Option<Estimate>) -> String {
    signed(difference, 0.0, "")
}

/// Hundredfold and with a sign, counted from `nothing`.
fn signed(estimate: Option<Estimate>, nothing: f64, unit: &str) -> String {
    let Some(Estimate { value, interval }) = estimate else { return "–".to_owned() };
    let shown = |value: f64| number::signed((value - nothing) * 100.0, 1);
    let ends =
        interval.map_or_else(String::new, |interval| format!(" ({} … {})", shown(interval.low), shown(interval.high)));
    format!("{}{unit}{ends}", shown(value))
}

/// One column an effort, because a row of all these figures is wider than a terminal.
fn savings(summary: &Summary) -> Table {
    let efforts = summary.comparisons.iter().map(|comparison| (comparison.effort.clone(), Align::Left));
    let mut table = Table::new([(String::new(), Align::Left)].into_iter().chain(efforts));
    let mut row = |name: &str, of: &dyn Fn(&Comparison) -> String| {
        let cells: Vec<String> = summary.comparisons.iter().map(of).collect();
        // Nobody asked for prices, or nothing was graded: no row of dashes.
        if cells.iter().any(|cell| cell != "–") {
            table.push([name.to_owned()].into_iter().chain(cells));
        }
    };
    let ratio = |metric, statistic| move |comparison: &Comparison| change(comparison.ratio(metric, statistic));
    row("pairs", &|comparison| number::grouped(comparison.pairs as f64));
    row("tokens, mean", &ratio(Metric::Tokens, Statistic::Mean));
    row("end to end, mean", &ratio(Metric::EndToEnd, Statistic::Mean));
    let of_split = |of: fn(Split) -> Estimate| move |comparison: &Comparison| part(comparison.split.map(of));
    row("  from the first token", &of_split(|split| split.first_token));
    row("  from the number of tokens", &of_split(|split| split.tokens));
    row("  from the time per token", &of_split(|split| split.time_per_token));
    row("end to end, p50", &ratio(Metric::EndToEnd, Statistic::P50));
    row("end to end, p95", &ratio(Metric::EndToEnd, Statistic::P95));
    row("first token, p50", &ratio(Metric::TimeToFirstToken, Statistic::P50));
    row("first token, p95", &ratio(Metric::TimeToFirstToken, Statistic::P95));
    row("first answer token, p50", &ratio(Metric::TimeToFirstAnswerToken, Statistic::P50));
    row("cost of 1,000, mean", &ratio(Metric::Cost, Statistic::Mean));
    row("accuracy, points", &|comparison| points(comparison.accuracy_difference));
    table
}

fn outcomes(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("effort", Align::Left),
        ("requests", Align::Right),
        ("failed", Align::Right),
        ("failed under all loads", Align::Right),
        ("cut off", Align::Right),
        ("closed by budget", Align::Right),
        ("empty", Align::Right),
        ("accuracy", Align::Left),
        ("failed as wrong", Align::Left),
        ("goodput", Align::Right),
        ("failures", Align::Left),
    ]);
    let is_whole = summary.efforts.iter().all(|effort| effort.succeeded == effort.requests);
    for effort in &summary.efforts {
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        table.push([
            effort.effort.clone(),
            number::grouped(effort.requests as f64),
            number::grouped((effort.requests - effort.succeeded) as f64),
            or_nothing(effort.all_loads.as_ref().map(|all| of_all(all.failed, all.requests))),
            number::grouped(effort.truncated as f64),
            or_nothing(effort.forced_closings.map(|closed| number::grouped(closed as f64))),
            number::grouped(effort.empty_answers as f64),
            or_nothing(effort.accuracy.map(share)),
            // Where nothing failed it is the same.
            or_nothing(effort.accuracy_with_failures.filter(|_| !is_whole).map(share)),
            or_nothing(effort.goodput.map(|goodput| number::percent(goodput, 1))),
            or_nothing(failures(&effort.errors)),
        ]);
    }
    table.without_empty("–")
}

/// `3 of 20`.
fn of_all(some: usize, all: usize) -> String {
    format!("{} of {}", number::grouped(some as f64), number::grouped(all as f64))
}

/// A share with its interval: `84.2 % (62.4 … 94.5)`.
fn share(Estimate { value, interval }: Estimate) -> String {
    let ends = interval
        .map_or_else(String::new, |interval| format!(" ({:.1} … {:.1})", interval.low * 100.0, interval.high * 100.0));
    format!("{}{ends}", number::percent(value, 1))
}

/// The kinds of failures with their counts, if there are any: `timeout: 3, http 503: 1`.
fn failures(errors: &BTreeMap<String, usize>) -> Option<String> {
    let kinds = errors.iter().map(|(kind, &count)| format!("{kind}: {}", number::grouped(count as f64)));
    (!errors.is_empty()).then(|| kinds.collect::<Vec<_>>().join(", "))
}

/// A rate with three significant digits or so.
pub fn rate(rate: f64) -> String {
    if rate < 10.0 {
        format!("{rate:.2}")
    } else if rate < 100.0 {
        format!("{rate:.1}")
    } else {
        number::grouped(rate)
    }
}

fn sweep(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("effort", Align::Left),
        ("load", Align::Right),
        ("answered/s", Align::Right),
        ("tokens/s", Align::Right),
        ("end to end, p50", Align::Right),
        ("p95", Align::Right),
        ("first token, p50", Align::Right),
        ("goodput", Align::Right),
        ("failed", Align::Right),
        ("", Align::Left),
    ]);
    for effort in &summary.efforts {
        for stage in summary.stages.iter().filter(|stage| stage.effort == effort.effort) {
            let time = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), seconds);
            table.push([
                stage.effort.clone(),
                stage.load(),
                rate(stage.rates.requests_per_second),
                stage.rates.tokens_per_second.map_or_else(|| "–".to_owned(), rate),
                time(stage.end_to_end.map(|times| times.p50)),
                time(stage.end_to_end.map(|times| times.p95)),
                time(stage.time_to_first_token.map(|times| times.p50)),
                stage.rates.goodput.map_or_else(|| "–".to_owned(), |goodput| number::percent(goodput.share, 1)),
                number::grouped(stage.failed as f64),
                match (stage.saturated, stage.too_short) {
                    (true, _) => "saturated".to_owned(),
                    (false, true) => "too short to tell".to_owned(),
                    (false, false) => String::new(),
                },
            ]);
        }
    }
    table.without_empty("–")
}

/// A row for each question: how much within the limits, and how much at all.
fn saturation(summary: &Summary) -> Table {
    let interval = Duration::try_from_secs_f64(summary.head.user_interval).unwrap_or_default();
    let mut table = Table::new([
        ("effort".to_owned(), Align::Left),
        ("how much".to_owned(), Align::Left),
        ("requests/s".to_owned(), Align::Right),
        ("tokens/s".to_owned(), Align::Right),
        (format!("users, a request each in {interval:?}"), Align::Right),
        (format!("against {}", summary.head.reference), Align::Right),
    ]);
    let limits = summary.head.objectives.as_deref().unwrap_or_default();
    for saturation in &summary.saturation {
        let good = saturation.within_limits.map(|good| (format!("95 % within {limits}"), good));
        let peak = ("at most, however slow".to_owned(), saturation.peak);
        for (index, (what, capacity)) in good.into_iter().chain([peak]).enumerate() {
            let Capacity { requests_per_second, tokens_per_second, users, over_reference, reached } = capacity;
            let more = if reached { "" } else { "≥ " };
            table.push([
                if index == 0 { saturation.effort.clone() } else { String::new() },
                what,
                format!("{more}{}", rate(requests_per_second)),
                tokens_per_second.map_or_else(|| "–".to_owned(), |tokens| format!("{more}{}", rate(tokens))),
                format!("{more}{}", number::grouped(users)),
                over_reference.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2} ×")),
            ]);
        }
    }
    table
}

/// What all efforts together got done: `Answered: 3.80 requests/s and 188 tokens/s, 3.40 requests/s within the limits.`
fn total(summary: &Summary, rates: Rates) -> String {
    let requests = rate(rates.requests_per_second);
    let tokens = rates.tokens_per_second.map_or_else(String::new, |tokens| format!(" and {} tokens/s", rate(tokens)));
    let good = rates.goodput.map_or_else(String::new, |goodput| {
        let (good, share) = (rate(goodput.requests_per_second), number::percent(goodput.share, 1));
        format!("; within the limits {good} requests/s ({share} of all)")
    });
    let mixed =
        if summary.efforts.len() > 1 { ", all efforts together (what each can do alone, --sweep shows)" } else { "" };
    format!("Answered: {requests} requests/s{tokens}{mixed}{good}.")
}

/// What a reader should know before believing the tables.
pub fn notes(summary: &Summary) -> Vec<String> {
    let mut notes: Vec<String> = summary.comparisons.iter().filter_map(saving).collect();
    notes.extend(missing(summary));
    notes.extend(under_all_loads(summary));
    notes.extend(too_short(summary));
    notes.extend(summary.total.map(|rates| total(summary, rates)));
    if summary.interrupted {
        notes.push(format!("Ended before its time; {} under way left out.", count(summary.abandoned, "request")));
    }
    let generator = &summary.generator;
    let busy = generator.cores_busy.map_or_else(|| "unknown".to_owned(), |cores| format!("{cores:.2} cores"));
    let delay = generator.send_delay.map_or_else(String::new, |delay| {
        format!(", requests sent {} late at p99, {} at most", seconds(delay.p99), seconds(delay.max))
    });
    notes.push(format!(
        "Generator: {busy} busy, {} chunks ({}/s){delay}.",
        number::grouped(generator.chunks as f64),
        number::grouped(generator.chunks_per_second)
    ));
    if generator.grading_wait > 0.0 {
        let wait = seconds(generator.grading_wait);
        notes.push(format!("Grading fell behind: users waited {wait} for it, so requests/s are too low."));
    }
    for effort in &summary.efforts {
        let sources: Vec<String> = effort
            .token_sources
            .iter()
            .map(|(source, count)| match source {
                super::record::TokenSource::Server => format!("by the server for {count}"),
                super::record::TokenSource::Tokenizer => format!("by the local tokenizer for {count}"),
                super::record::TokenSource::Chunks => format!("as chunks, for want of a count, for {count}"),
            })
            .collect();
        let only_server = effort.token_sources.keys().all(|source| *source == super::record::TokenSource::Server);
        if !only_server {
            notes.push(format!("{}: tokens counted {}.", effort.effort, sources.join(", ")));
        }
        if let Some(difference) = effort.token_count_difference {
            let change = number::signed_percent(difference, 1);
            notes.push(format!("{}: the local tokenizer counts {change} against the server.", effort.effort));
        }
    }
    notes
}

/// What failed under all loads of a sweep.
fn under_all_loads(summary: &Summary) -> Option<String> {
    let failed = summary.efforts.iter().filter_map(|effort| {
        let all = effort.all_loads.as_ref()?;
        Some(format!("{} {} ({})", effort.effort, of_all(all.failed, all.requests), failures(&all.errors)?))
    });
    let failed: Vec<String> = failed.collect();
    (!failed.is_empty()).then(|| format!("Failed under all loads: {}.", failed.join(", ")))
}

/// Which stages are too short for their answers, and how long they should be.
fn too_short(summary: &Summary) -> Option<String> {
    let short = || summary.stages.iter().filter(|stage| stage.too_short);
    let longest = short().filter_map(|stage| stage.end_to_end).map(|times| times.p95).reduce(f64::max)?;
    let loads: Vec<String> = short().map(|stage| format!("{} with {}", stage.load(), stage.effort)).collect();
    Some(format!(
        "Too short to tell whether the server keeps up: {}. Answers take {} (p95), and for as long it fills; --duration {:.0}s \
         would do. It may be able to do more than these stages got done (≥).",
        loads.join(", "),
        seconds(longest),
        (longest * 2.5).ceil()
    ))
}

/// What failures do to the figures and comparisons.
fn missing(summary: &Summary) -> Option<String> {
    let failed = summary.efforts.iter().filter(|effort| effort.succeeded < effort.requests);
    let failed: Vec<String> = failed
        .map(|effort| format!("{} {} of {}", effort.effort, effort.requests - effort.succeeded, effort.requests))
        .collect();
    let (not, only) = match summary.comparisons.is_empty() {
        true => ("not in the figures", "the figures are of short answers only"),
        false => ("not compared", "only short answers are compared"),
    };
    (!failed.is_empty()).then(|| format!("Failed, and so {not}: {}. If they took too long, {only}.", failed.join(", ")))
}

/// One sentence on what an effort saves and where from.
fn saving(comparison: &Comparison) -> Option<String> {
    let faster = |statistic| comparison.ratio(Metric::EndToEnd, statistic).map(|ratio| 1.0 / ratio.value);
    let (median, tail) = (faster(Statistic::P50)?, faster(Statistic::P95)?);
    let part = comparison.split.map_or_else(String::new, |split| {
        let of = |change: f64| number::signed_percent(change, 1);
        let (all, first) = (of(split.end_to_end.value - 1.0), of(split.first_token.value));
        let (count, each) = (of(split.tokens.value), of(split.time_per_token.value));
        format!("; mean time {all}, of that {first} from the first token, {count} from the number of tokens, {each} from the time per token")
    });
    let accuracy = comparison.accuracy_difference.map_or_else(String::new, |difference| {
        format!(", accuracy {} points", number::signed(difference.value * 100.0, 1))
    });
    Some(format!(
        "{} answers {median:.2} × as fast as {} at the median and {tail:.2} × at p95{accuracy}{part}.",
        comparison.effort, comparison.reference
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Interval;

    #[test]
    fn times_have_the_unit_that_fits() {
        let cases = [
            (0.0, "0 s"),
            (0.000_85, "850 µs"),
            (0.0123, "12.3 ms"),
            (0.25, "250 ms"),
            (1.5234, "1.52 s"),
            (1234.5, "1,234 s"),
            (f64::NAN, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn what_requests_cost_is_told_for_a_thousand() {
        let cost = |one: f64| value(Metric::Cost, one);
        assert_eq!(
            [0.000_005, 0.000_000_12, 0.001_234_5, 1.5, 0.0].map(cost),
            ["0.00500", "0.000120", "1.23", "1,500", "0.00"]
        );
    }

    #[test]
    fn ratios_read_as_changes() {
        let interval = Some(Interval { low: 0.358, high: 0.429 });
        assert_eq!(change(Some(Estimate { value: 0.39, interval })), "−61.0 % (−64.2 … −57.1)");
        assert_eq!(change(Some(Estimate { value: 1.0, interval: None })), "±0.0 %");
        assert_eq!(change(None), "–");
        let interval = Some(Interval { low: -0.602, high: -0.5 });
        assert_eq!(part(Some(Estimate { value: -0.551, interval })), "−55.1 % (−60.2 … −50.0)");
        let interval = Some(Interval { low: -0.021, high: 0.005 });
        assert_eq!(points(Some(Estimate { value: -0.008, interval })), "−0.8 (−2.1 … +0.5)");
    }
}
