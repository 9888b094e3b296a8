//! How a person might ask for the value of an expression.
//!
//! Many phrasings of the same question, so that a model trained on them answers ordinary messages under any chat
//! template, and system prompts that it learns to accept. No answers, no thoughts.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::expression::{Expression, Sign, Term};

/// Ways to ask that fit every expression; `{}` stands for its canonical text.
pub const PHRASINGS: &[&str] = &[
    "What is {}?",
    "Compute {}.",
    "Find the value of {}.",
    "{}",
    "How much is {}?",
    "Calculate {}.",
    "Evaluate {}.",
    "Solve {}.",
    "{} = ?",
];

/// What the paper puts before every question (section 4.1), for models that were not trained to box their answers.
pub const INSTRUCTION: &str = "Please reason step by step, and put your final answer within \\boxed{}. Question: ";

/// System prompts that turn up in front of a conversation now and then.
pub const SYSTEM_PROMPTS: &[&str] =
    &["You are a helpful assistant.", "You solve problems step by step.", "Think only as long as needed."];

/// Chance of a short word problem, where the expression allows one.
const STORY: f64 = 0.15;

/// Chance of [`INSTRUCTION`] before the question.
const INSTRUCTED: f64 = 0.1;

/// Chance of a system prompt.
const SYSTEM: f64 = 0.15;

/// A random way to ask for the value of `expression`.
pub fn ask(expression: &Expression, rng: &mut impl Rng) -> String {
    let story = if rng.random_bool(STORY) { story(expression, rng) } else { None };
    let question = story.unwrap_or_else(|| {
        let phrasing = PHRASINGS.choose(rng).copied().unwrap_or("{}");
        phrasing.replace("{}", &expression.to_string())
    });
    if rng.random_bool(INSTRUCTED) { format!("{INSTRUCTION}{question}") } else { question }
}

/// A system prompt for some conversations, none for most.
pub fn system_prompt(rng: &mut impl Rng) -> Option<&'static str> {
    if rng.random_bool(SYSTEM) { SYSTEM_PROMPTS.choose(rng).copied() } else { None }
}

/// A short word problem about things that come and go; [`None`] when a term is a product.
fn story(expression: &Expression, rng: &mut impl Rng) -> Option<String> {
    let Term::Number(start) = expression.first() else { return None };
    let name = ["Ann", "Ben"].choose(rng)?;
    let (things, comes, goes) = [("apples", "buys", "eats"), ("coins", "gets", "gives away")].choose(rng)?;
    let mut text = format!("{name} has {start} {things}.");
    for (sign, term) in expression.rest() {
        let Term::Number(number) = *term else { return None };
        let verb = match sign {
            Sign::Plus => comes,
            Sign::Minus => goes,
        };
        text.push_str(&format!(" {name} {verb} {number}."));
    }
    text.push_str(&format!(" How many {things} has {name} now?"));
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn sums() -> Expression {
        Expression::new(Term::Number(58), vec![(Sign::Plus, Term::Number(68)), (Sign::Minus, Term::Number(19))])
    }

    #[test]
    fn a_story_tells_every_term_in_order() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let told: BTreeSet<String> = (0..50).filter_map(|_| story(&sums(), &mut rng)).collect();
        assert!(told.contains("Ann has 58 apples. Ann buys 68. Ann eats 19. How many apples has Ann now?"), "{told:?}");
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn products_are_never_told_as_a_story() {
        let product = Expression::new(Term::Number(58), vec![(Sign::Plus, Term::Product(68, 3))]);
        assert_eq!(story(&product, &mut ChaCha8Rng::seed_from_u64(0)), None);
    }

    #[test]
    fn one_expression_is_asked_in_many_ways() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let asked: BTreeSet<String> = (0..1000).map(|_| ask(&sums(), &mut rng)).collect();
        assert!(PHRASINGS.len() >= 8 && asked.len() > 2 * PHRASINGS.len());
        assert!(asked.contains("What is 58 + 68 - 19?") && asked.contains("58 + 68 - 19"));
        assert!(asked.contains(&format!("{INSTRUCTION}What is 58 + 68 - 19?")));
        let systems: BTreeSet<_> = (0..200).map(|_| system_prompt(&mut rng)).collect();
        assert_eq!(systems.len(), SYSTEM_PROMPTS.len() + 1);
    }
}
