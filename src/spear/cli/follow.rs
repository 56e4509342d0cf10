//! The output of an execution as it runs: its log, followed to the end, put together again to the very bytes.
//!
//! ```text
//!   log stream ─► lines ─► stdout, stderr: the guest's bytes     system: warnings only
//!        └ end ─► the execution: how it ended ─► what the log was too small for, from the result ─► exit code
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    client::{Client, segment},
    output,
    show::cell,
    stream::Resuming,
};
use crate::stopped::Stopped;

/// How long a registry may be away while an execution is followed.
const PATIENCE: Duration = Duration::from_secs(60);
/// An execution that has said nothing for so long is asked what it waits for.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// A line of a log as the REST interface tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Line {
    pub(super) ts_ms: i64,
    pub(super) seq: u64,
    pub(super) stream: String,
    pub(super) level: String,
    pub(super) message: String,
    #[serde(default)]
    raw_base64: Option<String>,
    #[serde(default)]
    pub(super) unterminated: bool,
}

impl Line {
    /// What the guest wrote.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Stopped> {
        let mut bytes = match &self.raw_base64 {
            Some(raw) => STANDARD
                .decode(raw)
                .map_err(|error| Stopped::failed(format!("line {} of the log is not base64: {error}", self.seq)))?,
            None => self.message.clone().into_bytes(),
        };
        if !self.unterminated {
            bytes.push(b'\n');
        }
        Ok(bytes)
    }
}

/// Lines of a log as they come.
pub(super) struct Lines<'a> {
    events: Resuming<'a>,
}

impl<'a> Lines<'a> {
    /// After the line with a number.
    pub(super) async fn follow(client: &'a Client, execution: &str, after: u64) -> Result<Self, Stopped> {
        let path = format!("/api/v1/executions/{}/logs?follow=true", segment(execution));
        Ok(Self { events: Resuming::open(client, path, Some(after.to_string()), Some(PATIENCE)).await? })
    }

    /// The next line with what the server sent; none when nothing more will come.
    pub(super) async fn next(&mut self) -> Result<Option<(Line, Value)>, Stopped> {
        loop {
            let event = self.events.next().await?;
            let data: Value = serde_json::from_str(&event.data).map_err(|error| unexpected(&error))?;
            match &*event.name {
                "line" => {
                    let line = Line::deserialize(&data).map_err(|error| unexpected(&error))?;
                    return Ok(Some((line, data)));
                }
                "end" => return Ok(None),
                "error" => {
                    let why = cell::of(&data, "message").text;
                    return Err(Stopped::failed(format!("the log cannot be read further: {why}")));
                }
                // For later versions.
                _ => {}
            }
        }
    }
}

fn unexpected(error: &serde_json::Error) -> Stopped {
    Stopped::failed(format!("the log comes in another form than expected: {error}"))
}

/// Writes the output of an execution until it ends, and ends as it did.
///
/// # Errors
/// Everything but success: what the guest ended with, 124 for a time limit, 1 with a reason for the rest.
pub(super) async fn follow(client: &Client, execution: &str) -> Result<(), Stopped> {
    let mut lines = Lines::follow(client, execution, 0).await?;
    let (mut written, mut cut) = (0, Vec::new());
    let mut waiting = Waiting::default();
    loop {
        let next = tokio::select! {
            next = lines.next() => next?,
            () = tokio::time::sleep(ASK_AFTER), if waiting.asks => {
                waiting.ask(client, execution).await;
                continue;
            }
        };
        let Some((line, _)) = next else { break };
        waiting.asks &= line.stream == "system";
        if line.stream == "system" && line.level == "warn" && written > 0 {
            // Perhaps that the log has no more of the output; then the result may have it.
            cut.push(line.message);
            continue;
        }
        written += show(&line)?;
    }
    let ended: Value = client.get(&format!("/api/v1/executions/{}", segment(execution))).await?;
    let completed = rest_of_result(client, execution, &ended, written).await?;
    for message in cut.iter().filter(|message| !completed || !message.starts_with("stdout: ")) {
        output::complain(&cell::plain(message));
    }
    verdict(&ended)
}

/// Writes a line where it belongs; how many bytes of standard output it was.
fn show(line: &Line) -> Result<u64, Stopped> {
    match &*line.stream {
        "stdout" => {
            let bytes = line.bytes()?;
            output::write(&bytes)?;
            Ok(bytes.len() as u64)
        }
        "stderr" => {
            // There is nobody left to tell when this fails.
            drop(io::stderr().lock().write_all(&line.bytes()?));
            Ok(0)
        }
        // The node's own words: what it does is of no interest here, what goes wrong is.
        _ if line.level == "warn" => {
            output::complain(&cell::plain(&line.message));
            Ok(0)
        }
        _ => Ok(0),
    }
}

