//! Wishes that no tier can fulfil.

use super::EffortWish;

/// Why a wish has no route. The message says what to ask for instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// `model` names nothing here (HTTP 404, `model_not_found`).
    #[error("there is no model `{asked}`{near} Models here are `{}`", .known.join("`, `"))]
    UnknownModel {
        /// What was asked for, shortened.
        asked: String,
        /// The nearest name, as `, did you mean …?`, or a full stop.
        near: String,
        /// Every model of this server.
        known: Vec<String>,
    },
    /// `model` names a tier that is not loaded. Other weights never answer for a tier that was named (HTTP 404,
    /// `model_not_found`).
    #[error(
        "tier `{tier}` is not loaded: {why}. Loaded are `{}`; ask for one of them, or for an effort", .loaded.join("`, `")
    )]
    NotLoaded {
        /// The tier.
        tier: String,
        /// Why it is not loaded.
        why: String,
        /// Tiers that would answer.
        loaded: Vec<String>,
    },
    /// `model` and `reasoning_effort` name different efforts (HTTP 400, `param` `reasoning_effort`).
    #[error("`model` asks for effort `{model}`, `reasoning_effort` for `{field}`; leave one of them out")]
    TwoEfforts {
        /// The effort within `model`.
        model: EffortWish,
        /// `reasoning_effort`.
        field: EffortWish,
    },
    /// `model` names the effort that closes thoughts, and another field asks for them (HTTP 400, `param` that field).
    #[error("`model` asks for effort `none`, `{field}` for thoughts; leave one of them out")]
    NoThoughts {
        /// The field that asks for thoughts.
        field: &'static str,
    },
    /// A latency budget where there is nothing to choose (HTTP 400, `param` `latency_budget_ms`).
    #[error("`latency_budget_ms` lets the server choose the tier, but {given} already does; leave one of them out")]
    NothingToChoose {
        /// What already decides, as the request names it.
        given: String,
    },
    /// No tier is loaded at all (HTTP 503).
    #[error("no tier of family `{family}` is loaded; `serve tiers verify` says why")]
    Empty {
        /// The family.
        family: String,
    },
}

impl RouteError {
    /// The request's field that is to blame.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::UnknownModel { .. } | Self::NotLoaded { .. } => Some("model"),
            Self::TwoEfforts { .. } => Some("reasoning_effort"),
            Self::NothingToChoose { .. } => Some("latency_budget_ms"),
            Self::NoThoughts { field } => Some(field),
            Self::Empty { .. } => None,
        }
    }
}
