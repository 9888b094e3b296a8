//! Where chat and the Responses API say the same thing in different words.
//!
//! The rules in this folder are written once; a [`Dialect`] tells them how an endpoint spells what it sends, so that errors
//! blame the field that the client wrote.

use crate::api::ApiError;

/// The words of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// Kinds of content parts that are texts.
    pub texts: &'static [&'static str],
    /// What stands between a tool, or a choice of one, and the fields of its function.
    pub function: &'static str,
    /// What stands between a choice of type `allowed_tools` and its mode and tools.
    pub allowed: &'static str,
    /// The field that says what the answer must look like.
    pub format: &'static str,
    /// The object that names a schema.
    pub schema: &'static str,
    /// The field that says how long answers shall be.
    pub verbosity: &'static str,
    /// Whether thoughts can come in the place of a summary.
    pub summaries: bool,
    /// Fields of chat that have another name here.
    pub renamed: &'static [(&'static str, &'static str)],
}

/// Chat completions, whose names routing and engines use too.
pub const CHAT: Dialect = Dialect {
    texts: &["text"],
    function: ".function",
    allowed: ".allowed_tools",
    format: "response_format",
    schema: "response_format.json_schema",
    verbosity: "verbosity",
    summaries: false,
    renamed: &[],
};

/// The Responses API.
pub const RESPONSES: Dialect = Dialect {
    texts: &["input_text", "output_text"],
    function: "",
    allowed: "",
    format: "text.format",
    schema: "text.format",
    verbosity: "text.verbosity",
    summaries: true,
    renamed: &[
        ("messages", "input"),
        ("reasoning_effort", "reasoning.effort"),
        ("max_completion_tokens", "max_output_tokens"),
        ("max_tokens", "max_output_tokens"),
        ("response_format", "text.format"),
        ("logprobs", "include"),
    ],
};

impl Dialect {
    /// `error` in the words of this endpoint, where whoever made it spoke those of chat.
    #[must_use]
    pub fn blame(&self, error: ApiError) -> ApiError {
        self.renamed.iter().fold(error, |error, (chat, own)| error.renamed(chat, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_in_the_words_of_the_endpoint() {
        let error = ApiError::invalid("response_format", "the schema in `response_format` is too large");
        let own = RESPONSES.blame(error.clone());
        assert_eq!(
            (own.param.as_deref(), &*own.message),
            (Some("text.format"), "the schema in `text.format` is too large")
        );
        assert_eq!(CHAT.blame(error).param.as_deref(), Some("response_format"));
        let same = RESPONSES.blame(ApiError::invalid("temperature", "`temperature` is 3"));
        assert_eq!((same.param.as_deref(), &*same.message), (Some("temperature"), "`temperature` is 3"));
    }
}
