//! A request for a response, checked.

use serde_json::Value;

use crate::api::ApiError;
use crate::api::answer::{self, Order};
use crate::api::extract::{Ignored, Json};
use crate::api::metrics::Asked;
use crate::api::plan::unused::{present, word};
use crate::api::plan::{self, EffortFields, RESPONSES, SamplingFields, UnusedFields, sampling};
use crate::api::state::{Options, Sources};
use crate::api::types::responses::object::TextInForce;
use crate::api::types::responses::{ReasoningInForce, ResponseSettings, ResponseTool, TextFormat};
use crate::api::types::{CreateResponse, FunctionDefinition, JsonSchemaFormat, ResponseFormat, ToolDefinition};
use crate::engine::{Constraint, Conversation, Generation, Prompt, Shared, Thinking};
use crate::routing::{Route, Wish};

/// The one of [`INCLUDABLE`] that adds something.
const LOGPROBS: &str = "message.output_text.logprobs";

/// What a response may include.
const INCLUDABLE: [&str; 8] = [
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    LOGPROBS,
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// What a checked request asks for.
#[derive(Debug)]
pub(super) struct ResponsePlan {
    wish: Wish,
    asked: Asked,
    /// The answer, with tier and thinking still open.
    template: Generation,
    pub stream: bool,
    show_thinking: bool,
    settings: ResponseSettings,
    pub ignored: Ignored,
}

/// How a response looks.
#[derive(Debug)]
pub(super) struct Shape {
    pub stream: bool,
    pub show_thinking: bool,
    pub logprobs: bool,
    pub settings: ResponseSettings,
}

impl ResponsePlan {
    /// Who shall answer.
    pub fn order(&self) -> Order<'_> {
        Order { wish: &self.wish, asked: self.asked, seed: self.template.sampling.seed, choices: 1 }
    }

    /// The one generation.
    pub fn generations(&self, route: &Route, context: Option<usize>) -> Vec<Generation> {
        answer::generations(&self.template, 1, route, context)
    }

    pub fn shape(self, route: &Route) -> Shape {
        let mut settings = self.settings;
        settings.reasoning.effort = route.effort.map(|effort| effort.name());
        let Self { stream, show_thinking, template, .. } = self;
        Shape { stream, show_thinking, logprobs: template.logprobs.is_some(), settings }
    }
}

