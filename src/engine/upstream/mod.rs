//! Tiers that any OpenAI-compatible server computes: vLLM, SGLang, llama.cpp, OpenAI.
//!
//! A generation becomes one streamed request (`body`), the response's chunks become events (`reader`), refusals become
//! errors that say whose fault they are (`refusal`). Dropping the events closes the connection, which is how those
//! servers learn that nobody listens any more. Nothing is retried here: a second try is the client's to make.
//!
//! Where the server does not say so earlier, the prompt is counted as 0 tokens in [`Event::Started`] and right at the
//! end; it stays 0 when a stop string that is found here ends the answer before the server has counted.

mod body;
mod chunk;
mod config;
mod reader;
mod refusal;
mod stream;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;

use super::{
    Constraint, Conversation, Engine, EngineError, Event, Events, Generation, Message, Prompt, Sampling, Shared,
    Thinking,
};
use crate::family::RemoteTier;
use config::Server;
use reader::Reader;

pub use config::Patience;

/// Bytes of a refusal's body that are read.
const REFUSAL_BYTES: usize = 64 * 1024;

/// An engine whose tiers are computed by other servers; each tier may have its own.
pub struct UpstreamEngine {
    tiers: BTreeMap<String, Arc<Server>>,
}

impl UpstreamEngine {
    /// An engine with these tiers. Nothing is connected yet.
    ///
    /// # Errors
    /// [`EngineError::Failed`] for an address or a key that cannot be used.
    pub fn new(tiers: impl IntoIterator<Item = RemoteTier>, patience: Patience) -> Result<Self, EngineError> {
        let server = |tier: RemoteTier| Ok((tier.name.clone(), Arc::new(Server::new(tier, patience)?)));
        Ok(Self { tiers: tiers.into_iter().map(server).collect::<Result<_, EngineError>>()? })
    }

    fn server(&self, tier: &str) -> Result<&Arc<Server>, EngineError> {
        self.tiers.get(tier).ok_or_else(|| EngineError::UnknownTier(tier.to_owned()))
    }
}

#[async_trait]
impl Engine for UpstreamEngine {
    fn kind(&self) -> &'static str {
        "upstream"
    }

    fn context_length(&self, tier: &str) -> Option<usize> {
        self.tiers.get(tier)?.tier.settings.context_length
    }

    async fn generate(&self, generation: Generation) -> Result<Events, EngineError> {
        let server = Arc::clone(self.server(&generation.tier)?);
        let request = body::request(&server.tier.settings, &generation)?;
        let sent = server.post(request.path)?.json(&request.body).send().await;
        let response = sent.map_err(|error| refusal::silence(&server, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let body = stream::beginning(response, REFUSAL_BYTES).await;
            return Err(refusal::refusal(&server, status, &headers, &body));
        }
        let reader = Reader::new(&generation, request.start);
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream") {
            return Err(reader.failed("answers without streaming; it must understand `stream: true`"));
        }
        Ok(stream::events(server, response, reader))
    }

    async fn probe(&self, tier: &str) -> Result<(), EngineError> {
        let message = Message { role: "user".to_owned(), content: "1".to_owned(), ..Message::default() };
        let generation = Generation {
            tier: tier.to_owned(),
            prompt: Prompt::Chat(Conversation { messages: vec![message], tools: None }),
            // OpenAI's defaults: its reasoning models take no other values.
            sampling: Sampling::default(),
            thinking: Thinking::Free,
            max_tokens: Some(1),
            stop: Vec::new(),
            logprobs: None,
            constraint: Constraint::Free,
            shared: Shared::default(),
        };
        let mut events = self.generate(generation).await?;
        while let Some(event) = events.next().await {
            if matches!(event?, Event::Token(_) | Event::ToolCall(_) | Event::Finished(_)) {
                return Ok(());
            }
        }
        Ok(())
    }
}
