//! How much shall be thought, under all the names that clients use for it.

use std::time::Duration;

use serde_json::Value;

use crate::api::ApiError;
use crate::api::metrics::Asked;
use crate::api::types::{ReasoningField, TemplateField, ThinkingField};
use crate::family::Effort;
use crate::routing::{EffortWish, Wish};

/// The fields of a request that say how much shall be thought, as sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct EffortFields<'a> {
    /// `reasoning_effort`
    pub reasoning_effort: Option<&'a Value>,
    /// `reasoning`
    pub reasoning: Option<&'a ReasoningField>,
    /// `thinking`
    pub thinking: Option<&'a ThinkingField>,
    /// `enable_thinking`
    pub enable_thinking: Option<bool>,
    /// `chat_template_kwargs`
    pub template: Option<&'a TemplateField>,
    /// `thinking_budget`
    pub thinking_budget: Option<i64>,
    /// `max_reasoning_tokens`
    pub max_reasoning_tokens: Option<i64>,
    /// `thinking_token_budget`
    pub thinking_token_budget: Option<i64>,
    /// `latency_budget_ms`
    pub latency_budget_ms: Option<i64>,
    /// `include_reasoning`
    pub include_reasoning: Option<bool>,
}

impl EffortFields<'_> {
    /// The wish for `model`, with `max_completion_tokens` as checked.
    ///
    /// # Errors
    /// 400 with the field; also when two names of the same thing differ.
    pub fn wish(&self, model: &str, max_completion_tokens: Option<usize>) -> Result<Wish, ApiError> {
        let latency_budget = match self.latency_budget_ms {
            None => None,
            Some(budget) => Some(Duration::from_millis(super::count(budget, 1, "latency_budget_ms")? as u64)),
        };
        let (effort, asks_for_thoughts) = self.effort()?;
        Ok(Wish {
            model: model.to_owned(),
            effort,
            asks_for_thoughts,
            latency_budget,
            max_reasoning_tokens: self.budget()?,
            max_completion_tokens,
        })
    }

    /// Whether the thoughts are part of the response.
    ///
    /// # Errors
    /// 400 when `include_reasoning` and `reasoning.exclude` contradict each other.
    pub fn shown(&self) -> Result<bool, ApiError> {
        let excluded = self.reasoning.and_then(|reasoning| reasoning.exclude);
        let shown =
            agree([("include_reasoning", self.include_reasoning), ("reasoning.exclude", excluded.map(|e| !e))])?;
        Ok(shown.unwrap_or(true))
    }

    /// The effort, and the field that asks for thoughts where one does.
    fn effort(&self) -> Result<(Option<EffortWish>, Option<&'static str>), ApiError> {
        let read = |field: &'static str, value: Option<&Value>| {
            let value = value.filter(|value| !value.is_null());
            Ok::<_, ApiError>((field, value.map(|value| effort(value, field)).transpose()?))
        };
        let named = [
            read("reasoning_effort", self.reasoning_effort)?,
            read("reasoning.effort", self.reasoning.and_then(|reasoning| reasoning.effort.as_ref()))?,
            read(
                "chat_template_kwargs.reasoning_effort",
                self.template.and_then(|template| template.reasoning_effort.as_ref()),
            )?,
        ];
        let off = EffortWish::Named(Effort::None);
        let switches = self.switches()?;
        let closed = switches.map(|(field, on)| (field, (on == Some(false)).then_some(off)));
        let effort = agree(named.into_iter().chain(closed))?;
        let asks_for_thoughts = switches.into_iter().find_map(|(field, on)| (on == Some(true)).then_some(field));
        match asks_for_thoughts {
            Some(field) if effort == Some(off) => {
                let message = format!("`{field}` asks for thoughts and another field for effort `none`; send one");
                Err(ApiError::invalid(field, message))
            }
            _ => Ok((effort, asks_for_thoughts)),
        }
    }

    /// The fields that switch thoughts on or off.
    fn switches(&self) -> Result<[(&'static str, Option<bool>); 5], ApiError> {
        let thinking = match self.thinking.and_then(|thinking| thinking.kind.as_deref()) {
            None | Some("adaptive") => None,
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let message = format!("`thinking.type` is `{other}`; it is `enabled`, `adaptive` or `disabled`");
                return Err(ApiError::invalid("thinking.type", message));
            }
        };
        Ok([
            ("reasoning.enabled", self.reasoning.and_then(|reasoning| reasoning.enabled)),
            ("thinking.type", thinking),
            ("enable_thinking", self.enable_thinking),
            ("chat_template_kwargs.enable_thinking", self.template.and_then(|template| template.enable_thinking)),
            ("chat_template_kwargs.thinking", self.template.and_then(|template| template.thinking)),
        ])
    }

    fn budget(&self) -> Result<Option<usize>, ApiError> {
        let given = |param: &'static str, value: Option<i64>| {
            Ok::<_, ApiError>((param, value.map(|value| super::count(value, 0, param)).transpose()?))
        };
        agree([
            given("max_reasoning_tokens", self.max_reasoning_tokens)?,
            given("thinking_token_budget", self.thinking_token_budget)?,
            given("thinking_budget", self.thinking_budget)?,
            given("chat_template_kwargs.thinking_budget", self.template.and_then(|template| template.thinking_budget))?,
            given("reasoning.max_tokens", self.reasoning.and_then(|reasoning| reasoning.max_tokens))?,
            given("thinking.budget_tokens", self.thinking.and_then(|thinking| thinking.budget_tokens))?,
        ])
    }
}

