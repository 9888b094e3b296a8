//! From a generation to prompt ids: the chat template applied once, with nothing in the messages able to forge a turn.
//!
//! Text of the client that spells a special token (`<|im_end|>`, `<think>`, …) is encoded as ordinary text: the spelling
//! is cut in two before the template sees it, and the rendered text is tokenised piece by piece at those cuts. Without
//! such text the rendered prompt is tokenised whole, exactly as in training.

use brevity_training::Error;
use brevity_training::tasks::chat::ChatTemplate;
use brevity_training::text::Codec;
use serde_json::{Value, json};

use super::call_shape::{CallShape, PROBE};
use super::thinking::{Beginning, Phase};
use super::vocabulary::{CLOSE, OPEN, TOOL_MARKS};
use crate::engine::{Conversation, EngineError, Prompt, Thinking, ToolChoice};

/// Unicode's noncharacters U+FDD0 to U+FDEF: never part of text that means something, so one of them can mark a cut.
const CUTS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// Everything that rendering needs to know of a model.
#[derive(Debug)]
pub(super) struct Renderer {
    /// Spellings of tokens that a client may not write, longest first.
    guarded: Vec<String>,
    /// Those of them that may not even stand in an assistant's earlier turn: all but the marks of thoughts and calls.
    turn_marks: Vec<String>,
    /// Special ones, but for the marks of thoughts.
    special: Vec<String>,
    takes_tools: bool,
    knows_developer: bool,
    knows_tool: bool,
    /// Whether each of several system messages is shown, and not the last alone.
    shows_each_system: bool,
    /// How the template wants the calls of earlier turns, if it shows them at all.
    calls: Option<CallShape>,
}

/// A rendered prompt.
#[derive(Debug)]
pub(super) struct Rendered {
    pub ids: Vec<u32>,
    pub beginning: Beginning,
}

impl Renderer {
    pub fn new(codec: &Codec) -> Self {
        let (mut guarded, mut turn_marks, mut special) = (Vec::new(), Vec::new(), Vec::new());
        for (_, token, is_special) in codec.added_tokens() {
            let long = token.chars().count() > 1;
            let mark = token.starts_with('<') && token.ends_with('>');
            if long && is_special && token != OPEN && token != CLOSE {
                special.push(token.clone());
            }
            if long && (is_special || mark) {
                if ![OPEN, CLOSE, TOOL_MARKS[0], TOOL_MARKS[1]].contains(&token.as_str()) {
                    turn_marks.push(token.clone());
                }
                guarded.push(token);
            }
        }
        let template = codec.template();
        Self {
            guarded,
            turn_marks,
            special,
            takes_tools: template.reads("tools"),
            knows_developer: template.mentions("developer"),
            knows_tool: template.mentions("tool"),
            shows_each_system: shows_each_system(template),
            calls: CallShape::of(template),
        }
    }

    /// Prompt ids, and how the turn begins. `fits` is asked for the text before it is tokenised, which takes long for a text
    /// that is.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] that blames `messages`, `tools` or `prompt`, and what `fits` says.
    pub fn render(
        &self,
        codec: &Codec,
        prompt: &Prompt,
        thinking: Thinking,
        fits: impl FnOnce(&str) -> Result<(), EngineError>,
    ) -> Result<Rendered, EngineError> {
        let conversation = match prompt {
            Prompt::Text(text) => {
                fits(text)?;
                return raw(codec, text);
            }
            Prompt::Chat(conversation) => conversation,
        };
        let (mut text, cut) = self.template(codec, conversation, thinking)?;
        fits(&text)?;
        let mut open = ends_in_thoughts(&text, &self.special);
        if open && thinking == Thinking::Closed {
            // Where the template ends the line after the mark, the model was trained on thoughts in lines of their own.
            text.push_str(&if text.ends_with('\n') { format!("\n{CLOSE}\n\n") } else { CLOSE.to_owned() });
            open = false;
        }
        let just_closed = text.trim_end().ends_with(CLOSE);
        let mut ids = Vec::new();
        let pieces = text.split(|character| Some(character) == cut).filter(|piece| !piece.is_empty());
        for piece in pieces {
            ids.extend(codec.encode(piece).map_err(|error| invalid("messages", &error))?);
        }
        let opening = thinking != Thinking::Closed && !just_closed;
        let phase = match (open, opening) {
            (true, _) => Phase::Thinking,
            (false, true) => Phase::Opening,
            (false, false) => Phase::Answer,
        };
        Ok(Rendered { ids, beginning: Beginning { phase, marks: true, just_closed } })
    }

