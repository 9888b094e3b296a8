//! What a scripted model says, and how it fails.
//!
//! Plain data and the default script; nothing here runs.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::engine::{EngineError, Generation, Prompt};

/// One generation, written down beforehand.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What is thought; left out where the prompt opens no thoughts.
    pub thinking: String,
    /// What is answered, tool calls in their textual form included.
    pub answer: String,
    /// Time before each token, by tokio's clock (which tests may pause).
    pub delay: Duration,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

/// A failure on purpose. Places are counted in tokens given out before it happens.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The generation is refused before its first event.
    Refused(EngineError),
    /// The stream fails after this many tokens.
    Failed {
        /// Tokens before.
        after: usize,
        /// What it fails with.
        error: EngineError,
    },
    /// Nothing more comes after this many tokens, until the stream is dropped.
    Hangs {
        /// Tokens before.
        after: usize,
    },
    /// The stream ends without its last event after this many tokens.
    Disconnects {
        /// Tokens before.
        after: usize,
    },
}

impl Script {
    /// A script that thinks and answers, at full speed and without faults.
    pub fn new(thinking: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { thinking: thinking.into(), answer: answer.into(), ..Self::default() }
    }

    /// The same with a pause before each token.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same with a fault.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The script of a generation for which none was given: its length and its answer follow from tier, prompt and seed
    /// alone, so that a text found at the wrong place shows.
    pub fn derived(generation: &Generation) -> Self {
        let mut hash = Sha256::new();
        hash.update(generation.tier.as_bytes());
        hash.update([0]);
        match &generation.prompt {
            Prompt::Text(text) => hash.update(text.as_bytes()),
            Prompt::Chat(conversation) => conversation.messages.iter().for_each(|message| {
                hash.update(message.role.as_bytes());
                hash.update([0]);
                hash.update(message.content.as_bytes());
                hash.update([0]);
            }),
        }
        hash.update(generation.sampling.seed.to_le_bytes());
        let hash = hash.finalize();
        let lines = 1 + usize::from(hash[0]) % 8;
        let line = |index: usize| {
            let (left, right) = (hash[1 + index % 8], hash[9 + index % 8]);
            format!("{left} + {right} = {}.\n", u16::from(left) + u16::from(right))
        };
        let number = hash[17..20].iter().fold(0u32, |number, &byte| number << 8 | u32::from(byte));
        Self::new((0..lines).map(line).collect::<String>(), format!("The answer is \\boxed{{{number}}}."))
    }
}
