//! What the other server sends, read leniently: only what is used, and null wherever a field may be missing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::engine::{Alternative, Usage};

/// One `data:` of the stream, of chat or text completions.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub choices: Vec<Choice>,
    pub usage: Option<UsageBody>,
    pub system_fingerprint: Option<String>,
    /// An error event instead of a chunk.
    pub error: Option<Value>,
    pub object: Option<String>,
    pub message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Choice {
    pub delta: Option<Delta>,
    /// Text of a text completion.
    pub text: Option<String>,
    pub finish_reason: Option<String>,
    /// vLLM: the stop string (text) or token (number) that ended it.
    pub stop_reason: Option<Value>,
    pub logprobs: Option<LogprobsBody>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta {
    pub content: Option<String>,
    pub reasoning_content: Option<String>,
    pub reasoning: Option<String>,
    pub refusal: Option<String>,
    pub tool_calls: Option<Vec<CallDelta>>,
}

/// A part of a tool call.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CallDelta {
    pub index: Option<usize>,
    pub id: Option<String>,
    pub function: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct FunctionDelta {
    pub name: Option<String>,
    pub arguments: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct UsageBody {
    pub prompt_tokens: Option<usize>,
    pub completion_tokens: Option<usize>,
    pub completion_tokens_details: Option<CompletionDetails>,
    pub prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct CompletionDetails {
    pub reasoning_tokens: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct PromptDetails {
    pub cached_tokens: Option<usize>,
}

impl UsageBody {
    /// The counts over `before`, which keeps what this body does not say.
    pub fn over(&self, before: Usage) -> Usage {
        let reasoning = self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or(before.prompt_tokens),
            completion_tokens: self.completion_tokens.unwrap_or(before.completion_tokens),
            reasoning_tokens: reasoning.unwrap_or(before.reasoning_tokens),
            cached_tokens: cached.unwrap_or(before.cached_tokens),
        }
    }
}

/// Log-probabilities in the shape of chat (`content`) or of text completions (`tokens`).
#[derive(Debug, Default, Deserialize)]
pub(super) struct LogprobsBody {
    content: Option<Vec<TokenBody>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
}

#[derive(Debug, Default, Deserialize)]
struct TokenBody {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<TokenBody>,
}

impl LogprobsBody {
    /// One entry a token. Tokens of the prompt, which have no probability, are left out.
    pub fn into_alternatives(self) -> Vec<Alternative> {
        if let Some(content) = self.content {
            return content.into_iter().map(alternative).collect();
        }
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let logprobs = self.token_logprobs.unwrap_or_default();
        let tokens = self.tokens.unwrap_or_default().into_iter().zip(logprobs);
        let pairs = tokens.map(|(token, logprob)| (token, logprob, tops.next().flatten().unwrap_or_default()));
        pairs
            .filter_map(|(token, logprob, top)| {
                let plain = |token: String, logprob| TokenBody { token, logprob, ..TokenBody::default() };
                let mut top: Vec<TokenBody> = top.into_iter().map(|(token, logprob)| plain(token, logprob)).collect();
                top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
                Some(alternative(TokenBody { top_logprobs: top, ..plain(token, logprob?) }))
            })
            .collect()
    }
}

fn alternative(body: TokenBody) -> Alternative {
    Alternative {
        bytes: body.bytes.unwrap_or_else(|| body.token.clone().into_bytes()),
        token: body.token,
        logprob: body.logprob,
        top: body.top_logprobs.into_iter().map(alternative).collect(),
    }
}
