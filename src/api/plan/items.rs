//! Items of the Responses API to turns as chat templates expect them.
//!
//! An assistant's turn is spread over several items: thoughts, a message, calls. They become one turn again, so that the
//! model reads the same conversation as through chat completions.

use super::{Dialect, RESPONSES, conversation};
use crate::api::ApiError;
use crate::api::types::responses::{InputItem, InputPart};
use crate::api::types::{ContentPart, OneOrMany};
use crate::engine::Message;

/// What an item that nobody reads is called instead.
const KNOWN: &str = "there are `message`, `reasoning`, `function_call` and `function_call_output`";

/// The words of thoughts that are sent back.
const THOUGHTS: Dialect = Dialect { texts: &["reasoning_text"], ..RESPONSES };

/// The turns of a request, every item checked; `instructions` come first.
///
/// # Errors
/// 400 with the path of the item's field.
pub fn turns(instructions: Option<String>, input: Option<OneOrMany<InputItem>>) -> Result<Vec<Message>, ApiError> {
    let mut turns = Turns::default();
    turns.all.extend(instructions.map(|text| says("system", text)));
    match input {
        None => return Err(ApiError::invalid("input", "`input` is missing; send a text or a list of items")),
        Some(OneOrMany::Many(items)) if items.is_empty() => {
            return Err(ApiError::invalid("input", "`input` is empty; send at least one item"));
        }
        Some(OneOrMany::One(text)) => turns.all.push(says("user", text)),
        Some(OneOrMany::Many(items)) => {
            items.into_iter().enumerate().try_for_each(|(index, item)| turns.add(item, &format!("input[{index}]")))?;
        }
    }
    Ok(turns.all)
}

fn says(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content, ..Message::default() }
}

#[derive(Default)]
struct Turns {
    all: Vec<Message>,
    /// Thoughts of the assistant's turn that follows.
    thoughts: Option<String>,
}

impl Turns {
    fn add(&mut self, item: InputItem, path: &str) -> Result<(), ApiError> {
        let missing = |field: &str, what: &str| ApiError::invalid(format!("{path}.{field}"), what);
        match item.kind.as_deref().unwrap_or(if item.role.is_some() { "message" } else { "item_reference" }) {
            "message" => {
                let role = role(item.role, path)?;
                let content = item
                    .content
                    .ok_or_else(|| missing("content", "the message has no content; send a text or parts"))?;
                let content = text(content, role == "assistant", &RESPONSES, &format!("{path}.content"))?;
                // Thoughts that led to nothing, of a response that was cut off, are not those of a later turn.
                let reasoning_content = self.thoughts.take().filter(|_| role == "assistant");
                self.all.push(Message { reasoning_content, ..says(&role, content) });
            }
            "reasoning" => {
                if let Some(content) = item.content {
                    let content = text(content, false, &THOUGHTS, &format!("{path}.content"))?;
                    self.thoughts.get_or_insert_default().push_str(&content);
                }
            }
            "function_call" => {
                let id = item.call_id.ok_or_else(|| missing("call_id", "the call has no `call_id`"))?;
                let name =
                    item.name.ok_or_else(|| missing("name", "the call has no `name`; say which function it calls"))?;
                let arguments = item
                    .arguments
                    .ok_or_else(|| missing("arguments", "the call has no `arguments`; send JSON text"))?;
                self.caller().tool_calls.push(conversation::made(&id, &name, arguments));
            }
            "function_call_output" => {
                let id = item
                    .call_id
                    .ok_or_else(|| missing("call_id", "the output says not which call it answers; add `call_id`"))?;
                let output = item
                    .output
                    .ok_or_else(|| missing("output", "the call's output is missing; send a text or parts"))?;
                let output = text(output, false, &RESPONSES, &format!("{path}.output"))?;
                self.thoughts = None;
                self.all.push(Message { tool_call_id: Some(id), ..says("tool", output) });
            }
            "item_reference" => {
                let message = "the item has no `role` and refers to one that is stored; nothing is stored here, send the item itself";
                return Err(missing("type", message));
            }
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(missing("type", &format!("items of type `{other}` are not understood; {KNOWN}")));
            }
        }
        Ok(())
    }

    /// The assistant's turn that a call belongs to: the last one, or a new one where that is another's or other thoughts
    /// came before the call.
    fn caller(&mut self) -> &mut Message {
        let goes_on = self.thoughts.is_none() && self.all.last().is_some_and(|turn| turn.role == "assistant");
        if !goes_on {
            let reasoning_content = self.thoughts.take();
            self.all.push(Message { reasoning_content, ..says("assistant", String::new()) });
        }
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}

fn role(role: Option<String>, path: &str) -> Result<String, ApiError> {
    match role {
        Some(role) if ["user", "assistant", "system", "developer"].contains(&role.as_str()) => Ok(role),
        other => {
            let other: String = other.unwrap_or_default().chars().take(40).collect();
            let message = format!("`{other}` is no role; use user, assistant, system or developer");
            Err(ApiError::invalid(format!("{path}.role"), message))
        }
    }
}

