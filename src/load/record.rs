//! One measured request, a line of `requests.jsonl`: everything the statistics are made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::Metric;

/// Who counted the tokens of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenSource {
    /// The server, in `usage`.
    Server,
    /// A tokenizer on this machine.
    Tokenizer,
    /// Nobody: chunks of the stream stand for tokens.
    Chunks,
}

/// One request. Times are in seconds; moments count from the beginning of the run, durations from the moment the request
/// was meant to be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which stage of the run, from 0.
    pub stage: usize,
    /// The prompt's name.
    pub prompt: String,
    /// The prompt's difficulty class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The effort.
    pub effort: String,
    /// Which pass over the prompts, from 0.
    pub repetition: u64,
    /// `seed` of the request.
    pub seed: u64,
    /// When it was meant to be sent.
    pub intended: f64,
    /// When it was sent.
    pub sent: f64,
    /// Until the head of the response came.
    pub time_to_first_byte: Option<f64>,
    /// Until the first text came.
    pub time_to_first_token: Option<f64>,
    /// Until the first text of the answer came.
    pub time_to_first_answer_token: Option<f64>,
    /// Until the end.
    pub end_to_end: f64,
    /// From the sending to the end.
    pub service_time: f64,
    /// Mean of the times between chunks of text; the times themselves are kept in a histogram, see [`super::gaps`].
    pub inter_token: Option<f64>,
    /// HTTP status.
    pub status: Option<u16>,
    /// Why the generation ended, in the server's words.
    pub finish_reason: Option<String>,
    /// Tokens of the prompt, if the server counted them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of thoughts and answer.
    pub tokens: Option<u64>,
    /// Tokens of the thoughts.
    pub reasoning_tokens: Option<u64>,
    /// Who counted them.
    pub token_source: Option<TokenSource>,
    /// Tokens of thoughts and answer as the local tokenizer counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_tokens: Option<u64>,
    /// Chunks of the stream.
    pub chunks: usize,
    /// Whether there was no answer, only thoughts or nothing.
    pub empty_answer: bool,
    /// Whether a thinking budget closed the thoughts; absent where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_close: Option<bool>,
    /// Whether the answer is right; a request that failed gave no right answer. Absent without a reference answer.
    pub correct: Option<bool>,
    /// The answer that the grader found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extracted: Option<String>,
    /// Price of prompt and completion, when prices were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The model that the server named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `system_fingerprint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How it failed: the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it failed: the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Thoughts and answer, where they are to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Record {
    /// Whether it ended well.
    pub fn succeeded(&self) -> bool {
        self.error.is_none()
    }

    /// Whether the token limit cut it off.
    pub fn is_truncated(&self) -> bool {
        self.finish_reason.as_deref() == Some("length")
    }

    /// What was measured, if it could be.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let count = |tokens: Option<u64>| tokens.map(|tokens| tokens as f64);
        match metric {
            Metric::EndToEnd => Some(self.end_to_end),
            Metric::TimeToFirstToken => self.time_to_first_token,
            Metric::TimeToFirstAnswerToken => self.time_to_first_answer_token,
            Metric::InterToken => self.inter_token,
            Metric::TimePerOutputToken => {
                let rest = self.tokens?.checked_sub(1).filter(|&rest| rest > 0)?;
                Some((self.end_to_end - self.time_to_first_token?) / rest as f64)
            }
            Metric::Tokens => count(self.tokens),
            Metric::ReasoningTokens => count(self.reasoning_tokens),
            Metric::AnswerTokens => Some(self.tokens?.saturating_sub(self.reasoning_tokens?) as f64),
            Metric::Cost => self.cost,
        }
    }
}

/// The requests that an effort is judged by: in a sweep, whose loads differ, those of its first stage; else all.
pub fn compared<'a>(records: &'a [Record], effort: &str) -> Vec<&'a Record> {
    let own = || records.iter().filter(|record| record.effort == effort);
    let first = own().map(|record| record.stage).min();
    own().filter(|record| Some(record.stage) == first).collect()
}

/// The values of `metric` by prompt, the unit that is drawn at random.
pub fn by_prompt(records: &[&Record], metric: Metric) -> Vec<Vec<f64>> {
    let mut groups = BTreeMap::<&str, Vec<f64>>::new();
    for record in records {
        if let Some(value) = record.value(metric) {
            groups.entry(&record.prompt).or_default().push(value);
        }
    }
    groups.into_values().collect()
}

#[cfg(test)]
impl Record {
    /// A request to test with: sent at 0, first token after 0.1 s, 11 tokens of which 6 are thoughts, ended after 1.1 s.
    pub fn sample(prompt: &str, effort: &str) -> Self {
        Self {
            stage: 0,
            prompt: prompt.to_owned(),
            level: None,
            effort: effort.to_owned(),
            repetition: 0,
            seed: 1,
            intended: 0.0,
            sent: 0.0,
            time_to_first_byte: Some(0.05),
            time_to_first_token: Some(0.1),
            time_to_first_answer_token: Some(0.7),
            end_to_end: 1.1,
            service_time: 1.1,
            inter_token: Some(0.1),
            status: Some(200),
            finish_reason: Some("stop".to_owned()),
            prompt_tokens: Some(20),
            tokens: Some(11),
            reasoning_tokens: Some(6),
            token_source: Some(TokenSource::Server),
            local_tokens: None,
            chunks: 13,
            empty_answer: false,
            forced_close: None,
            correct: Some(true),
            extracted: None,
            cost: None,
            model: None,
            fingerprint: None,
            error: None,
            error_message: None,
            text: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_follow_their_definitions() {
        let record = Record::sample("p", "low");
        let values = Metric::ALL.map(|metric| record.value(metric));
        let expected = [Some(1.1), Some(0.1), Some(0.7), Some(0.1), Some(0.1), Some(11.0), Some(6.0), Some(5.0), None];
        for (found, expected) in values.into_iter().zip(expected) {
            assert_eq!(found.is_some(), expected.is_some());
            assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-12, "{found:?} {expected:?}");
        }
        let short = Record { tokens: Some(1), ..record };
        assert_eq!(short.value(Metric::TimePerOutputToken), None, "one token has no gap");
    }

    #[test]
    fn lines_come_back() {
        let record = Record { error: Some("timeout".to_owned()), ..Record::sample("p", "low") };
        let line = serde_json::to_string(&record).unwrap();
        let read: Record = serde_json::from_str(&line).unwrap();
        assert_eq!(read, record);
        assert!(!read.succeeded());
    }
}
