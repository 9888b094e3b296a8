//! Chat templates: from a conversation to the text a model continues.
//!
//! Renders the Jinja template that a model folder brings along, with the functions and string methods that templates
//! written for Hugging Face expect. A broken template or conversation is an error that says where, never a panic.

use std::path::{Path, PathBuf};

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Environment, ErrorKind, State, context};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

mod json;

/// The name under which the one template of an environment is known.
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `developer`, `user` or `assistant`; the template decides what else it knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A turn of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Instructions that stand above the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }
}

/// The chat template of a model.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Tokens that templates refer to by name, with their text.
    tokens: Vec<(&'static str, String)>,
    /// Where the template came from, for messages.
    source: PathBuf,
}

impl ChatTemplate {
    /// The template of a model folder: `chat_template.jinja`, or else `chat_template` in `tokenizer_config.json` (the
    /// one called `default` where there are several). Names of special tokens are taken from the latter, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] when neither file has a template or the template does not parse.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let config_path = folder.join("tokenizer_config.json");
        let config: serde_json::Value =
            if config_path.exists() { files::read_json(&config_path)? } else { serde_json::Value::Null };
        let template_path = folder.join("chat_template.jinja");
        let (source, text) = if template_path.exists() {
            let text = files::read_text(&template_path)?;
            (template_path, text)
        } else {
            let text = template_in_config(&config).ok_or_else(|| {
                Error::format(
                    &config_path,
                    "has no `chat_template`, and there is no `chat_template.jinja` beside it; \
                     take the template from the model's original repository",
                )
            })?;
            (config_path, text.to_owned())
        };
        let tokens = ["bos_token", "eos_token", "pad_token", "unk_token"]
            .into_iter()
            .filter_map(|name| Some((name, token_text(config.get(name)?)?)))
            .collect();
        Self::new(source, text, tokens)
    }

    /// A template given as text; `source` is named in errors, `tokens` are variables of the template (`eos_token`).
    ///
    /// # Errors
    /// [`Error::Format`] when the template does not parse.
    pub fn new(source: impl Into<PathBuf>, text: String, tokens: Vec<(&'static str, String)>) -> Result<Self> {
        let source = source.into();
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", json::filter);
        environment.add_template_owned(NAME, text).map_err(|error| failure(&source, &error))?;
        Ok(Self { environment, tokens, source })
    }

    /// The text of a conversation; with `add_generation_prompt` it ends where the assistant's next turn begins.
    ///
    /// `enable_thinking` is handed to the template as it is; [`None`] leaves it undefined there, which lets a reasoning
    /// model think.
    ///
    /// # Errors
    /// [`Error::Format`] naming the template, the line, and what the template says about the conversation.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
    ) -> Result<String> {
        self.render_with_tools(&messages, None, add_generation_prompt, enable_thinking)
    }

    /// Like [`ChatTemplate::render`] for messages of any shape (`tool_calls`, `reasoning_content`, whatever the template
    /// reads), with the tools that the model may call; [`None`] leaves `tools` undefined in the template.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with_tools(
        &self,
        messages: &impl Serialize,
        tools: Option<&[serde_json::Value]>,
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
    ) -> Result<String> {
        let messages = Value::from_serialize(messages);
        let mut variables: Vec<(&str, Value)> =
            self.tokens.iter().map(|(name, text)| (*name, Value::from(text.as_str()))).collect();
        if let Some(enable) = enable_thinking {
            variables.push(("enable_thinking", Value::from(enable)));
        }
        if let Some(tools) = tools {
            variables.push(("tools", Value::from_serialize(tools)));
        }
        let variables: Value = variables.into_iter().collect();
        let template = self.environment.get_template(NAME).map_err(|error| failure(&self.source, &error))?;
        template
            .render(context! { messages, add_generation_prompt, ..variables })
            .map_err(|error| failure(&self.source, &error))
    }

    /// The template's source; two models with the same one see the same prompts.
    pub fn text(&self) -> String {
        self.environment.get_template(NAME).map_or_else(|_| String::new(), |template| template.source().to_owned())
    }

    /// Whether `text` stands anywhere in the template's source (the name of a role).
    pub fn mentions(&self, text: &str) -> bool {
        self.environment.get_template(NAME).is_ok_and(|template| template.source().contains(text))
    }

    /// Whether the template reads the variable `name` at all (`tools`, `enable_thinking`).
    pub fn reads(&self, name: &str) -> bool {
        self.environment.get_template(NAME).is_ok_and(|template| template.undeclared_variables(false).contains(name))
    }
}

