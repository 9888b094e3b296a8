//! A chat request, checked: who shall answer, what is generated, and how it is shown.

use crate::api::ApiError;
use crate::api::answer::{self, Order};
use crate::api::extract::{Ignored, Json};
use crate::api::metrics::Asked;
use crate::api::plan::{self, EffortFields, SamplingFields, sampling};
use crate::api::state::{Options, ReasoningNames, Sources};
use crate::api::types::ChatRequest;
use crate::engine::{Generation, Prompt, Thinking};
use crate::routing::{Route, Wish};

/// What a checked request asks for.
#[derive(Debug)]
pub struct ChatPlan {
    /// Who shall answer.
    pub wish: Wish,
    /// The effort's label in the metrics.
    pub asked: Asked,
    /// The first choice, with tier and thinking still open.
    template: Generation,
    /// How many choices.
    n: usize,
    /// Whether the response is streamed.
    pub stream: bool,
    include_usage: bool,
    show_thinking: bool,
    /// Fields that change nothing.
    pub ignored: Ignored,
}

/// How a response looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub names: ReasoningNames,
    pub show_thinking: bool,
    pub logprobs: bool,
    pub include_usage: bool,
    pub n: usize,
}

impl ChatPlan {
    /// Who shall answer, with how many choices.
    pub fn order(&self) -> Order<'_> {
        Order { wish: &self.wish, asked: self.asked, seed: self.template.sampling.seed, choices: self.n }
    }

    /// One generation a choice, each with a seed of its own.
    pub fn generations(&self, route: &Route, context: Option<usize>) -> Vec<Generation> {
        answer::generations(&self.template, self.n, route, context)
    }

    pub(super) fn shape(&self, names: ReasoningNames) -> Shape {
        Shape {
            names,
            show_thinking: self.show_thinking,
            logprobs: self.template.logprobs.is_some(),
            include_usage: self.include_usage,
            n: self.n,
        }
    }
}

/// Checks `json`; the rules are those of the OpenAI API and stand at the fields of [`ChatRequest`].
///
/// # Errors
/// 400 with the field.
pub(super) fn plan(json: Json<ChatRequest>, options: &Options, sources: &Sources) -> Result<ChatPlan, ApiError> {
    let Json { body: mut request, mut ignored, .. } = json;
    refuse(&request)?;
    check_unused(&request)?;
    ignored.extend(without_effect(&request).map(str::to_owned));
    let stream = request.stream.unwrap_or(false);
    let stream_options = request.stream_options.take();
    if stream_options.is_some() && !stream {
        let message = "`stream_options` says nothing without `stream`; set `stream` to true or leave it out";
        return Err(ApiError::invalid("stream_options", message));
    }
    let max_tokens = sampling::max_tokens(request.max_completion_tokens, request.max_tokens)?;
    let efforts = EffortFields {
        reasoning_effort: request.reasoning_effort.as_ref(),
        reasoning: request.reasoning.as_ref(),
        thinking: request.thinking.as_ref(),
        max_reasoning_tokens: request.max_reasoning_tokens,
        thinking_token_budget: request.thinking_token_budget,
        latency_budget_ms: request.latency_budget_ms,
        include_reasoning: request.include_reasoning,
    };
    let wish = efforts.wish(&request.model, max_tokens)?;
    let show_thinking = efforts.shown()?;
    let fields = SamplingFields {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        seed: request.seed,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: request.logit_bias.as_ref(),
        ignore_eos: request.ignore_eos,
    };
    let n = sampling::choices(request.n, options.max_choices)?;
    let tools =
        plan::tools(request.tools, request.tool_choice.as_ref(), request.parallel_tool_calls, options.schema_limit)?;
    ignored.extend(tools.as_ref().map(plan::tools::lenient).unwrap_or_default());
    let template = Generation {
        tier: String::new(),
        sampling: fields.check(&options.sampling, || sources.seed())?,
        thinking: Thinking::Free,
        max_tokens,
        stop: sampling::stop(request.stop)?,
        logprobs: sampling::logprobs(request.logprobs, request.top_logprobs)?,
        constraint: plan::constraint(request.response_format, options.schema_limit)?,
        prompt: Prompt::Chat(plan::conversation(request.messages, tools)?),
    };
    Ok(ChatPlan {
        asked: plan::asked(&wish),
        wish,
        template,
        n,
        stream,
        include_usage: stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        show_thinking,
        ignored,
    })
}

/// What this server cannot do, with what to do instead.
fn refuse(request: &ChatRequest) -> Result<(), ApiError> {
    let refused = [
        ("functions", &request.functions, "is a legacy field; send `tools`"),
        ("function_call", &request.function_call, "is a legacy field; send `tool_choice`"),
        ("audio", &request.audio, "is not possible: no tier speaks; leave it out"),
        ("web_search_options", &request.web_search_options, "is not possible: no tier searches; leave it out"),
    ];
    for (name, value, why) in refused {
        if value.as_ref().is_some_and(|value| !value.is_null()) {
            return Err(ApiError::invalid(name, format!("`{name}` {why}")));
        }
    }
    if let Some(other) = request.modalities.iter().flatten().find(|modality| *modality != "text") {
        return Err(ApiError::invalid("modalities", format!("`modalities` has `{}`; answers are text", short(other))));
    }
    match request.service_tier.as_deref() {
        None | Some("auto" | "default") => Ok(()),
        Some(other) => {
            let message = format!("`service_tier` is `{}`; there is only `auto` and `default`", short(other));
            Err(ApiError::invalid("service_tier", message))
        }
    }
}

/// Rules of fields that change nothing here: a client's mistake shall not wait for another server to be found.
fn check_unused(request: &ChatRequest) -> Result<(), ApiError> {
    if let Some(metadata) = &request.metadata {
        plan::metadata(metadata)?;
    }
    if request.safety_identifier.as_ref().is_some_and(|id| id.chars().count() > 64) {
        return Err(ApiError::invalid("safety_identifier", "`safety_identifier` has more than 64 characters"));
    }
    match request.verbosity.as_deref() {
        None | Some("low" | "medium" | "high") => Ok(()),
        Some(other) => {
            let message = format!("`verbosity` is `{}`; it is `low`, `medium` or `high`", short(other));
            Err(ApiError::invalid("verbosity", message))
        }
    }
}

/// Known fields that would change something elsewhere and change nothing here.
fn without_effect(request: &ChatRequest) -> impl Iterator<Item = &'static str> {
    let present = |value: &Option<serde_json::Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let fields = [
        ("store", request.store == Some(true)),
        ("verbosity", request.verbosity.is_some()),
        ("prediction", present(&request.prediction)),
        ("moderation", present(&request.moderation)),
        ("prompt_cache_options", present(&request.prompt_cache_options)),
        ("prompt_cache_retention", present(&request.prompt_cache_retention)),
    ];
    fields.into_iter().filter_map(|(name, set)| set.then_some(name))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
