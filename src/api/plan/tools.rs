//! `tools`, `tool_choice` and `parallel_tool_calls`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::format::check_schema;
use super::{Dialect, is_name};
use crate::api::ApiError;
use crate::api::types::ToolDefinition;
use crate::engine::{ToolChoice, Tools};

/// The tools of a request, checked. `limit` bounds the bytes of each tool's schema.
///
/// # Errors
/// 400 with the field; also when the choice names a function that is not among the tools.
pub fn tools(
    definitions: Option<Vec<ToolDefinition>>,
    choice: Option<&Value>,
    parallel: Option<bool>,
    dialect: &Dialect,
    limit: usize,
) -> Result<Option<Tools>, ApiError> {
    let definitions = definitions.unwrap_or_default();
    let choice = choice.filter(|choice| !choice.is_null());
    let mut names = BTreeSet::new();
    for (index, definition) in definitions.iter().enumerate() {
        let name = check_definition(definition, index, dialect, limit)?;
        if !names.insert(name) {
            let param = format!("tools[{index}]{}.name", dialect.function);
            return Err(ApiError::invalid(param, format!("two tools are called `{name}`; names are unique")));
        }
    }
    if definitions.is_empty() {
        return match choice {
            None => Ok(None),
            Some(Value::String(word)) if word == "none" || word == "auto" => Ok(None),
            Some(_) => Err(ApiError::invalid("tool_choice", "`tool_choice` is set and there are no `tools`; add them")),
        };
    }
    let (choice, allowed) = read_choice(choice, &names, dialect)?;
    let kept = |definition: &&ToolDefinition| match (&allowed, &definition.function) {
        (Some(allowed), Some(function)) => allowed.contains(&function.name),
        _ => true,
    };
    let definitions: Result<Vec<Value>, _> = definitions.iter().filter(kept).map(serde_json::to_value).collect();
    let definitions = definitions.map_err(|error| ApiError::invalid("tools", error.to_string()))?;
    Ok(Some(Tools { definitions, choice, parallel: parallel.unwrap_or(true) }))
}

/// Paths of `strict` in tools that the model may call of its own accord: only calls that are asked for are made to fit their
/// schema, so it changes nothing there.
pub fn lenient(tools: &Tools, dialect: &Dialect) -> Vec<String> {
    if tools.choice != ToolChoice::Auto {
        return Vec::new();
    }
    let strict = tools.definitions.iter().enumerate().filter(|(_, tool)| tool["function"]["strict"] == true);
    strict.map(|(index, _)| format!("tools.{index}{}.strict", dialect.function)).collect()
}

fn check_definition<'a>(
    definition: &'a ToolDefinition,
    index: usize,
    dialect: &Dialect,
    limit: usize,
) -> Result<&'a str, ApiError> {
    let place = format!("tools[{index}]{}", dialect.function);
    if definition.kind != "function" {
        let kind: String = definition.kind.chars().take(40).collect();
        let message = format!("tools of type `{kind}` are not known here; only `function` is");
        return Err(ApiError::invalid(format!("tools[{index}].type"), message));
    }
    let Some(function) = &definition.function else {
        return Err(ApiError::invalid(place, "the tool has no `function`; add its name"));
    };
    if !is_name(&function.name) {
        let message = "a function's name has 1 to 64 letters, digits, `_` and `-`";
        return Err(ApiError::invalid(format!("{place}.name"), message));
    }
    if let Some(schema) = function.parameters.as_ref() {
        check_schema(schema, limit, &format!("{place}.parameters"))?;
    }
    Ok(&function.name)
}

type Allowed = Option<BTreeSet<String>>;

fn read_choice(
    choice: Option<&Value>,
    names: &BTreeSet<&str>,
    dialect: &Dialect,
) -> Result<(ToolChoice, Allowed), ApiError> {
    let Some(choice) = choice else {
        return Ok((ToolChoice::Auto, None));
    };
    if let Some(word) = choice.as_str() {
        return Ok((mode(word, "tool_choice", &["none", "auto", "required"])?, None));
    }
    match choice.get("type").and_then(Value::as_str) {
        Some("function") => {
            let param = format!("tool_choice{}.name", dialect.function);
            Ok((ToolChoice::Function(named(choice, names, dialect, &param)?), None))
        }
        Some("allowed_tools") => {
            let allowed = choice.pointer(&pointer(dialect.allowed)).unwrap_or(&Value::Null);
            let place = format!("tool_choice{}", dialect.allowed);
            let word = allowed.get("mode").and_then(Value::as_str).unwrap_or_default();
            let mode = mode(word, &format!("{place}.mode"), &["auto", "required"])?;
            let param = format!("{place}.tools");
            let list = allowed.get("tools").and_then(Value::as_array).filter(|list| !list.is_empty());
            let list =
                list.ok_or_else(|| ApiError::invalid(&param, format!("`{param}` names no tool; list at least one")))?;
            let set: Result<BTreeSet<String>, _> =
                list.iter().map(|tool| named(tool, names, dialect, &param)).collect();
            Ok((mode, Some(set?)))
        }
        _ => Err(ApiError::invalid(
            "tool_choice",
            "`tool_choice` is `none`, `auto`, `required`, an object of type `function` with a name, or one of type `allowed_tools`",
        )),
    }
}

