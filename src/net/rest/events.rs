//! Reading server-sent events (WHATWG HTML, section 9.2.6).

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::BoxStream};
use std::{collections::VecDeque, io};
use types::Fault;

/// The longest line and the longest event that are read, bytes.
const MOST_EVENT: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its id; the last one that was told, if it has none of its own.
    pub id: String,
    /// Its name; `message` if it has none.
    pub name: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// Events as they come.
pub struct EventStream {
    source: BoxStream<'static, io::Result<Bytes>>,
    buffer: BytesMut,
    ready: VecDeque<ServerEvent>,
    last_id: String,
    name: String,
    data: Vec<String>,
}

impl EventStream {
    pub(super) fn new(source: BoxStream<'static, io::Result<Bytes>>) -> Self {
        let (buffer, ready) = (BytesMut::new(), VecDeque::new());
        Self { source, buffer, ready, last_id: String::new(), name: String::new(), data: Vec::new() }
    }

    /// The next event; none when the server ended the stream.
    ///
    /// # Errors
    /// The connection broke, or what comes is no event stream.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, Fault> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(chunk) = self.source.next().await else { return Ok(None) };
            let chunk = chunk.map_err(|error| Fault::unavailable(format!("the event stream broke off: {error}")))?;
            self.buffer.extend_from_slice(&chunk);
            self.lines()?;
        }
    }

    fn lines(&mut self) -> Result<(), Fault> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            let text = String::from_utf8_lossy(&line);
            self.line(text.trim_end_matches(['\n', '\r']));
        }
        let held = self.buffer.len() + self.data.iter().map(String::len).sum::<usize>();
        if held > MOST_EVENT {
            return Err(Fault::internal(format!("an event is longer than {MOST_EVENT} bytes")));
        }
        Ok(())
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if !data.is_empty() {
                let name = if name.is_empty() { "message".to_owned() } else { name };
                self.ready.push_back(ServerEvent { id: self.last_id.clone(), name, data: data.join("\n") });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push(value.to_owned()),
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_id),
            // Comments have an empty field name; anything else is for later versions.
            _ => {}
        }
    }
}
