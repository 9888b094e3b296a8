//! A trainable decoder (Qwen2, Qwen3, Llama) and its files.
//!
//! Configuration, Hugging Face and PEFT folders, the packed forward pass, LoRA, and the operations underneath. A model
//! turns token ids into logits and keeps its weights, as one graph ([`Decoder`]) or layer by layer ([`layered`]); what a
//! token is worth, how text is sampled and how weights move is decided elsewhere.

mod architecture;
mod config;
mod decoder;
mod fold;
mod interpolate;
pub mod layered;
mod lora;
pub mod ops;
mod policy;
mod pretrained;
#[cfg(test)]
mod test_support;
mod weights;

pub use architecture::Architecture;
pub use candle_core::{DType, Device, Tensor};
pub use config::{ModelConfig, SpecialTokens};
pub use decoder::{Decoder, Packed};
pub use fold::fold_files;
pub use interpolate::interpolate_files;
pub use layered::Layered;
pub use lora::{Factors, LoraAdapter, LoraConfig, TARGET_MODULES, adapter_files};
pub use policy::{Policy, Tuning};
pub use pretrained::{Pretrained, copy_generation_config, copy_tokenizer, settings_hash, weights_hash};
pub use weights::{Weights, hash_files, read_safetensors, weight_files, write_safetensors};
