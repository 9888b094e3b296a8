//! A trainable Qwen2-architecture decoder and its files.
//!
//! Configuration, Hugging Face and PEFT folders, the packed forward pass, LoRA, and the operations underneath. A model
//! turns token ids into logits and keeps its weights; what a token is worth, how text is sampled and how weights move is
//! decided elsewhere.

pub mod ops;