    /// The rendered conversation, and the character that marks cuts in it, if there are any.
    fn template(
        &self,
        codec: &Codec,
        conversation: &Conversation,
        thinking: Thinking,
    ) -> Result<(String, Option<char>), EngineError> {
        let tools = conversation.tools.as_ref().filter(|tools| tools.choice != ToolChoice::None);
        if tools.is_some() && !self.takes_tools {
            return Err(EngineError::invalid(
                "tools",
                "this model's chat template has no place for tools; leave `tools` out",
            ));
        }
        let failed = |error: &serde_json::Error| EngineError::failed(format!("cannot prepare the messages: {error}"));
        let mut messages = serde_json::to_value(&conversation.messages).map_err(|error| failed(&error))?;
        let mut definitions = tools.map(|tools| Value::from(tools.definitions.clone()));
        for message in messages.as_array_mut().into_iter().flatten() {
            let role = message["role"].as_str().unwrap_or_default();
            match role {
                "system" | "user" => {}
                "assistant" if message["tool_calls"].is_null() => {}
                "assistant" => match self.calls {
                    Some(shape) => shape.apply(message),
                    None => {
                        let message = "this model's chat template shows no earlier `tool_calls`; leave them out";
                        return Err(EngineError::invalid("messages", message));
                    }
                },
                "developer" if self.knows_developer => {}
                "developer" => message["role"] = "system".into(),
                "tool" if self.knows_tool => {}
                "tool" => {
                    let message = "this model's chat template has no `tool` messages; leave them out";
                    return Err(EngineError::invalid("messages", message));
                }
                role => {
                    let message =
                        format!("unknown role `{role}`; there are system, developer, user, assistant and tool");
                    return Err(EngineError::invalid("messages", message));
                }
            }
        }
        if !self.shows_each_system {
            join_systems(&mut messages);
        }
        let cut = self.guard(&mut messages, definitions.as_mut())?;
        let enable_thinking = if thinking == Thinking::Closed { Some(false) } else { None };
        let definitions = definitions.as_ref().and_then(Value::as_array).map(Vec::as_slice);
        let rendered = codec.template().render_with_tools(&messages, definitions, true, enable_thinking);
        Ok((rendered.map_err(|error| invalid("messages", &error))?, cut))
    }

    /// Cuts every spelling of a guarded token in messages and tools; gives the character that marks the cuts.
    fn guard(&self, messages: &mut Value, mut tools: Option<&mut Value>) -> Result<Option<char>, EngineError> {
        let mut found = false;
        let mut free: Vec<char> = CUTS.collect();
        let mut look = |text: &str, guarded: &[String]| {
            found |= guarded.iter().any(|token| text.contains(token.as_str()));
            free.retain(|&cut| !text.contains(cut));
            None
        };
        self.each(messages, &mut look);
        tools.iter_mut().for_each(|tools| strings(tools, &self.guarded, &mut look));
        if !found {
            return Ok(None);
        }
        let cut = free.first().copied().ok_or_else(|| {
            EngineError::invalid(
                "messages",
                "the messages use all noncharacters from U+FDD0 to U+FDEF; take one of them out",
            )
        })?;
        let mut split = |text: &str, guarded: &[String]| Some(cut_tokens(text, guarded, cut));
        self.each(messages, &mut split);
        tools.iter_mut().for_each(|tools| strings(tools, &self.guarded, &mut split));
        Ok(Some(cut))
    }

