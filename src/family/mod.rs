//! What a family is: one base, tiers trained from it with different penalties, and what was measured of each.
//!
//! `family.toml` is the whole of it ([`Manifest`]); weights lie in folders beside it. This room reads, checks and writes
//! manifests and hashes weights. It loads no model, opens no socket, and does not know how a tier was trained or measured.

pub mod card;
pub mod effort;
pub mod hash;
pub mod manifest;
pub mod upstream;
mod validate;

pub use card::{LevelCard, TierCard};
pub use effort::{Effort, default_effort_map};
pub use manifest::{Base, Manifest, Tier, TierTraining};
pub use upstream::{Dialect, Upstream};
pub(crate) use validate::nearest;
