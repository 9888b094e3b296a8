//! `reasoning_effort: "auto"`: the tier that the cards and the measured speed speak for.

use std::time::Duration;

use super::budget::answer_room;
use super::{Catalogue, CatalogueTier, Expectation, Outlook, Wish};

/// Share of the fastest tier's time for its tokens by which another one may be slower and still count as fast: no
/// expectation is more precise than that. The wait is left out, or everything would be as fast when it is long.
const SAME_TIME: f64 = 0.1;

/// A tier that has a card.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    tier: &'a CatalogueTier,
    expected: Expectation,
    /// Tokens of one answer, as far as the request lets it go on.
    tokens: f64,
    /// Until that is complete.
    seconds: f64,
    /// Of these, from the first token on.
    generating: f64,
}

/// The tier that `auto` picks among the loaded ones that have a card, and why; `None` when none has one.
///
/// 1. Where the request limits its tokens, tiers whose answers would be cut off are left out, if others would not.
/// 2. With a latency budget, so are those whose expected time (mean tokens of the card at the speed of this moment) is
///    beyond it, except for the fastest and those about as fast ([`SAME_TIME`]).
/// 3. Of the others, none that is measurably worse than another one ([`Expectation::is_measurably_better_than`]), and of
///    those the one with the most accuracy per token.
///
/// Ties go to fewer tokens, then to the terser tier. A larger budget never picks a tier that is measurably worse.
pub(super) fn pick<'a>(
    catalogue: &'a Catalogue,
    outlook: Outlook<'_>,
    wish: &Wish,
) -> Option<(&'a CatalogueTier, String)> {
    let limit = limit(wish);
    let all: Vec<Candidate<'a>> = catalogue
        .loaded()
        .filter_map(|tier| {
            let expected = tier.expected?;
            let tokens = limit.map_or(expected.tokens, |limit| expected.tokens.min(limit));
            let speed = outlook.of(tier);
            let seconds = speed.seconds(tokens);
            let generating = seconds - speed.seconds_to_first_token;
            Some(Candidate { tier, expected, tokens, seconds, generating })
        })
        .collect();
    let candidates = limit.map_or_else(|| all.clone(), |limit| uncut(&all, limit));
    let (choice, mut why) = match wish.latency_budget {
        None => efficient(&candidates, "", "the tiers")?,
        Some(budget) => in_time(&candidates, budget)?,
    };
    if let (Some(limit), true) = (limit, candidates.len() < all.len()) {
        why.push_str(&format!(
            "; {} of {} tiers are left out because longer answers than about {limit:.0} tokens would be cut off",
            all.len() - candidates.len(),
            all.len()
        ));
    }
    Some((choice.tier, why))
}

/// Tokens after which the request has answers cut off. Behind closed thoughts there is still an answer, of which only the
/// room that is kept for it is known.
fn limit(wish: &Wish) -> Option<f64> {
    let thought = wish.max_reasoning_tokens.map(|most| most.saturating_add(answer_room(most)));
    let limit = wish.max_completion_tokens.into_iter().chain(thought).min()?;
    Some(limit as f64)
}

/// The candidates whose answers end within `limit` tokens: nearly all of them, else the mean one; where no tier is that
/// terse, the tersest.
fn uncut<'a>(candidates: &[Candidate<'a>], limit: f64) -> Vec<Candidate<'a>> {
    let fewest = candidates.iter().map(|candidate| candidate.expected.tokens).fold(f64::INFINITY, f64::min);
    let within = |tokens: fn(&Expectation) -> f64, limit: f64| {
        let is_within = |candidate: &&Candidate<'a>| tokens(&candidate.expected) <= limit;
        Some(candidates.iter().filter(is_within).copied().collect::<Vec<_>>()).filter(|some| !some.is_empty())
    };
    within(|expected| expected.tokens_p95, limit)
        .or_else(|| within(|expected| expected.tokens, limit))
        .or_else(|| within(|expected| expected.tokens, fewest))
        .unwrap_or_default()
}

/// The choice among the candidates that fit the budget. The fastest always do, so that there is a choice.
fn in_time<'a>(candidates: &[Candidate<'a>], budget: Duration) -> Option<(Candidate<'a>, String)> {
    let fastest = candidates.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    let (seconds, milliseconds) = (budget.as_secs_f64(), budget.as_millis());
    let most = seconds.max(fastest.seconds + SAME_TIME * fastest.generating);
    let is_fitting = |candidate: &&Candidate<'a>| candidate.seconds <= most;
    let fitting: Vec<Candidate<'a>> = candidates.iter().filter(is_fitting).copied().collect();
    if fastest.seconds <= seconds {
        return efficient(&fitting, "", &format!("the tiers expected to answer within about {milliseconds} ms"));
    }
    let lead = format!("no tier is expected to answer within {milliseconds} ms; ");
    efficient(&fitting, &lead, "the fastest tiers")
}

/// The most accuracy per token of the candidates than which none is measurably better; `which` says in words what these are,
/// and `lead` what is to be known before.
fn efficient<'a>(candidates: &[Candidate<'a>], lead: &str, which: &str) -> Option<(Candidate<'a>, String)> {
    let accuracy = |candidate: &Candidate<'_>| candidate.expected.accuracy;
    let best = candidates.iter().map(accuracy).max_by(f64::total_cmp)?;
    let is_good = |candidate: &&Candidate<'a>| {
        !candidates.iter().any(|other| other.expected.is_measurably_better_than(&candidate.expected))
    };
    let per_token = |candidate: &Candidate<'_>| candidate.expected.accuracy / candidate.tokens.max(1.0);
    let rank = |candidate: &Candidate<'a>| [per_token(candidate), -candidate.expected.tokens];
    let &choice = first_best(candidates.iter().filter(is_good), rank)?;
    let why = format!(
        "auto picked tier {}: {lead}the most accuracy per token ({}) of {which} that are not measurably worse than the best \
         ({})",
        about(&choice),
        percent(choice.expected.accuracy),
        percent(best),
    );
    Some((choice, why))
}

/// The item whose rank is greatest, compared from the left; the first of equals, which is the terser tier.
fn first_best<'s, 'a: 's>(
    items: impl Iterator<Item = &'s Candidate<'a>>,
    rank: impl Fn(&Candidate<'a>) -> [f64; 2],
) -> Option<&'s Candidate<'a>> {
    let greater = |a: [f64; 2], b: [f64; 2]| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])).is_gt();
    items.reduce(|best, item| if greater(rank(item), rank(best)) { item } else { best })
}

fn about(candidate: &Candidate<'_>) -> String {
    let Candidate { tier, tokens, seconds, .. } = candidate;
    format!("`{}` (alpha {}, about {tokens:.0} tokens in {:.0} ms)", tier.name, tier.alpha, seconds * 1000.0)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
#[path = "auto_tests.rs"]
mod tests;
