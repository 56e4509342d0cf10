//! From what is known of an execution to messages of `spearlet.FunctionService`.

use api::{
    Disposition, End, Ended, InvokeError, Outcome,
    proto::spearlet as wire,
    wire::{data, timestamp},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use std::collections::HashMap;
use tokio_util::sync::DropGuard;
use tonic::Status;
use types::{ExecutionId, ExecutionStatus};

use super::seen::Seen;

/// Largest piece of a streamed answer: with it a message stays within what clients usually take.
const PIECE: usize = 1 << 20;

/// The status of an execution on the wire.
pub(super) fn wire_status(status: ExecutionStatus) -> wire::ExecutionStatus {
    match status {
        ExecutionStatus::Pending => wire::ExecutionStatus::Pending,
        ExecutionStatus::Running => wire::ExecutionStatus::Running,
        ExecutionStatus::Completed => wire::ExecutionStatus::Completed,
        ExecutionStatus::Failed | ExecutionStatus::Lost => wire::ExecutionStatus::Failed,
        ExecutionStatus::Cancelled => wire::ExecutionStatus::Cancelled,
        ExecutionStatus::Timeout => wire::ExecutionStatus::Timeout,
    }
}

/// A number as the wire has it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count as the wire has it.
pub(super) fn small(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// What a call used, as text.
fn metrics(seen: &Seen) -> HashMap<String, String> {
    let mut all = HashMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            all.insert(name.to_owned(), value);
        }
    };
    put("exit_code", seen.exit_code.map(|code| code.to_string()));
    put("disposition", seen.disposition.map(|disposition| disposition.as_str().to_owned()));
    put("cpu_ms", seen.usage.map(|usage| usage.cpu.as_millis().to_string()));
    put("bytes_in", seen.usage.map(|usage| usage.bytes_in.to_string()));
    put("bytes_out", seen.usage.map(|usage| usage.bytes_out.to_string()));
    all
}

/// How an execution stands, with its output if that is wanted.
pub(super) fn result(seen: &Seen, output: bool) -> wire::ExecutionResult {
    let (error_code, error_message) = seen.error().unwrap_or_default();
    wire::ExecutionResult {
        status: wire_status(seen.status).into(),
        result: seen.output.as_ref().filter(|_| output).map(data),
        error_message,
        error_code,
        execution_time_ms: seen.took_ms().map_or(0, signed),
        memory_used_bytes: seen.usage.map_or(0, |usage| signed(usage.peak_memory_bytes)),
        metrics: metrics(seen),
        started_at: seen.began.map(timestamp),
        completed_at: seen.ended.map(timestamp),
    }
}

/// An execution in a list.
pub(super) fn info(seen: &Seen) -> wire::ExecutionInfo {
    wire::ExecutionInfo {
        execution_id: seen.execution.to_string(),
        task_id: seen.task.to_string(),
        function_name: seen.function(),
        execution_mode: wire::ExecutionMode::Sync.into(),
        status: wire_status(seen.status).into(),
        started_at: seen.began.map(timestamp),
        completed_at: seen.ended.map(timestamp),
        execution_time_ms: seen.took_ms().map_or(0, signed),
        memory_used_bytes: seen.usage.map_or(0, |usage| signed(usage.peak_memory_bytes)),
        error_message: seen.error().map(|(_, message)| message).unwrap_or_default(),
        metadata: metrics(seen),
    }
}

/// The messages of a streamed answer. `guard` cancels the call when the client stops reading.
pub(super) fn pieces(
    outcome: Outcome,
    guard: DropGuard,
) -> BoxStream<'static, Result<wire::StreamExecutionResult, Status>> {
    let Outcome { execution, body, end, .. } = outcome;
    let cut = |bytes: Bytes| {
        let parts = bytes.len().div_ceil(PIECE);
        (0..parts).map(move |part| bytes.slice(part * PIECE..bytes.len().min((part + 1) * PIECE)))
    };
    let pieces = body.flat_map(move |piece| {
        let messages: Vec<_> = match piece {
            Ok(bytes) => cut(bytes).map(|bytes| Ok(piece_of(execution, &bytes))).collect(),
            Err(error) => vec![Err(Status::internal(error.to_string()))],
        };
        stream::iter(messages)
    });
    let last = stream::once(async move {
        let ended = match end {
            End::Now(ended) => Ok(ended),
            End::Later(later) => later.await,
        };
        drop(guard);
        Ok(last_of(execution, ended))
    });
    pieces.chain(last).boxed()
}

fn piece_of(execution: ExecutionId, bytes: &Bytes) -> wire::StreamExecutionResult {
    wire::StreamExecutionResult {
        execution_id: execution.to_string(),
        status: wire::ExecutionStatus::Running.into(),
        chunk_data: Some(data(bytes)),
        ..Default::default()
    }
}

fn last_of(execution: ExecutionId, ended: Result<Ended, InvokeError>) -> wire::StreamExecutionResult {
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (status, error_message, metadata) = match ended {
        Ok(ended) => {
            let done = ended.disposition == Disposition::Ok;
            let message =
                if done { String::new() } else { format!("the guest ended with exit code {}", ended.exit_code) };
            let status = if done { ExecutionStatus::Completed } else { ExecutionStatus::Failed };
            let code = ended.exit_code.to_string();
            (status, message, vec![text("exit_code", &code), text("disposition", ended.disposition.as_str())])
        }
        Err(error) => {
            let (status, disposition) = (error.status(), error.disposition().as_str());
            let metadata = vec![text("reason", error.reason.as_str()), text("disposition", disposition)];
            (status, error.message, metadata)
        }
    };
    wire::StreamExecutionResult {
        execution_id: execution.to_string(),
        status: wire_status(status).into(),
        chunk_data: None,
        is_final: true,
        error_message,
        metadata: metadata.into_iter().collect(),
    }
}
