//! Finding the answer in a response: the last box, a phrase that announces it, or the last number.
//!
//! Only the place of the answer is decided here; what it looks like is the business of `normalize`.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::pattern;

static LAST_NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"-?[0-9]*\.?[0-9]+"));
static STRICT_NUMBER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:[0-9]{1,3}(?:,[0-9]{3})+\b|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"));
static LINE_JOIN: LazyLock<Regex> = LazyLock::new(|| pattern(r"\n\s*"));
static STRICT_PHRASE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\banswer\s+is\b\s*:?"));

/// The raw answer as the paper's grader finds it; `None` when there is none.
pub(super) fn qwen(response: &str) -> Option<String> {
    // A token of the tokenizer's Cyrillic part that the models were seen to emit inside answers.
    let response: Cow<'_, str> =
        if response.contains("ки") { response.replace("ки", "").into() } else { response.into() };
    let after_last = |phrase: &str| response.rsplit_once(phrase).map(|(_, rest)| rest.trim());
    let minerva = || {
        let (_, rest) = response.split_once("final answer is $")?;
        // The closing phrase may also stand before the opening one; then everything that follows is the answer.
        response.contains("$. I hope").then(|| rest.split("$. I hope").next().unwrap_or(rest).trim())
    };
    let found: Cow<'_, str> = if let Some(answer) = minerva() {
        answer.into()
    } else if let Some((_, rest)) = response.rsplit_once("boxed") {
        match rest.strip_prefix('{') {
            Some(body) => closed_by_brace(body).unwrap_or(body).into(),
            None => rest.split('$').next().unwrap_or_default().trim().into(),
        }
    } else if let Some(answer) = after_last("he answer is").or_else(|| after_last("final answer is")) {
        answer.into()
    } else if let Some((_, rest)) = response.split_once("答案是") {
        let rest = rest.split("答案是").next().unwrap_or(rest).trim();
        rest.split("\n\n").next().unwrap_or(rest).trim().into()
    } else {
        let plain = response.replace(',', "");
        LAST_NUMBER.find_iter(&plain).last()?.as_str().to_owned().into()
    };
    let joined = LINE_JOIN.replace_all(&found, "");
    let answer = joined.strip_prefix(':').unwrap_or(&joined);
    let answer = answer.strip_suffix('.').unwrap_or(answer);
    let answer = answer.strip_suffix('/').unwrap_or(answer);
    (!answer.is_empty()).then(|| answer.to_owned())
}

/// The raw answer where a careful reader finds it; `None` when there is none.
pub(super) fn strict(response: &str) -> Option<String> {
    let last_box = [r"\boxed", r"\fbox"].iter().filter_map(|name| response.rfind(name).map(|at| at + name.len())).max();
    let answer = if let Some(at) = last_box {
        let rest = response.get(at..)?.trim_start();
        match rest.strip_prefix('{') {
            // A box that is never closed was not finished, so it announces nothing.
            Some(body) => closed_by_brace(body)?.to_owned(),
            None => rest.split(|c: char| c == '$' || c.is_whitespace()).next()?.to_owned(),
        }
    } else if let Some(phrase) = STRICT_PHRASE.find_iter(response).last() {
        sentence(response.get(phrase.end()..)?).to_owned()
    } else if let Some((_, rest)) = response.rsplit_once("答案是") {
        sentence(rest).to_owned()
    } else {
        last_strict_number(response)?
    };
    let answer = answer.trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

/// What follows `####`, where GSM8K solutions put the answer.
pub(super) fn after_hashes(solution: &str) -> Option<&str> {
    solution.rsplit_once("####").map(|(_, rest)| rest.trim())
}

/// `body` up to the brace that closes the group it begins in; `None` when nothing closes it.
fn closed_by_brace(body: &str) -> Option<&str> {
    let mut depth = 1usize;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return body.get(..at);
        }
    }
    None
}

/// The answer in what follows "the answer is": the first formula of the sentence, else the sentence.
fn sentence(rest: &str) -> &str {
    let rest = rest.trim_start_matches([':', ' ', '*', '\n']);
    let line = rest.lines().next().unwrap_or_default();
    if let Some(formula) = line.split('$').nth(1).filter(|_| line.matches('$').count() >= 2) {
        return formula;
    }
    let end = line.find(". ").unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_matches(['*', ' ', '.'])
}

/// The last number of a text, its thousands separators removed; a minus belongs to it unless it subtracts.
fn last_strict_number(text: &str) -> Option<String> {
    let found = STRICT_NUMBER.find_iter(text).last()?;
    let before = text.get(..found.start())?;
    let negative = before
        .strip_suffix(['-', '−'])
        .is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ')' | ']' | '}')));
    let digits = found.as_str().replace(',', "");
    Some(if negative { format!("-{digits}") } else { digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        assert!(LAST_NUMBER.is_match("1") && STRICT_NUMBER.is_match("1"));
        assert!(LINE_JOIN.is_match("\n") && STRICT_PHRASE.is_match("the answer is"));
    }

    #[test]
    fn qwen_takes_the_last_box_then_phrases_then_numbers() {
        for (response, answer) in [
            (r"\boxed{2} and \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
            ("boxed 5$ foo", "5"),
            (r"\boxed{1{2}", "1{2}"),
            ("The final answer is $7$. I hope it is correct.", "7"),
            ("The answer is: 7.", " 7"),
            ("My final answer is 8/", "8"),
            ("所以答案是 9\n\nfoo", "9"),
            ("first 3, then -1,234.5", "-1234.5"),
        ] {
            assert_eq!(qwen(response).as_deref(), Some(answer), "{response}");
        }
        assert_eq!(qwen(r"\boxed{"), None);
        assert_eq!(qwen("nothing here"), None);
    }

    #[test]
    fn strict_wants_a_closed_box_and_reads_one_sentence() {
        for (response, answer) in [
            (r"\boxed{2} and \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
            (r"\boxed 5$ foo", "5"),
            ("The answer is 42. Because 6 * 7 is.", "42"),
            ("**The answer is $\\frac12$** as shown", r"\frac12"),
            ("So 5-3 leaves 1,234", "1234"),
            ("x = -3", "-3"),
            ("5-3", "3"),
        ] {
            assert_eq!(strict(response).as_deref(), Some(answer), "{response}");
        }
        assert_eq!(strict(r"\boxed{1} then \boxed{2"), None);
        assert_eq!(strict(r"\boxed{}"), None);
        assert_eq!(strict("boxed in"), None);
    }

    #[test]
    fn gsm8k_answers_follow_the_hashes() {
        assert_eq!(after_hashes("2+2=4\n#### 1,234"), Some("1,234"));
        assert_eq!(after_hashes("1,234"), None);
    }
}
