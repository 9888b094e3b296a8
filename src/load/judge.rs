//! From samples to records, on a thread of its own: answers are graded and tokens counted away from the clock.
//!
//! The same grader as that of `serve eval` decides; an answer that the token limit cut off is incorrect there and here. Every
//! record is handed on as soon as it is made, so that a run that is killed leaves what it measured. What waits for the
//! thread is bounded: should it fall behind, whoever submits waits, and how long is part of the report.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use brevity_training::tasks::Grader;
use brevity_training::tasks::grader::GraderMode;
use brevity_training::{Error, Result};
use tokenizers::Tokenizer;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::drive::Sample;
use super::gaps::GapSpread;
use super::prompt::Prompt;
use super::record::{Record, TokenSource};

/// Samples that may wait.
const WAITING: usize = 1024;

/// What a judge knows.
pub struct Knowledge {
    /// What was asked.
    pub prompts: Arc<[Prompt]>,
    /// The names of the efforts.
    pub efforts: Vec<String>,
    /// What counts as right.
    pub grader: GraderMode,
    /// A tokenizer, where the server's counts are missing or to be checked.
    pub tokenizer: Option<Tokenizer>,
    /// Prices, for the cost of a request.
    pub prices: Prices,
    /// Whether records keep thoughts and answers.
    pub keep_texts: bool,
    /// When the run began.
    pub epoch: Instant,
}

/// What a million tokens cost, in whatever currency.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Prices {
    /// Of a prompt.
    pub input: Option<f64>,
    /// Of a completion.
    pub output: Option<f64>,
}

impl Prices {
    /// The price of a request, when a price of completions was given and their tokens are known; with a price of prompts only
    /// where those of the prompt are known too, since without them it would be too low.
    pub fn cost(&self, prompt_tokens: Option<u64>, tokens: Option<u64>) -> Option<f64> {
        let output = self.output? * tokens? as f64;
        let input = match self.input {
            Some(price) => price * prompt_tokens? as f64,
            None => 0.0,
        };
        Some((output + input) / 1e6)
    }
}

/// What a judge found.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Every request, without its text.
    pub records: Vec<Record>,
    /// Times between tokens of requests that ended well, by stage and effort.
    pub gaps: BTreeMap<(usize, String), GapSpread>,
    /// How long samples had to wait because grading had fallen behind; users waited meanwhile.
    pub waited: Duration,
}

/// Is told every record, on the thread of the judge.
pub trait Listener: Send + 'static {
    /// A request was judged; its text is in the record where texts are kept. Not called again after an error.
    ///
    /// # Errors
    /// When the record cannot be taken; [`Judge::finish`] hands the error on.
    fn on_record(&mut self, record: &Record) -> Result<()>;

    /// That was the last one, and all were taken.
    ///
    /// # Errors
    /// As [`Listener::on_record`].
    fn on_end(self) -> Result<()>;
}

/// A thread that makes records.
pub struct Judge {
    sender: Sender<(usize, Sample)>,
    thread: JoinHandle<Result<Judged>>,
    waited: AtomicU64,
}

impl Judge {
    /// Starts the thread, which tells `listener` every record as soon as it is made.
    pub fn start(knowledge: Knowledge, listener: impl Listener) -> Self {
        let (sender, samples) = channel(WAITING);
        let thread = std::thread::spawn(move || knowledge.judge_all(samples, listener));
        Self { sender, thread, waited: AtomicU64::new(0) }
    }

