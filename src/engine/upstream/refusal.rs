//! What the other server's refusals mean to a client of this one.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::config::Server;
use crate::engine::EngineError;
use crate::family::{Dialect, Upstream};

/// Fields that a refusal may blame, as clients of this server know them.
const PARAMS: [&str; 19] = [
    "messages",
    "prompt",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
];

/// Fields that only the dialect of vLLM sends, as refusals name them.
const EXTRAS: [&str; 5] = ["top_k", "min_p", "repetition_penalty", "chat_template_kwargs", "continuous_usage_stats"];

/// The error for a response that is no success.
///
/// 400, 413 and 422 are the request's fault and keep their message and field; a prompt that is too long is told by its
/// numbers. 404 means that the server does not have the tier's model. 401, 403 and everything unexpected are this
/// family's fault, not the client's. 429 and 503 stay what they are and pass on when to try again.
pub(super) fn refusal(server: &Server, status: StatusCode, headers: &HeaderMap, body: &str) -> EngineError {
    let name = &server.tier.name;
    let Told { message, param, code } = Told::read(body);
    let message = server.clean(&message);
    // What a server says often quotes what the client sent, which is nobody's business at this level.
    let word = |word: &Option<String>| word.as_deref().map(|word| server.clean(word));
    tracing::warn!(
        tier = %name, status = status.as_u16(), param = word(&param), code = word(&code), "the upstream server refused a request"
    );
    tracing::debug!(tier = %name, message = %message, "what the upstream server said");
    let failed =
        |what: String| EngineError::Failed { message: format!("the server of tier `{name}` {what}"), upstream: true };
    match status.as_u16() {
        400 | 413 | 422 => {
            let too_long = code.as_deref() == Some("context_length_exceeded")
                || ["context length", "context size"].iter().any(|words| message.contains(words));
            if too_long && let Some((prompt, limit)) = lengths(&message) {
                let or_more = message.contains("at least");
                return EngineError::TooLong { tier: name.clone(), prompt, or_more, limit };
            }
            let budget = server.tier.settings.budget_field.as_deref();
            let param = match param.as_deref() {
                Some(param) if Some(param) == budget => Some("max_reasoning_tokens"),
                Some(param) => PARAMS.into_iter().find(|known| *known == param),
                None => None,
            };
            let hint = match server.tier.settings.dialect {
                Dialect::Vllm if EXTRAS.iter().any(|field| message.contains(field)) => {
                    "; `dialect = \"openai\"` in family.toml leaves out what OpenAI has not"
                }
                Dialect::Vllm | Dialect::Openai => "",
            };
            let message = if message.is_empty() { "without saying why".to_owned() } else { message };
            let message = format!("the server of tier `{name}` refused the request: {message}{hint}");
            match too_long {
                true => EngineError::TooLongElsewhere { message },
                false => EngineError::Invalid { message, param },
            }
        }
        401 | 403 => failed(match &server.tier.settings.api_key_env {
            Some(_) => format!("refused the key that `api_key_env` of family.toml names ({})", status.as_u16()),
            None => format!("wants a key ({}); name its variable as `api_key_env` in family.toml", status.as_u16()),
        }),
        404 => {
            let Upstream { model, url, .. } = &server.tier.settings;
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            EngineError::UnknownModel {
                tier: name.clone(),
                message: format!("the server of tier `{name}`, {url}, has no model `{model}`{said}"),
            }
        }
        429 => EngineError::Busy {
            message: format!("the server of tier `{name}` has too much to do; try again later"),
            retry_after: retry_after(headers),
        },
        503 => EngineError::Unavailable {
            message: format!("the server of tier `{name}` does not answer now; try again later"),
            retry_after: retry_after(headers),
        },
        code if message.is_empty() => failed(format!("answered with status {code}")),
        code => failed(format!("answered with status {code}: {message}")),
    }
}

/// The error for a request that got no response.
pub(super) fn silence(server: &Server, error: &reqwest::Error) -> EngineError {
    let name = &server.tier.name;
    let unavailable = |what: &str| EngineError::Unavailable {
        message: format!("the server of tier `{name}` {what}; try again later"),
        retry_after: None,
    };
    tracing::warn!(tier = %name, error = %causes(error), "the upstream server gave no response");
    if error.is_connect() {
        unavailable("cannot be reached")
    } else if error.is_timeout() {
        unavailable("does not answer")
    } else {
        EngineError::Failed {
            message: format!("the connection to the server of tier `{name}` broke before it answered"),
            upstream: true,
        }
    }
}

/// An error with all its causes, for the log.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What an error body says, in whichever of the usual shapes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    message: String,
    param: Option<String>,
    code: Option<String>,
}

impl Told {
    /// OpenAI's envelope, vLLM's older flat object, `{"message"}`, FastAPI's `{"detail"}` (text or a list), or plain
    /// text.
    fn read(body: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(body) else {
            return Self { message: body.to_owned(), ..Self::default() };
        };
        let inner = value.get("error").filter(|error| !error.is_null()).unwrap_or(&value);
        let text = |key: &str| inner.get(key).and_then(Value::as_str).map(str::to_owned);
        let (detail, place) = match value.get("detail") {
            Some(Value::String(detail)) => (Some(detail.clone()), None),
            // Only the first fault, and not the input that FastAPI repeats with it.
            Some(Value::Array(faults)) => {
                let first = faults.first();
                let message = first.and_then(|fault| fault.get("msg")).and_then(Value::as_str).map(str::to_owned);
                let place = first.and_then(|fault| fault.get("loc")).and_then(Value::as_array);
                let place = place.and_then(|place| place.iter().filter_map(Value::as_str).find(|part| *part != "body"));
                (message, place.map(str::to_owned))
            }
            _ => (None, None),
        };
        let message = text("message").or(inner.as_str().map(str::to_owned)).or(detail).unwrap_or_default();
        Self { message, param: text("param").or(place), code: text("code") }
    }
}

/// Tokens of the prompt and of the context in a message like "This model's maximum context length is 4096 tokens.
/// However, … 5000 input tokens"; servers (vLLM, OpenAI, SGLang, Brevity) write no other than words.
fn lengths(message: &str) -> Option<(usize, usize)> {
    let after = |mark: &str| {
        let rest = message.split(mark).nth(1)?.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let before = |mark: &str| {
        let rest = message.split(mark).next().filter(|rest| rest.len() < message.len())?.trim_end();
        rest.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let limits = ["maximum context length is", "maximum context length of", "model's context length (", "has room for"];
    let limit = limits.into_iter().find_map(after)?;
    let marks = [
        "input tokens",
        "prompt tokens",
        "in the messages",
        "tokens in the messages",
        "in the prompt",
        "tokens from the input",
    ];
    let heads = ["The input (", "the prompt of", "the prompt has", "resulted in"];
    let prompt = marks.into_iter().find_map(before).or_else(|| heads.into_iter().find_map(after))?;
    Some((prompt, limit))
}

/// `retry-after-ms`, else `Retry-After` in seconds (RFC 9110 §10.2.3); a date there is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