    /// Visits all strings of the messages. What an assistant said earlier may hold marks of thoughts: templates look for
    /// them there to leave old thoughts out.
    fn each(&self, messages: &mut Value, visit: &mut impl FnMut(&str, &[String]) -> Option<String>) {
        for message in messages.as_array_mut().into_iter().flatten() {
            let guarded = if message["role"] == "assistant" { &self.turn_marks } else { &self.guarded };
            strings(message, guarded, visit);
        }
    }
}

/// Whether `template` shows the first of two system messages. One that refuses two is given one.
fn shows_each_system(template: &ChatTemplate) -> bool {
    let says = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = [says("system", PROBE), says("system", "probe"), says("user", "probe")];
    let rendered = template.render_with_tools(&messages, None, true, None);
    rendered.is_ok_and(|text| text.contains(PROBE))
}

/// Joins all system messages into the first.
fn join_systems(messages: &mut Value) {
    let Some(messages) = messages.as_array_mut() else { return };
    let is_system = |message: &Value| message["role"] == "system";
    let contents: Vec<&str> = messages
        .iter()
        .filter(|message| is_system(message))
        .filter_map(|message| message["content"].as_str())
        .collect();
    let (count, joined) = (contents.len(), contents.join("\n\n"));
    let Some(first) = messages.iter().position(is_system).filter(|_| count > 1) else { return };
    messages[first]["content"] = joined.into();
    let mut index = 0;
    messages.retain(|message| {
        index += 1;
        index - 1 <= first || !is_system(message)
    });
}

/// Visits all strings in a value, keys included, and replaces those for which the visitor gives another.
fn strings(value: &mut Value, guarded: &[String], visit: &mut impl FnMut(&str, &[String]) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = visit(text, guarded) {
                *text = new;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strings(item, guarded, visit)),
        Value::Object(entries) => {
            let old = std::mem::take(entries);
            for (key, mut item) in old {
                strings(&mut item, guarded, visit);
                entries.insert(visit(&key, guarded).unwrap_or(key), item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `text` with `cut` after the first character of each place where a guarded token begins.
fn cut_tokens(text: &str, guarded: &[String], cut: char) -> String {
    let mut result = String::with_capacity(text.len() + 8);
    for (index, character) in text.char_indices() {
        result.push(character);
        if guarded.iter().any(|token| text[index..].starts_with(token.as_str())) {
            result.push(cut);
        }
    }
    result
}

/// Text as it is, after the token that begins every text of the model, where it has one: special tokens in it count,
/// thoughts go on only where it opens them.
fn raw(codec: &Codec, text: &str) -> Result<Rendered, EngineError> {
    let ids = codec.encode_bare(text).map_err(|error| invalid("prompt", &error))?;
    if ids.is_empty() {
        return Err(EngineError::invalid("prompt", "the prompt is empty; write at least one character"));
    }
    // Raw text is continued raw: marks in it are text like any other.
    Ok(Rendered { ids, beginning: Beginning { phase: Phase::Answer, marks: false, just_closed: false } })
}

/// Whether the text ends after an opening mark that neither a closing mark nor the end of a turn follows.
fn ends_in_thoughts(text: &str, special: &[String]) -> bool {
    text.rfind(OPEN).is_some_and(|start| {
        let rest = &text[start + OPEN.len()..];
        !rest.contains(CLOSE) && !special.iter().any(|token| rest.contains(token.as_str()))
    })
}

/// A failure of template or tokenizer, without the path of the file it happened in.
fn invalid(param: &'static str, error: &Error) -> EngineError {
    let message = match error {
        Error::Format { message, .. } => message.clone(),
        error => error.to_string(),
    };
    EngineError::invalid(param, message)
}
