use std::time::Duration;

use proptest::prelude::*;

use super::super::Speeds;
use super::super::fixtures::{any_catalogue, catalogue, measured};
use super::*;
use crate::engine::Thinking;

fn named_effort(effort: Effort) -> Option<EffortWish> {
    Some(EffortWish::Named(effort))
}

fn wish(model: &str, effort: Option<EffortWish>) -> Wish {
    Wish { model: model.to_owned(), effort, ..Wish::default() }
}

fn go(catalogue: &Catalogue, wish: &Wish) -> Result<Route, RouteError> {
    route(catalogue, wish, Speeds::default().at(Duration::ZERO))
}

/// The family with `names` not loaded.
fn without(catalogue: &Catalogue, names: &[&str]) -> Catalogue {
    let mut tiers = catalogue.tiers().to_vec();
    for tier in &mut tiers {
        tier.missing = names.contains(&tier.name.as_str()).then(|| "its adapter is damaged".to_owned());
    }
    Catalogue { budgets: catalogue.budgets.clone(), ..Catalogue::new("mini", tiers, catalogue.efforts().clone()) }
}

#[test]
fn the_dial_turns() {
    let mini = catalogue(&[0.4, 0.2, 0.1, 0.05]);
    let tiers: Vec<String> =
        Effort::ALL.into_iter().map(|effort| go(&mini, &wish("mini", named_effort(effort))).unwrap().tier).collect();
    assert_eq!(tiers, ["alpha-0.4", "alpha-0.4", "alpha-0.2", "alpha-0.1", "alpha-0.05", "base", "base"]);
    let route = go(&mini, &wish("brevity-mini:low", None)).unwrap();
    let reason = "effort `low` leads to tier `alpha-0.2` (alpha 0.2)".to_owned();
    let expected = Route {
        tier: "alpha-0.2".to_owned(),
        alpha: 0.2,
        effort: Some(Effort::Low),
        auto: false,
        thinking: Thinking::Free,
        substituted: false,
        reason,
    };
    assert_eq!(route, expected);
    let route = go(&mini, &wish("mini", None)).unwrap();
    assert_eq!(route.reason, "no effort was asked for, and the default `medium` leads to tier `alpha-0.1` (alpha 0.1)");
}

#[test]
fn none_closes_the_thoughts_and_minimal_does_not() {
    let mini = catalogue(&[0.4]);
    let thinking = |effort| go(&mini, &wish("mini", named_effort(effort))).unwrap().thinking;
    assert_eq!(thinking(Effort::None), Thinking::Closed);
    for effort in &Effort::ALL[1..] {
        assert_eq!(thinking(*effort), Thinking::Free);
    }
}

#[test]
fn a_missing_tier_is_answered_for_by_its_neighbour_and_said_so() {
    let mini = without(&catalogue(&[0.4, 0.2, 0.1, 0.05]), &["alpha-0.2"]);
    let route = go(&mini, &wish("mini", named_effort(Effort::Low))).unwrap();
    assert!(route.substituted && route.tier == "alpha-0.4" && route.alpha == 0.4);
    assert_eq!(
        route.reason,
        "effort `low` leads to tier `alpha-0.2`, which is not loaded (its adapter is damaged); the nearest loaded tier `alpha-0.4` (alpha 0.4) answers"
    );
    let error = go(&mini, &wish("mini:alpha-0.2", None)).unwrap_err();
    assert_eq!(error.param(), Some("model"));
    assert_eq!(
        error.to_string(),
        "tier `alpha-0.2` is not loaded: its adapter is damaged. Loaded are `alpha-0.4`, `alpha-0.1`, `alpha-0.05`, `base`; ask for one of them, or for an effort"
    );
    let nothing = without(&catalogue(&[0.4]), &["alpha-0.4", "base"]);
    assert_eq!(go(&nothing, &wish("mini", None)).unwrap_err(), RouteError::Empty { family: "mini".to_owned() });
}