/// Checks `json`; the rules stand at the fields of [`CreateResponse`].
///
/// # Errors
/// 400 with the field.
pub(super) fn plan(json: Json<CreateResponse>, options: &Options, sources: &Sources) -> Result<ResponsePlan, ApiError> {
    let Json { body: request, mut ignored, .. } = json;
    refuse(&request)?;
    ignored.extend(unused(&request)?.into_iter().map(str::to_owned));
    let include = request.include.unwrap_or_default();
    ignored.extend(not_included(&include)?);
    let stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !stream {
        let message = "`stream_options` says nothing without `stream`; set `stream` to true or leave it out";
        return Err(ApiError::invalid("stream_options", message));
    }
    let max_tokens = request.max_output_tokens;
    let max_tokens = max_tokens.map(|tokens| plan::count(tokens, 1, "max_output_tokens")).transpose()?;
    let efforts = EffortFields {
        reasoning_effort: request.reasoning_effort.as_ref(),
        reasoning: request.reasoning.as_ref(),
        thinking: request.thinking.as_ref(),
        max_reasoning_tokens: request.max_reasoning_tokens,
        thinking_token_budget: request.thinking_token_budget,
        thinking_budget: request.thinking_budget,
        enable_thinking: request.enable_thinking,
        template: request.chat_template_kwargs.as_ref(),
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
    let asked = request.reasoning.as_ref();
    let summary = asked.and_then(|reasoning| reasoning.summary.clone().or(reasoning.generate_summary.clone()));
    let tools = request.tools.unwrap_or_default();
    let definitions = tools.iter().cloned().map(definition).collect();
    let choice = request.tool_choice.filter(|choice| !choice.is_null());
    let offered =
        plan::tools(Some(definitions), choice.as_ref(), request.parallel_tool_calls, &RESPONSES, options.schema_limit)?;
    ignored.extend(offered.as_ref().map(|tools| plan::tools::lenient(tools, &RESPONSES)).unwrap_or_default());
    let format = request.text.and_then(|text| text.format).unwrap_or_default();
    let messages = plan::turns(request.instructions.clone(), request.input)?;
    let template = Generation {
        tier: String::new(),
        sampling: fields.check(&options.sampling, || sources.seed())?,
        thinking: Thinking::Free,
        max_tokens,
        stop: sampling::stop(request.stop)?,
        logprobs: logprobs(&include, request.top_logprobs)?,
        constraint: constraint(&format, options.schema_limit)?,
        shared: Shared::default(),
        prompt: Prompt::Chat(Conversation { messages, tools: offered }),
    };
    let settings = ResponseSettings {
        instructions: request.instructions,
        max_output_tokens: max_tokens,
        max_tool_calls: request.max_tool_calls,
        temperature: template.sampling.temperature,
        top_p: template.sampling.top_p,
        top_logprobs: template.logprobs.map_or(0, |logprobs| logprobs.top),
        reasoning: ReasoningInForce { summary, ..ReasoningInForce::default() },
        text: TextInForce { format },
        tools,
        tool_choice: choice.unwrap_or_else(|| Value::from("auto")),
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
        metadata: request.metadata.unwrap_or_default(),
        previous_response_id: None,
        store: false,
        background: false,
        truncation: "disabled",
        service_tier: "default",
    };
    Ok(ResponsePlan { asked: plan::asked(&wish), wish, template, stream, show_thinking, settings, ignored })
}

/// What a server without a store cannot do, with what to do instead.
fn refuse(request: &CreateResponse) -> Result<(), ApiError> {
    let instead = "nothing is stored here; send the earlier items in `input`";
    let refused = [
        ("previous_response_id", request.previous_response_id.is_some(), instead),
        ("conversation", present(request.conversation.as_ref()), instead),
        ("prompt", present(request.prompt.as_ref()), "no prompts are stored here; send `instructions` and `input`"),
        ("background", request.background == Some(true), "a response is not kept to be fetched later; use `stream`"),
        (
            "context_management",
            present(request.context_management.as_ref()),
            "conversations are not compacted here; send a shorter `input`",
        ),
    ];
    match refused.into_iter().find(|(_, set, _)| *set) {
        None => Ok(()),
        Some((name, _, why)) => Err(ApiError::invalid(name, format!("`{name}` is not possible: {why}"))),
    }
}

/// Known fields that would change something elsewhere and change nothing here.
fn unused(request: &CreateResponse) -> Result<Vec<&'static str>, ApiError> {
    let fields = UnusedFields {
        service_tier: request.service_tier.as_deref(),
        metadata: request.metadata.as_ref(),
        safety_identifier: request.safety_identifier.as_deref(),
        verbosity: request.text.as_ref().and_then(|text| text.verbosity.as_deref()),
        store: request.store,
        moderation: request.moderation.as_ref(),
        prompt_cache_options: request.prompt_cache_options.as_ref(),
        prompt_cache_retention: request.prompt_cache_retention.as_ref(),
        reasoning: request.reasoning.as_ref(),
    };
    let mut names = fields.check(&RESPONSES)?;
    word("truncation", request.truncation.as_deref(), &["disabled", "auto"])?;
    names.extend((request.truncation.as_deref() == Some("auto")).then_some("truncation"));
    Ok(names)
}

/// What is asked to be included and does not exist here.
fn not_included(include: &[String]) -> Result<Vec<String>, ApiError> {
    let check = |(index, name): (usize, &String)| word(&format!("include[{index}]"), Some(name), &INCLUDABLE);
    include.iter().enumerate().try_for_each(check)?;
    Ok(include.iter().filter(|name| *name != LOGPROBS).map(|name| format!("include.{name}")).collect())
}

/// `top_logprobs: 0` asks for nothing, so that a response's own value can be sent back.
fn logprobs(include: &[String], top: Option<i64>) -> Result<Option<crate::engine::Logprobs>, ApiError> {
    let wanted = include.iter().any(|name| name == LOGPROBS);
    if !wanted && top.is_some_and(|top| top > 0) {
        let message = format!("`top_logprobs` says nothing without `{LOGPROBS}`; add that to `include`");
        return Err(ApiError::invalid("top_logprobs", message));
    }
    sampling::logprobs(Some(wanted), top.filter(|&top| wanted || top != 0))
}

fn definition(tool: ResponseTool) -> ToolDefinition {
    let ResponseTool { kind, name, description, parameters, strict } = tool;
    ToolDefinition { kind, function: Some(FunctionDefinition { name, description, parameters, strict }) }
}

/// `text.format`, in which a schema is never left out.
fn constraint(format: &TextFormat, limit: usize) -> Result<Constraint, ApiError> {
    let TextFormat { kind, name, description, schema, strict } = format.clone();
    let named = kind == "json_schema" || name.is_some() || schema.is_some();
    if kind == "json_schema" && schema.is_none() {
        let message = "`text.format` has type `json_schema` and no schema; add `schema`, or write type `json_object`";
        return Err(ApiError::invalid("text.format.schema", message));
    }
    let named = named.then(|| JsonSchemaFormat { name: name.unwrap_or_default(), description, schema, strict });
    plan::constraint(Some(ResponseFormat { kind, json_schema: named }), &RESPONSES, limit)
}
