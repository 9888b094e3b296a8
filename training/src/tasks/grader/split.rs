//! Taking a text apart at its top level: outside all brackets.

/// The parts of `text` between the separators that stand outside all brackets.
pub(super) fn top_level<'t>(text: &'t str, separator: &str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for at in top_level_positions(text) {
        let rest = text.get(at..).unwrap_or_default();
        if at >= start && starts_with_token(rest, separator) {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + separator.len();
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

/// Whether `text` begins with `token`; a command ends there too, so `\in` does not begin `\infty`.
pub(super) fn starts_with_token(text: &str, token: &str) -> bool {
    text.strip_prefix(token)
        .is_some_and(|rest| !token.starts_with('\\') || !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Byte positions of the characters that stand outside all brackets.
pub(super) fn top_level_positions(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut depth = 0usize;
    text.char_indices().filter_map(move |(at, character)| match character {
        '(' | '[' | '{' => {
            depth += 1;
            None
        }
        ')' | ']' | '}' => {
            depth = depth.saturating_sub(1);
            None
        }
        _ => (depth == 0).then_some(at),
    })
}

/// Opening bracket, content and closing bracket of a text that is one bracket as a whole; `(0,1]` is one too.
pub(super) fn enclosed(text: &str) -> Option<(char, &str, char)> {
    let (open, close) = (text.chars().next()?, text.chars().next_back()?);
    if !matches!(open, '(' | '[' | '{') || !matches!(close, ')' | ']' | '}') {
        return None;
    }
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    let mut depth = 0i64;
    for character in inner.chars() {
        depth += match character {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        if depth < 0 {
            return None;
        }
    }
    (depth == 0).then_some((open, inner, close))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_outside_brackets_only() {
        assert_eq!(top_level("(1,2),[3,4),5", ","), ["(1,2)", "[3,4)", "5"]);
        assert_eq!(top_level(r"(0,1)\cup(2,3)", r"\cup"), ["(0,1)", "(2,3)"]);
        assert_eq!(top_level(r"x\infty", r"\in"), [r"x\infty"]);
        assert_eq!(top_level("", ","), [""]);
        assert_eq!(top_level(")),é,", ","), ["))", "é", ""]);
    }

    #[test]
    fn sees_whether_one_bracket_holds_everything() {
        assert_eq!(enclosed("(0,1]"), Some(('(', "0,1", ']')));
        assert_eq!(enclosed("(0)+(1)"), None);
        assert_eq!(enclosed("{é}"), Some(('{', "é", '}')));
        assert_eq!(enclosed("("), None);
        assert_eq!(enclosed("x"), None);
    }
}
