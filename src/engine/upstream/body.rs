//! A generation as the body of a request to the other server.
//!
//! Nothing may get lost on the way: what the server's dialect cannot say is refused here, before anything is sent.

use serde_json::{Map, Value, json};

use crate::engine::{
    Constraint, Conversation, EngineError, Generation, Message, Prompt, Sampling, Thinking, ToolChoice, Tools,
};
use crate::family::{Dialect, Upstream};

/// A request, ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    /// Path under the base URL.
    pub path: &'static str,
    /// Its body.
    pub body: Value,
    /// Where the text begins.
    pub start: Start,
}

/// Where the text of the answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Thoughts may come, in fields of their own or between marks.
    Turn,
    /// Inside the thoughts.
    Thoughts,
    /// In the answer; marks mean nothing.
    Answer,
}

/// The request for `generation`, always as a stream.
///
/// - Chat goes to `chat/completions`, text to `completions`.
/// - vLLM's dialect says every sampling value, so that a server fills in none of the checkpoint's own; OpenAI's leaves
///   out what equals OpenAI's defaults. Seeds lose their highest bit: servers take signed numbers.
/// - Whether may be thought goes into `chat_template_kwargs` (`enable_thinking` for Qwen's templates, `thinking` for
///   DeepSeek's) or, with OpenAI's dialect, as `reasoning_effort: "none"`; a budget goes into the configured field,
///   with 0 for closed thoughts where there is one.
/// - Stop strings are sent only where no thoughts can come: a server would look for them in the thoughts too. They are
///   always looked for here.
///
/// # Errors
/// [`EngineError::Invalid`] and [`EngineError::Unsupported`] for what the server cannot be asked for.
pub(super) fn request(settings: &Upstream, generation: &Generation) -> Result<Request, EngineError> {
    let strict = settings.dialect == Dialect::Openai;
    let mut own = Map::new();
    let mut set = |key: &str, value: Value| own.insert(key.to_owned(), value);
    set("model", settings.model.clone().into());
    set("stream", true.into());
    set("stream_options", stream_options(strict));
    for (key, value) in sampling(&generation.sampling, strict)? {
        set(key, value);
    }
    let (path, start) = match &generation.prompt {
        Prompt::Chat(conversation) => {
            for (key, value) in chat(conversation, strict) {
                set(key, value);
            }
            if let Some(wanted) = generation.logprobs {
                set("logprobs", true.into());
                set("top_logprobs", wanted.top.into());
            }
            if let Some(most) = generation.max_tokens {
                set("max_completion_tokens", most.into());
                // The older name, which some servers know alone; OpenAI's reasoning models refuse it.
                if !strict {
                    set("max_tokens", most.into());
                }
            }
            // A server that does not separate thoughts holds the first token to the format already.
            let opens = settings.opens_thinking && matches!(generation.constraint, Constraint::Free);
            ("chat/completions", if opens { Start::Thoughts } else { Start::Turn })
        }
        Prompt::Text(text) => {
            set("prompt", text.clone().into());
            if let Some(wanted) = generation.logprobs {
                set("logprobs", wanted.top.into());
            }
            // Left out it would mean 16.
            set("max_tokens", generation.max_tokens.map_or(Value::Null, Value::from));
            ("completions", Start::Answer)
        }
    };
    let chat = matches!(generation.prompt, Prompt::Chat(_));
    for (key, value) in thinking(settings, generation.thinking, chat, start)? {
        set(&key, value);
    }
    if let Some(format) = response_format(&generation.constraint) {
        if strict && !chat {
            return Err(EngineError::Unsupported {
                engine: "upstream",
                what: "response_format for plain text prompts",
            });
        }
        set("response_format", format);
    }
    let stop: Vec<&String> = generation.stop.iter().filter(|stop| !stop.is_empty()).collect();
    let may_think = chat && generation.thinking != Thinking::Closed;
    if !stop.is_empty() && !may_think && stop.len() <= 4 {
        set("stop", json!(stop));
    }
    let mut body = Value::Object(settings.extra_body.clone());
    merge(&mut body, Value::Object(own));
    Ok(Request { path, body, start })
}

fn stream_options(strict: bool) -> Value {
    if strict { json!({"include_usage": true}) } else { json!({"include_usage": true, "continuous_usage_stats": true}) }
}