#[test]
fn a_named_tier_wins_and_the_effort_keeps_its_say_about_thinking() {
    let mini = Catalogue { budgets: [(Effort::High, 300)].into(), ..catalogue(&[0.4, 0.2]) };
    let route = go(&mini, &wish("alpha-0.2", named_effort(Effort::High))).unwrap();
    assert_eq!((route.tier.as_str(), route.thinking), ("alpha-0.2", Thinking::Budget(300)));
    assert_eq!(
        route.reason,
        "`model` names tier `alpha-0.2` (alpha 0.2), so reasoning_effort `high` does not choose the tier"
    );
    let route = go(&mini, &wish("alpha-0.2", named_effort(Effort::None))).unwrap();
    assert_eq!(route.thinking, Thinking::Closed);
    let route = go(&mini, &wish("alpha-0.2", Some(EffortWish::Auto))).unwrap();
    assert_eq!((route.tier.as_str(), route.effort, route.auto), ("alpha-0.2", None, false));
}

#[test]
fn contradictions_are_refused() {
    let mini = measured(&[("a", 0.4, 0.8, 100.0), ("b", 0.2, 0.9, 200.0)]);
    let same = go(&mini, &wish("mini:low", named_effort(Effort::Low))).unwrap();
    assert_eq!(same.effort, Some(Effort::Low));
    let error = go(&mini, &wish("mini:low", named_effort(Effort::High))).unwrap_err();
    assert_eq!(error.param(), Some("reasoning_effort"));
    assert_eq!(
        error.to_string(),
        "`model` asks for effort `low`, `reasoning_effort` for `high`; leave one of them out"
    );
    for (model, effort) in
        [("mini", named_effort(Effort::Low)), ("mini:low", None), ("a", None), ("a", Some(EffortWish::Auto))]
    {
        let budget = Wish { latency_budget: Some(Duration::from_secs(1)), ..wish(model, effort) };
        let error = go(&mini, &budget).unwrap_err();
        assert_eq!(error.param(), Some("latency_budget_ms"), "{model}: {error}");
    }
}

#[test]
fn a_latency_budget_alone_means_auto() {
    let mini = measured(&[("a", 0.4, 0.8, 100.0), ("b", 0.2, 0.9, 200.0)]);
    let budget = |effort| Wish { latency_budget: Some(Duration::from_secs(3)), ..wish("mini", effort) };
    let route = go(&mini, &budget(None)).unwrap();
    assert_eq!((route.tier.as_str(), route.auto, route.effort), ("a", true, None));
    assert_eq!(go(&mini, &budget(Some(EffortWish::Auto))).unwrap(), route);
    assert!(go(&mini, &wish("mini:auto", Some(EffortWish::Auto))).unwrap().auto);
    let by_default = Catalogue { default_effort: EffortWish::Auto, ..mini };
    assert_eq!(go(&by_default, &budget(None)).unwrap(), route);
    assert!(go(&by_default, &wish("mini", None)).unwrap().auto);
}

#[test]
fn auto_without_cards_falls_back_to_the_default_and_says_so() {
    let mini = Catalogue { default_effort: EffortWish::Named(Effort::Low), ..catalogue(&[0.4, 0.2]) };
    let route = go(&mini, &wish("mini:auto", None)).unwrap();
    assert_eq!((route.effort, route.auto), (Some(Effort::Low), false));
    assert_eq!(
        route.reason,
        "no loaded tier has a card that auto could choose by, and effort `low` instead leads to tier `alpha-0.4` (alpha 0.4)"
    );
    let mini = Catalogue { default_effort: EffortWish::Auto, ..mini };
    assert_eq!(go(&mini, &wish("mini", None)).unwrap().effort, Some(Effort::Medium));
}

#[test]
fn a_lowered_budget_is_told() {
    let mini = Catalogue { budgets: [(Effort::Low, 500)].into(), ..catalogue(&[0.4]) };
    let wish = Wish { max_completion_tokens: Some(160), ..wish("mini", named_effort(Effort::Low)) };
    let route = go(&mini, &wish).unwrap();
    assert_eq!(route.thinking, Thinking::Budget(139));
    assert!(
        route.reason.ends_with(
            "; the thinking budget is lowered from 500 to 139 tokens so that 160 in all leave room to answer"
        )
    );
    let explicit = go(&mini, &Wish { max_reasoning_tokens: Some(0), ..wish }).unwrap();
    assert_eq!(explicit.thinking, Thinking::Closed);
}

