//! Server-sent events, cut out of a stream of bytes: the data of each event, nothing else.
//!
//! Follows the event stream format of the HTML standard for what chat completions use: `data:` lines, joined where there
//! are several, ended by an empty line; comments and other fields are skipped. It holds no text longer than one event, and
//! knows neither JSON nor time.

/// Longest event that is accepted, in bytes; a server that sends more is not speaking this protocol.
const LONGEST: usize = 16 << 20;

/// An event was longer than 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than 16 MiB")]
pub struct TooLong;

/// Cuts bytes into events.
#[derive(Debug, Default)]
pub struct EventReader {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Data lines of the event at hand.
    data: Vec<u8>,
    /// Whether the event at hand has a data line.
    has_data: bool,
    /// Whether the last byte was a carriage return, to whose line a line feed still belongs.
    after_return: bool,
}

impl EventReader {
    /// Takes the next bytes and calls `on_data` with the data of every event that they complete.
    ///
    /// # Errors
    /// [`TooLong`] when an event does not end.
    pub fn feed(&mut self, bytes: &[u8], mut on_data: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let mut rest = bytes;
        if self.after_return && !rest.is_empty() {
            self.after_return = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
            let (line, tail) = rest.split_at(end);
            rest = match tail.strip_prefix(b"\r") {
                Some([]) => {
                    self.after_return = true;
                    &[]
                }
                Some(after) => after.strip_prefix(b"\n").unwrap_or(after),
                None => tail.get(1..).unwrap_or_default(),
            };
            if self.line.is_empty() {
                self.take(line, &mut on_data);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take(&whole, &mut on_data);
                whole.clear();
                self.line = whole;
            }
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.data.len() > LONGEST { Err(TooLong) } else { Ok(()) }
    }

    /// The stream has ended: hands out an event whose closing empty line never came, as some servers leave it away.
    pub fn finish(&mut self, mut on_data: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take(&line, &mut on_data);
        }
        self.take(&[], &mut on_data);
    }

    /// Handles one whole line.
    fn take(&mut self, line: &[u8], on_data: &mut impl FnMut(&[u8])) {
        if line.is_empty() {
            if self.has_data {
                on_data(&self.data);
                self.data.clear();
                self.has_data = false;
            }
            return;
        }
        let Some(value) = line.strip_prefix(b"data:") else { return };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let (mut reader, mut events) = (EventReader::default(), Vec::new());
        for part in parts {
            reader.feed(part, |data| events.push(String::from_utf8(data.to_vec()).unwrap())).unwrap();
        }
        reader.finish(|data| events.push(String::from_utf8(data.to_vec()).unwrap()));
        events
    }

    #[test]
    fn data_is_handed_out_and_the_rest_is_skipped() {
        let text =
            b": keep-alive\n\nevent: chunk\nid: 7\ndata: {\"a\":1}\n\ndata:two\ndata: lines\n\n\n\ndata: [DONE]\n\n";
        assert_eq!(read(&[text]), ["{\"a\":1}", "two\nlines", "[DONE]"]);
    }

    #[test]
    fn every_line_ending_of_the_standard_is_known() {
        assert_eq!(read(&[b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n"]), ["a", "b", "c"]);
        assert_eq!(read(&[b"data: a\r", b"\n\r", b"\ndata: b\r", b"\r"]), ["a", "b"]);
    }

    #[test]
    fn an_event_without_its_empty_line_is_not_lost() {
        assert_eq!(read(&[b"data: [DONE]"]), ["[DONE]"]);
        assert_eq!(read(&[b"data: [DONE]\n"]), ["[DONE]"]);
        assert_eq!(read(&[b"data:\n\n"]), [""]);
        assert_eq!(read(&[b"\n\n"]), Vec::<String>::new());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = EventReader::default();
        let part = vec![b'x'; LONGEST / 2];
        assert_eq!(reader.feed(&part, |_| {}), Ok(()));
        assert_eq!(reader.feed(&part, |_| {}), Ok(()));
        assert_eq!(reader.feed(b"x", |_| {}), Err(TooLong));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_cut(
            events in prop::collection::vec("[a-z\u{e9}{}: ]{1,20}", 0..6),
            ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let text: String = events.iter().map(|data| format!("data: {data}{ending}{ending}")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let (mut reader, mut found) = (EventReader::default(), Vec::new());
            for part in parts {
                reader.feed(part, |data| found.push(String::from_utf8(data.to_vec()).unwrap())).unwrap();
            }
            prop_assert_eq!(found, events);
        }
    }
}
