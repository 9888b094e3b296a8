//! Messages as sent to turns as chat templates expect them.

use serde_json::{Value, json};

use super::{CHAT, Dialect};
use crate::api::ApiError;
use crate::api::types::{Content, OneOrMany, RequestMessage, RequestToolCall};
use crate::engine::{Conversation, Message, Tools};

/// The conversation, every turn checked.
///
/// # Errors
/// 400 with the path of the turn's field.
pub fn conversation(messages: Vec<RequestMessage>, tools: Option<Tools>) -> Result<Conversation, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` is empty; send at least one turn"));
    }
    let turns: Result<Vec<Message>, ApiError> =
        messages.into_iter().enumerate().map(|(index, message)| turn(message, &format!("messages[{index}]"))).collect();
    Ok(Conversation { messages: turns?, tools })
}

fn turn(message: RequestMessage, path: &str) -> Result<Message, ApiError> {
    let fault = |field: &str, text: String| Err(ApiError::invalid(format!("{path}.{field}"), text));
    let role = match message.role.as_str() {
        known @ ("developer" | "system" | "user" | "assistant" | "tool") => known,
        "function" => "tool",
        other => {
            let shown: String = other.chars().take(40).collect();
            return fault("role", format!("`{shown}` is no role; use developer, system, user, assistant or tool"));
        }
    };
    if message.function_call.is_some_and(|call| !call.is_null()) {
        return fault("function_call", "`function_call` is a legacy field; send `tool_calls`".into());
    }
    if message.audio.is_some_and(|audio| !audio.is_null()) {
        return fault("audio", "no tier hears or speaks; send text".into());
    }
    let assistant = role == "assistant";
    let calls = message.tool_calls.unwrap_or_default();
    if !assistant && !calls.is_empty() {
        return fault("tool_calls", format!("only an assistant's turn calls tools, this one is the {role}'s"));
    }
    if role == "tool" && message.role == "tool" && message.tool_call_id.is_none() {
        return fault("tool_call_id", "a tool's turn says which call it answers; add `tool_call_id`".into());
    }
    let content = match message.content {
        Some(content) => text(content, assistant, &CHAT, &format!("{path}.content"))?,
        None if assistant && (!calls.is_empty() || message.refusal.is_some()) => message.refusal.unwrap_or_default(),
        None if assistant => {
            return fault("content", "an assistant's turn has `content` or `tool_calls`; this one has neither".into());
        }
        None => return fault("content", format!("the {role}'s turn has no content; send a string or text parts")),
    };
    let tool_calls: Result<Vec<Value>, ApiError> =
        calls.into_iter().enumerate().map(|(i, one)| call(one, &format!("{path}.tool_calls[{i}]"))).collect();
    Ok(Message {
        role: role.to_owned(),
        content,
        reasoning_content: message.reasoning_content.or(message.reasoning).filter(|_| assistant),
        tool_calls: tool_calls?,
        tool_call_id: message.tool_call_id,
        name: message.name,
    })
}

/// The content at `path` as one text; parts are joined by line breaks.
///
/// # Errors
/// 400 with the path of a part that is no text.
pub(super) fn text(content: Content, assistant: bool, dialect: &Dialect, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(parts) => parts,
    };
    if parts.is_empty() {
        return Err(ApiError::invalid(path, "the list of parts is empty; send a text part"));
    }
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let place = format!("{path}[{index}]");
        let (field, text) = match part.kind.as_str() {
            kind if dialect.texts.contains(&kind) => ("text", part.text),
            "refusal" if assistant => ("refusal", part.refusal),
            kind => {
                let kind: String = kind.chars().take(40).collect();
                let message = format!("parts of type `{kind}` are not understood; the tiers read text only");
                return Err(ApiError::invalid(format!("{place}.type"), message));
            }
        };
        let Some(text) = text else {
            return Err(ApiError::invalid(format!("{place}.{field}"), format!("the part has no `{field}`")));
        };
        texts.push(text);
    }
    Ok(texts.join("\n"))
}

fn call(call: RequestToolCall, path: &str) -> Result<Value, ApiError> {
    match (call.kind.as_str(), call.function) {
        ("function", Some(function)) => Ok(made(&call.id, &function.name, function.arguments)),
        ("function", None) => Err(ApiError::invalid(format!("{path}.function"), "the call has no `function`")),
        _ => Err(ApiError::invalid(format!("{path}.type"), "only calls of type `function` are known here")),
    }
}

/// A call as OpenAI's object.
pub(super) fn made(id: &str, name: &str, arguments: String) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: Value) -> Result<Conversation, ApiError> {
        conversation(serde_json::from_value(messages).unwrap(), None)
    }

    #[test]
    fn all_roles_and_forms_are_read() {
        let turns = read(json!([
            {"role": "developer", "content": "d"},
            {"role": "system", "content": [{"type": "text", "text": "s"}, {"type": "text", "text": "t"}]},
            {"role": "user", "content": "u\u{0}", "name": "anna"},
            {"role": "assistant", "content": null, "reasoning": "why", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                {"id": "e", "type": "function", "function": {"name": "f", "arguments": "{x"}}]},
            {"role": "tool", "content": "7", "tool_call_id": "c"},
            {"role": "function", "name": "f", "content": "8"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ]))
        .unwrap()
        .messages;
        let roles: Vec<&str> = turns.iter().map(|turn| turn.role.as_str()).collect();
        assert_eq!(roles, ["developer", "system", "user", "assistant", "tool", "tool", "assistant"]);
        assert_eq!((turns[1].content.as_str(), turns[2].name.as_deref()), ("s\nt", Some("anna")));
        assert_eq!((turns[3].content.as_str(), turns[3].reasoning_content.as_deref()), ("", Some("why")));
        assert_eq!(turns[3].tool_calls[0]["function"]["arguments"], json!("{\"x\": 1}"));
        assert_eq!(turns[3].tool_calls[1]["function"]["arguments"], json!("{x"));
        assert_eq!(turns[4].tool_call_id.as_deref(), Some("c"));
        assert_eq!(turns[6].content, "no");
        assert_eq!(read(json!([{"role": "system", "content": "only"}])).unwrap().messages.len(), 1);
    }

    #[test]
    fn faults_blame_their_field() {
        let image = json!([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:"}}]);
        for (messages, param) in [
            (json!([]), "messages"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": null}]), "messages[0].content"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null}]), "messages[1].content"),
            (json!([{"role": "user", "content": image}]), "messages[0].content[1].type"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (json!([{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
            (
                json!([{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]),
                "messages[0].function_call",
            ),
            (json!([{"role": "assistant", "audio": {"id": "a"}}]), "messages[0].audio"),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}]),
                "messages[0].tool_calls[0].type",
            ),
        ] {
            let error = read(messages).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{}", error.message);
        }
    }
}
