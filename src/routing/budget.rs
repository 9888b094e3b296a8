//! How much may be thought: the cap in tokens, and the room it leaves for the answer.

use std::collections::BTreeMap;

use crate::engine::Thinking;
use crate::family::Effort;

/// Tokens of `max_completion_tokens` that a thinking budget leaves: an eighth, at least 16, and one for the closing
/// mark. The sampler does the same with the limit that the context sets.
pub(super) fn answer_room(max_completion_tokens: usize) -> usize {
    (max_completion_tokens / 8).max(16) + 1
}

/// Tokens that may be thought at `effort` when the request does not say: none at effort `none`, else as `budgets` say; `None`
/// for any number. Where there is a limit, the card of the tier, which was measured without one, says nothing about the
/// effort.
pub fn default_limit(effort: Effort, budgets: &BTreeMap<Effort, usize>) -> Option<usize> {
    if effort == Effort::None { Some(0) } else { budgets.get(&effort).copied() }
}

/// How much may be thought, and what to tell people about it.
///
/// Effort `none` closes the thoughts at once, whatever budget is given. Else `asked` (`max_reasoning_tokens`) wins over
/// `default` (the effort's own), and neither means no limit. A budget of 0 closes the thoughts at once, and so does one
/// that `max_completion_tokens` leaves no room for; a budget is never raised.
pub(super) fn thinking(
    effort: Option<Effort>,
    asked: Option<usize>,
    default: Option<usize>,
    max_completion_tokens: Option<usize>,
) -> (Thinking, Option<String>) {
    if effort == Some(Effort::None) {
        return (Thinking::Closed, None);
    }
    let Some(budget) = asked.or(default) else {
        return (Thinking::Free, None);
    };
    let room = max_completion_tokens.map_or(usize::MAX, |most| most.saturating_sub(answer_room(most)));
    let note = (budget > room).then(|| {
        let most = max_completion_tokens.unwrap_or(usize::MAX);
        format!(
            "the thinking budget is lowered from {budget} to {room} tokens so that {most} in all leave room to answer"
        )
    });
    match budget.min(room) {
        0 => (Thinking::Closed, note),
        tokens => (Thinking::Budget(tokens), note),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(asked: Option<usize>, default: Option<usize>, most: Option<usize>) -> Thinking {
        thinking(Some(Effort::Low), asked, default, most).0
    }

    #[test]
    fn the_request_wins_over_the_effort() {
        assert_eq!(plan(None, None, Some(100)), Thinking::Free);
        assert_eq!(plan(None, Some(50), None), Thinking::Budget(50));
        assert_eq!(plan(Some(70), Some(50), None), Thinking::Budget(70));
        assert_eq!(plan(Some(0), Some(50), None), Thinking::Closed);
        assert_eq!(plan(None, Some(0), None), Thinking::Closed);
        assert_eq!(thinking(Some(Effort::None), Some(70), Some(50), None), (Thinking::Closed, None));
        assert_eq!(thinking(None, Some(70), None, None), (Thinking::Budget(70), None));
    }

    #[test]
    fn the_answer_keeps_an_eighth_and_at_least_16_tokens() {
        assert_eq!(plan(Some(100), None, Some(1000)), Thinking::Budget(100));
        let (lowered, note) = thinking(None, Some(1000), None, Some(1000));
        assert_eq!(lowered, Thinking::Budget(874));
        let note = note.unwrap();
        assert!(note.contains("from 1000 to 874 tokens so that 1000 in all"), "{note}");
        assert_eq!(plan(Some(1000), None, Some(40)), Thinking::Budget(23));
        assert_eq!(plan(Some(1000), None, Some(17)), Thinking::Closed);
        assert_eq!(plan(Some(1000), None, Some(0)), Thinking::Closed);
    }

    proptest! {
        #[test]
        fn a_budget_is_never_raised_and_leaves_room(asked in any::<usize>(), most in any::<usize>()) {
            match plan(Some(asked), None, Some(most)) {
                Thinking::Budget(tokens) => prop_assert!(tokens <= asked && tokens <= most - 17),
                Thinking::Closed => prop_assert!(asked == 0 || most <= 17),
                Thinking::Free => prop_assert!(false, "a budget was asked for"),
            }
        }
    }
}
