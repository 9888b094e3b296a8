//! `GET /v1/models` and `GET /v1/models/{id}`: the family and its tiers as models.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::ApiError;
use super::directory::{FamilyView, TierView};
use super::error::ErrorEnvelope;
use super::state::AppState;
use super::types::{ModelList, ModelObject};
use crate::routing::Wish;

/// List models
///
/// The family first, whose tier the effort decides, then every loaded tier.
#[utoipa::path(get, path = "/v1/models", operation_id = "listModels", tag = "models", responses(
    (status = 200, body = ModelList),
    (status = 401, body = ErrorEnvelope, description = "No key, or an unknown one."),
))]
pub async fn list(State(state): State<Arc<AppState>>) -> Json<ModelList> {
    let family = state.directory.family();
    let loaded = family.tiers.iter().filter(|tier| tier.problem.is_none());
    let tiers = loaded.map(|tier| tier_object(&state, tier));
    Json(ModelList { object: "list", data: std::iter::once(family_object(&state, &family)).chain(tiers).collect() })
}

/// Retrieve a model
///
/// Every name that requests may use is found, aliases like `family:low` too; the object's `id` is then that of the tier.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    operation_id = "retrieveModel",
    tag = "models",
    params(("id" = String, Path, description = "A model name; may contain `:` and `/`.")),
    responses(
        (status = 200, body = ModelObject),
        (status = 401, body = ErrorEnvelope, description = "No key, or an unknown one."),
        (status = 404, body = ErrorEnvelope, description = "No such model."),
    )
)]
pub async fn show(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::model_not_found("there is no model whose name is not UTF-8"))?;
    let family = state.directory.family();
    if state.directory.is_family(&id) {
        return Ok(Json(family_object(&state, &family)));
    }
    let route = state.directory.route(&Wish { model: id.clone(), ..Wish::default() })?;
    let tier = family.tiers.iter().find(|tier| tier.name == route.tier);
    let tier = tier.ok_or_else(|| ApiError::model_not_found(format!("there is no model `{}`", short(&id))))?;
    Ok(Json(tier_object(&state, tier)))
}

fn short(id: &str) -> String {
    id.chars().take(100).collect()
}

fn family_object(state: &AppState, family: &FamilyView) -> ModelObject {
    ModelObject {
        id: family.id.clone(),
        object: "model",
        created: state.started,
        owned_by: "brevity",
        tier: None,
        alpha: None,
        card: None,
        context_length: None,
    }
}

fn tier_object(state: &AppState, tier: &TierView) -> ModelObject {
    ModelObject {
        id: tier.id.clone(),
        object: "model",
        created: state.started,
        owned_by: "brevity",
        tier: Some(tier.name.clone()),
        alpha: Some(tier.alpha),
        card: tier.card.clone().filter(|_| !tier.is_card_stale),
        context_length: state.engine.context_length(&tier.name),
    }
}