#[test]
fn who_asks_for_thoughts_gets_some() {
    let mini = catalogue(&[0.4, 0.2, 0.1, 0.05]);
    let closed = Catalogue { default_effort: EffortWish::Named(Effort::None), ..mini.clone() };
    let asking = |model: &str| Wish { asks_for_thoughts: Some("enable_thinking"), ..wish(model, None) };
    let route = go(&closed, &asking("mini")).unwrap();
    assert_eq!((route.effort, route.thinking), (Some(Effort::Minimal), Thinking::Free));
    assert!(route.reason.starts_with("`enable_thinking` asks for thoughts"), "{}", route.reason);
    let error = go(&mini, &asking("mini:none")).unwrap_err();
    assert_eq!(
        (error.clone(), error.param()),
        (RouteError::NoThoughts { field: "enable_thinking" }, Some("enable_thinking"))
    );
    let auto = Wish { latency_budget: Some(Duration::from_secs(1)), ..asking("mini") };
    assert_eq!(go(&closed, &auto).unwrap().effort, Some(Effort::Minimal), "no tier has a card");
    // Where thoughts are the default, it says nothing.
    assert_eq!(go(&mini, &asking("mini")).unwrap(), go(&mini, &wish("mini", None)).unwrap());
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let model = prop_oneof![
        Just("mini".to_owned()),
        "(brevity-)?mini:(none|low|high|auto|base|t[0-7])",
        "t[0-7]",
        "[a-z:]{0,9}",
    ];
    let effort = proptest::option::of(proptest::sample::select(EffortWish::ALL.to_vec()));
    let counts = (proptest::option::of(0..9000usize), proptest::option::of(0..9000usize), any::<bool>());
    let budget = proptest::option::of(0..100_000u64);
    (model, effort, budget, counts).prop_map(|(model, effort, budget, (thought, all, thoughts))| Wish {
        model,
        effort,
        asks_for_thoughts: thoughts.then_some("thinking.type"),
        latency_budget: budget.map(Duration::from_millis),
        max_reasoning_tokens: thought,
        max_completion_tokens: all,
    })
}

proptest! {
    #[test]
    fn every_wish_leads_to_a_loaded_tier_or_an_error(catalogue in any_catalogue(), wish in any_wish()) {
        match go(&catalogue, &wish) {
            Ok(route) => {
                let tier = catalogue.tier(&route.tier).unwrap();
                prop_assert!(tier.is_loaded());
                prop_assert_eq!(tier.alpha, route.alpha);
                prop_assert!(!route.reason.is_empty() && !route.reason.contains('\n'));
                prop_assert_eq!(&route, &go(&catalogue, &wish).unwrap());
            }
            Err(RouteError::Empty { .. }) => prop_assert_eq!(catalogue.loaded().count(), 0),
            Err(error) => prop_assert!(error.param().is_some()),
        }
    }

    #[test]
    fn more_effort_never_means_a_larger_alpha(catalogue in any_catalogue()) {
        let routes: Vec<Route> = Effort::ALL
            .into_iter()
            .filter_map(|effort| go(&catalogue, &wish("mini", named_effort(effort))).ok())
            .collect();
        prop_assert!(routes.is_empty() || routes.len() == 7);
        prop_assert!(routes.windows(2).all(|pair| pair[0].alpha >= pair[1].alpha), "{:?}", routes);
    }

    #[test]
    fn a_tier_is_substituted_exactly_when_the_mapped_one_is_missing(catalogue in any_catalogue()) {
        for effort in Effort::ALL {
            let mapped = catalogue.tier(&catalogue.efforts()[&effort]).unwrap();
            if let Ok(route) = go(&catalogue, &wish("mini", named_effort(effort))) {
                prop_assert_eq!(route.substituted, !mapped.is_loaded());
                prop_assert_eq!(route.substituted, route.tier != mapped.name);
            }
        }
    }
}
