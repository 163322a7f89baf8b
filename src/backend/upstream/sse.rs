//! Server-sent events out of the bytes of a response, however they are split.

/// Most bytes of a line, and of an event's data.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// A line or an event is longer than [`MOST_BYTES`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an event is longer than {MOST_BYTES} bytes")]
pub(super) struct TooLong;

/// Decodes the `data` of events; names, ids, retry times and comments are skipped.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// The last byte was a carriage return, so that a line feed now ends no other line.
    after_cr: bool,
}

impl Decoder {
    /// Takes more bytes and returns the data of the events that they complete. Bytes that are no
    /// UTF-8 are replaced.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                _ if self.line.len() >= MOST_BYTES => return Err(TooLong),
                _ => self.line.push(*byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<String>, TooLong> {
        if self.line.is_empty() {
            return Ok(self
                .data
                .take()
                .filter(|it| !it.is_empty())
                .map(|it| String::from_utf8_lossy(&it).into_owned()));
        }
        let line = self.line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.line);
        let value = match line.strip_prefix(b"data") {
            Some([]) => Some(&[][..]),
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => Some(value),
            _ => None,
        };
        if let Some(value) = value {
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend(value);
                }
                None => self.data = Some(value.to_vec()),
            }
            if self.data.as_ref().is_some_and(|it| it.len() > MOST_BYTES) {
                return Err(TooLong);
            }
        }
        self.line.clear();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": ping\r\n\r\ndata: {\"a\":\"é\"}\n\nevent: x\rdata:one\rdata: two\r\r\
                          id: 3\r\ndata\r\n\r\ndatax: no\n\ndata: [DONE]\n\ndata: cut off";
    const EVENTS: [&str; 3] = ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"];

    #[test]
    fn every_split_gives_the_same_events() {
        for split in 0..=STREAM.len() {
            let (head, tail) = STREAM.as_bytes().split_at(split);
            let mut decoder = Decoder::default();
            let mut events = decoder.push(head).unwrap();
            events.extend(decoder.push(tail).unwrap());
            assert_eq!(events, EVENTS, "split at {split}");
        }
    }

    #[test]
    fn bytes_one_by_one_give_the_same_events() {
        let mut decoder = Decoder::default();
        let events: Vec<String> =
            STREAM.as_bytes().chunks(1).flat_map(|it| decoder.push(it).unwrap()).collect();
        assert_eq!(events, EVENTS);
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(&vec![b'x'; MOST_BYTES + 1]), Err(TooLong));
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let mut decoder = Decoder::default();
        let line = [b"data:".as_slice(), &[b'x'; 1000], b"\n"].concat();
        let fails = (0..2000).any(|_| decoder.push(&line).is_err());
        assert!(fails);
    }
}