/// The template inside a parsed `tokenizer_config.json`: a text, or a list of named ones.
fn template_in_config(config: &serde_json::Value) -> Option<&str> {
    let entry = config.get("chat_template")?;
    let named = || entry.as_array()?.iter().find(|item| item["name"] == "default")?.get("template")?.as_str();
    entry.as_str().or_else(named)
}

/// The text of a token that is given as a string or as an object with `content`.
fn token_text(value: &serde_json::Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

fn failure(source: &Path, error: &minijinja::Error) -> Error {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    Error::format(source, format!("the chat template fails{line}: {reason}"))
}

/// The methods of Python's strings and dictionaries that chat templates call.
fn python_method(
    _state: &State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    if let Some(text) = value.as_str() {
        return string_method(text, method, arguments);
    }
    if value.kind() == ValueKind::Map {
        match method {
            "get" => {
                let (key, default): (&Value, Option<Value>) = from_args(arguments)?;
                let found = value.get_item(key)?;
                return Ok(if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found });
            }
            "keys" => return Ok(value.try_iter()?.collect()),
            "items" => {
                let pairs: Result<Vec<Value>, minijinja::Error> =
                    value.try_iter()?.map(|key| Ok(Value::from(vec![key.clone(), value.get_item(&key)?]))).collect();
                return Ok(Value::from(pairs?));
            }
            _ => {}
        }
    }
    Err(unknown_method(value, method))
}

