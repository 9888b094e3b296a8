//! A chat request, checked: who shall answer, what is generated, and how it is shown.

use crate::api::ApiError;
use crate::api::answer::{self, Order};
use crate::api::extract::{Ignored, Json};
use crate::api::metrics::Asked;
use crate::api::plan::unused::present;
use crate::api::plan::{self, CHAT, EffortFields, SamplingFields, UnusedFields, sampling};
use crate::api::state::{Options, ReasoningNames, Sources};
use crate::api::types::ChatRequest;
use crate::engine::{Generation, Prompt, Shared, Thinking};
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
    ignored.extend(unused(&request)?.into_iter().map(str::to_owned));
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
        enable_thinking: request.enable_thinking,
        template: request.chat_template_kwargs.as_ref(),
        thinking_budget: request.thinking_budget,
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
    let tools = plan::tools(
        request.tools,
        request.tool_choice.as_ref(),
        request.parallel_tool_calls,
        &CHAT,
        options.schema_limit,
    )?;
    ignored.extend(tools.as_ref().map(|tools| plan::tools::lenient(tools, &CHAT)).unwrap_or_default());
    let template = Generation {
        tier: String::new(),
        sampling: fields.check(&options.sampling, || sources.seed())?,
        thinking: Thinking::Free,
        max_tokens,
        stop: sampling::stop(request.stop)?,
        logprobs: sampling::logprobs(request.logprobs, request.top_logprobs)?,
        constraint: plan::constraint(request.response_format, &CHAT, options.schema_limit)?,
        shared: Shared::default(),
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
        if present(value.as_ref()) {
            return Err(ApiError::invalid(name, format!("`{name}` {why}")));
        }
    }
    if let Some(other) = request.modalities.iter().flatten().find(|modality| *modality != "text") {
        return Err(ApiError::invalid(
            "modalities",
            format!("`modalities` has `{}`; answers are text", other.chars().take(40).collect::<String>()),
        ));
    }
    Ok(())
}

/// Known fields that would change something elsewhere and change nothing here.
fn unused(request: &ChatRequest) -> Result<Vec<&'static str>, ApiError> {
    let fields = UnusedFields {
        service_tier: request.service_tier.as_deref(),
        metadata: request.metadata.as_ref(),
        safety_identifier: request.safety_identifier.as_deref(),
        verbosity: request.verbosity.as_deref(),
        store: request.store,
        moderation: request.moderation.as_ref(),
        prompt_cache_options: request.prompt_cache_options.as_ref(),
        prompt_cache_retention: request.prompt_cache_retention.as_ref(),
        reasoning: request.reasoning.as_ref(),
    };
    let mut names = fields.check(&CHAT)?;
    names.extend(present(request.prediction.as_ref()).then_some("prediction"));
    Ok(names)
}
