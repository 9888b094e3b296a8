//! One loaded model with its engine thread, and the only place that builds requests for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use brevity_training::files;
use mistralrs::core::{HfConfigOverrides, MistralRsError};
use mistralrs::{
    AdapterGenerationId, AdapterSelection, CustomLogitsProcessor, DeviceMapMetadata, LoraAdapterLoadPolicy,
    LoraModelBuilder, LoraRuntimeConfig, MemoryGoal, Model, ModelDType, NormalRequest, Request, RequestMessage,
    Response, SamplingParams, TextModelBuilder, TokenSource, parse_isq_value,
};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, channel};

use super::config;
use super::one_core::Core;
use super::spec::{DType, Device, EngineSpec};
use crate::engine::EngineError;

/// Adapters that fit beside each other, old generations that still answer included.
const MOST_ADAPTERS: usize = 256;
/// Response messages beyond one a token that must never block the engine's thread.
const SPARE_RESPONSES: usize = 8;
/// Longest time a model that was just loaded or rebooted may take for one token.
const PATIENCE: Duration = Duration::from_secs(60);

/// Adapters are loaded one at a time: the engine refuses a second one in the same process.
static LOADING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is loaded: a folder, and how.
#[derive(Debug, Clone)]
pub struct Source {
    folder: PathBuf,
    takes_adapters: bool,
    device: Device,
    dtype: DType,
    max_running: usize,
    quantization: Option<String>,
    kv_cache: Option<usize>,
    /// Where its threads run, when they shall share a core.
    core: Option<Arc<Core>>,
}

impl Source {
    /// The model in `folder` on `device`, with the options of `spec`. Call it inside the runtime.
    pub fn new(spec: &EngineSpec, folder: &Path, device: Device, takes_adapters: bool) -> Self {
        Self {
            folder: folder.to_owned(),
            takes_adapters,
            device,
            dtype: spec.dtype,
            max_running: spec.max_running.max(1),
            quantization: spec.quantization.clone(),
            kv_cache: spec.kv_cache,
            core: if device == Device::Cpu { Core::claim().map(Arc::new) } else { None },
        }
    }

    /// The same with so many bytes for keys and values, where the specification does not say how many.
    #[must_use]
    pub fn with_share(self, share: Option<usize>) -> Self {
        Self { kv_cache: self.kv_cache.or(share), ..self }
    }

    /// The model's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn builder(&self) -> Result<TextModelBuilder, String> {
        let (device, auto) = match self.device {
            Device::Cpu => (mistralrs::Device::Cpu, ModelDType::F32),
            Device::Cuda(index) => {
                let device = mistralrs::Device::new_cuda(index);
                (device.map_err(|error| refused(index, &error.to_string()))?, ModelDType::BF16)
            }
        };
        let dtype = match self.dtype {
            DType::Auto => auto,
            DType::F32 => ModelDType::F32,
            DType::F16 => ModelDType::F16,
            DType::BF16 => ModelDType::BF16,
        };
        // Its automatic device map would spread over other GPUs, and its prefix cache never gives memory back on a CPU.
        let mut builder = TextModelBuilder::new(self.folder.display())
            .with_token_source(TokenSource::None)
            .with_dtype(dtype)
            .with_max_num_seqs(self.max_running)
            .with_device_mapping(DeviceMapMetadata::dummy());
        let place = self.folder.join("config.json");
        let config: Value = files::read_json(&place).map_err(|error| error.to_string())?;
        if let Some(told) = config::overrides(&config)? {
            let told = HfConfigOverrides::new(told).map_err(|error| error.to_string())?;
            builder = builder.with_hf_config_overrides(told);
        }
        if let Some(wanted) = &self.quantization {
            builder = builder.with_isq(parse_isq_value(wanted, Some(&device))?);
        }
        let Device::Cuda(_) = self.device else { return Ok(builder.with_force_cpu().with_prefix_cache_n(None)) };
        let goal = self.kv_cache.map_or(MemoryGoal::Auto, MemoryGoal::KvBytes);
        Ok(builder.with_device(device).with_memory_goal(goal))
    }
}

/// Why a GPU could not be opened and what to look at; what the engine says goes on with a backtrace.
fn refused(index: usize, said: &str) -> String {
    let said = said.lines().next().unwrap_or_default();
    format!(
        "cannot open `cuda:{index}`: {said}. It needs a build with `--features cuda`, an NVIDIA driver (does `nvidia-smi` \
         list the GPU?), and the libraries of CUDA's version 13 where the loader finds them (LD_LIBRARY_PATH); the device \
         `cpu` needs none of them"
    )
}

