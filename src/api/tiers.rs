//! `GET /v1/tiers`: the dial, with everything that is known about its positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ErrorEnvelope;
use super::state::AppState;
use crate::family::TierCard;

/// The family's dial.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TierList {
    /// The family's name.
    pub family: String,
    /// One sentence about it.
    pub description: String,
    /// What computes: `mistral`, `upstream` or `scripted`; `mixed` where tiers differ.
    #[schema(value_type = String)]
    pub engine: &'static str,
    /// The effort of requests that name none.
    pub default_effort: String,
    /// The tier that each effort stands for.
    pub effort: BTreeMap<String, String>,
    /// Tokens that may be thought at most by effort; efforts not named think freely.
    pub budget: BTreeMap<String, usize>,
    /// The tiers, loaded or not.
    pub tiers: Vec<TierState>,
}

/// One tier.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TierState {
    /// Its name.
    pub name: String,
    /// Its model name.
    pub id: String,
    /// Weight of the length penalty it was trained with; 0 for the base.
    pub alpha: f64,
    /// Whether it answers.
    pub loaded: bool,
    /// Why it does not; null when it does.
    pub problem: Option<String>,
    /// Efforts that stand for it.
    pub efforts: Vec<String>,
    /// Tokens that prompt and answer may have together, where known.
    pub context_length: Option<usize>,
    /// Tokens a second of one stream, as measured on this machine; null before the first.
    pub tokens_per_second: Option<f64>,
    /// What an evaluation found out about it.
    #[schema(value_type = Option<Object>)]
    pub card: Option<TierCard>,
    /// What the card is worth: `current`, or `stale` where it is of other weights than those that answer; `auto` then leaves it
    /// out of account. Null without a card.
    #[schema(value_type = Option<String>)]
    pub card_state: Option<&'static str>,
}

/// List tiers
///
/// Which tier each effort stands for, what was measured of each tier, and whether it is loaded.
#[utoipa::path(get, path = "/v1/tiers", operation_id = "listTiers", tag = "models", responses(
    (status = 200, body = TierList),
    (status = 401, body = ErrorEnvelope, description = "No key, or an unknown one."),
))]
pub async fn list(State(state): State<Arc<AppState>>) -> Json<TierList> {
    let family = state.directory.family();
    let efforts = |name: &str| {
        let named = family.efforts.iter().filter(|(_, tier)| tier.as_str() == name);
        named.map(|(effort, _)| effort.name().to_owned()).collect()
    };
    let tiers = family.tiers.iter().map(|tier| TierState {
        name: tier.name.clone(),
        id: tier.id.clone(),
        alpha: tier.alpha,
        loaded: tier.problem.is_none(),
        problem: tier.problem.clone(),
        efforts: efforts(&tier.name),
        context_length: state.engine.context_length(&tier.name),
        tokens_per_second: tier.tokens_per_second,
        card: tier.card.clone(),
        card_state: tier.card.as_ref().map(|_| if tier.is_card_stale { "stale" } else { "current" }),
    });
    Json(TierList {
        tiers: tiers.collect(),
        engine: state.engine.kind(),
        default_effort: family.default_effort.name().to_owned(),
        budget: family.budgets.iter().map(|(effort, tokens)| (effort.name().to_owned(), *tokens)).collect(),
        effort: family.efforts.iter().map(|(effort, tier)| (effort.name().to_owned(), tier.clone())).collect(),
        family: family.name,
        description: family.description,
    })
}
