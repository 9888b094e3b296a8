//! Text in pieces that are safe to show: whole characters, and no part of a stop string.
//!
//! Two small machines, each the same as searching the whole text once it is complete. Tokens are not known here.

/// Bytes to characters; incomplete ones wait.
#[derive(Debug, Default)]
pub(super) struct Characters {
    waiting: Vec<u8>,
}

impl Characters {
    /// Adds bytes and gives the characters that are whole now; what can never become one is replaced by U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.waiting.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return text.to_owned();
        }
        self.waiting.extend_from_slice(bytes);
        let mut text = String::new();
        let mut start = 0;
        while start < self.waiting.len() {
            match std::str::from_utf8(&self.waiting[start..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    start = self.waiting.len();
                }
                Err(error) => {
                    let valid = start + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.waiting[start..valid]));
                    start = valid;
                    let Some(broken) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    start += broken;
                }
            }
        }
        self.waiting.drain(..start);
        text
    }

    /// What still waits, replaced: nothing can complete it any more.
    pub fn finish(&mut self) -> &'static str {
        let broken = !self.waiting.is_empty();
        self.waiting.clear();
        if broken { "\u{fffd}" } else { "" }
    }

    /// Bytes that wait for the rest of their character.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// Looks for stop strings and holds back what may become one.
///
/// The match that is complete first wins; of several that end at the same character, the one that starts first. So the
/// result does not depend on how the text is cut into pieces, and what is shown never contains a stop string.
#[derive(Debug)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text; gives what is safe to show, and the stop string if one is complete (nothing may follow then).
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        let before = self.held.len();
        self.held.push_str(text);
        // A search prepares the whole of what it looks for, and must not for what cannot be there yet.
        let possible = self.stops.iter().filter(|stop| stop.len() <= self.held.len());
        let found = possible.filter_map(|stop| {
            // What was held was looked through before: a match ends in the new text.
            let from = self.held.floor_char_boundary((before + 1).saturating_sub(stop.len()));
            let start = from + self.held[from..].find(stop.as_str())?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((_, start, stop)) = found.min_by_key(|&(end, start, _)| (end, start)) {
            let stop = stop.clone();
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let open = self.stops.iter().map(|stop| partial(self.held.as_bytes(), stop.as_bytes())).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - open);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is held back, because nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// Length of the longest end of `text` that is a beginning of `mark`, but not all of it. Both are UTF-8.
pub(super) fn partial(text: &[u8], mark: &[u8]) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest).rev().find(|&length| text.ends_with(&mark[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The stop that is complete first in the whole text, by trying every end.
    fn reference(text: &str, stops: &[String]) -> (String, Option<String>) {
        for end in 0..=text.len() {
            let ending =
                |stop: &&String| !stop.is_empty() && text.is_char_boundary(end) && text[..end].ends_with(stop.as_str());
            if let Some(stop) = stops.iter().filter(ending).max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn the_first_complete_match_wins() {
        let stops = |list: &[&str]| Stops::new(&list.iter().map(|&stop| stop.to_owned()).collect::<Vec<_>>());
        assert_eq!(stops(&["abc", "b"]).push("abc"), ("a".into(), Some("b".into())));
        assert_eq!(stops(&["c", "abc"]).push("xabc"), ("x".into(), Some("abc".into())));
        let mut held = stops(&["\n\nEnd"]);
        assert_eq!(held.push("a\n\nEn"), ("a".into(), None));
        assert_eq!(held.held(), 4);
        assert_eq!(held.push("ough"), ("\n\nEnough".into(), None));
        assert_eq!(held.finish(), "");
        assert_eq!(stops(&["", "é"]).push("caf\u{e9}!"), ("caf".into(), Some("é".into())));
    }

    proptest! {
        #[test]
        fn stops_in_pieces_are_the_stops_of_the_whole(
            pieces in prop::collection::vec("[abé]{0,3}", 0..12),
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let mut machine = Stops::new(&stops);
            let (mut shown, mut stopped) = (String::new(), None);
            for piece in &pieces {
                let (text, stop) = machine.push(piece);
                shown.push_str(&text);
                if stop.is_some() {
                    stopped = stop;
                    break;
                }
            }
            shown.push_str(&machine.finish());
            prop_assert_eq!((shown, stopped), reference(&pieces.concat(), &stops));
        }

        #[test]
        fn characters_in_pieces_are_those_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![b'a', 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xff]), 0..4), 0..12),
        ) {
            let mut machine = Characters::default();
            let mut text: String = pieces.iter().map(|piece| machine.push(piece)).collect();
            text.push_str(machine.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&pieces.concat()).into_owned());
        }
    }
}