fn unknown_method(value: &Value, method: &str) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::UnknownMethod, format!("{} has no method `{method}`", value.kind()))
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Value, minijinja::Error> {
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(arguments)?;
            let trimmed = |character: char| {
                characters.map_or(character.is_whitespace(), |characters| characters.contains(character))
            };
            let text = if method == "rstrip" { text } else { text.trim_start_matches(trimmed) };
            let text = if method == "lstrip" { text } else { text.trim_end_matches(trimmed) };
            Ok(Value::from(text))
        }
        "split" => {
            let (separator, most): (Option<&str>, Option<usize>) = from_args(arguments)?;
            let parts: Vec<&str> = match (separator, most) {
                (Some(""), _) => {
                    return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "cannot split by an empty text"));
                }
                (Some(separator), Some(most)) => text.splitn(most.saturating_add(1), separator).collect(),
                (Some(separator), None) => text.split(separator).collect(),
                (None, _) => text.split_whitespace().collect(),
            };
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "startswith" => from_args(arguments).map(|(start,): (&str,)| Value::from(text.starts_with(start))),
        "endswith" => from_args(arguments).map(|(end,): (&str,)| Value::from(text.ends_with(end))),
        "replace" => from_args(arguments).map(|(old, new): (&str, &str)| Value::from(text.replace(old, new))),
        "upper" => from_args(arguments).map(|()| Value::from(text.to_uppercase())),
        "lower" => from_args(arguments).map(|()| Value::from(text.to_lowercase())),
        _ => Err(unknown_method(&Value::from(text), method)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::mini::tokenizer::CHAT_TEMPLATE;
    use super::*;

    fn mini() -> ChatTemplate {
        ChatTemplate::new("chat_template.jinja", CHAT_TEMPLATE.to_owned(), Vec::new()).unwrap()
    }

    fn template(text: &str) -> Result<ChatTemplate> {
        ChatTemplate::new("test.jinja", text.to_owned(), vec![("eos_token", "</s>".to_owned())])
    }

    #[test]
    fn one_user_turn() {
        let messages = [Message::user("What is 58 + 68?")];
        let prompt = "<|im_start|>user\nWhat is 58 + 68?<|im_end|>\n<|im_start|>assistant\n<think>";
        assert_eq!(mini().render(&messages, true, None).unwrap(), prompt);
        assert_eq!(mini().render(&messages, true, Some(true)).unwrap(), prompt);
        assert_eq!(mini().render(&messages, true, Some(false)).unwrap(), format!("{prompt}</think>"));
        let closed = mini().render(&messages, false, None).unwrap();
        assert_eq!(closed, "<|im_start|>user\nWhat is 58 + 68?<|im_end|>\n");
    }

    #[test]
    fn thoughts_of_earlier_turns_are_left_out() {
        let messages = [
            Message::new("developer", "Be brief."),
            Message::user("1 + 1"),
            Message::assistant("1 + 1 = 2.\n</think>The answer is \\boxed{2}."),
            Message::user("Compute 2 + 2.\n"),
        ];
        assert_eq!(
            mini().render(&messages, true, None).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1<|im_end|>\n\
             <|im_start|>assistant\nThe answer is \\boxed{2}.<|im_end|>\n\
             <|im_start|>user\nCompute 2 + 2.\n<|im_end|>\n<|im_start|>assistant\n<think>"
        );
    }

    #[test]
    fn what_a_template_refuses_is_an_error_with_its_words() {
        let error = mini().render(&[Message::new("tool", "5")], true, None).unwrap_err().to_string();
        assert!(error.contains("unknown role tool; there are system"), "{error}");
        let error = template("{% if %}").unwrap_err().to_string();
        assert!(error.contains("test.jinja") && error.contains("line 1"), "{error}");
        let error = template("{{ messages.explode() }}").unwrap().render(&[], true, None).unwrap_err().to_string();
        assert!(error.contains("explode"), "{error}");
        assert!(template("{{ 'a'.split('') }}").unwrap().render(&[], true, None).is_err());
    }

    #[test]
    fn methods_and_variables_of_hugging_face_templates_work() {
        let render = |text: &str| template(text).unwrap().render(&[Message::user(" Hi ")], true, None).unwrap();
        assert_eq!(render("{{ messages[0].content.strip() + eos_token }}"), "Hi</s>");
        assert_eq!(
            render("{{ messages[0]['content'].lstrip() }}|{{ 'xxa'.lstrip('x') }}|{{ 'axx'.rstrip('x') }}"),
            "Hi |a|a"
        );
        assert_eq!(render("{{ 'a,b,c'.split(',', 1)[-1] }} {{ ' a  b '.split() | length }}"), "b,c 2");
        assert_eq!(render("{{ 'abc'.startswith('ab') and 'abc'.endswith('bc') }}"), "True");
        assert_eq!(render("{{ 'abc'.replace('b', 'x').upper() }}{{ 'ABC'.lower() }}"), "AXCabc");
        assert_eq!(render("{{ messages[0].get('name', 'nobody') }} {{ messages[0].get('role') }}"), "nobody user");
        assert_eq!(
            render("{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}"),
            "role=user;content= Hi ;"
        );
        assert_eq!(render("{{ messages[0] | tojson }}"), r#"{"role": "user", "content": " Hi "}"#);
        assert_eq!(
            render(
                "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
            ),
            "1"
        );
        assert_eq!(render("  {% if true %}\n  x\n  {% endif %}\n"), "  x\n");
    }

    #[test]
    fn messages_of_any_shape_and_tools_reach_the_template() {
        let text = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
                    {% for m in messages %}{% for call in m.tool_calls %}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}";
        let template = template(text).unwrap();
        assert!(template.reads("tools") && !template.reads("enable_thinking"));
        assert!(mini().reads("enable_thinking") && !mini().reads("tools"));
        let messages = serde_json::json!([
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"z": 1, "a": [1.5, "é"]}}}]},
        ]);
        let tools = [serde_json::json!({"type": "function", "function": {"name": "f"}})];
        let rendered = template.render_with_tools(&messages, Some(&tools), true, None).unwrap();
        assert_eq!(rendered.len(), r#"{"type": "function", "function": {"name": "f"}}{"z": 1, "a": [1.5, "é"]}"#.len());
        assert!(rendered.contains(r#"[1.5, "é"]"#) && rendered.contains(r#"{"name": "f"}"#), "{rendered}");
        let without = template.render_with_tools(&messages, None, true, None).unwrap();
        assert!(without.starts_with(r#"{""#) && !without.contains("function"), "{without}");
    }

    #[test]
    fn a_folder_may_keep_the_template_in_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing = ChatTemplate::from_folder(folder.path()).unwrap_err().to_string();
        assert!(missing.contains("chat_template.jinja"), "{missing}");
        let config = serde_json::json!({
            "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ bos_token }}yes"}],
            "bos_token": {"content": "<s>"},
        });
        files::write_json(&folder.path().join("tokenizer_config.json"), &config).unwrap();
        let render = || ChatTemplate::from_folder(folder.path()).unwrap().render(&[], true, None).unwrap();
        assert_eq!(render(), "<s>yes");
        files::write(&folder.path().join("chat_template.jinja"), b"own{{ bos_token }}").unwrap();
        assert_eq!(render(), "own<s>");
    }
}