/// A path of fields as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn mode(word: &str, param: &str, allowed: &[&str]) -> Result<ToolChoice, ApiError> {
    match word {
        "none" if allowed.contains(&"none") => Ok(ToolChoice::None),
        "auto" => Ok(ToolChoice::Auto),
        "required" => Ok(ToolChoice::Required),
        _ => Err(ApiError::invalid(param, format!("`{param}` is `{word}`; it is one of {}", allowed.join(", ")))),
    }
}

/// The name in a choice of one function, which must be one of `names`.
fn named(tool: &Value, names: &BTreeSet<&str>, dialect: &Dialect, param: &str) -> Result<String, ApiError> {
    match tool.pointer(&pointer(&format!("{}.name", dialect.function))).and_then(Value::as_str) {
        None => Err(ApiError::invalid(param, format!("`{param}` is missing; name the function to call"))),
        Some(name) if names.contains(name) => Ok(name.to_owned()),
        Some(name) => {
            let known: Vec<&str> = names.iter().copied().collect();
            Err(ApiError::invalid(param, format!("there is no tool `{name}`; the tools are {}", known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{CHAT, RESPONSES};
    use super::*;

    fn read(tools: Value, choice: Value) -> Result<Option<Tools>, ApiError> {
        super::tools(Some(serde_json::from_value(tools).unwrap()), Some(&choice), None, &CHAT, 4096)
    }

    fn two() -> Value {
        json!([{"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}},
               {"type": "function", "function": {"name": "b"}}])
    }

    #[test]
    fn choices_are_read() {
        let choice = |value| read(two(), value).unwrap().unwrap();
        assert_eq!(choice(Value::Null).choice, ToolChoice::Auto);
        assert_eq!(choice(json!("none")).choice, ToolChoice::None);
        assert_eq!(choice(json!("required")).choice, ToolChoice::Required);
        let named = choice(json!({"type": "function", "function": {"name": "b"}}));
        assert_eq!(
            (named.choice, named.definitions.len(), named.parallel),
            (ToolChoice::Function("b".into()), 2, true)
        );
        let list = json!([{"type": "function", "function": {"name": "a"}}]);
        let allowed = choice(json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": list}}));
        assert_eq!((allowed.choice, allowed.definitions.len()), (ToolChoice::Required, 1));
        assert!(read(json!([]), json!("auto")).unwrap().is_none());
    }

    /// The same choices without the inner objects, as the Responses API writes them.
    #[test]
    fn choices_are_read_in_another_dialect() {
        let read = |choice: Value| {
            let tools = serde_json::from_value(two()).unwrap();
            super::tools(Some(tools), Some(&choice), None, &RESPONSES, 4096).map(Option::unwrap)
        };
        let named = read(json!({"type": "function", "name": "b"})).unwrap();
        assert_eq!(named.choice, ToolChoice::Function("b".into()));
        let list = json!([{"type": "function", "name": "a"}]);
        let allowed = read(json!({"type": "allowed_tools", "mode": "auto", "tools": list})).unwrap();
        assert_eq!((allowed.choice, allowed.definitions.len()), (ToolChoice::Auto, 1));
        for (choice, param) in [
            (json!({"type": "function", "function": {"name": "b"}}), "tool_choice.name"),
            (json!({"type": "allowed_tools", "tools": list}), "tool_choice.mode"),
            (json!({"type": "allowed_tools", "mode": "auto", "tools": []}), "tool_choice.tools"),
        ] {
            assert_eq!(read(choice).unwrap_err().param.as_deref(), Some(param));
        }
    }

    #[test]
    fn strictness_without_effect_is_told() {
        let mut tools = two();
        tools[1]["function"]["strict"] = json!(true);
        let lenient = |choice: Value| super::lenient(&read(tools.clone(), choice).unwrap().unwrap(), &CHAT);
        assert_eq!(lenient(Value::Null), ["tools.1.function.strict"]);
        assert_eq!(lenient(json!("auto")), ["tools.1.function.strict"]);
        for choice in [json!("required"), json!("none"), json!({"type": "function", "function": {"name": "b"}})] {
            assert!(lenient(choice).is_empty());
        }
    }

    #[test]
    fn faults_blame_their_field() {
        for (tools, choice, param) in [
            (two(), json!({"type": "function", "function": {"name": "c"}}), "tool_choice.function.name"),
            (two(), json!({"type": "function"}), "tool_choice.function.name"),
            (two(), json!({"type": "custom", "custom": {"name": "a"}}), "tool_choice"),
            (two(), json!("sometimes"), "tool_choice"),
            (two(), json!(3), "tool_choice"),
            (two(), json!({"type": "allowed_tools"}), "tool_choice.allowed_tools.mode"),
            (json!([]), json!("required"), "tool_choice"),
            (json!([{"type": "custom"}]), Value::Null, "tools[0].type"),
            (json!([{"type": "function"}]), Value::Null, "tools[0].function"),
            (json!([{"type": "function", "function": {"name": "a b"}}]), Value::Null, "tools[0].function.name"),
            (
                json!([{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "a"}}]),
                Value::Null,
                "tools[1].function.name",
            ),
            (
                json!([{"type": "function", "function": {"name": "a", "parameters": {"type": 3}}}]),
                Value::Null,
                "tools[0].function.parameters",
            ),
        ] {
            let error = read(tools, choice).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{}", error.message);
        }
    }
}
