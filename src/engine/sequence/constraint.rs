//! What an answer must look like, as a mask over tokens: JSON, JSON of a schema, and calls of given tools.
//!
//! Grammars are compiled by llguidance within fixed limits, so that no schema can hold a server up. Thoughts never come
//! here; the sampler calls only in the answer.

use std::fmt;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use super::LoadError;
use super::vocabulary::{TOOL_MARKS, Vocabulary};
use crate::engine::{Constraint, EngineError, ToolChoice, Tools};

/// Whitespace between the parts of JSON: as much as pretty-printing needs, not so much that a model can go on for ever.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,32}";

/// Characters of a grammar compiler's message that are passed on.
const LONGEST_MESSAGE: usize = 300;

/// Compiles grammars for one vocabulary; shared by all its sequences.
pub(super) struct Grammars {
    factory: ParserFactory,
}

/// The state of one answer in its grammar.
pub(super) struct Grammar {
    matcher: Matcher,
    /// The first mask, which was computed to know that there is one.
    first: Option<SimpleVob>,
    /// The request's field it is from.
    param: &'static str,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Grammar").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

impl Grammars {
    /// Builds the tree of the vocabulary's tokens.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, LoadError> {
        let info = TokRxInfo::new(vocabulary.size() as u32, vocabulary.ends()[0]);
        let trie = TokTrie::from(&info, &vocabulary.words()).with_eos_tokens(vocabulary.ends());
        let environment: TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment)
            .map_err(|error| LoadError::new(format!("cannot prepare grammars for this vocabulary: {error}")))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_grammar_size: 200_000,
            max_lexer_states: 100_000,
            precompute_large_lexemes: false,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory })
    }

    /// The grammar of an answer under `constraint` and `tools`; `None` when anything may be said.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] that blames `response_format`, `tools` or `tool_choice`.
    pub fn compile(&self, constraint: &Constraint, tools: Option<&Tools>) -> Result<Option<Grammar>, EngineError> {
        let schema = match constraint {
            Constraint::Free => None,
            Constraint::JsonObject => Some(json!({"type": "object"})),
            Constraint::JsonSchema(schema) => Some(schema.clone()),
        };
        let tools = tools.filter(|tools| tools.choice != ToolChoice::None);
        let (param, grammar) = match (schema, tools) {
            (None, None) => return Ok(None),
            (Some(schema), None) => ("response_format", TopLevelGrammar::from_json_schema(strict(schema))),
            (schema, Some(tools)) => match (&tools.choice, schema) {
                (ToolChoice::Auto | ToolChoice::None, None) => return Ok(None),
                (ToolChoice::Auto | ToolChoice::None, Some(schema)) => {
                    let answer =
                        format!("start: calls | answer\nanswer: %json {}\n{}", strict(schema), calls(tools, None)?);
                    ("response_format", TopLevelGrammar::from_lark(answer))
                }
                (ToolChoice::Required, _) => {
                    ("tools", TopLevelGrammar::from_lark(format!("start: calls\n{}", calls(tools, None)?)))
                }
                (ToolChoice::Function(name), _) => {
                    ("tools", TopLevelGrammar::from_lark(format!("start: calls\n{}", calls(tools, Some(name))?)))
                }
            },
        };
        let parser = self.factory.create_parser(grammar);
        let mut matcher = Matcher::new(parser);
        if let Some(message) = matcher.get_error() {
            let message: String = message.chars().take(LONGEST_MESSAGE).collect();
            return Err(EngineError::invalid(
                param,
                format!("the schema in `{param}` cannot be enforced: {message}; simplify it"),
            ));
        }
        let first = matcher.compute_mask_or_eos().map_err(|_| {
            EngineError::invalid(
                param,
                format!("no text fits the schema in `{param}`, or it is too large; simplify it"),
            )
        })?;
        Ok(Some(Grammar { matcher, first: Some(first), param }))
    }
}

