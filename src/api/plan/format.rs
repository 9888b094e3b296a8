//! `response_format`, and what a JSON schema must be for a grammar to be made of it in bounded time.

use serde_json::Value;

use super::{Dialect, is_name};
use crate::api::ApiError;
use crate::api::types::ResponseFormat;
use crate::engine::Constraint;

/// Nesting of a schema; OpenAI allows 10 levels of objects, which are about three levels of JSON each.
const MAX_DEPTH: usize = 64;
/// References that may follow each other without anything between them.
const MAX_CHAIN: usize = 32;

/// What the answer must look like. `limit` bounds a schema's bytes.
///
/// # Errors
/// 400 with the field.
pub fn constraint(format: Option<ResponseFormat>, dialect: &Dialect, limit: usize) -> Result<Constraint, ApiError> {
    let Some(format) = format else {
        return Ok(Constraint::Free);
    };
    let Dialect { format: field, schema: place, .. } = dialect;
    match (format.kind.as_str(), format.json_schema) {
        ("text", None) => Ok(Constraint::Free),
        ("json_object", None) => Ok(Constraint::JsonObject),
        ("text" | "json_object", Some(_)) => {
            let message = format!("a schema says nothing beside type `{}`; write type `json_schema`", format.kind);
            Err(ApiError::invalid(*place, message))
        }
        ("json_schema", None) => {
            let message =
                format!("`{field}` has type `json_schema` and no schema; add `{place}` with `name` and `schema`");
            Err(ApiError::invalid(*place, message))
        }
        ("json_schema", Some(named)) => {
            if !is_name(&named.name) {
                return Err(ApiError::invalid(
                    format!("{place}.name"),
                    format!("the name is `{}`; it has 1 to 64 letters, digits, `_` and `-`", short(&named.name)),
                ));
            }
            let Some(schema) = named.schema else {
                return Ok(Constraint::JsonObject);
            };
            check_schema(&schema, limit, &format!("{place}.schema"))?;
            Ok(Constraint::JsonSchema(schema))
        }
        (kind, _) => Err(ApiError::invalid(
            format!("{field}.type"),
            format!("`{field}.type` is `{}`; it is `text`, `json_object` or `json_schema`", short(kind)),
        )),
    }
}

/// Checks that `schema` is a JSON schema of bounded size whose references stay inside it and lead somewhere.
///
/// # Errors
/// 400 blaming `param`.
pub fn check_schema(schema: &Value, limit: usize, param: &str) -> Result<(), ApiError> {
    let fault = |message: String| Err(ApiError::invalid(param, message));
    if !schema.is_object() {
        return fault("the schema is no object; write it as `{\"type\": \"object\", …}`".into());
    }
    let bytes = schema.to_string().len();
    if bytes > limit {
        return fault(format!("the schema has {bytes} bytes; this server takes {limit}"));
    }
    if let Err(message) = check_references(schema, schema, 0) {
        return fault(message);
    }
    if let Err(error) = jsonschema::meta::validate(schema) {
        let place = error.instance_path().to_string();
        return fault(format!("no valid JSON schema at `{}`: {}", short(&place), short(&error.to_string())));
    }
    Ok(())
}

/// Keywords whose values are data and no schemas, whatever they look like.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];
/// Keywords whose values have schemas under names of the client's own, which may look like keywords.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

fn check_references(root: &Value, part: &Value, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the schema is nested deeper than {MAX_DEPTH} levels"));
    }
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                check_chain(root, reference)?;
            }
            let mut parts = fields.iter().filter(|(key, _)| !DATA.contains(&key.as_str()));
            parts.try_for_each(|(key, field)| match field {
                Value::Object(named) if NAMED.contains(&key.as_str()) => {
                    named.values().try_for_each(|schema| check_references(root, schema, depth + 2))
                }
                field => check_references(root, field, depth + 1),
            })
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_references(root, item, depth + 1)),
        _ => Ok(()),
    }
}

/// Follows references that lead straight to other references: a circle of them describes nothing.
fn check_chain(root: &Value, first: &str) -> Result<(), String> {
    let mut reference = first;
    for _ in 0..MAX_CHAIN {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(format!(
                "`$ref` is `{}`; references stay inside the schema, like `#/$defs/name`",
                short(reference)
            ));
        };
        let Some(target) = root.pointer(pointer) else {
            return Err(format!("`$ref` is `{}`, and there is nothing", short(reference)));
        };
        match target.get("$ref").and_then(Value::as_str) {
            Some(next) => reference = next,
            None => return Ok(()),
        }
    }
    Err(format!("`$ref` `{}` leads to itself", short(first)))
}

fn short(text: &str) -> String {
    if text.chars().count() <= 120 { text.to_owned() } else { text.chars().take(120).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::CHAT;
    use super::*;

    fn read(format: Value) -> Result<Constraint, ApiError> {
        constraint(Some(serde_json::from_value(format).unwrap()), &CHAT, 4096)
    }

    fn schema(schema: Value) -> Result<Constraint, ApiError> {
        read(json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}))
    }

    #[test]
    fn formats_become_constraints() {
        assert_eq!(constraint(None, &CHAT, 0).unwrap(), Constraint::Free);
        assert_eq!(read(json!({"type": "text"})).unwrap(), Constraint::Free);
        assert_eq!(read(json!({"type": "json_object"})).unwrap(), Constraint::JsonObject);
        let list = json!({"$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
                          "$ref": "#/$defs/node"});
        assert_eq!(schema(list.clone()).unwrap(), Constraint::JsonSchema(list));
    }

    #[test]
    fn names_of_properties_are_no_keywords() {
        let nowhere = json!({"$ref": "#/nowhere"});
        for name in ["enum", "const", "default", "examples"] {
            assert!(schema(json!({"properties": {name: nowhere}})).is_err(), "{name}");
            assert!(schema(json!({"properties": {"a": {name: [nowhere]}}})).is_ok(), "{name}");
        }
    }

    #[test]
    fn faulty_formats_blame_their_field() {
        for (format, param) in [
            (json!({"type": "xml"}), "response_format.type"),
            (json!({"type": "json_schema"}), "response_format.json_schema"),
            (json!({"type": "text", "json_schema": {"name": "n"}}), "response_format.json_schema"),
            (json!({"type": "json_schema", "json_schema": {"name": "a b"}}), "response_format.json_schema.name"),
        ] {
            assert_eq!(read(format).unwrap_err().param.as_deref(), Some(param));
        }
    }

    #[test]
    fn faulty_schemas_are_refused() {
        let deep = (0..80).fold(json!({}), |inner, _| json!({"not": inner}));
        let huge = json!({"enum": vec!["a word"; 1000]});
        assert!(schema(json!({"enum": [{"$ref": "hello"}], "default": {"$ref": "x"}})).is_ok(), "data, no reference");
        for (faulty, word) in [
            (json!(3), "no object"),
            (json!({"type": "strnig"}), "no valid JSON schema"),
            (json!({"$ref": "#"}), "leads to itself"),
            (json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}), "leads to itself"),
            (json!({"$ref": "#/$defs/none"}), "there is nothing"),
            (json!({"$ref": "https://example.com/schema"}), "stay inside"),
            (deep, "nested deeper"),
            (huge, "bytes"),
        ] {
            let error = schema(faulty).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some("response_format.json_schema.schema"))
            );
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
}
