//! All choices as `text_completion` objects, whole or in parts.

use super::request::CompletionPlan;
use crate::api::answer::{Identity, Writer};
use crate::api::choices::Indexed;
use crate::api::sse;
use crate::api::types::{
    BrevityReport, CompletionChoice, CompletionLogprobs, CompletionResponse, TokenLogprob, UsageObject,
};
use crate::engine::{Event, FinishReason, Piece};

/// One choice on its way.
#[derive(Debug, Default)]
struct Text {
    /// Characters of all tokens so far.
    offset: usize,
}

impl Text {
    /// What `piece` adds to the text.
    fn take(&mut self, piece: Piece, logprobs: bool) -> (String, Option<CompletionLogprobs>) {
        if !logprobs {
            return (piece.text, None);
        }
        let mut scores = CompletionLogprobs::default();
        for token in piece.logprobs.into_iter().map(TokenLogprob::from) {
            let alternatives = token.top_logprobs.into_iter().map(|top| (top.token, top.logprob));
            let mut likely: std::collections::BTreeMap<_, _> = alternatives.collect();
            likely.insert(token.token.clone(), token.logprob);
            scores.text_offset.push(self.offset);
            // A character that several tokens share counts where it begins.
            let begins = |byte: &&u8| **byte & 0b1100_0000 != 0b1000_0000;
            self.offset += token.bytes.iter().filter(begins).count();
            scores.top_logprobs.push(likely);
            scores.token_logprobs.push(token.logprob);
            scores.tokens.push(token.token);
        }
        (piece.text, Some(scores))
    }
}

/// Turns events into texts.
pub(super) struct Chunks {
    /// The chunk that is filled again and again; of a whole response, the response.
    chunk: CompletionResponse,
    report: BrevityReport,
    texts: Vec<Text>,
    /// What each choice begins with; empty texts where nothing is echoed.
    echoes: Vec<String>,
    /// Counts by prompt.
    usage: Vec<UsageObject>,
    n: usize,
    open: usize,
    logprobs: bool,
    include_usage: bool,
    frame: Vec<u8>,
}

impl Chunks {
    pub fn new(identity: Identity, plan: &CompletionPlan) -> Self {
        let total = plan.n * plan.prompts.len();
        let echo = |index: usize| if plan.echo { plan.prompts[index / plan.n].clone() } else { String::new() };
        let chunk = CompletionResponse {
            id: identity.id,
            object: "text_completion".to_owned(),
            created: identity.created,
            model: identity.model,
            choices: Vec::new(),
            usage: plan.include_usage.then_some(None),
            system_fingerprint: None,
            brevity: Some(identity.report.clone()),
        };
        let mut chunks = Self {
            chunk,
            report: identity.report,
            texts: (0..total).map(|_| Text::default()).collect(),
            echoes: (0..total).map(echo).collect(),
            usage: vec![UsageObject::default(); plan.prompts.len()],
            n: plan.n,
            open: total,
            logprobs: plan.logprobs(),
            include_usage: plan.include_usage,
            frame: Vec::new(),
        };
        if !plan.stream {
            let logprobs = chunks.logprobs.then(CompletionLogprobs::default);
            let whole =
                |(index, text)| CompletionChoice { index, text, logprobs: logprobs.clone(), finish_reason: None };
            chunks.chunk.choices = std::mem::take(&mut chunks.echoes).into_iter().enumerate().map(whole).collect();
        }
        chunks
    }

    /// Adds an event to the whole response.
    pub fn collect(&mut self, (index, event): Indexed) {
        match event {
            Event::Token(piece) => {
                let Some(text) = self.texts.get_mut(index) else { return };
                let (new, scores) = text.take(piece, self.logprobs);
                let Some(choice) = self.chunk.choices.get_mut(index) else { return };
                choice.text.push_str(&new);
                if let (Some(all), Some(new)) = (&mut choice.logprobs, scores) {
                    all.tokens.extend(new.tokens);
                    all.token_logprobs.extend(new.token_logprobs);
                    all.top_logprobs.extend(new.top_logprobs);
                    all.text_offset.extend(new.text_offset);
                }
            }
            Event::Finished(finish) => {
                self.count(index, finish.usage, finish.forced_close);
                if let Some(choice) = self.chunk.choices.get_mut(index) {
                    choice.finish_reason = Some(ended(finish.reason));
                }
                self.chunk.system_fingerprint = self.chunk.system_fingerprint.take().or(finish.fingerprint);
            }
            Event::Started { .. } | Event::ToolCall(_) => {}
        }
    }