fn text(content: OneOrMany<InputPart>, assistant: bool, dialect: &Dialect, path: &str) -> Result<String, ApiError> {
    conversation::text(content.map(ContentPart::from), assistant, dialect, path)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(input: Value) -> Result<Vec<Message>, ApiError> {
        turns(None, Some(serde_json::from_value(input).unwrap()))
    }

    #[test]
    fn a_text_is_what_the_user_says() {
        let turns = turns(Some("be brief".into()), Some(OneOrMany::One("hello".into()))).unwrap();
        assert_eq!(turns, [says("system", "be brief".into()), says("user", "hello".into())]);
    }

    #[test]
    fn items_become_the_turns_they_were() {
        let turns = read(json!([
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "why"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "let me look", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\": 1}"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{x"},
            {"type": "function_call_output", "call_id": "c1", "output": "7"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "8"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "gibberish"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "more"}]},
            {"type": "function_call", "call_id": "c3", "name": "g", "arguments": ""},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ]))
        .unwrap();
        let roles: Vec<&str> = turns.iter().map(|turn| turn.role.as_str()).collect();
        assert_eq!(roles, ["developer", "user", "assistant", "tool", "tool", "assistant", "assistant"]);
        assert_eq!((turns[1].content.as_str(), turns[2].content.as_str()), ("a\nb", "let me look"));
        assert_eq!(turns[2].reasoning_content.as_deref(), Some("why"));
        assert_eq!(turns[2].tool_calls[0]["function"], json!({"name": "f", "arguments": "{\"x\": 1}"}));
        assert_eq!((&turns[2].tool_calls[1]["id"], turns[2].tool_calls.len()), (&json!("c2"), 2));
        assert_eq!((turns[4].tool_call_id.as_deref(), turns[4].content.as_str()), (Some("c2"), "8"));
        assert_eq!((turns[5].reasoning_content.as_deref(), turns[5].content.as_str()), (Some("more"), ""));
        assert_eq!((turns[6].reasoning_content.as_deref(), turns[6].content.as_str()), (None, "no"));
    }

    #[test]
    fn thoughts_stay_with_the_turn_they_led_to() {
        let thoughts = json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "why"}]});
        let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
        let turns =
            read(json!([{"role": "assistant", "content": "a"}, thoughts, call, {"role": "user", "content": "u"}]));
        let turns = turns.unwrap();
        assert_eq!((turns.len(), turns[0].tool_calls.len(), turns[1].tool_calls.len()), (3, 0, 1));
        assert_eq!((turns[0].reasoning_content.as_deref(), turns[1].reasoning_content.as_deref()), (None, Some("why")));
    }

    #[test]
    fn thoughts_that_led_to_nothing_are_left_out() {
        let thoughts = |text: &str| json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]});
        let (user, assistant) = (json!({"role": "user", "content": "u"}), json!({"role": "assistant", "content": "a"}));
        let turns = read(json!([user, thoughts("cut off"), user, thoughts("why"), assistant])).unwrap();
        assert_eq!((turns.len(), turns[2].reasoning_content.as_deref()), (3, Some("why")));
        let output = json!({"type": "function_call_output", "call_id": "c", "output": "7"});
        let turns = read(json!([user, thoughts("cut off"), output, assistant])).unwrap();
        assert_eq!(turns[2].reasoning_content, None);
    }

    #[test]
    fn faults_blame_their_field() {
        let call = |without: &str| {
            let mut call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
            call.as_object_mut().unwrap().remove(without);
            json!([call])
        };
        let image = json!([{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:"}]);
        for (input, param) in [
            (json!([]), "input"),
            (json!([{"role": "tool", "content": "x"}]), "input[0].role"),
            (json!([{"type": "message", "content": "x"}]), "input[0].role"),
            (json!([{"role": "user"}]), "input[0].content"),
            (json!([{"role": "user", "content": []}]), "input[0].content"),
            (json!([{"role": "user", "content": "x"}, {"role": "user", "content": image}]), "input[1].content[1].type"),
            (json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}]), "input[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "input_text"}]}]), "input[0].content[0].text"),
            (json!([{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]), "input[0].content[0].type"),
            (
                json!([{"type": "reasoning", "content": [{"type": "input_text", "text": "x"}]}]),
                "input[0].content[0].type",
            ),
            (call("call_id"), "input[0].call_id"),
            (call("name"), "input[0].name"),
            (call("arguments"), "input[0].arguments"),
            (json!([{"type": "function_call_output", "output": "x"}]), "input[0].call_id"),
            (json!([{"type": "function_call_output", "call_id": "c"}]), "input[0].output"),
            (json!([{"id": "msg_1"}]), "input[0].type"),
            (json!([{"type": "item_reference", "id": "msg_1"}]), "input[0].type"),
            (json!([{"type": "web_search_call", "id": "ws_1"}]), "input[0].type"),
        ] {
            let error = read(input).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{}", error.message);
        }
        assert_eq!(turns(None, None).unwrap_err().param.as_deref(), Some("input"));
    }
}