/// The one value that several names of the same thing carry.
fn agree<T: PartialEq + Copy>(
    fields: impl IntoIterator<Item = (&'static str, Option<T>)>,
) -> Result<Option<T>, ApiError> {
    let mut given = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let Some((first, value)) = given.next() else {
        return Ok(None);
    };
    match given.find(|(_, other)| *other != value) {
        None => Ok(Some(value)),
        Some((other, _)) => Err(ApiError::invalid(
            other,
            format!("`{other}` and `{first}` mean the same and say different things; send one"),
        )),
    }
}

/// An effort by its name, in upper or lower case.
///
/// # Errors
/// 400 with `param` and the list of values.
pub fn effort(value: &Value, param: &str) -> Result<EffortWish, ApiError> {
    // What is no text is answered like an unknown word: with the list of those that are known.
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.parse() {
        Ok(wish) if value.is_string() => Ok(wish),
        Ok(_) => Err(ApiError::invalid(param, format!("`{param}` is a string"))),
        Err(unknown) => Err(ApiError::invalid(param, unknown.to_string())),
    }
}

/// The label of `wish` in the metrics.
pub fn asked(wish: &Wish) -> Asked {
    match wish.effort {
        Some(EffortWish::Named(effort)) => Asked::Named(effort),
        Some(EffortWish::Auto) => Asked::Auto,
        None => Asked::Default,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_efforts_are_read_in_any_case() {
        for name in Effort::ALL {
            let wish = effort(&json!(name.name().to_uppercase()), "reasoning_effort").unwrap();
            assert_eq!(wish, EffortWish::Named(name));
        }
        assert_eq!(effort(&json!("Auto"), "x").unwrap(), EffortWish::Auto);
    }

    #[test]
    fn other_efforts_are_answered_with_the_list() {
        for value in [json!("turbo"), json!(3), json!(true), json!(""), json!({}), json!("x".repeat(1000))] {
            let error = effort(&value, "reasoning_effort").unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("reasoning_effort")));
            assert!(error.message.contains("`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, `auto`"));
            assert!(error.message.len() < 300);
        }
    }

    #[test]
    fn aliases_agree_or_are_refused() {
        let reasoning = ReasoningField { max_tokens: Some(5), effort: Some(json!("low")), ..Default::default() };
        let thinking = ThinkingField { budget_tokens: Some(5), kind: None };
        let high = json!("high");
        let fields = EffortFields { reasoning: Some(&reasoning), thinking: Some(&thinking), ..Default::default() };
        let wish = fields.wish("m", Some(9)).unwrap();
        assert_eq!((wish.max_reasoning_tokens, wish.max_completion_tokens), (Some(5), Some(9)));
        assert_eq!(wish.effort, Some(EffortWish::Named(Effort::Low)));
        let error = EffortFields { max_reasoning_tokens: Some(6), ..fields }.wish("m", None).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("reasoning.max_tokens"));
        let error = EffortFields { reasoning_effort: Some(&high), ..fields }.wish("m", None).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("reasoning.effort"));
        let error = EffortFields { thinking_token_budget: Some(-1), ..Default::default() }.wish("m", None).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("thinking_token_budget"));
        let error = EffortFields { latency_budget_ms: Some(0), ..Default::default() }.wish("m", None).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("latency_budget_ms"));
    }

    #[test]
    fn chat_templates_are_told_efforts_and_budgets_too() {
        let template = TemplateField {
            reasoning_effort: Some(json!("low")),
            thinking_budget: Some(7),
            enable_thinking: Some(true),
            thinking: None,
        };
        let fields = EffortFields { template: Some(&template), ..Default::default() };
        let wish = fields.wish("m", None).unwrap();
        assert_eq!((wish.effort, wish.max_reasoning_tokens), (Some(EffortWish::Named(Effort::Low)), Some(7)));
        let error = EffortFields { thinking_budget: Some(8), ..fields }.wish("m", None).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("chat_template_kwargs.thinking_budget"));
    }

    #[test]
    fn thinking_may_be_switched_off_and_hidden() {
        let disabled = ThinkingField { kind: Some("disabled".into()), budget_tokens: None };
        let fields = EffortFields { thinking: Some(&disabled), ..Default::default() };
        assert_eq!(fields.wish("m", None).unwrap().effort, Some(EffortWish::Named(Effort::None)));
        assert!(fields.shown().unwrap());
        // The opposite of either says nothing about how much, but is no way to say `none`.
        let enabled = ThinkingField { kind: Some("enabled".into()), budget_tokens: None };
        let on = ReasoningField { enabled: Some(true), ..Default::default() };
        let off = ReasoningField { enabled: Some(false), ..Default::default() };
        let (none, low) = (json!("none"), json!("low"));
        for (fields, param) in [
            (
                EffortFields { thinking: Some(&enabled), reasoning_effort: Some(&none), ..Default::default() },
                "thinking.type",
            ),
            (
                EffortFields { reasoning: Some(&on), reasoning_effort: Some(&none), ..Default::default() },
                "reasoning.enabled",
            ),
            (
                EffortFields { reasoning: Some(&on), thinking: Some(&disabled), ..Default::default() },
                "reasoning.enabled",
            ),
            (EffortFields { reasoning: Some(&off), thinking: Some(&enabled), ..Default::default() }, "thinking.type"),
        ] {
            assert_eq!(fields.wish("m", None).unwrap_err().param.as_deref(), Some(param));
        }
        for template in [
            TemplateField { enable_thinking: Some(false), ..Default::default() },
            TemplateField { thinking: Some(false), ..Default::default() },
        ] {
            let fields = EffortFields { template: Some(&template), ..Default::default() };
            assert_eq!(fields.wish("m", None).unwrap().effort, Some(EffortWish::Named(Effort::None)));
            let error = EffortFields { reasoning_effort: Some(&low), ..fields }.wish("m", None).unwrap_err();
            assert!(error.param.is_some_and(|param| param.starts_with("chat_template_kwargs.")));
            let error = EffortFields { enable_thinking: Some(true), ..fields }.wish("m", None).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("enable_thinking"));
        }
        let fields = EffortFields { enable_thinking: Some(true), reasoning_effort: Some(&low), ..Default::default() };
        let wish = fields.wish("m", None).unwrap();
        assert_eq!(wish.effort, Some(EffortWish::Named(Effort::Low)));
        assert_eq!(wish.asks_for_thoughts, Some("enable_thinking"));
        let fields = EffortFields { thinking: Some(&enabled), reasoning: Some(&on), ..Default::default() };
        assert_eq!(fields.wish("m", None).unwrap().effort, None);
        let fields = EffortFields { reasoning_effort: Some(&low), ..fields };
        assert_eq!(fields.wish("m", None).unwrap().effort, Some(EffortWish::Named(Effort::Low)));
        let exclude = ReasoningField { exclude: Some(true), ..Default::default() };
        let fields = EffortFields { reasoning: Some(&exclude), ..Default::default() };
        assert!(!fields.shown().unwrap());
        assert!(EffortFields { include_reasoning: Some(true), ..fields }.shown().is_err());
        let odd = ThinkingField { kind: Some("maybe".into()), budget_tokens: None };
        assert!(EffortFields { thinking: Some(&odd), ..Default::default() }.wish("m", None).is_err());
    }
}