impl Grammar {
    /// The same grammar for another answer that has not begun either.
    pub fn fresh(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), first: self.first.clone(), param: self.param }
    }

    /// Tokens that may come next; only ends of the turn once the answer is complete.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] where the grammar is larger than the limits in the middle of the answer.
    pub fn mask(&mut self) -> Result<SimpleVob, EngineError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        self.matcher.compute_mask_or_eos().map_err(|error| too_large(self.param, &error.to_string()))
    }

    /// Goes on by a token of the mask.
    ///
    /// # Errors
    /// As [`Grammar::mask`].
    pub fn commit(&mut self, id: u32) -> Result<(), EngineError> {
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|error| too_large(self.param, &error.to_string()))
    }
}

/// Limits are also met on the way, where no compiler could see them before; it is the schema's fault all the same.
fn too_large(param: &'static str, reason: &str) -> EngineError {
    let reason: String = reason.lines().next().unwrap_or_default().chars().take(LONGEST_MESSAGE).collect();
    EngineError::invalid(param, format!("the answer cannot be held to the schema in `{param}`: {reason}; simplify it"))
}

/// Formats of strings that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// A schema with our compiler options; a client's own are replaced.
fn strict(mut schema: Value) -> Value {
    drop_other_formats(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert("x-guidance".into(), json!({"whitespace_pattern": WHITESPACE, "coerce_one_of": true}));
    }
    schema
}

/// Takes out the formats that are not enforced: they say what a string is for, as `password` does (JSON Schema 2020-12,
/// Validation, section 7.2.1), and the compiler would refuse them.
fn drop_other_formats(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let is_other = |format: &Value| format.as_str().is_some_and(|format| !FORMATS.contains(&format));
            if fields.get("format").is_some_and(is_other) {
                fields.remove("format");
            }
            for (key, field) in fields {
                match (key.as_str(), field) {
                    ("enum" | "const" | "default" | "examples", _) => {}
                    // The names in here are the client's own, whatever they look like.
                    ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                        named.values_mut().for_each(drop_other_formats);
                    }
                    (_, field) => drop_other_formats(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(drop_other_formats),
        _ => {}
    }
}

/// The schema of a tool's parameters, which are an object whether it says so or not.
fn object(parameters: &Value, tool: &str) -> Result<Value, EngineError> {
    let mut schema = parameters.clone();
    let allows_objects = match &parameters["type"] {
        Value::Null => true,
        Value::Array(types) => types.iter().any(|kind| kind == "object"),
        kind => kind == "object",
    };
    match schema.as_object_mut().filter(|_| allows_objects) {
        Some(fields) => fields.insert("type".into(), "object".into()),
        None => {
            let shown: String = tool.chars().take(64).collect();
            let message = format!("the `parameters` of `{shown}` are no object; arguments come by name");
            return Err(EngineError::invalid("tools", message));
        }
    };
    Ok(schema)
}

/// Lark rules for calls of all tools, or of one: the format of Qwen and Hermes models.
fn calls(tools: &Tools, only: Option<&String>) -> Result<String, EngineError> {
    let text = |literal: &str| Value::from(literal).to_string();
    let mut names = Vec::new();
    let mut rules = String::new();
    for tool in &tools.definitions {
        let function = &tool["function"];
        let name =
            function["name"].as_str().ok_or_else(|| EngineError::invalid("tools", "a tool has no function name"))?;
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let parameters = match &function["parameters"] {
            Value::Null => json!({"type": "object", "properties": {}, "additionalProperties": false}),
            parameters => object(parameters, name)?,
        };
        let index = names.len();
        let head = format!("{}\n{{\"name\": {}, \"arguments\": ", TOOL_MARKS[0], text(name));
        let tail = format!("}}\n{}", TOOL_MARKS[1]);
        rules.push_str(&format!(
            "call_{index}: {} arguments_{index} {}\narguments_{index}: %json {}\n",
            text(&head),
            text(&tail),
            strict(parameters)
        ));
        names.push(format!("call_{index}"));
    }
    if names.is_empty() {
        let wanted = only.map_or("any".to_owned(), |name| format!("`{name}`"));
        return Err(EngineError::invalid(
            "tool_choice",
            format!("`tool_choice` asks for {wanted}, which `tools` has not"),
        ));
    }
    // A named function is called once.
    let repeat =
        if tools.parallel && only.is_none() { format!("call ({} call)*", text("\n")) } else { "call".to_owned() };
    Ok(format!("calls: {repeat}\ncall: {}\n{rules}", names.join(" | ")))
}
