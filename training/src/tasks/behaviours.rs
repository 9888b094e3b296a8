//! Phrases that announce what a reasoning model does, of the kind that published analyses of R1-style models count.
//!
//! The paper's own lists are not public. The recipes for models of that kind carry these, and an evaluation without a recipe
//! counts them; the mini suite has [lists of its own](super::mini).

/// Checking a result.
pub const VERIFICATION: &[&str] = &[
    "let me check",
    "let me verify",
    "double-check",
    "double check",
    "to verify",
    "checking",
    "is that right",
    "make sure",
];

/// Giving up a path.
pub const BACKTRACKING: &[&str] =
    &["wait", "hold on", "that's not right", "that is not right", "i made a mistake", "going back", "scratch that"];

/// Trying another way.
pub const EXPLORATION: &[&str] =
    &["alternatively", "another way", "another approach", "different approach", "let me try", "what if", "maybe i can"];
