//! Tiers that another server computes: where it is, how it likes to be asked, and its key.

use std::fmt;

use brevity_training::{Error, Result};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A tier behind an OpenAI-compatible server, `[tier.upstream]` in the manifest. Keys are never written here, only the
/// name of the environment variable that holds one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Base URL as OpenAI's clients take it, most often ending in `/v1`.
    pub url: String,
    /// `model` of the requests: the checkpoint or adapter as that server calls it.
    pub model: String,
    /// Environment variable with the key for `Authorization: Bearer`; no key is sent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Which fields beyond OpenAI's the server takes.
    #[serde(default, skip_serializing_if = "Dialect::is_vllm")]
    pub dialect: Dialect,
    /// The request field in which the server takes a thinking budget in tokens, for servers started with one:
    /// `thinking_token_budget` with vLLM's `--reasoning-config`, `max_thinking_tokens` with SGLang's
    /// `--enable-strict-thinking`. Without it requests with a budget are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_field: Option<String>,
    /// Whether the chat template opens the thoughts and the server does not separate them, so that answers begin inside
    /// the thoughts without `<think>`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opens_thinking: bool,
    /// Tokens that prompt and completion may have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<usize>,
    /// Fields that every request to this server gets besides its own; its own win.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra_body: Map<String, Value>,
}

/// What a server understands beyond OpenAI's own fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// vLLM and SGLang: `top_k`, `min_p`, `repetition_penalty`, `ignore_eos`, `chat_template_kwargs`, and usage while
    /// streaming.
    #[default]
    Vllm,
    /// Nothing: OpenAI itself, and servers that refuse unknown fields.
    Openai,
}

impl Dialect {
    fn is_vllm(&self) -> bool {
        *self == Self::Vllm
    }
}

/// A tier behind another server, with all that is needed to ask it. Whether the server answers is not known before.
#[derive(Debug, Clone)]
pub struct RemoteTier {
    /// The tier's name.
    pub name: String,
    /// `[tier.upstream]` of the manifest.
    pub settings: Upstream,
    /// Key for `Authorization: Bearer`.
    pub key: Option<SecretString>,
}

impl RemoteTier {
    /// The tier called `name` with the key that `variable` (most often the process environment) gives for
    /// `api_key_env`.
    ///
    /// # Errors
    /// [`Error::Config`] when the manifest names a variable that is not set or empty. The message begins with the tier's
    /// name.
    pub fn new(name: &str, settings: &Upstream, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let key = |env: &String| {
            let key = variable(env).map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
            let missing = || {
                Error::config(format!(
                    "tier `{name}`: the environment variable {env} is not set, put the server's key into it"
                ))
            };
            key.map(SecretString::from).ok_or_else(missing)
        };
        let key = settings.api_key_env.as_ref().map(key).transpose()?;
        Ok(Self { name: name.to_owned(), settings: settings.clone(), key })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {}", self.model, self.url)
    }
}

impl Upstream {
    /// Every fault as `(key, what is wrong and what to write instead)`.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let host = ["http://", "https://"].iter().find_map(|scheme| self.url.strip_prefix(scheme));
        let host = host.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if host.is_empty() {
            faults.push(("url", format!("`{}` is no address, write it as http://127.0.0.1:8000/v1", self.url)));
        } else if host.contains('@') {
            faults.push(("url", "holds a user name or password, put the key into api_key_env's variable".to_owned()));
        }
        if self.model.is_empty() {
            faults.push(("model", "empty, write the name that the server gives the model".to_owned()));
        }
        if let Some(name) = self.api_key_env.as_ref().filter(|name| !is_variable(name)) {
            // The value is not repeated: it may be a key that was written here by mistake.
            let length = name.chars().count();
            let message = format!(
                "these {length} characters are no name of an environment variable; write the name, never the key itself"
            );
            faults.push(("api_key_env", message));
        }
        if self.budget_field.as_ref().is_some_and(String::is_empty) {
            faults.push(("budget_field", "empty, write the field's name or remove the key".to_owned()));
        }
        faults
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn keys_come_from_the_environment_and_are_never_shown() {
        let variable = |name: &str| (name == "KEY").then(|| "sk-secret\n".to_owned());
        let settings = |env: Option<&str>| Upstream { api_key_env: env.map(str::to_owned), ..Upstream::default() };
        let tier = RemoteTier::new("short", &settings(Some("KEY")), variable).unwrap();
        assert_eq!(tier.key.as_ref().unwrap().expose_secret(), "sk-secret");
        assert!(!format!("{tier:?}").contains("sk-secret"));
        let error = RemoteTier::new("short", &settings(Some("OTHER")), variable).unwrap_err().to_string();
        assert_eq!(error, "tier `short`: the environment variable OTHER is not set, put the server's key into it");
        assert!(RemoteTier::new("short", &settings(None), variable).unwrap().key.is_none());
    }
}
