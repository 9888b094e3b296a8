//! What every engine that sees logits and token ids shares: prompt, sampling, budget, grammar, and text from token ids.
//!
//! A [`LocalModel`] is loaded once per base folder. Each generation becomes a [`Sequence`]: the prompt's ids, a
//! [`TokenSampler`] that turns logits into ids (it may live on an engine's thread), and an [`Assembler`] that turns ids
//! into events (it may live on the async side). No engine, no HTTP and no routing is known here.
//!
//! ```ignore
//! let model: Arc<LocalModel> = Arc::new(LocalModel::load(folder)?);
//! let Sequence { prompt, max_tokens, mut sampler, mut assembler } = model.start(&generation)?;
//! yield assembler.started();                              // Event::Started
//! while !assembler.is_finished() {
//!     let chosen: Chosen = sampler.choose(&logits);       // never panics; call exactly once per token
//!     if let Some(error) = sampler.failure() { return Err(error); }
//!     for event in assembler.push(chosen) { yield event } // Vec<Event>, the last one is Event::Finished
//! }
//! // LocalModel: codec(), context_length(), vocabulary_size(), end_ids() -> &[u32], count_tokens(text)
//! // Assembler: with_fingerprint(Option<String>) -> Self, with_cached_tokens(usize) -> Self,
//! //            end(FinishReason) -> Vec<Event> when the engine itself stops a sequence.
//! // Chosen { id: u32, logprob: Option<f32>, top: Vec<(u32, f32)>, forced: bool }; logprob only when asked for.
//! // All of Sequence, TokenSampler, Assembler, Chosen are Send; LocalModel is Send + Sync.
//! ```