    /// Hands over a sample of a stage; waits while too many are before it.
    pub async fn submit(&self, stage: usize, sample: Sample) {
        // A thread that is gone is noticed at the end.
        if let Err(TrySendError::Full(sample)) = self.sender.try_send((stage, sample)) {
            let began = Instant::now();
            let _ = self.sender.send(sample).await;
            self.waited.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// Waits for the last record.
    ///
    /// # Errors
    /// That of the listener; [`Error::Config`] when the thread died.
    pub fn finish(self) -> Result<Judged> {
        drop(self.sender);
        let judged = self
            .thread
            .join()
            .map_err(|_| Error::config("the thread that grades answers died; please report this"))??;
        Ok(Judged { waited: Duration::from_micros(self.waited.into_inner()), ..judged })
    }
}

/// The tokenizer of a model folder.
///
/// # Errors
/// [`Error::Format`] when there is none, or it cannot be read.
pub fn tokenizer(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    Tokenizer::from_file(&path).map_err(|error| Error::format(&path, format!("cannot be used to count: {error}")))
}

impl Knowledge {
    fn count(&self, text: &str) -> Option<u64> {
        let encoding = self.tokenizer.as_ref()?.encode(text, false).ok()?;
        Some(encoding.get_ids().len() as u64)
    }

    fn judge_all(self, mut samples: Receiver<(usize, Sample)>, mut listener: impl Listener) -> Result<Judged> {
        let (mut judged, mut told) = (Judged::default(), Ok(()));
        while let Some((stage, sample)) = samples.blocking_recv() {
            let gaps = sample.exchange.gaps.clone();
            let mut record = self.judge(stage, sample);
            if record.succeeded() {
                let spread = match judged.gaps.entry((stage, record.effort.clone())) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(
                        GapSpread::new().map_err(|error| Error::config(format!("cannot keep times: {error}")))?,
                    ),
                };
                spread.add(&gaps);
            }
            // Samples are taken to the end in any case: users must not wait for a thread that has given up.
            if told.is_ok() {
                told = listener.on_record(&record);
            }
            record.text = None;
            judged.records.push(record);
        }
        told.and_then(|()| listener.on_end()).map(|()| judged)
    }

    fn judge(&self, stage: usize, sample: Sample) -> Record {
        let Sample { planned, intended, exchange } = sample;
        let since = |moment: Instant| moment.saturating_duration_since(intended).as_secs_f64();
        let clock = |moment: Instant| moment.saturating_duration_since(self.epoch).as_secs_f64();
        let prompt = self.prompts.get(planned.prompt);
        let succeeded = exchange.failure.is_none();
        let local = self.count(&exchange.reasoning).zip(self.count(&exchange.answer));
        let usage = exchange.usage.unwrap_or_default();
        let has_text = exchange.text_chunks > 0;
        let (token_source, tokens, reasoning_tokens) = match (usage.completion_tokens, local) {
            // Thoughts that the server did not count are counted here, or not known: chunks are no part of its tokens.
            (Some(tokens), local) => {
                // Some servers send thoughts and say that they were none.
                let told = usage.reasoning_tokens().filter(|&told| told > 0 || exchange.reasoning_chunks == 0);
                let thoughts = told.or(local.map(|(thoughts, _)| thoughts));
                (Some(TokenSource::Server), Some(tokens), thoughts)
            }
            (None, Some((thoughts, answer))) if has_text => {
                (Some(TokenSource::Tokenizer), Some(thoughts + answer), Some(thoughts))
            }
            // Only a stream has chunks that can stand for tokens.
            (None, None) if has_text && exchange.first_token.is_some() => {
                (Some(TokenSource::Chunks), Some(exchange.text_chunks as u64), Some(exchange.reasoning_chunks as u64))
            }
            _ => (None, None, None),
        };
        let answer = prompt.and_then(|prompt| prompt.answer.as_deref());
        let grade = answer.filter(|_| succeeded).map(|answer| Grader::new(self.grader).grade(&exchange.answer, answer));
        let is_truncated = exchange.finish_reason.as_deref() == Some("length");
        let prompt_tokens = usage.prompt_tokens;
        let (error, error_message) =
            exchange.failure.map(|failure| (failure.kind.to_string(), failure.message)).unzip();
        Record {
            stage,
            prompt: prompt.map_or_else(String::new, |prompt| prompt.id.clone()),
            level: prompt.and_then(|prompt| prompt.level.clone()),
            effort: self.efforts.get(planned.effort).cloned().unwrap_or_default(),
            repetition: planned.repetition,
            seed: planned.seed,
            intended: clock(intended),
            sent: clock(exchange.sent),
            time_to_first_byte: exchange.first_byte.map(since),
            time_to_first_token: exchange.first_token.map(since),
            time_to_first_answer_token: exchange.first_answer_token.map(since),
            end_to_end: since(exchange.ended),
            service_time: exchange.ended.saturating_duration_since(exchange.sent).as_secs_f64(),
            inter_token: exchange.gaps.mean(),
            status: exchange.status,
            finish_reason: exchange.finish_reason,
            prompt_tokens,
            tokens,
            reasoning_tokens,
            token_source,
            local_tokens: local.map(|(thoughts, answer)| thoughts + answer),
            chunks: exchange.chunks,
            empty_answer: exchange.answer.trim().is_empty(),
            forced_close: exchange.forced_close,
            correct: answer.map(|_| grade.as_ref().is_some_and(|grade| grade.correct && !is_truncated)),
            extracted: grade.and_then(|grade| grade.extracted),
            cost: self.prices.cost(prompt_tokens, tokens),
            model: exchange.model,
            fingerprint: exchange.fingerprint,
            error,
            error_message,
            text: self.keep_texts.then(|| match exchange.reasoning.is_empty() {
                true => exchange.answer,
                false => format!("<think>{}</think>{}", exchange.reasoning, exchange.answer),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use brevity_training::tasks::mini::tokenizer as mini;
    use futures::executor::block_on;
    use serde_json::json;

    use super::*;
    use crate::load::exchange::{ErrorKind, Exchange};
    use crate::load::plan::Planned;

    /// Calls a function with every record.
    struct Each<F>(F);

    impl<F: FnMut(&Record) -> Result<()> + Send + 'static> Listener for Each<F> {
        fn on_record(&mut self, record: &Record) -> Result<()> {
            (self.0)(record)
        }

        fn on_end(self) -> Result<()> {
            Ok(())
        }
    }

    fn knowledge(epoch: Instant, tokenizer: Option<Tokenizer>) -> Knowledge {
        let prompt = Prompt {
            id: "p".to_owned(),
            messages: json!([]),
            answer: Some("42".to_owned()),
            level: Some("easy".to_owned()),
        };
        Knowledge {
            prompts: vec![prompt].into(),
            efforts: vec!["low".to_owned()],
            grader: GraderMode::Strict,
            tokenizer,
            prices: Prices { input: Some(1.0), output: Some(10.0) },
            keep_texts: true,
            epoch,
        }
    }

    fn sample(epoch: Instant, change: impl FnOnce(&mut Exchange)) -> Sample {
        let at = |milliseconds| epoch + Duration::from_millis(milliseconds);
        let mut exchange = Exchange::begin(at(1500));
        exchange.first_token = Some(at(2000));
        exchange.ended = at(3000);
        exchange.reasoning = "6*7 is 42".to_owned();
        exchange.answer = "\\boxed{42}".to_owned();
        (exchange.text_chunks, exchange.reasoning_chunks) = (9, 6);
        exchange.finish_reason = Some("stop".to_owned());
        exchange.done = true;
        change(&mut exchange);
        Sample { planned: Planned { prompt: 0, effort: 0, repetition: 2, seed: 5 }, intended: at(1000), exchange }
    }

    fn judged(tokenizer: Option<Tokenizer>, change: impl FnOnce(&mut Exchange)) -> Record {
        let epoch = Instant::now();
        let (told, heard) = std::sync::mpsc::channel();
        let tell = move |record: &Record| told.send(record.clone()).map_err(|_| Error::config("nobody listens"));
        let judge = Judge::start(knowledge(epoch, tokenizer), Each(tell));
        block_on(judge.submit(3, sample(epoch, change)));
        let judged = judge.finish().unwrap();
        let record = heard.recv().unwrap();
        assert_eq!(judged.records, [Record { text: None, ..record.clone() }], "texts are told, not kept");
        record
    }

    #[test]
    fn records_are_told_while_the_run_goes_on_and_gaps_are_kept_by_stage() {
        let epoch = Instant::now();
        let (told, heard) = std::sync::mpsc::channel();
        let tell = move |record: &Record| told.send(record.stage).map_err(|_| Error::config("nobody listens"));
        let judge = Judge::start(knowledge(epoch, None), Each(tell));
        for stage in [0, 1, 1] {
            block_on(judge.submit(
                stage,
                sample(epoch, |exchange| {
                    for at in [2000, 2010, 2030] {
                        exchange.gaps.chunk(epoch + Duration::from_millis(at));
                    }
                }),
            ));
            assert_eq!(heard.recv().unwrap(), stage, "before the end");
        }
        block_on(judge.submit(1, sample(epoch, |exchange| exchange.fail(ErrorKind::Timeout, "slow"))));
        let judged = judge.finish().unwrap();
        let counts: Vec<(usize, usize)> =
            judged.gaps.iter().map(|((stage, _), gaps)| (*stage, gaps.distribution().unwrap().count)).collect();
        assert_eq!(counts, [(0, 2), (1, 4)]);
        assert_eq!(judged.records[0].inter_token, Some(0.015));
    }

    #[test]
    fn what_cannot_be_told_is_an_error_at_the_end_and_nobody_waits() {
        let epoch = Instant::now();
        let judge = Judge::start(knowledge(epoch, None), Each(|_: &Record| Err(Error::config("the disk is full"))));
        for _ in 0..2 * WAITING {
            block_on(judge.submit(0, sample(epoch, |_| {})));
        }
        assert!(judge.finish().unwrap_err().to_string().contains("the disk is full"));
    }

    #[test]
    fn times_count_from_the_intended_moment() {
        let record = judged(None, |_| {});
        assert_eq!((record.intended, record.sent, record.stage), (1.0, 1.5, 3));
        assert_eq!((record.time_to_first_token, record.end_to_end, record.service_time), (Some(1.0), 2.0, 1.5));
        assert_eq!((record.correct, record.extracted.as_deref()), (Some(true), Some("42")));
        assert_eq!(record.text.as_deref(), Some("<think>6*7 is 42</think>\\boxed{42}"));
    }

    #[test]
    fn tokens_come_from_the_best_source() {
        let usage = serde_json::from_value(json!({
            "prompt_tokens": 100, "completion_tokens": 50, "completion_tokens_details": { "reasoning_tokens": 30 }
        }));
        let usage = Some(usage.unwrap());
        let record = judged(None, |exchange| exchange.usage = usage);
        let found = (record.token_source, record.tokens, record.reasoning_tokens, record.local_tokens);
        assert_eq!(found, (Some(TokenSource::Server), Some(50), Some(30), None));
        assert_eq!(record.cost, Some((500.0 + 100.0) / 1e6));
        let record = judged(None, |_| {});
        assert_eq!(
            (record.token_source, record.tokens, record.reasoning_tokens),
            (Some(TokenSource::Chunks), Some(9), Some(6))
        );
        let folder = tempfile::tempdir().unwrap();
        mini::write(folder.path(), 0).unwrap();
        let record = judged(Some(tokenizer(folder.path()).unwrap()), |_| {});
        assert_eq!(record.token_source, Some(TokenSource::Tokenizer));
        assert_eq!(record.tokens, record.local_tokens);
        assert!(record.reasoning_tokens.unwrap() > 0 && record.tokens > record.reasoning_tokens);
        assert!(tokenizer(Path::new("nowhere")).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn a_prompt_that_nobody_counted_is_not_free() {
        let prices = Prices { input: Some(1.0), output: Some(10.0) };
        assert_eq!(prices.cost(None, Some(50)), None);
        assert_eq!(Prices { input: None, ..prices }.cost(None, Some(50)), Some(500.0 / 1e6));
        assert_eq!(prices.cost(Some(100), None), None);
    }

    #[test]
    fn what_was_cut_off_or_failed_is_not_right() {
        let cut = judged(None, |exchange| exchange.finish_reason = Some("length".to_owned()));
        assert_eq!(cut.correct, Some(false));
        let uncounted = judged(None, |exchange| {
            exchange.usage = serde_json::from_value(json!({
                "completion_tokens": 50, "completion_tokens_details": { "reasoning_tokens": 0 }
            }))
            .unwrap();
        });
        assert_eq!((uncounted.tokens, uncounted.reasoning_tokens), (Some(50), None), "thoughts came, so 0 is no count");
        let failed = judged(None, |exchange| exchange.fail(ErrorKind::Truncated, "gone"));
        let found = (failed.correct, failed.error.as_deref(), failed.tokens, failed.extracted);
        assert_eq!(found, (Some(false), Some("truncated stream"), Some(9), None));
        let nothing = judged(None, |exchange| {
            exchange.fail(ErrorKind::Connect, "refused");
            (exchange.text_chunks, exchange.answer) = (0, String::new());
        });
        assert_eq!((nothing.tokens, nothing.empty_answer), (None, true));
    }
}