/// One sequence to decode.
pub struct Ask {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Tokens at most.
    pub max_tokens: usize,
    /// Goes on after tokens that end a turn.
    pub ignore_eos: bool,
    /// Decides every token.
    pub processor: Arc<dyn CustomLogitsProcessor>,
    /// Alias of the adapter; the base without one.
    pub adapter: Option<String>,
}

/// Why a sequence was not taken.
#[derive(Debug)]
pub enum Refused {
    /// The adapter is not loaded.
    Adapter,
    /// The engine's thread has died, or its registry is unusable.
    Dead,
}

/// A model in memory with a living engine thread. A restarted thread makes a new `Running` of the same model, so that late
/// news of the old thread's death cannot be taken for the new one's.
pub struct Running {
    model: Arc<Model>,
    id: String,
    core: Option<Arc<Core>>,
    generations: Arc<RwLock<BTreeMap<String, AdapterGenerationId>>>,
}

impl Running {
    /// Loads the model, without adapters. It runs on a blocking thread, where a panic of the engine's loader is an error.
    ///
    /// # Errors
    /// [`EngineError::Failed`] with the folder when anything is wrong with it, or the device is not there.
    pub async fn load(source: &Source) -> Result<Self, EngineError> {
        let folder = source.folder.display().to_string();
        let failed = |cause: String| EngineError::failed(format!("loading the model in `{folder}`: {cause}"));
        if !source.folder.join("config.json").is_file() {
            return Err(failed("there is no config.json in this folder".to_owned()));
        }
        let (builder, takes_adapters) = (source.builder().map_err(&failed)?, source.takes_adapters);
        let (handle, core) = (Handle::current(), source.core.clone());
        let build = move || {
            let _bound = core.as_ref().map(|core| core.bind());
            handle.block_on(async {
                if !takes_adapters {
                    return builder.build().await;
                }
                let limits = LoraRuntimeConfig { max_adapters: MOST_ADAPTERS, ..LoraRuntimeConfig::default() };
                LoraModelBuilder::from_text_model_builder(builder).with_runtime_config(limits).build().await
            })
        };
        let model = tokio::task::spawn_blocking(build)
            .await
            .map_err(|panic| failed(format!("the loader panicked: {panic}")))?
            .map_err(|error| failed(format!("{error:#}")))?;
        let id = model.inner().get_default_model_id().map_err(&failed)?;
        let id = id.ok_or_else(|| failed("the engine did not register it".to_owned()))?;
        Ok(Self { model: Arc::new(model), id, core: source.core.clone(), generations: Arc::default() })
    }

    /// Puts the adapter in `folder` under `alias`, or replaces what is there; sequences that have begun keep the old one.
    ///
    /// # Errors
    /// [`EngineError::Failed`] with the folder when it does not fit the model.
    pub async fn load_adapter(&self, alias: &str, folder: &Path) -> Result<(), EngineError> {
        let _one_at_a_time = LOADING.lock().await;
        let policy = LoraAdapterLoadPolicy::Upsert;
        let info = self.model.load_lora_adapter_with_model_and_policy(alias, folder, &self.id, policy).await;
        let info = info.map_err(|error| {
            EngineError::failed(format!("loading the adapter of tier `{alias}` from `{}`: {error}", folder.display()))
        })?;
        self.generations.write().unwrap_or_else(PoisonError::into_inner).insert(alias.to_owned(), info.generation);
        Ok(())
    }

    /// Takes the adapter away; sequences that have begun keep it to their end.
    pub async fn unload_adapter(&self, alias: &str) {
        self.generations.write().unwrap_or_else(PoisonError::into_inner).remove(alias);
        let _one_at_a_time = LOADING.lock().await;
        if let Err(error) = self.model.unload_lora_adapter_with_model(alias, &self.id).await {
            tracing::warn!(alias, %error, "the engine did not unload an adapter");
        }
    }

    /// Tokens that fit into the model's context, where the engine knows.
    pub fn context_length(&self) -> Option<usize> {
        self.model.inner().max_sequence_length(Some(&self.id)).ok().flatten()
    }

