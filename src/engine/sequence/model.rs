//! A base model's text side, loaded once and shared by all sequences: tokenizer, template, vocabulary, grammars.
//!
//! No weights: those are the engine's.

use std::path::Path;
use std::sync::Arc;

use brevity_training::files;
use brevity_training::tasks::chat::ChatTemplate;
use brevity_training::text::Codec;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::assembler::{Assembler, AssemblerParts};
use super::constraint::{Grammar, Grammars};
use super::prompt::{Rendered, Renderer};
use super::sampler::{SamplerParts, TokenSampler};
use super::thinking::Budget;
use super::vocabulary::{CLOSE, Vocabulary, end_ids};
use super::{LoadError, Sequence};
use crate::engine::{Constraint, EngineError, Generation, Prompt, Thinking, ToolChoice, Tools};

/// Tokenizer, chat template and limits of one base model.
pub struct LocalModel {
    codec: Codec,
    vocabulary: Arc<Vocabulary>,
    grammars: Grammars,
    renderer: Renderer,
    /// Ids of the mark that closes thoughts.
    close: Vec<u32>,
    context_length: usize,
    longest_prompt: usize,
    /// Bytes of the longest token.
    longest_token: usize,
}

/// What all choices of a request have in common on a model: the prompt's ids and the compiled grammar.
#[derive(Debug)]
pub struct Prepared {
    rendered: Rendered,
    grammar: Option<Grammar>,
}

