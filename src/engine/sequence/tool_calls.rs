//! Calls of tools inside an answer: `<tool_call>{"name": …, "arguments": …}</tool_call>`, as Qwen and Hermes write them.
//!
//! Text in, text and calls out, held back while a block is open. What is no well-formed call stays text.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::vocabulary::TOOL_MARKS;
use crate::engine::text::partial;

/// A part of an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// Text that is no call.
    Text(String),
    /// A call: name and arguments as JSON text.
    Call(String, String),
}

/// Finds calls in an answer that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Calls {
    held: String,
    /// Whitespace since the last call; `None` before the first and once other text followed.
    gap: Option<String>,
}

impl Calls {
    /// Adds text and gives the parts that are certain now.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        loop {
            let Some(start) = self.held.find(TOOL_MARKS[0]) else {
                let open = partial(self.held.as_bytes(), TOOL_MARKS[0].as_bytes());
                let rest = self.held.split_off(self.held.len() - open);
                let certain = std::mem::replace(&mut self.held, rest);
                self.text(certain, &mut parts);
                return parts;
            };
            let rest = self.held.split_off(start);
            let before = std::mem::replace(&mut self.held, rest);
            self.text(before, &mut parts);
            let Some(end) = end(&self.held) else { return parts };
            let rest = self.held.split_off(end);
            let block = std::mem::replace(&mut self.held, rest);
            self.block(block, &mut parts);
        }
    }

    /// What is held back, because nothing follows: a block without its end mark counts if its JSON is whole.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        let mut parts = Vec::new();
        if rest.starts_with(TOOL_MARKS[0]) {
            self.block(rest, &mut parts)
        } else {
            self.text(rest, &mut parts)
        }
        self.gap = None;
        parts
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len() + self.gap.as_ref().map_or(0, String::len)
    }

    /// Text outside blocks; whitespace between calls and after the last is theirs and not shown.
    fn text(&mut self, text: String, parts: &mut Vec<Part>) {
        match &mut self.gap {
            Some(gap) if text.trim().is_empty() => gap.push_str(&text),
            Some(gap) => {
                let text = std::mem::take(gap) + &text;
                self.gap = None;
                parts.push(Part::Text(text));
            }
            None if text.is_empty() => {}
            None => parts.push(Part::Text(text)),
        }
    }

    fn block(&mut self, block: String, parts: &mut Vec<Part>) {
        match call(&block) {
            Some((name, arguments)) => {
                self.gap = Some(String::new());
                parts.push(Part::Call(name, arguments));
            }
            None => self.text(block, parts),
        }
    }
}

/// Where the block that `text` begins with ends, its end mark included: the first one that is not inside a string, which is
/// one before which the JSON is whole, or is none.
fn end(text: &str) -> Option<usize> {
    let is_cut = |body: &str| serde_json::from_str::<IgnoredAny>(body.trim()).is_err_and(|error| error.is_eof());
    let mut ends = text.match_indices(TOOL_MARKS[1]).map(|(at, _)| at);
    ends.find(|&at| !is_cut(&text[TOOL_MARKS[0].len()..at])).map(|at| at + TOOL_MARKS[1].len())
}

/// What stands in a block.
#[derive(Deserialize)]
struct Body<'a> {
    name: String,
    #[serde(borrow, default, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

/// Name and arguments of a block, marks included; the arguments as the model wrote them, so that no number loses digits.
fn call(block: &str) -> Option<(String, String)> {
    let body = block.strip_prefix(TOOL_MARKS[0])?;
    let body = body.strip_suffix(TOOL_MARKS[1]).unwrap_or(body);
    let Body { name, arguments } = serde_json::from_str(body.trim()).ok()?;
    let arguments = match arguments.map(RawValue::get) {
        None => "{}".to_owned(),
        Some(text) if text.starts_with('"') => serde_json::from_str(text).ok()?,
        Some(text) if text.starts_with('{') => text.to_owned(),
        Some(_) => return None,
    };
    Some((name, arguments))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pieces: &[&str]) -> Vec<Part> {
        let mut calls = Calls::default();
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| calls.push(piece)).collect();
        parts.extend(calls.finish());
        parts.into_iter().fold(Vec::new(), |mut joined: Vec<Part>, part| {
            match (joined.last_mut(), part) {
                (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
                (_, part) => joined.push(part),
            }
            joined
        })
    }

    fn weather(city: &str) -> Part {
        Part::Call("weather".into(), format!(r#"{{"city": "{city}"}}"#))
    }

    const OSLO: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

    #[test]
    fn calls_come_whole_and_malformed_ones_stay_text() {
        assert_eq!(
            run(&["Let me see.\n", OSLO, "\n", OSLO, "\n"]),
            [Part::Text("Let me see.\n".into()), weather("Oslo"), weather("Oslo")]
        );
        assert_eq!(
            run(&["<tool_call>{\"name\": 3}</tool_call>!"]),
            [Part::Text("<tool_call>{\"name\": 3}</tool_call>!".into())]
        );
        assert_eq!(
            run(&["<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}"]),
            [Part::Call("f".into(), "{}".into())]
        );
        let digits = r#"{"n": 518198195181981819819818181637, "z": -0, "e": 5E708195}"#;
        let call = format!("<tool_call>{{\"name\": \"f\", \"arguments\": {digits}}}</tool_call>");
        assert_eq!(run(&[&call]), [Part::Call("f".into(), digits.into())], "as written");
        let inside = r#"{"text": "</tool_call> is a mark"}"#;
        let call = format!("<tool_call>{{\"name\": \"f\", \"arguments\": {inside}}}</tool_call>!");
        assert_eq!(run(&[&call]), [Part::Call("f".into(), inside.into()), Part::Text("!".into())]);
        assert_eq!(run(&["<tool_call>{\"name\": \"f\", \"arguments\": null}"]), [Part::Call("f".into(), "{}".into())]);
        assert_eq!(run(&["a <tool_call>{\"na"]), [Part::Text("a <tool_call>{\"na".into())]);
        assert_eq!(run(&["1 <tool", " 2"]), [Part::Text("1 <tool 2".into())]);
        assert_eq!(run(&[OSLO, "\n", " done"]), [weather("Oslo"), Part::Text("\n done".into())]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_the_parts(cuts in prop::collection::vec(0usize..260, 0..10)) {
            let text = format!("See é: {OSLO}\n{OSLO} and <tool_call>bad</tool_call> <tool");
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| text.is_char_boundary(cut)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&text[start..cut]);
                start = cut;
            }
            pieces.push(&text[start..]);
            prop_assert_eq!(run(&pieces), run(&[&text]));
        }
    }
}
