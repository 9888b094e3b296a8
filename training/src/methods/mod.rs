//! Ways to train a model: supervised on examples, and reinforcement learning on its own rollouts.
//!
//! A method is a loop that reads top to bottom and is put together from the rooms below it. It decides the order of
//! things and what is measured; how a thing is done is decided where that thing lives.

mod identity;
mod order;
mod passes;
mod prompt;
pub mod rl;
mod sequence;
pub mod sft;
mod state;

pub use identity::identity;
pub use prompt::prompt_ids;