impl LocalModel {
    /// Reads `tokenizer.json`, the chat template, `config.json` and `generation_config.json` of `folder`.
    ///
    /// # Errors
    /// [`LoadError`] naming the file that is missing or malformed, or the key it lacks.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        let tokenizer = files::read_text(&folder.join("tokenizer.json"))?;
        let path = folder.join("config.json");
        let config: Value = files::read_json(&path)?;
        let key = "max_position_embeddings";
        let length = config[key].as_u64().or_else(|| config["text_config"][key].as_u64());
        let length = length.ok_or_else(|| LoadError::new(format!("`{}` has no `{key}`", path.display())))?;
        Self::from_parts(&tokenizer, ChatTemplate::from_folder(folder)?, end_ids(folder)?, length as usize)
    }

    /// A model of parts that are already read: the text of `tokenizer.json`, the template, the ids that end a turn, and
    /// the tokens that prompt and completion may have together.
    ///
    /// # Errors
    /// [`LoadError`] when the tokenizer does not parse, has no byte-level or byte-fallback tokens, or lacks an id of
    /// `ends`.
    pub fn from_parts(
        tokenizer: &str,
        template: ChatTemplate,
        ends: Vec<u32>,
        context_length: usize,
    ) -> Result<Self, LoadError> {
        let broken = |error: String| LoadError::new(format!("`tokenizer.json` does not parse: {error}"));
        let json: Value = serde_json::from_str(tokenizer).map_err(|error| broken(error.to_string()))?;
        let tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|error| broken(error.to_string()))?;
        let vocabulary = Vocabulary::new(json, ends)?;
        let codec = Codec::new(tokenizer, template);
        let close = match vocabulary.close {
            Some(id) => vec![id],
            None => codec.encode(CLOSE)?,
        };
        Ok(Self {
            grammars: Grammars::new(&vocabulary)?,
            longest_token: vocabulary.longest(),
            renderer: Renderer::new(&codec),
            vocabulary: Arc::new(vocabulary),
            codec,
            close,
            context_length,
            longest_prompt: usize::MAX,
        })
    }

    /// The same model with another context length, where an engine has room for less than the model was made for.
    #[must_use]
    pub fn with_context_length(mut self, tokens: usize) -> Self {
        self.context_length = tokens;
        self
    }

    /// The same model for prompts of at most so many tokens, where an engine has no memory to read longer ones.
    #[must_use]
    pub fn with_longest_prompt(mut self, tokens: usize) -> Self {
        self.longest_prompt = tokens;
        self
    }

    /// Tokenizer and chat template.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Tokens that prompt and completion may have together.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Entries of the tokenizer's vocabulary; rows of the embedding table from here on are padding.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// Ids that end a turn, the most usual one first; never empty.
    pub fn end_ids(&self) -> &[u32] {
        self.vocabulary.ends()
    }

    /// Renders and tokenises the prompt of a generation, and compiles what its answer must look like: all that takes long.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with the field to blame, [`EngineError::TooLong`] when not even one token fits, or the
    /// engine could not read the prompt.
    pub fn prepare(&self, generation: &Generation) -> Result<Prepared, EngineError> {
        let limit = self.context_length.saturating_sub(1).min(self.longest_prompt);
        let too_long = |prompt: usize, or_more: bool| {
            let tier = generation.tier.clone();
            EngineError::TooLong { tier, prompt, or_more, limit }
        };
        let fits = |text: &str| match text.len().div_ceil(self.longest_token.max(1)) {
            least if least > limit => Err(too_long(least, true)),
            _ => Ok(()),
        };
        let rendered = self.renderer.render(&self.codec, &generation.prompt, generation.thinking, fits)?;
        if rendered.ids.len() > limit {
            return Err(too_long(rendered.ids.len(), false));
        }
        let tools = tools(generation);
        let grammar = match (&generation.constraint, tools) {
            (Constraint::Free, None) => None,
            (constraint, tools) => self.grammars.compile(constraint, tools)?,
        };
        Ok(Prepared { rendered, grammar })
    }

    /// [`LocalModel::prepare`] and [`LocalModel::begin`] of a generation that shares nothing.
    ///
    /// # Errors
    /// Theirs.
    pub fn start(&self, generation: &Generation) -> Result<Sequence, EngineError> {
        self.begin(generation, &self.prepare(generation)?)
    }

    /// Everything that one generation needs beside the model's arithmetic, of what was prepared for it or for another choice of
    /// its request.
    ///
    /// `max_tokens` is lowered to what the context leaves. A thinking budget is lowered so that an answer fits: an
    /// eighth of all tokens, at least 16. With a budget, and with thoughts that are closed at once, the turn does not end
    /// before the answer has a character that is no whitespace. With [`Thinking::Free`] nothing is forced: thoughts that
    /// use up all tokens end with [`FinishReason::Length`](crate::engine::FinishReason::Length) and an empty answer. Raw
    /// text ([`Prompt::Text`]) is never changed, so [`Thinking::Closed`] does nothing to it.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with the field to blame.
    pub fn begin(&self, generation: &Generation, prepared: &Prepared) -> Result<Sequence, EngineError> {
        let sampling = &generation.sampling;
        if let Some(id) = sampling.logit_bias.keys().find(|&&id| id as usize >= self.vocabulary_size()) {
            let last = self.vocabulary_size() - 1;
            let message = format!("`logit_bias` names token {id}, but the ids of this model end at {last}");
            return Err(EngineError::invalid("logit_bias", message));
        }
        if generation.max_tokens == Some(0) {
            return Err(EngineError::invalid("max_tokens", "no completion has 0 tokens; ask for at least 1"));
        }
        let (prompt, beginning) = (prepared.rendered.ids.clone(), prepared.rendered.beginning);
        let room = self.context_length.saturating_sub(prompt.len());
        let max_tokens = generation.max_tokens.map_or(room, |wanted| wanted.min(room));
        let limit = match generation.thinking {
            Thinking::Budget(wanted) => Some(Budget::clamped(wanted, max_tokens, self.close.len())),
            Thinking::Closed | Thinking::Free => None,
        };
        let owes_answer = match (generation.thinking, &generation.prompt) {
            (Thinking::Free, _) | (Thinking::Closed, Prompt::Text(_)) => false,
            (Thinking::Budget(_), _) | (Thinking::Closed, Prompt::Chat(_)) => true,
        };
        let sampler = TokenSampler::new(SamplerParts {
            vocabulary: Arc::clone(&self.vocabulary),
            sampling: sampling.clone(),
            beginning,
            budget: Budget::new(limit, self.close.clone()),
            grammar: prepared.grammar.as_ref().map(Grammar::fresh),
            owes_answer,
            logprobs: generation.logprobs.map(|wanted| wanted.top),
        });
        let assembler = Assembler::new(AssemblerParts {
            vocabulary: Arc::clone(&self.vocabulary),
            beginning,
            prompt: &prompt,
            seed: sampling.seed,
            max_tokens,
            stop: &generation.stop,
            ignore_eos: sampling.ignore_eos,
            calls: tools(generation).map(|tools| tools.parallel && !matches!(tools.choice, ToolChoice::Function(_))),
            must_call: tools(generation)
                .is_some_and(|tools| matches!(tools.choice, ToolChoice::Required | ToolChoice::Function(_))),
        });
        Ok(Sequence { prompt, max_tokens, sampler, assembler })
    }
}

/// The tools that the answer may call.
fn tools(generation: &Generation) -> Option<&Tools> {
    let tools = match &generation.prompt {
        Prompt::Chat(conversation) => conversation.tools.as_ref(),
        Prompt::Text(_) => None,
    };
    tools.filter(|tools| tools.choice != ToolChoice::None)
}

impl std::fmt::Debug for LocalModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (vocabulary, context) = (self.vocabulary_size(), self.context_length);
        formatter.debug_struct("LocalModel").field("vocabulary", &vocabulary).field("context", &context).finish()
    }
}
