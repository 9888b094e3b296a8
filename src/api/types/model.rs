//! `/v1/models`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::family::TierCard;

/// All models.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// The family first, then its tiers.
    pub data: Vec<ModelObject>,
}

/// A model: the family, whose effort decides the tier, or one tier.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelObject {
    /// What to write as `model`.
    pub id: String,
    /// `model`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// When the server loaded it, in seconds since 1970.
    pub created: u64,
    /// `brevity`.
    #[schema(value_type = String)]
    pub owned_by: &'static str,
    /// The tier's name; absent for the family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Weight of the length penalty it was trained with; absent for the family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// What an evaluation found out about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub card: Option<TierCard>,
    /// Tokens that prompt and answer may have together, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<usize>,
}