fn sampling(sampling: &Sampling, strict: bool) -> Result<Vec<(&'static str, Value)>, EngineError> {
    let mut fields = vec![("seed", Value::from(sampling.seed & (u64::MAX >> 1)))];
    if !sampling.logit_bias.is_empty() {
        let bias = sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias)));
        fields.push(("logit_bias", Value::Object(bias.collect())));
    }
    let numbers = [
        ("temperature", sampling.temperature, 1.0),
        ("top_p", sampling.top_p, 1.0),
        ("presence_penalty", sampling.presence_penalty, 0.0),
        ("frequency_penalty", sampling.frequency_penalty, 0.0),
    ];
    fields.extend(
        numbers.into_iter().filter(|(_, value, usual)| !strict || value != usual).map(|(k, v, _)| (k, v.into())),
    );
    if strict {
        let missing = |param: &'static str| {
            EngineError::invalid(param, format!("this tier's server has no `{param}`; leave it out"))
        };
        return match sampling {
            Sampling { top_k: Some(_), .. } => Err(missing("top_k")),
            Sampling { ignore_eos: true, .. } => Err(missing("ignore_eos")),
            Sampling { min_p, .. } if *min_p != 0.0 => Err(missing("min_p")),
            _ => Ok(fields),
        };
    }
    fields.push(("top_k", sampling.top_k.map_or(json!(-1), Value::from)));
    fields.push(("min_p", sampling.min_p.into()));
    fields.push(("repetition_penalty", 1.0.into()));
    if sampling.ignore_eos {
        fields.push(("ignore_eos", true.into()));
    }
    Ok(fields)
}

fn chat(conversation: &Conversation, strict: bool) -> Vec<(&'static str, Value)> {
    let messages: Vec<Value> = conversation.messages.iter().map(|turn| message(turn, strict)).collect();
    let mut fields = vec![("messages", messages.into())];
    if let Some(Tools { definitions, choice, parallel }) =
        conversation.tools.as_ref().filter(|t| !t.definitions.is_empty())
    {
        fields.push(("tools", definitions.clone().into()));
        fields.push((
            "tool_choice",
            match choice {
                ToolChoice::None => "none".into(),
                ToolChoice::Auto => "auto".into(),
                ToolChoice::Required => "required".into(),
                ToolChoice::Function(name) => json!({"type": "function", "function": {"name": name}}),
            },
        ));
        fields.push(("parallel_tool_calls", (*parallel).into()));
    }
    fields
}

/// One turn. Templates of open models know no `developer`, and OpenAI's servers take no thoughts back.
fn message(turn: &Message, strict: bool) -> Value {
    let role = if turn.role == "developer" && !strict { "system" } else { &turn.role };
    let calls: Vec<Value> = turn.tool_calls.iter().cloned().map(call).collect();
    let content = if turn.content.is_empty() && !calls.is_empty() { Value::Null } else { turn.content.clone().into() };
    let mut message = json!({"role": role, "content": content});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    if let Some(id) = &turn.tool_call_id {
        message["tool_call_id"] = id.clone().into();
    }
    if let Some(name) = &turn.name {
        message["name"] = name.clone().into();
    }
    if let Some(thoughts) = turn.reasoning_content.as_ref().filter(|_| !strict) {
        message["reasoning_content"] = thoughts.clone().into();
    }
    message
}

/// A tool call with its arguments as text.
fn call(mut call: Value) -> Value {
    if let Some(arguments) = call.pointer_mut("/function/arguments")
        && !arguments.is_string()
    {
        *arguments = Value::String(arguments.to_string());
    }
    call
}

fn thinking(
    settings: &Upstream,
    thinking: Thinking,
    chat: bool,
    start: Start,
) -> Result<Vec<(String, Value)>, EngineError> {
    let mut fields = Vec::new();
    if chat && settings.dialect == Dialect::Vllm {
        let may = thinking != Thinking::Closed;
        fields.push(("chat_template_kwargs".to_owned(), json!({"enable_thinking": may, "thinking": may})));
    } else if chat && thinking == Thinking::Closed {
        fields.push(("reasoning_effort".to_owned(), "none".into()));
    }
    match (thinking, &settings.budget_field) {
        (Thinking::Budget(_), _) if start == Start::Answer => {}
        (Thinking::Budget(tokens), Some(field)) => fields.push((field.clone(), tokens.into())),
        (Thinking::Budget(_), None) => {
            let message = "this tier's server takes no thinking budget; leave it out, or name the server's field as `budget_field` in family.toml";
            return Err(EngineError::invalid("max_reasoning_tokens", message));
        }
        (Thinking::Closed, Some(field)) if chat => fields.push((field.clone(), 0.into())),
        (Thinking::Closed, None) if chat && settings.opens_thinking => {
            let message = "this tier's server always opens the thoughts and takes no thinking budget to close them with; ask for more effort, or name the server's field as `budget_field` in family.toml";
            return Err(EngineError::invalid("reasoning_effort", message));
        }
        (Thinking::Closed | Thinking::Free, _) => {}
    }
    Ok(fields)
}

fn response_format(constraint: &Constraint) -> Option<Value> {
    match constraint {
        Constraint::Free => None,
        Constraint::JsonObject => Some(json!({"type": "json_object"})),
        Constraint::JsonSchema(schema) => {
            Some(json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}}))
        }
    }
}

/// Puts `over` onto `under`; objects are joined, everything else is replaced.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
