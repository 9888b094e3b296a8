//! From a conversation to token ids and back: the tokenizer and the chat template of one model folder.
//!
//! The template is applied here and nowhere else, and text it produced is tokenised without adding anything to it.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::tasks::chat::{ChatTemplate, Message};
use crate::{Error, Result};

/// Tokenizer and chat template of a model.
pub struct Codec {
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Codec {
    /// Reads `tokenizer.json` and the chat template of `folder`.
    ///
    /// # Errors
    /// [`Error::Format`] when one is missing or malformed.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| Error::format(&path, error.to_string()))?;
        Ok(Self { tokenizer, template: ChatTemplate::from_folder(folder)? })
    }

    /// Token ids of text that is already complete (a rendered prompt, a response).
    ///
    /// # Errors
    /// [`Error::Config`] when the tokenizer cannot express it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|error| Error::config(format!("cannot tokenise {text:?}: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a conversation up to where the assistant's next turn begins.
    ///
    /// # Errors
    /// When the template refuses the conversation or the tokenizer its text.
    pub fn prompt(&self, messages: &[Message], enable_thinking: Option<bool>) -> Result<Vec<u32>> {
        self.encode(&self.template.render(messages, true, enable_thinking)?)
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Config`] when an id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|error| Error::config(format!("cannot decode token ids: {error}")))
    }

    /// The id of a token by its text, if the vocabulary has it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}
