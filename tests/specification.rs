//! What the server says, against OpenAI's specification: every body and every event of the tests comes through here.
//!
//! Used by the unit tests of the API and by the tests of the binary. Where the specification is not at hand it says so once
//! and lets everything pass.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

/// The schemas of the specification, or `None`, with a message, where it is not at hand.
static COMPONENTS: LazyLock<Option<Value>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/openai-api-subset.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: there is no {}", path.display());
        return None;
    };
    let mut document: Value = serde_json::from_str(&text).unwrap();
    allow_null(&mut document);
    Some(document["components"].take())
});

/// Fails unless the body of the answer of `path` with this status is what the specification says.
pub fn check_body(path: &str, status: u16, body: &Value) {
    let schema = match path.split('?').next().unwrap_or_default() {
        // Also of paths that are ours: all errors are OpenAI's.
        _ if status >= 400 => "ErrorResponse",
        "/v1/chat/completions" => "CreateChatCompletionResponse",
        "/v1/completions" => "CreateCompletionResponse",
        "/v1/responses" => "Response",
        "/v1/models" => "ListModelsResponse",
        path if path.starts_with("/v1/models/") => "Model",
        _ => return,
    };
    valid(schema, body);
}

/// Fails unless an event of the stream of `path` is what the specification says.
pub fn check_event(path: &str, event: &Value) {
    match path {
        _ if event.get("error").is_some() => valid("ErrorResponse", event),
        "/v1/chat/completions" => valid("CreateChatCompletionStreamResponse", event),
        "/v1/completions" => valid("CreateCompletionResponse", &whole(event)),
        "/v1/responses" => valid("ResponseStreamEvent", event),
        path => panic!("there is no stream at {path}"),
    }
}

/// The specification has one shape for a completion and its parts, and forgets what parts do not know yet.
fn whole(part: &Value) -> Value {
    let mut whole = part.clone();
    if whole.get("usage").is_some_and(Value::is_null) {
        whole.as_object_mut().unwrap().remove("usage");
    }
    for choice in whole["choices"].as_array_mut().into_iter().flatten() {
        if choice.get("finish_reason").is_some_and(Value::is_null) {
            choice["finish_reason"] = "stop".into();
        }
    }
    whole
}

/// Fails unless `value` is a `schema` of the OpenAI API.
pub fn valid(schema: &str, value: &Value) {
    if let Some(validator) = validator(schema) {
        let faults: Vec<String> =
            validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        assert!(faults.is_empty(), "no {schema}: {faults:#?}\n{value:#}");
    }
}

/// The validator of a schema of the OpenAI API.
pub fn validator(schema: &str) -> Option<Arc<Validator>> {
    static VALIDATORS: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    let components = COMPONENTS.as_ref()?;
    let mut validators = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let made = || {
        let root = json!({"$ref": format!("#/components/schemas/{schema}"), "components": components});
        Arc::new(jsonschema::validator_for(&root).unwrap())
    };
    Some(validators.entry(schema.to_owned()).or_insert_with(made).clone())
}

/// The specification is OpenAPI 3.1 and still says `nullable`, a word that JSON Schema does not know.
fn allow_null(part: &mut Value) {
    match part {
        Value::Array(items) => items.iter_mut().for_each(allow_null),
        Value::Object(fields) => {
            fields.values_mut().for_each(allow_null);
            if fields.remove("nullable") == Some(Value::Bool(true)) {
                let schema = Value::Object(std::mem::take(fields));
                *part = json!({"anyOf": [schema, {"type": "null"}]});
            }
        }
        _ => {}
    }
}
