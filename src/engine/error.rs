use std::time::Duration;

/// Why a generation did not start or did not end. Each variant says who can do something about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The request cannot be done as it stands; the same request will fail again (HTTP 400).
    #[error("{message}")]
    Invalid {
        /// What is wrong and what to write instead.
        message: String,
        /// The request's field, where one is to blame.
        param: Option<&'static str>,
    },
    /// Prompt and completion do not fit the model (HTTP 400, `context_length_exceeded`).
    #[error(
        "the prompt of {prompt} tokens{} is longer than the model's context length allows: tier `{tier}` has room for {limit} \
         with its answer; shorten the prompt",
        if *or_more { " or more" } else { "" }
    )]
    TooLong {
        /// The tier.
        tier: String,
        /// Tokens of the prompt.
        prompt: usize,
        /// Whether it was not counted to its end.
        or_more: bool,
        /// Tokens that fit.
        limit: usize,
    },
    /// The same, as a server behind this one says it, without numbers that could be read.
    #[error("{message}")]
    TooLongElsewhere {
        /// What it says.
        message: String,
    },
    /// This engine has no such tier (HTTP 404).
    #[error("tier `{0}` is not loaded")]
    UnknownTier(String),
    /// The server behind this one does not have the tier's model (HTTP 404).
    #[error("{message}")]
    UnknownModel {
        /// The tier.
        tier: String,
        /// Which server, which model, and what to do.
        message: String,
    },
    /// This engine cannot do what is asked, another may (HTTP 400).
    #[error("the {engine} engine has no {what}")]
    Unsupported {
        /// The engine's kind.
        engine: &'static str,
        /// The missing ability.
        what: &'static str,
    },
    /// The engine has more to do than it takes; later it may answer (HTTP 429 with `Retry-After`).
    #[error("{message}")]
    Busy {
        /// Why.
        message: String,
        /// When to try again, if the engine knows.
        retry_after: Option<Duration>,
    },
    /// The engine is starting, restarting or not there; later it may answer (HTTP 503 with `Retry-After`).
    #[error("{message}")]
    Unavailable {
        /// Why.
        message: String,
        /// When to try again, if the engine knows.
        retry_after: Option<Duration>,
    },
    /// The engine failed on this request (HTTP 500; 502 where an upstream server did).
    #[error("{message}")]
    Failed {
        /// What happened, for the log and the client; holds no prompt text.
        message: String,
        /// Whether a server behind this one failed.
        upstream: bool,
    },
}

impl EngineError {
    /// An [`EngineError::Invalid`] that blames `param`.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param) }
    }

    /// An [`EngineError::Failed`] of this process.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), upstream: false }
    }
}