    /// The whole response.
    pub fn whole(mut self) -> CompletionResponse {
        self.chunk.usage = Some(Some(self.total()));
        self.chunk.brevity = Some(self.report);
        self.chunk
    }

    fn count(&mut self, index: usize, usage: crate::engine::Usage, forced: bool) {
        if let Some(sum) = self.usage.get_mut(index / self.n) {
            sum.add(usage);
        }
        self.report.forced_close = Some(self.report.forced_close.unwrap_or(false) || forced);
    }

    /// Counts of all prompts together.
    fn total(&self) -> UsageObject {
        self.usage.iter().fold(UsageObject::default(), |mut sum, one| {
            sum.prompt_tokens += one.prompt_tokens;
            sum.completion_tokens += one.completion_tokens;
            sum.total_tokens += one.total_tokens;
            sum.prompt_tokens_details.cached_tokens += one.prompt_tokens_details.cached_tokens;
            sum.completion_tokens_details.reasoning_tokens += one.completion_tokens_details.reasoning_tokens;
            sum
        })
    }

    fn put(&mut self, index: usize, text: String, logprobs: Option<CompletionLogprobs>, finish: Option<String>) {
        self.chunk.choices.push(CompletionChoice { index, text, logprobs, finish_reason: finish });
        sse::write_event(&mut self.frame, &self.chunk);
        self.chunk.choices.clear();
        self.chunk.brevity = None;
        self.chunk.system_fingerprint = None;
    }
}

/// A raw text calls no tools, so this is `stop`, `length` or `content_filter`.
fn ended(why: FinishReason) -> String {
    (if why == FinishReason::ToolCalls { FinishReason::Stop } else { why }).name().to_owned()
}

impl Writer for Chunks {
    fn frame(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    /// One chunk a choice: the echo, or an empty text; the first says who answers.
    fn open(&mut self) {
        for (index, echo) in std::mem::take(&mut self.echoes).into_iter().enumerate() {
            self.put(index, echo, None, None);
        }
    }

    fn write(&mut self, (index, event): Indexed) {
        match event {
            Event::Token(piece) => {
                let Some(text) = self.texts.get_mut(index) else { return };
                let (new, scores) = text.take(piece, self.logprobs);
                if !new.is_empty() || scores.as_ref().is_some_and(|scores| !scores.tokens.is_empty()) {
                    self.put(index, new, scores, None);
                }
            }
            Event::Finished(finish) => {
                self.count(index, finish.usage, finish.forced_close);
                self.open = self.open.saturating_sub(1);
                if self.open == 0 && !self.include_usage {
                    self.chunk.brevity = Some(self.report.clone());
                }
                self.chunk.system_fingerprint = finish.fingerprint;
                self.put(index, String::new(), None, Some(ended(finish.reason)));
            }
            Event::Started { .. } | Event::ToolCall(_) => {}
        }
    }

    fn close(&mut self) {
        if self.include_usage {
            self.chunk.usage = Some(Some(self.total()));
            self.chunk.brevity = Some(self.report.clone());
            sse::write_event(&mut self.frame, &self.chunk);
        }
        self.frame.extend_from_slice(sse::DONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Alternative, Channel};

    #[test]
    fn a_token_begins_where_the_text_before_it_ends() {
        let token = |bytes: &[u8]| Alternative {
            token: String::from_utf8_lossy(bytes).into_owned(),
            bytes: bytes.to_vec(),
            logprob: -1.0,
            top: Vec::new(),
        };
        let piece = |text: &str, tokens: &[&[u8]]| Piece {
            channel: Channel::Answer,
            text: text.to_owned(),
            tokens: tokens.len(),
            logprobs: tokens.iter().map(|bytes| token(bytes)).collect(),
        };
        let mut text = Text::default();
        let (said, scores) = text.take(piece("hm</think>", &[b"hm", b"</think>"]), true);
        assert_eq!((said.as_str(), scores.unwrap().text_offset), ("hm</think>", vec![0, 2]));
        // U+BA69 in two tokens.
        let (said, scores) = text.take(piece("a\u{ba69}b", &[b"a", &[0xeb, 0xa9], &[0xa9], b"b"]), true);
        assert_eq!((said.as_str(), scores.unwrap().text_offset), ("a\u{ba69}b", vec![10, 11, 12, 12]));
    }
}
