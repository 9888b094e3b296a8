//! What a family is: one base, tiers trained from it with different penalties, and what was measured of each.
//!
//! `family.toml` is the whole of it ([`Manifest`]); weights lie in folders beside it, on the hub, or in another server. This room reads, checks,
//! changes and writes manifests, fetches, hashes, merges and folds weights, and says which tiers can be served ([`load()`]). It runs
//! no model, opens no port, and does not know how a tier was trained or measured.

pub mod card;
mod check;
mod draft;
pub mod effort;
mod fold;
pub mod hash;
mod header;
pub mod hub;
mod load;
mod lock;
pub mod manifest;
mod merge;
mod naming;
mod sampling;
mod source;
#[cfg(test)]
mod test_support;
pub mod upstream;
mod validate;
mod vocabulary;

pub use card::{LevelCard, TierCard};
pub use check::{BaseWeights, Checker, Kind, TierWeights};
pub use effort::{Effort, default_effort_map};
pub use fold::{Fold, Folding};
pub use header::size_on_disk;
pub use hub::{Downloads, Hub, HubFile, HubId};
pub use load::{BrokenTier, LoadedFamily, TierOutcome, check, load};
pub use lock::ManifestLock;
pub use manifest::{Base, Manifest, Tier, TierTraining};
pub use merge::{Merge, merge};
pub use naming::{file_name, relative};
pub use sampling::SamplingDefaults;
pub use source::{MANIFEST, Opened, Source};
pub use upstream::{Dialect, RemoteTier, Upstream};
pub(crate) use validate::nearest;
