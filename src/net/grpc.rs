//! Faults over gRPC.
//!
//! A status carries the fault's kind, code and fields as JSON in the trailer `spear-fault-bin`, so that the
//! other side gets back the very fault; a status of somebody else is mapped by its code alone.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use types::{ErrorKind, Fault, FieldError};

use crate::problem::grpc_code;

/// Trailer that carries the fault.
pub const FAULT_TRAILER: &str = "spear-fault-bin";

/// Longest trailer that is read or written, in bytes: peers refuse larger header lists as a whole.
const MOST_BYTES: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Detail {
    kind: ErrorKind,
    code: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// The status of a fault.
pub fn status(fault: Fault) -> Status {
    let mut detail = Detail { kind: fault.kind, code: fault.code.to_string(), errors: fault.errors };
    let mut json = serde_json::to_vec(&detail).unwrap_or_default();
    if json.len() > MOST_BYTES {
        detail.errors.clear();
        json = serde_json::to_vec(&detail).unwrap_or_default();
    }
    let mut metadata = MetadataMap::new();
    if !json.is_empty() && json.len() <= MOST_BYTES {
        metadata.insert_bin(FAULT_TRAILER, MetadataValue::from_bytes(&json));
    }
    Status::with_metadata(grpc_code(fault.kind), shortened(fault.message), metadata)
}

/// The fault of a status: the very one if it was ours, else by its code.
pub fn fault(status: Status) -> Fault {
    let carried = status
        .metadata()
        .get_bin(FAULT_TRAILER)
        .and_then(|value| value.to_bytes().ok())
        .filter(|json| json.len() <= MOST_BYTES)
        .and_then(|json| serde_json::from_slice::<Detail>(&json).ok());
    if let Some(detail) = carried {
        return Fault {
            kind: detail.kind,
            code: Cow::Owned(detail.code),
            message: status.message().to_owned(),
            errors: detail.errors,
        };
    }
    let (kind, code) = kind_of(status.code());
    let mut message =
        if status.message().is_empty() { status.code().description() } else { status.message() }.to_owned();
    // A connection that failed says why only in its causes.
    let mut cause = std::error::Error::source(&status);
    while let Some(one) = cause {
        let text = one.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = one.source();
    }
    Fault::new(kind, code, message)
}

fn kind_of(code: Code) -> (ErrorKind, &'static str) {
    match code {
        Code::InvalidArgument => (ErrorKind::Invalid, "INVALID_ARGUMENT"),
        Code::Unauthenticated => (ErrorKind::Unauthenticated, "UNAUTHENTICATED"),
        Code::PermissionDenied => (ErrorKind::Denied, "DENIED"),
        Code::NotFound => (ErrorKind::NotFound, "NOT_FOUND"),
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => (ErrorKind::Conflict, "CONFLICT"),
        Code::ResourceExhausted => (ErrorKind::Exhausted, "EXHAUSTED"),
        Code::OutOfRange => (ErrorKind::OutOfRange, "OUT_OF_RANGE"),
        Code::Unavailable | Code::Cancelled => (ErrorKind::Unavailable, "UNAVAILABLE"),
        Code::DeadlineExceeded => (ErrorKind::Deadline, "DEADLINE"),
        Code::Unimplemented => (ErrorKind::Unsupported, "UNSUPPORTED"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (ErrorKind::Internal, "INTERNAL"),
    }
}

/// A message short enough for a header: percent-encoding may triple it.
fn shortened(mut message: String) -> String {
    const MOST: usize = 2048;
    if message.len() > MOST {
        let end = (0..=MOST).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}