    /// Hands a sequence to the engine's queue. Its signals come through the receiver, which never blocks the engine: it has
    /// room for every token. With an adapter, also which generation of it answers.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn send(&self, ask: &Ask) -> Result<(Receiver<Response>, Option<String>), Refused> {
        let generation = match &ask.adapter {
            Some(alias) => Some(self.generation(alias).ok_or(Refused::Adapter)?),
            None => None,
        };
        let (sender, receiver) = channel(ask.max_tokens.saturating_add(SPARE_RESPONSES));
        let message = RequestMessage::CompletionTokens(ask.prompt.clone());
        let mut request = self.request(message, ask.max_tokens, sender);
        request.sampling_params.ignore_eos = ask.ignore_eos;
        request.logits_processors = Some(vec![ask.processor.clone()]);
        request.adapter = generation.map(AdapterSelection::generation);
        match self.model.inner().send_request_async(Request::Normal(Box::new(request))).await {
            Ok(()) => Ok((receiver, generation.map(|generation| generation.to_string()))),
            Err(MistralRsError::LoraAdapter(error)) => {
                tracing::debug!(%error, "the engine refused an adapter");
                Err(Refused::Adapter)
            }
            Err(error) => {
                tracing::error!(%error, "the engine refused a request");
                Err(Refused::Dead)
            }
        }
    }

    /// The generation that `alias` stands for now.
    fn generation(&self, alias: &str) -> Option<AdapterGenerationId> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner).get(alias).copied()
    }

    /// Every sampling field is set: the engine fills those that are not from the model's generation_config.json.
    fn request(
        &self,
        message: RequestMessage,
        max_tokens: usize,
        sender: tokio::sync::mpsc::Sender<Response>,
    ) -> NormalRequest {
        let sampling = SamplingParams {
            temperature: Some(0.0),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            frequency_penalty: None,
            presence_penalty: None,
            repetition_penalty: Some(1.0),
            max_len: Some(max_tokens),
            ..SamplingParams::neutral()
        };
        let id = self.model.inner().next_request_id();
        let mut request = NormalRequest::new_simple(message, sampling, sender, id, None, None);
        request.is_streaming = true;
        request.model_id = Some(self.id.clone());
        request
    }

    /// Starts the engine's thread again after its death, with the weights that are still in memory.
    ///
    /// # Errors
    /// Why it does not answer; then it has to be loaded anew.
    pub async fn reboot(&self) -> Result<Self, String> {
        let (model, id, core) = (self.model.clone(), self.id.clone(), self.core.clone());
        let started = tokio::task::spawn_blocking(move || {
            let _bound = core.as_ref().map(|core| core.bind());
            // The channel closes a little before the thread has ended, and only an ended thread is replaced.
            for _ in 0..100 {
                match model.inner().get_sender(Some(&id)) {
                    Ok(sender) if !sender.is_closed() => return Ok(()),
                    Ok(_) => std::thread::sleep(Duration::from_millis(20)),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Err("its thread does not end".to_owned())
        });
        started.await.map_err(|panic| panic.to_string())??;
        let (sender, mut receiver) = channel(SPARE_RESPONSES);
        let message = RequestMessage::Completion { text: "hello".to_owned(), echo_prompt: false, best_of: None };
        let request = Request::Normal(Box::new(self.request(message, 1, sender)));
        self.model.inner().send_request_async(request).await.map_err(|error| error.to_string())?;
        match tokio::time::timeout(PATIENCE, receiver.recv()).await {
            Ok(Some(Response::CompletionChunk(_) | Response::CompletionDone(_))) => {
                let (model, id, core) = (self.model.clone(), self.id.clone(), self.core.clone());
                Ok(Self { model, id, core, generations: self.generations.clone() })
            }
            Ok(Some(_)) => Err("it answers with an error".to_owned()),
            Ok(None) => Err("it died again".to_owned()),
            Err(_) => Err(format!("it does not answer within {} s", PATIENCE.as_secs())),
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_told_of_in_one_line() {
        let said = refused(1, "DriverError(CUDA_ERROR_NO_DEVICE)\n   0: backtrace\n   1: more of it");
        assert!(said.starts_with("cannot open `cuda:1`: DriverError(CUDA_ERROR_NO_DEVICE). It needs"), "{said}");
        assert!(!said.contains('\n') && said.contains("nvidia-smi"), "{said}");
    }
}
