//! How a chat template wants the calls of an assistant's earlier turn, found by asking it.
//!
//! OpenAI's messages leave room that templates fill differently: the content of a turn that only calls is empty or null,
//! arguments are an object or a JSON text. A template that gets the other form fails, or leaves the call out and says
//! nothing. So each model's template renders a call of its own once, in every form, until the call can be seen.

use brevity_training::tasks::chat::ChatTemplate;
use serde_json::{Value, json};

/// Stands in what is looked for in what a template makes of it.
pub(super) const PROBE: &str = "probe-7f3a";

/// A form of messages with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallShape {
    /// The content of a turn that only calls is null, not empty.
    null_content: bool,
    /// Arguments are a JSON text, not an object.
    text_arguments: bool,
}

impl CallShape {
    /// All of them; that which most templates expect first.
    const ALL: [Self; 4] = [
        Self { null_content: false, text_arguments: false },
        Self { null_content: true, text_arguments: false },
        Self { null_content: false, text_arguments: true },
        Self { null_content: true, text_arguments: true },
    ];

    /// The first in which `template` shows a call; `None` of a template that shows none.
    pub fn of(template: &ChatTemplate) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| {
            let arguments = json!({"value": PROBE}).to_string();
            let call = json!({"id": "abcdefghi", "type": "function",
                "function": {"name": "probe", "arguments": arguments}});
            let mut turn = json!({"role": "assistant", "content": "", "tool_calls": [call]});
            shape.apply(&mut turn);
            let messages = json!([{"role": "user", "content": "probe"}, turn, {"role": "user", "content": "probe"}]);
            template.render_with_tools(&messages, None, true, None).is_ok_and(|text| text.contains(PROBE))
        })
    }

    /// Puts a turn's calls into this form; a turn without calls stays as it is, and so do arguments that are no JSON object.
    pub fn apply(self, turn: &mut Value) {
        let Some(calls) = turn.get_mut("tool_calls").and_then(Value::as_array_mut) else { return };
        for call in calls.iter_mut().filter(|_| !self.text_arguments) {
            let arguments = &mut call["function"]["arguments"];
            let parsed = arguments.as_str().map(serde_json::from_str);
            if let Some(Ok(parsed @ Value::Object(_))) = parsed {
                *arguments = parsed;
            }
        }
        if self.null_content && turn["content"] == "" {
            turn["content"] = Value::Null;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(template: &str) -> Option<CallShape> {
        CallShape::of(&ChatTemplate::new("test.jinja", template.to_owned(), Vec::new()).unwrap())
    }

    fn each(turn: &str) -> String {
        format!("{{% for m in messages %}}{{{{ m.role }}}}: {turn}\n{{% endfor %}}")
    }

    #[test]
    fn each_template_gets_the_form_that_it_shows() {
        let (object, text) = (CallShape::ALL[0], CallShape::ALL[2]);
        let call = "{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}";
        assert_eq!(shape(&each(&format!("{{{{ m.content }}}}{call}"))), Some(object), "as Qwen's");
        let added = "{% for c in m.tool_calls %}{{ '```' + c.function.arguments }}{% endfor %}";
        assert_eq!(shape(&each(&format!("{{{{ m.content }}}}{added}"))), Some(text), "arguments added to a text");
        let silent = format!("{{% if m.content is none %}}{added}{{% else %}}{{{{ m.content }}}}{{% endif %}}");
        assert_eq!(shape(&each(&silent)), Some(CallShape::ALL[3]), "as the first of DeepSeek-R1's");
        assert_eq!(shape(&each("{{ m.content }}")), None);
    }

    #[test]
    fn a_turn_takes_the_form() {
        let call = |arguments: Value| json!({"type": "function", "function": {"name": "f", "arguments": arguments}});
        let turn = |content: Value, arguments: Value| json!({"content": content, "tool_calls": [call(arguments)]});
        let shaped = |shape: usize, mut turn: Value| {
            CallShape::ALL[shape].apply(&mut turn);
            turn
        };
        let sent = turn("".into(), json!(r#"{"x": 10000000000000000000000}"#));
        assert_eq!(shaped(3, sent.clone()), turn(Value::Null, json!(r#"{"x": 10000000000000000000000}"#)), "as sent");
        assert_eq!(shaped(0, turn("".into(), json!("{\"x\": 1}"))), turn("".into(), json!({"x": 1})));
        for kept in ["{x", "7", "[]"] {
            assert_eq!(shaped(0, turn("hm".into(), json!(kept))), turn("hm".into(), json!(kept)), "no object");
        }
        assert_eq!(shaped(3, json!({"content": ""})), json!({"content": ""}), "no calls");
    }
}
