//! How a scripted engine is described.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use brevity_training::tasks::chat::ChatTemplate;
use tokio::sync::Semaphore;

use super::{Script, Scripted, Source};
use crate::engine::Generation;
use crate::engine::sequence::{LoadError, LocalModel};

/// The tokenizer of the mini family.
const TOKENIZER: &str = include_str!("../../../models/mini/base/tokenizer.json");

/// The chat template of the mini family, with tools.
const TEMPLATE: &str = include_str!("chat_template.jinja");

/// The id of `<|im_end|>` in it.
const END: u32 = 2;

/// Tokens that prompt and completion may have together, unless said otherwise.
const CONTEXT_LENGTH: usize = 4096;

/// Describes a [`Scripted`] engine; [`Builder::build`] makes it.
#[derive(Default)]
pub struct Builder {
    model: Option<Arc<LocalModel>>,
    context_length: Option<usize>,
    tiers: Vec<String>,
    scripts: HashMap<String, Source>,
    gated: bool,
}

impl Builder {
    /// Takes tokenizer, template and limits from a model folder. Without it they are those of the mini family, with a
    /// template that knows tools and a context of 4,096 tokens.
    ///
    /// # Errors
    /// [`LoadError`] naming the file that is missing or malformed.
    pub fn folder(mut self, folder: &Path) -> Result<Self, LoadError> {
        self.model = Some(Arc::new(LocalModel::load(folder)?));
        Ok(self)
    }

    /// Shares tokenizer, template and limits with somebody else.
    #[must_use]
    pub fn model(mut self, model: Arc<LocalModel>) -> Self {
        self.model = Some(model);
        self
    }

    /// Another context length for the built-in model; a folder or shared model brings its own.
    #[must_use]
    pub fn context_length(mut self, tokens: usize) -> Self {
        self.context_length = Some(tokens);
        self
    }

    /// Adds a tier that says [`Script::derived`].
    #[must_use]
    pub fn tier(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.tiers.contains(&name) {
            self.tiers.push(name);
        }
        self
    }

    /// Adds tiers that say [`Script::derived`].
    #[must_use]
    pub fn tiers(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        names.into_iter().fold(self, |builder, name| builder.tier(name))
    }

    /// Adds a tier that always says the same.
    #[must_use]
    pub fn script(self, name: impl Into<String>, script: Script) -> Self {
        self.script_with(name, move |_| script.clone())
    }

    /// Adds a tier whose scripts are made for each generation.
    #[must_use]
    pub fn script_with(
        self,
        name: impl Into<String>,
        source: impl Fn(&Generation) -> Script + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let mut builder = self.tier(name.clone());
        builder.scripts.insert(name, Arc::new(source));
        builder
    }

    /// Holds every generation before its first token until [`Scripted::release`] lets it go.
    #[must_use]
    pub fn gated(mut self) -> Self {
        self.gated = true;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`LoadError`] when no tier was named.
    pub fn build(self) -> Result<Scripted, LoadError> {
        if self.tiers.is_empty() {
            return Err(LoadError::new("a scripted engine needs at least one tier; name one with `tier`"));
        }
        let model = match self.model {
            Some(model) => model,
            None => {
                let template = ChatTemplate::new("scripted/chat_template.jinja", TEMPLATE.to_owned(), Vec::new())?;
                let length = self.context_length.unwrap_or(CONTEXT_LENGTH);
                Arc::new(LocalModel::from_parts(TOKENIZER, template, vec![END], length)?)
            }
        };
        Ok(Scripted {
            model,
            tiers: self.tiers,
            scripts: self.scripts,
            running: Arc::new(AtomicUsize::new(0)),
            gate: self.gated.then(|| Arc::new(Semaphore::new(0))),
            unavailable: Mutex::default(),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Builder").field("tiers", &self.tiers).finish_non_exhaustive()
    }
}
