//! From samples to records, on a thread of its own: answers are graded and tokens counted away from the clock.
//!
//! The same grader as that of `serve eval` decides; an answer that the token limit cut off is incorrect there and here.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use brevity_training::tasks::Grader;
use brevity_training::tasks::grader::GraderMode;
use brevity_training::{Error, Result};
use tokenizers::Tokenizer;
use tokio::time::Instant;

use super::drive::Sample;
use super::prompt::Prompt;
use super::record::{Record, TokenSource};

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
    /// The price of a request, when a price of completions was given and their tokens are known.
    pub fn cost(&self, prompt_tokens: Option<u64>, tokens: Option<u64>) -> Option<f64> {
        let output = self.output? * tokens? as f64;
        let input = self.input.unwrap_or(0.0) * prompt_tokens.unwrap_or(0) as f64;
        Some((output + input) / 1e6)
    }
}

/// A thread that makes records.
pub struct Judge {
    sender: Sender<(usize, Sample)>,
    thread: JoinHandle<Vec<Record>>,
}

impl Judge {
    /// Starts the thread.
    pub fn start(knowledge: Knowledge) -> Self {
        let (sender, samples) = channel::<(usize, Sample)>();
        let thread = std::thread::spawn(move || {
            samples.into_iter().map(|(stage, sample)| knowledge.judge(stage, sample)).collect()
        });
        Self { sender, thread }
    }

    /// Hands over a sample of a stage.
    pub fn submit(&self, stage: usize, sample: Sample) {
        // A thread that is gone is noticed at the end.
        let _ = self.sender.send((stage, sample));
    }

    /// Waits for the last record.
    ///
    /// # Errors
    /// [`Error::Config`] when the thread died.
    pub fn finish(self) -> Result<Vec<Record>> {
        drop(self.sender);
        self.thread.join().map_err(|_| Error::config("the thread that grades answers died; please report this"))
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
                let thoughts = usage.reasoning_tokens().or(local.map(|(thoughts, _)| thoughts));
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
        let answer = prompt.and_then(|prompt| prompt.answer.as_deref()).filter(|_| succeeded);
        let grade = answer.map(|answer| Grader::new(self.grader).grade(&exchange.answer, answer));
        let is_truncated = exchange.finish_reason.as_deref() == Some("length");
        let prompt_tokens = usage.prompt_tokens;
        let inter_token =
            (!exchange.gaps.is_empty()).then(|| exchange.gaps.iter().sum::<f64>() / exchange.gaps.len() as f64);
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
            gaps: exchange.gaps,
            inter_token,
            status: exchange.status,
            finish_reason: exchange.finish_reason,
            prompt_tokens,
            tokens,
            reasoning_tokens,
            token_source,
            local_tokens: local.map(|(thoughts, answer)| thoughts + answer),
            chunks: exchange.chunks,
            empty_answer: exchange.answer.trim().is_empty(),
            correct: grade.as_ref().map(|grade| grade.correct && !is_truncated),
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
    use std::time::Duration;

    use brevity_training::tasks::mini::tokenizer as mini;
    use serde_json::json;

    use super::*;
    use crate::load::exchange::{ErrorKind, Exchange};
    use crate::load::plan::Planned;

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
        let judge = Judge::start(knowledge(epoch, tokenizer));
        judge.submit(3, sample(epoch, change));
        judge.finish().unwrap().remove(0)
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
    fn what_was_cut_off_or_failed_is_not_right() {
        let cut = judged(None, |exchange| exchange.finish_reason = Some("length".to_owned()));
        assert_eq!(cut.correct, Some(false));
        let failed = judged(None, |exchange| exchange.fail(ErrorKind::Truncated, "gone"));
        assert_eq!((failed.correct, failed.error.as_deref(), failed.tokens), (None, Some("truncated stream"), Some(9)));
        let nothing = judged(None, |exchange| {
            exchange.fail(ErrorKind::Connect, "refused");
            (exchange.text_chunks, exchange.answer) = (0, String::new());
        });
        assert_eq!((nothing.tokens, nothing.empty_answer), (None, true));
    }
}
