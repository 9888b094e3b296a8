//! Who answered and why: this server's own object in responses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::routing::Route;

/// The tier that answered. Also told by the headers `x-brevity-tier`, `-alpha`, `-effort` and `-reason`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BrevityReport {
    /// Name of the tier.
    pub tier: String,
    /// Weight of the length penalty the tier was trained with; 0 for the base.
    pub alpha: f64,
    /// The effort in force: the one asked for, or the default one; `auto` where the cards chose the tier.
    pub effort: Option<String>,
    /// Whether another tier than the wished one answered, because that one is not loaded.
    pub substituted: bool,
    /// Why this tier, in a sentence.
    pub reason: String,
    /// Seed of the first choice; the following choices count up from it. Sent back as `seed`, it gives the same text.
    pub seed: i64,
    /// Whether a thinking budget closed the thoughts of any choice; null while not known.
    pub forced_close: Option<bool>,
}

impl BrevityReport {
    /// What is known before the first token.
    pub fn new(route: &Route, seed: u64) -> Self {
        Self {
            tier: route.tier.clone(),
            alpha: route.alpha,
            effort: match route.effort {
                Some(effort) => Some(effort.name().to_owned()),
                None => route.auto.then(|| "auto".to_owned()),
            },
            substituted: route.substituted,
            reason: route.reason.clone(),
            seed: seed.cast_signed(),
            forced_close: None,
        }
    }
}
