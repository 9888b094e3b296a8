//! Token counts of a response.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::Usage;

/// Tokens of the prompt and of all choices together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageObject {
    /// Tokens of the rendered prompt, counted once.
    pub prompt_tokens: usize,
    /// Tokens sampled: thoughts, marks, answer and the token that ends the turn.
    pub completion_tokens: usize,
    /// Both together.
    pub total_tokens: usize,
    /// What the prompt's tokens were.
    pub prompt_tokens_details: PromptTokensDetails,
    /// What the sampled tokens were.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// What the prompt's tokens were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens that came from a cache.
    pub cached_tokens: usize,
}

/// What the sampled tokens were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompletionTokensDetails {
    /// Tokens up to and including the mark that closes the thoughts.
    pub reasoning_tokens: usize,
}

impl UsageObject {
    /// Adds one choice; all choices share one prompt.
    pub fn add(&mut self, usage: Usage) {
        self.prompt_tokens = self.prompt_tokens.max(usage.prompt_tokens);
        self.prompt_tokens_details.cached_tokens = self.prompt_tokens_details.cached_tokens.max(usage.cached_tokens);
        self.completion_tokens += usage.completion_tokens;
        self.completion_tokens_details.reasoning_tokens += usage.reasoning_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_share_one_prompt() {
        let mut sum = UsageObject::default();
        let usage = Usage { prompt_tokens: 10, completion_tokens: 5, reasoning_tokens: 3, cached_tokens: 4 };
        sum.add(usage);
        sum.add(Usage { completion_tokens: 7, reasoning_tokens: 0, ..usage });
        assert_eq!((sum.prompt_tokens, sum.completion_tokens, sum.total_tokens), (10, 12, 22));
        assert_eq!((sum.completion_tokens_details.reasoning_tokens, sum.prompt_tokens_details.cached_tokens), (3, 4));
    }
}
