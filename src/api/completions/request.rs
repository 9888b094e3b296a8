//! A completion request, checked.

use serde_json::Value;

use crate::api::ApiError;
use crate::api::answer::{self, Order};
use crate::api::extract::{Ignored, Json};
use crate::api::metrics::Asked;
use crate::api::plan::{self, EffortFields, SamplingFields, sampling};
use crate::api::state::{Options, Sources};
use crate::api::types::CompletionRequest;
use crate::engine::{Constraint, Generation, Logprobs, Prompt, Shared, Thinking};
use crate::routing::{Route, Wish};

/// Tokens generated where the request does not say how many: OpenAI's number.
const MAX_TOKENS: i64 = 16;

/// What a checked request asks for.
#[derive(Debug)]
pub(super) struct CompletionPlan {
    pub wish: Wish,
    pub asked: Asked,
    /// The first choice, with tier and prompt still open.
    template: Generation,
    pub prompts: Vec<String>,
    /// Choices for each prompt.
    pub n: usize,
    pub stream: bool,
    pub include_usage: bool,
    pub echo: bool,
    pub ignored: Ignored,
}

impl CompletionPlan {
    /// Who shall answer, with how many choices.
    pub fn order(&self) -> Order<'_> {
        let choices = self.n * self.prompts.len();
        Order { wish: &self.wish, asked: self.asked, seed: self.template.sampling.seed, choices }
    }

    pub fn logprobs(&self) -> bool {
        self.template.logprobs.is_some()
    }

    /// All choices of the first prompt, then those of the second.
    pub fn generations(&self, route: &Route, context: Option<usize>) -> Vec<Generation> {
        let mut all = answer::generations(&self.template, self.n * self.prompts.len(), route, context);
        let shared: Vec<Shared> = self.prompts.iter().map(|_| Shared::default()).collect();
        for (index, generation) in all.iter_mut().enumerate() {
            let prompt = index / self.n;
            generation.prompt = Prompt::Text(self.prompts[prompt].clone());
            generation.shared = shared[prompt].clone();
            // The effort picks the tier; what the text opens is continued as long as the model likes.
            generation.thinking = Thinking::Free;
        }
        all
    }
}

/// Checks `json`.
///
/// # Errors
/// 400 with the field.
pub(super) fn plan(
    json: Json<CompletionRequest>,
    options: &Options,
    sources: &Sources,
) -> Result<CompletionPlan, ApiError> {
    let Json { body: request, ignored, .. } = json;
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid("suffix", "`suffix` is not possible: no tier fills gaps; leave it out"));
    }
    let stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && !stream {
        let message = "`stream_options` says nothing without `stream`; set `stream` to true or leave it out";
        return Err(ApiError::invalid("stream_options", message));
    }
    let max_tokens = sampling::max_tokens(None, Some(request.max_tokens.unwrap_or(MAX_TOKENS)))?;
    let efforts = EffortFields { reasoning_effort: request.reasoning_effort.as_ref(), ..EffortFields::default() };
    let wish = efforts.wish(&request.model, max_tokens)?;
    let prompts = prompts(request.prompt)?;
    let n = sampling::choices(request.n, options.max_choices)?;
    let total = n.saturating_mul(prompts.len());
    if total > options.max_choices {
        let message = format!(
            "{} prompts with `n` {n} are {total} choices; a request has at most {}",
            prompts.len(),
            options.max_choices
        );
        return Err(ApiError::invalid("prompt", message));
    }
    if let Some(best_of) = request.best_of.filter(|&best_of| best_of != 1 && best_of != n as i64) {
        let message = format!("`best_of` is {best_of}; it is 1 or equal to `n`, because no choices are thrown away");
        return Err(ApiError::invalid("best_of", message));
    }
    let echo = request.echo.unwrap_or(false);
    let logprobs = match request.logprobs {
        None => None,
        Some(_) if echo => {
            let message = "`echo` with `logprobs` is not possible: prompts are not scored; leave one of them out";
            return Err(ApiError::invalid("echo", message));
        }
        Some(top @ 0..=5) => Some(Logprobs { top: usize::try_from(top).unwrap_or(0) }),
        Some(top) => return Err(ApiError::invalid("logprobs", format!("`logprobs` is {top}; it is from 0 to 5"))),
    };
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
    let template = Generation {
        tier: String::new(),
        prompt: Prompt::Text(String::new()),
        sampling: fields.check(&options.sampling, || sources.seed())?,
        thinking: Thinking::Free,
        max_tokens,
        stop: sampling::stop(request.stop)?,
        logprobs,
        constraint: Constraint::Free,
        shared: Shared::default(),
    };
    let include_usage = request.stream_options.and_then(|options| options.include_usage).unwrap_or(false);
    let asked = plan::asked(&wish);
    Ok(CompletionPlan { wish, asked, template, prompts, n, stream, include_usage, echo, ignored })
}

fn prompts(prompt: Value) -> Result<Vec<String>, ApiError> {
    let fault = |message: &str| ApiError::invalid("prompt", message);
    match prompt {
        Value::String(text) => Ok(vec![text]),
        Value::Array(list) if list.is_empty() => Err(fault("`prompt` is an empty list; send a text")),
        Value::Array(list) => list
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                Value::Number(_) | Value::Array(_) => {
                    Err(fault("`prompt` has token ids; tokenizers differ between tiers, send the text"))
                }
                _ => Err(fault("`prompt` is a text or a list of texts")),
            })
            .collect(),
        _ => Err(fault("`prompt` is a text or a list of texts")),
    }
}
