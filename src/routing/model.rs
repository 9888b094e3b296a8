//! `model` of a request: the family, one of its tiers, or an effort of it.

use super::{Catalogue, CatalogueTier, EffortWish, RouteError};
use crate::family::nearest;

/// Before the family's name in model ids.
const PREFIX: &str = "brevity-";

/// What `model` names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ModelName<'a> {
    /// The family; `reasoning_effort` or the default picks the tier.
    Family,
    /// This tier and no other.
    Tier(&'a CatalogueTier),
    /// The family at this effort.
    Effort(EffortWish),
}

/// Every model id that `/v1/models` lists, with its tier: first the family's id (no tier), then `family:tier` for each
/// tier from the tersest to the longest thinker, loaded or not.
pub fn model_ids(catalogue: &Catalogue) -> Vec<(String, Option<&CatalogueTier>)> {
    let tiers = catalogue.tiers().iter().map(|tier| (tier_id(catalogue, &tier.name), Some(tier)));
    std::iter::once((family_id(catalogue), None)).chain(tiers).collect()
}

/// The model id of a tier.
pub fn tier_id(catalogue: &Catalogue, tier: &str) -> String {
    format!("{}:{tier}", family_id(catalogue))
}

/// What `name` stands for. With a family `mini` these are names: `mini`, `brevity-mini`, a tier as `alpha-0.2` or
/// `brevity-mini:alpha-0.2`, an effort as `brevity-mini:low` or `mini:auto`. The family's name comes before a tier of
/// the same name, a tier before an effort of the same name. Efforts are read in any case, other names exactly.
///
/// # Errors
/// [`RouteError::UnknownModel`] with the nearest name and the list of models.
pub fn resolve_model<'a>(catalogue: &'a Catalogue, name: &str) -> Result<ModelName<'a>, RouteError> {
    let (family, short) = (family_id(catalogue), short_name(catalogue));
    if name == family || name == short {
        return Ok(ModelName::Family);
    }
    if let Some(tier) = catalogue.tier(name) {
        return Ok(ModelName::Tier(tier));
    }
    let within = |prefix: &str| name.strip_prefix(prefix)?.strip_prefix(':');
    if let Some(part) = within(&family).or_else(|| within(short)) {
        if let Some(tier) = catalogue.tier(part) {
            return Ok(ModelName::Tier(tier));
        }
        if let Ok(effort) = part.parse() {
            return Ok(ModelName::Effort(effort));
        }
    }
    Err(unknown(catalogue, name))
}

fn unknown(catalogue: &Catalogue, name: &str) -> RouteError {
    let asked: String = name.chars().take(128).collect();
    let known: Vec<String> = model_ids(catalogue).into_iter().map(|(id, _)| id).collect();
    let family = family_id(catalogue);
    let efforts = EffortWish::ALL.map(|effort| format!("{family}:{effort}"));
    let others = [short_name(catalogue)].into_iter().chain(catalogue.tiers().iter().map(|tier| tier.name.as_str()));
    let names = known.iter().chain(&efforts).map(String::as_str).chain(others);
    let near = nearest(&asked, names);
    // Without a near name the helper lists them all; this list would be longer than that of the models.
    let near = if near.ends_with('?') { near } else { ".".to_owned() };
    RouteError::UnknownModel { asked, near, known }
}

fn short_name(catalogue: &Catalogue) -> &str {
    catalogue.family.strip_prefix(PREFIX).unwrap_or(&catalogue.family)
}

fn family_id(catalogue: &Catalogue) -> String {
    format!("{PREFIX}{}", short_name(catalogue))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{any_catalogue, catalogue, measured};
    use super::*;
    use crate::family::Effort;

    #[test]
    fn names_of_family_tier_and_effort() {
        let mini = catalogue(&[0.4, 0.2]);
        let tier = mini.tier("alpha-0.2").unwrap();
        for (name, meant) in [
            ("mini", ModelName::Family),
            ("brevity-mini", ModelName::Family),
            ("alpha-0.2", ModelName::Tier(tier)),
            ("mini:alpha-0.2", ModelName::Tier(tier)),
            ("brevity-mini:alpha-0.2", ModelName::Tier(tier)),
            ("brevity-mini:low", ModelName::Effort(EffortWish::Named(Effort::Low))),
            ("mini:XHigh", ModelName::Effort(EffortWish::Named(Effort::Xhigh))),
            ("brevity-mini:auto", ModelName::Effort(EffortWish::Auto)),
        ] {
            assert_eq!(resolve_model(&mini, name).unwrap(), meant, "{name}");
        }
        for name in
            ["", "low", ":low", "mini:", "Mini", "other:low", "mini:low:low", "brevity-brevity-mini", "alpha-0.2:low"]
        {
            assert!(resolve_model(&mini, name).is_err(), "{name}");
        }
        let prefixed = Catalogue { family: "brevity-mini".to_owned(), ..mini.clone() };
        assert_eq!(resolve_model(&prefixed, "mini:auto").unwrap(), ModelName::Effort(EffortWish::Auto));
        assert_eq!(model_ids(&prefixed)[0].0, "brevity-mini");
    }

    #[test]
    fn a_tier_may_be_called_like_an_effort() {
        let odd = measured(&[("low", 0.1, 0.5, 100.0), ("mini", 0.2, 0.5, 100.0)]);
        assert_eq!(resolve_model(&odd, "mini:low").unwrap(), ModelName::Tier(odd.tier("low").unwrap()));
        assert_eq!(resolve_model(&odd, "mini").unwrap(), ModelName::Family);
        assert_eq!(resolve_model(&odd, "mini:mini").unwrap(), ModelName::Tier(odd.tier("mini").unwrap()));
    }

    #[test]
    fn an_unknown_model_names_the_nearest_and_all() {
        let mini = catalogue(&[0.4]);
        let list = "Models here are `brevity-mini`, `brevity-mini:alpha-0.4`, `brevity-mini:base`";
        let message = |name: &str| resolve_model(&mini, name).unwrap_err().to_string();
        assert_eq!(
            message("brevity-mini:lov"),
            format!("there is no model `brevity-mini:lov`, did you mean `brevity-mini:low`? {list}")
        );
        assert_eq!(message("alpha-0.5"), format!("there is no model `alpha-0.5`, did you mean `alpha-0.4`? {list}"));
        assert_eq!(message("gpt-4o"), format!("there is no model `gpt-4o`. {list}"));
    }

    proptest! {
        #[test]
        fn every_listed_id_resolves_to_its_tier(catalogue in any_catalogue()) {
            for (id, tier) in model_ids(&catalogue) {
                let meant = tier.map_or(ModelName::Family, ModelName::Tier);
                prop_assert_eq!(resolve_model(&catalogue, &id).unwrap(), meant);
            }
        }

        #[test]
        fn no_name_panics(catalogue in any_catalogue(), name in ".*") {
            let _ = resolve_model(&catalogue, &name);
        }
    }
}