/// Says why nothing happens, once for each reason.
struct Waiting {
    asks: bool,
    told: String,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { asks: true, told: String::new() }
    }
}

impl Waiting {
    async fn ask(&mut self, client: &Client, execution: &str) {
        // What is asked by the way may fail by the way.
        let Ok(now) = client.rest.get::<Value>(&format!("/api/v1/executions/{}", segment(execution))).await else {
            return;
        };
        let why = cell::of(&now, "message").text;
        self.asks = now["status"] == "pending";
        if self.asks && why != "-" && why != self.told {
            output::complain(&format!("waiting: {why}"));
            self.told = why;
        }
    }
}

/// A log has a limit; what it was too small for is in the result, if the guest ended by itself. Was there any?
async fn rest_of_result(client: &Client, execution: &str, ended: &Value, written: u64) -> Result<bool, Stopped> {
    let whole = ended["result"]["size"].as_u64().unwrap_or_default();
    if whole <= written {
        return Ok(false);
    }
    let path = format!("/api/v1/executions/{}/result", segment(execution));
    let mut content = client.rest.download(&path).await.map_err(|fault| client.refused(&fault))?;
    let mut skip = written;
    while let Some(chunk) = content.bytes.next().await {
        let chunk = chunk.map_err(|error| Stopped::unavailable(format!("the result broke off: {error}")))?;
        let from = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
        skip -= from as u64;
        output::write(chunk.get(from..).unwrap_or_default())?;
    }
    Ok(true)
}

/// How an execution ended, as the end of a command.
fn verdict(ended: &Value) -> Result<(), Stopped> {
    let (status, reason, message) =
        (cell::of(ended, "status").text, cell::of(ended, "reason").text, cell::of(ended, "message").text);
    let because = if message == "-" { String::new() } else { format!(": {message}") };
    match (&*status, &*reason) {
        ("completed", _) => Ok(()),
        // What the guest said for itself needs no words of ours; a code that does not fit is a failure all the same.
        ("failed", "exit") => {
            let code = ended["exit_code"].as_i64().and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0);
            match code {
                Some(code) => Err(Stopped::quietly(code)),
                None => Err(Stopped::failed(format!("failed{because}"))),
            }
        }
        ("failed", "-") => Err(Stopped::failed(format!("failed{because}"))),
        ("failed", reason) => Err(Stopped::failed(format!("failed ({reason}){because}"))),
        ("timeout", _) => Err(Stopped::timeout(format!("timeout{because}"))),
        ("pending" | "running", _) => {
            Err(Stopped::unavailable("its node has told everything but how it ended; see `spear execution get`"))
        }
        (status, _) => Err(Stopped::failed(format!("{status}{because}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn the_bytes_of_a_line_are_those_that_were_written() {
        let bytes = |more: Value| {
            let mut line = json!({"ts_ms": 1, "seq": 1, "stream": "stdout", "level": "info", "message": "a\u{fffd}"});
            line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Line::deserialize(&line).unwrap().bytes()
        };
        assert_eq!(bytes(json!({})).unwrap(), "a\u{fffd}\n".as_bytes());
        assert_eq!(bytes(json!({"raw_base64": "Yf8="})).unwrap(), b"a\xff\n");
        assert_eq!(bytes(json!({"raw_base64": "Yf8N", "unterminated": true})).unwrap(), b"a\xff\r");
        assert_eq!(bytes(json!({"raw_base64": "?"})).unwrap_err().code, 1);
    }

    #[test]
    fn the_end_of_an_execution_becomes_an_exit_code_and_says_why() {
        let end = |status: &str, reason: Value, code: Value, message: &str| {
            let ended = json!({"status": status, "reason": reason, "exit_code": code, "message": message});
            verdict(&ended).map_or_else(|stopped| (stopped.code, stopped.message), |()| (0, String::new()))
        };
        let said = |code: u8, text: &str| (code, text.to_owned());
        assert_eq!(end("completed", Value::Null, json!(0), ""), said(0, ""));
        assert_eq!(end("failed", json!("exit"), json!(3), "the guest ended with exit code 3"), said(3, ""));
        assert_eq!(end("failed", json!("exit"), json!(300), "exit code 300"), said(1, "failed: exit code 300"));
        assert_eq!(end("failed", json!("trap"), Value::Null, "unreachable"), said(1, "failed (trap): unreachable"));
        assert_eq!(end("timeout", json!("deadline"), Value::Null, "after 1 s"), said(124, "timeout: after 1 s"));
        assert_eq!(end("cancelled", json!("cancelled"), Value::Null, "by x"), said(1, "cancelled: by x"));
        assert_eq!(end("lost", json!("node_lost"), Value::Null, "gone"), said(1, "lost: gone"));
    }
}
