//! The whole way from a wish to a route.

use super::budget::{default_limit, thinking};
use super::{Catalogue, CatalogueTier, EffortWish, ModelName, Outlook, Route, RouteError, Wish, auto, resolve_model};
use crate::family::Effort;

/// Which tier, and how that came about.
struct Choice<'a> {
    tier: &'a CatalogueTier,
    effort: Option<Effort>,
    auto: bool,
    substituted: bool,
    reason: String,
}

/// Finds the tier for `wish`.
///
/// - `model` naming a tier decides alone: `reasoning_effort` beside it picks no other tier, but keeps its say about
///   thinking (`none` closes it, an effort's default budget holds). A named tier that is not loaded is an error.
/// - An effort, from `model`, from `reasoning_effort` or by default, takes its tier of the manifest; when that is not
///   loaded, the nearest one that is ([`Catalogue::nearest_loaded`]), and the route says so. Both fields may name an
///   effort if it is the same one.
/// - `auto` lets the cards and the speed of this moment (`outlook`) decide; where no loaded tier has a card, the default effort (or `medium`) does. A latency
///   budget without any effort means `auto`; with a named effort or tier it is refused.
/// - A field that asks for thoughts ([`Wish::asks_for_thoughts`]) contradicts a model that names effort `none`, and where
///   that is the default, the least effort with thoughts takes its place.
/// - Budgets: effort `none` closes the thoughts, else `max_reasoning_tokens` wins over the effort's default; see the
///   lowering in favour of the answer in the reason.
///
/// # Errors
/// See [`RouteError`]. A route that is returned always leads to a loaded tier.
pub fn route(catalogue: &Catalogue, wish: &Wish, outlook: Outlook<'_>) -> Result<Route, RouteError> {
    let model = resolve_model(catalogue, &wish.model)?;
    if catalogue.loaded().next().is_none() {
        return Err(RouteError::Empty { family: catalogue.family.clone() });
    }
    if let (ModelName::Effort(EffortWish::Named(Effort::None)), Some(field)) = (&model, wish.asks_for_thoughts) {
        return Err(RouteError::NoThoughts { field });
    }
    let choice = match (model, wish.effort) {
        (ModelName::Tier(tier), effort) => named(catalogue, tier, effort, wish)?,
        (ModelName::Effort(model), Some(field)) if model != field => {
            return Err(RouteError::TwoEfforts { model, field });
        }
        (ModelName::Effort(effort), _) | (ModelName::Family, Some(effort)) => wished(catalogue, effort, wish, outlook)?,
        (ModelName::Family, None) if wish.latency_budget.is_some() => automatic(catalogue, wish, outlook)?,
        (ModelName::Family, None) => default(catalogue, wish, outlook)?,
    };
    let default_budget = choice.effort.and_then(|effort| default_limit(effort, &catalogue.budgets));
    let (thinking, note) =
        thinking(choice.effort, wish.max_reasoning_tokens, default_budget, wish.max_completion_tokens);
    let reason = match note {
        Some(note) => format!("{}; {note}", choice.reason),
        None => choice.reason,
    };
    Ok(Route {
        tier: choice.tier.name.clone(),
        alpha: choice.tier.alpha,
        effort: choice.effort,
        auto: choice.auto,
        thinking,
        substituted: choice.substituted,
        reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
    })
}

/// `model` names the tier.
fn named<'a>(
    catalogue: &'a Catalogue,
    tier: &'a CatalogueTier,
    effort: Option<EffortWish>,
    wish: &Wish,
) -> Result<Choice<'a>, RouteError> {
    if wish.latency_budget.is_some() {
        return Err(RouteError::NothingToChoose { given: format!("`model` naming tier `{}`", tier.name) });
    }
    if let Some(why) = &tier.missing {
        let loaded = catalogue.loaded().map(|tier| tier.name.clone()).collect();
        return Err(RouteError::NotLoaded { tier: tier.name.clone(), why: why.clone(), loaded });
    }
    let mut reason = format!("`model` names tier {}", about(tier));
    let effort = match effort {
        None => None,
        Some(wish) => {
            reason.push_str(&format!(", so reasoning_effort `{wish}` does not choose the tier"));
            match wish {
                EffortWish::Named(effort) => Some(effort),
                EffortWish::Auto => None,
            }
        }
    };
    Ok(Choice { tier, effort, auto: false, substituted: false, reason })
}

