//! How a question is put to a model: the recipe's template, then the model's own chat template.

use crate::Result;
use crate::recipe::DataSection;
use crate::tasks::chat::Message;
use crate::text::Codec;

/// Token ids of the prompt that asks `question` the way `data` says (`prompt_template`, `system`, `chat_template`).
///
/// # Errors
/// When the chat template refuses the messages or the tokenizer the text.
pub fn prompt_ids(data: &DataSection, codec: &Codec, question: &str) -> Result<Vec<u32>> {
    let question = data.prompt_template.replace("{question}", question);
    if !data.chat_template {
        return codec.encode(&question);
    }
    let mut messages: Vec<Message> = data.system.iter().map(Message::system).collect();
    messages.push(Message::user(question));
    codec.prompt(&messages, None)
}
