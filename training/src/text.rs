//! From a conversation to token ids and back: the tokenizer and the chat template of one model folder.
//!
//! The template is applied here and nowhere else, and text it produced is tokenised without adding anything to it: a template
//! writes the token that begins a text itself, other text gets it from [`Codec::encode_bare`].

use std::ops::Range;
use std::path::Path;

use tokenizers::Tokenizer;

use crate::tasks::chat::{ChatTemplate, Message};
use crate::{Error, Result};

/// Tokenizer and chat template of a model.
pub struct Codec {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    /// Ids that the tokenizer begins every text with.
    start: Vec<u32>,
}

impl Codec {
    /// Reads `tokenizer.json` and the chat template of `folder`.
    ///
    /// # Errors
    /// [`Error::Format`] when one is missing or malformed.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| Error::format(&path, error.to_string()))?;
        Ok(Self::new(tokenizer, ChatTemplate::from_folder(folder)?))
    }

    /// A codec of parts that are already read.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Self {
        Self { start: start(&tokenizer), tokenizer, template }
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Tokens outside the model's own vocabulary, special ones among them, each with its id and whether it is special.
    pub fn added_tokens(&self) -> Vec<(u32, String, bool)> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut added: Vec<_> = added.into_iter().map(|(id, token)| (id, token.content, token.special)).collect();
        added.sort_unstable();
        added
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

    /// Token ids of a text that no template made, with the tokens before it that the tokenizer begins every text with (most
    /// have none or one, its `bos_token`), unless the text begins with them itself. What the tokenizer would put behind the
    /// text is left out: the text is to be continued.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        Ok(if ids.starts_with(&self.start) { ids } else { [self.start.as_slice(), &ids].concat() })
    }

    /// Token ids as [`Codec::encode`] gives them, each with the bytes of `text` that it stands for.
    ///
    /// # Errors
    /// [`Error::Config`] when the tokenizer cannot express the text.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let encoding = self.tokenizer.encode(text, false);
        let encoding = encoding.map_err(|error| Error::config(format!("cannot tokenise {text:?}: {error}")))?;
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(offsets).collect())
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
    /// Ids that no token has are without text: embedding tables are often longer than their vocabulary.
    ///
    /// # Errors
    /// [`Error::Config`] when the tokenizer's decoder fails.
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

/// What `tokenizer` puts before any text.
fn start(tokenizer: &Tokenizer) -> Vec<u32> {
    let Ok(encoding) = tokenizer.encode_fast("a", true) else { return Vec::new() };
    let marked = encoding.get_ids().iter().zip(encoding.get_special_tokens_mask());
    marked.take_while(|&(_, &is_added)| is_added == 1).map(|(&id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use tokenizers::processors::template::TemplateProcessing;

    use super::*;
    use crate::tasks::mini::tokenizer;

    static CODEC: LazyLock<Codec> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        tokenizer::write(folder.path(), 0).unwrap();
        Codec::from_folder(folder.path()).unwrap()
    });

    #[test]
    fn a_prompt_is_the_rendered_conversation_and_nothing_more() {
        let messages = [Message::system("Be brief."), Message::user("What is 2 + 3?")];
        let rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n\
                        <|im_start|>assistant\n<think>";
        let prompt = CODEC.prompt(&messages, None).unwrap();
        assert_eq!(prompt, CODEC.encode(rendered).unwrap());
        let (start, end) = (CODEC.token_id(tokenizer::TURN_START), CODEC.token_id(tokenizer::TURN_END));
        assert_eq!(prompt.iter().filter(|&&id| Some(id) == start).count(), 3);
        assert_eq!(prompt.iter().filter(|&&id| Some(id) == end).count(), 2);
        assert_eq!(prompt.last().copied(), CODEC.token_id(tokenizer::THINK));
        let without_thoughts = CODEC.prompt(&messages, Some(false)).unwrap();
        assert_eq!(without_thoughts[..prompt.len()], prompt);
        assert_eq!(without_thoughts[prompt.len()..], CODEC.encode(tokenizer::END_THINK).unwrap());
    }

    #[test]
    fn a_bare_text_begins_as_its_tokenizer_says() {
        let (start, end) = (tokenizer::TURN_START, tokenizer::TURN_END);
        let id = |token: &str| CODEC.token_id(token).unwrap();
        let plain = CODEC.encode("2 + 2").unwrap();
        assert_eq!(CODEC.encode_bare("2 + 2").unwrap(), plain, "the mini tokenizer adds nothing");
        let mut adding = CODEC.tokenizer.clone();
        let processor = TemplateProcessing::builder()
            .try_single(format!("{start} $A {end}"))
            .unwrap()
            .special_tokens(vec![(start, id(start)), (end, id(end))])
            .build()
            .unwrap();
        adding.with_post_processor(Some(processor));
        let codec = Codec::new(adding, CODEC.template().clone());
        let expected = [&[id(start)], plain.as_slice()].concat();
        assert_eq!(codec.encode_bare("2 + 2").unwrap(), expected);
        assert_eq!(codec.encode_bare(&format!("{start}2 + 2")).unwrap(), expected, "not twice");
        assert_eq!(codec.encode("2 + 2").unwrap(), plain, "a template's text as it is");
        assert_eq!(codec.encode_bare("").unwrap(), [id(start)]);
    }

    #[test]
    fn a_response_decodes_to_its_text_without_special_tokens() {
        let ids = CODEC.encode("2 + 3 = 5.</think>5<|im_end|>").unwrap();
        assert_eq!(CODEC.decode(&ids).unwrap(), "2 + 3 = 5.</think>5");
        assert_eq!(CODEC.encode("").unwrap(), [] as [u32; 0]);
        assert_eq!(CODEC.decode(&[]).unwrap(), "");
    }

    #[test]
    fn ids_beyond_the_vocabulary_have_no_text() {
        assert_eq!(CODEC.vocabulary_size(), tokenizer::VOCABULARY_SIZE);
        let mut ids = CODEC.encode("7 + 1").unwrap();
        ids.insert(1, CODEC.vocabulary_size() as u32 + 5);
        assert_eq!(CODEC.decode(&ids).unwrap(), "7 + 1");
        assert_eq!(CODEC.token_id("<no such token>"), None);
    }

    #[test]
    fn a_conversation_that_the_template_refuses_is_an_error() {
        let error = CODEC.prompt(&[Message::new("narrator", "Once.")], None).unwrap_err().to_string();
        assert!(error.contains("unknown role narrator"), "{error}");
    }

    #[test]
    fn a_folder_without_its_files_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || Codec::from_folder(folder.path()).err().unwrap().to_string();
        assert!(refused().contains("tokenizer.json"), "{}", refused());
        crate::files::write(&folder.path().join("tokenizer.json"), b"{ torn").unwrap();
        assert!(refused().contains("tokenizer.json"), "{}", refused());
        tokenizer::write(folder.path(), 0).unwrap();
        std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
        std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
        assert!(refused().contains("chat_template"), "{}", refused());
    }
}