/// The request names an effort or `auto`.
fn wished<'a>(
    catalogue: &'a Catalogue,
    effort: EffortWish,
    wish: &Wish,
    outlook: Outlook<'_>,
) -> Result<Choice<'a>, RouteError> {
    match effort {
        EffortWish::Auto => automatic(catalogue, wish, outlook),
        EffortWish::Named(effort) if wish.latency_budget.is_some() => {
            Err(RouteError::NothingToChoose { given: format!("effort `{effort}`") })
        }
        EffortWish::Named(effort) => mapped(catalogue, effort, format!("effort `{effort}`")),
    }
}

/// The request names nothing.
fn default<'a>(catalogue: &'a Catalogue, wish: &Wish, outlook: Outlook<'_>) -> Result<Choice<'a>, RouteError> {
    match catalogue.default_effort {
        EffortWish::Auto => automatic(catalogue, wish, outlook),
        EffortWish::Named(default) => {
            let effort = thoughtful(default, wish);
            let subject = match wish.asks_for_thoughts {
                Some(field) if effort != default => {
                    format!("`{field}` asks for thoughts, and effort `{effort}` instead of the default `{default}`")
                }
                _ => format!("no effort was asked for, and the default `{effort}`"),
            };
            mapped(catalogue, effort, subject)
        }
    }
}

/// The effort by default: who asks for thoughts gets the least that has some, where it is `none`.
fn thoughtful(default: Effort, wish: &Wish) -> Effort {
    if default == Effort::None && wish.asks_for_thoughts.is_some() { Effort::Minimal } else { default }
}

/// The cards decide, if there are any.
fn automatic<'a>(catalogue: &'a Catalogue, wish: &Wish, outlook: Outlook<'_>) -> Result<Choice<'a>, RouteError> {
    if let Some((tier, reason)) = auto::pick(catalogue, outlook, wish) {
        return Ok(Choice { tier, effort: None, auto: true, substituted: false, reason });
    }
    let effort = match catalogue.default_effort {
        EffortWish::Named(default) => thoughtful(default, wish),
        EffortWish::Auto => Effort::Medium,
    };
    let subject = format!("no loaded tier has a card that auto could choose by, and effort `{effort}` instead");
    mapped(catalogue, effort, subject)
}

/// The tier of `effort`, or the nearest loaded one; `subject` begins the reason.
fn mapped<'a>(catalogue: &'a Catalogue, effort: Effort, subject: String) -> Result<Choice<'a>, RouteError> {
    let empty = || RouteError::Empty { family: catalogue.family.clone() };
    // Manifests name a tier for every effort; a hand-made catalogue may not, and then the middle of the family answers.
    let middle = || catalogue.tiers().get(catalogue.tiers().len().saturating_sub(1) / 2);
    let meant = catalogue.efforts().get(&effort).and_then(|name| catalogue.tier(name)).or_else(middle);
    let meant = meant.ok_or_else(empty)?;
    let tier = catalogue.nearest_loaded(&meant.name).ok_or_else(empty)?;
    let reason = match &meant.missing {
        None => format!("{subject} leads to tier {}", about(tier)),
        Some(why) => format!(
            "{subject} leads to tier `{}`, which is not loaded ({why}); the nearest loaded tier {} answers",
            meant.name,
            about(tier)
        ),
    };
    Ok(Choice { tier, effort: Some(effort), auto: false, substituted: meant.missing.is_some(), reason })
}

fn about(tier: &CatalogueTier) -> String {
    format!("`{}` (alpha {})", tier.name, tier.alpha)
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
