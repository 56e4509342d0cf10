//! Parts of the original's messages that are not ours: moments, values of any type, and when to call again.

use bytes::Bytes;
use prost::Message;
use prost_types::{Any, Duration as WireDuration, Timestamp as WireTimestamp};
use std::time::Duration;
use tonic::Status;
use types::{Fault, Timestamp, id::clip};

/// Type of what a guest wrote: the value is the bytes themselves.
pub const EXECUTION_DATA: &str = "type.googleapis.com/spearlet.ExecutionData";
/// Metadata of a status that says in how many milliseconds a client may call again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A moment.
pub fn timestamp(at: Timestamp) -> WireTimestamp {
    let nanos = i32::try_from(at.millis().rem_euclid(1000) * 1_000_000).unwrap_or_default();
    WireTimestamp { seconds: at.seconds(), nanos }
}

/// What a guest wrote.
pub fn data(bytes: &Bytes) -> Any {
    Any { type_url: EXECUTION_DATA.to_owned(), value: bytes.to_vec() }
}

/// A value as the bytes a guest reads: a number or a word as its text, a text or bytes as they are, so every other type.
///
/// # Errors
/// It is not of the type that it says.
pub fn value(any: &Any) -> Result<Bytes, Fault> {
    let bytes = any.value.as_slice();
    let kind = any.type_url.rsplit('/').next().unwrap_or_default();
    let text = |text: String| Bytes::from(text);
    let found = match kind {
        "google.protobuf.StringValue" => String::decode(bytes).map(text),
        "google.protobuf.BytesValue" => Bytes::decode(bytes),
        "google.protobuf.BoolValue" => bool::decode(bytes).map(|value| text(value.to_string())),
        "google.protobuf.Int32Value" => i32::decode(bytes).map(|value| text(value.to_string())),
        "google.protobuf.Int64Value" => i64::decode(bytes).map(|value| text(value.to_string())),
        "google.protobuf.UInt32Value" => u32::decode(bytes).map(|value| text(value.to_string())),
        "google.protobuf.UInt64Value" => u64::decode(bytes).map(|value| text(value.to_string())),
        "google.protobuf.FloatValue" => f32::decode(bytes).map(|value| text(value.to_string())),
        "google.protobuf.DoubleValue" => f64::decode(bytes).map(|value| text(value.to_string())),
        _ => return Ok(Bytes::copy_from_slice(bytes)),
    };
    found.map_err(|error| Fault::invalid_field("value", format!("is no {}: {error}", clip(kind))))
}

/// `google.rpc.Status`, of which clients read what they know.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<WireDuration>,
}

/// The same status, which says when to call again.
pub fn retry_after(status: &Status, after: Duration) -> Status {
    let delay = WireDuration::try_from(after).unwrap_or_default();
    let info = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
    let info = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info };
    let details = Details { code: status.code().into(), message: status.message().to_owned(), details: vec![info] };
    let mut metadata = status.metadata().clone();
    metadata.insert(PUSHBACK, u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    Status::with_details_and_metadata(status.code(), status.message(), details.encode_to_vec().into(), metadata)
}

/// When a status says to call again.
pub fn retry_of(status: &Status) -> Option<Duration> {
    let details = Details::decode(status.details()).ok()?;
    let info = details.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_value_is_read_as_a_guest_would_be_given_it() {
        let any = |kind: &str, value: Vec<u8>| Any { type_url: format!("type.googleapis.com/{kind}"), value };
        let read = |kind: &str, bytes: Vec<u8>| value(&any(kind, bytes));
        assert_eq!(read("google.protobuf.StringValue", "a b".to_owned().encode_to_vec()).unwrap(), "a b");
        assert_eq!(read("google.protobuf.Int64Value", (-7i64).encode_to_vec()).unwrap(), "-7");
        assert_eq!(read("google.protobuf.DoubleValue", 0.5f64.encode_to_vec()).unwrap(), "0.5");
        assert_eq!(read("google.protobuf.BoolValue", true.encode_to_vec()).unwrap(), "true");
        assert_eq!(read("google.protobuf.BytesValue", vec![1u8, 255].encode_to_vec()).unwrap(), [1u8, 255][..]);
        assert_eq!(read("spearlet.ExecutionData", vec![0xff]).unwrap(), [0xff][..]);
        let wrong = read("google.protobuf.StringValue", vec![0xff]).unwrap_err();
        assert_eq!(wrong.errors[0].field, "value");
        assert!(wrong.message.contains("StringValue"), "{wrong}");
    }

    #[test]
    fn a_status_tells_when_to_call_again_and_keeps_what_it_had() {
        let first = net::grpc::status(Fault::new(types::ErrorKind::Exhausted, "FUNCTION_BUSY", "busy"));
        let told = retry_after(&first, Duration::from_millis(1500));
        assert_eq!(retry_of(&told), Some(Duration::from_millis(1500)));
        assert_eq!(told.metadata().get(PUSHBACK).unwrap(), "1500");
        assert_eq!((told.code(), told.message()), (tonic::Code::ResourceExhausted, "busy"));
        assert_eq!(net::grpc::fault(told).code, "FUNCTION_BUSY");
        assert_eq!(retry_of(&first), None);
    }

    #[test]
    fn moments_before_the_epoch_have_positive_nanoseconds() {
        let at = timestamp(Timestamp(-1));
        assert_eq!((at.seconds, at.nanos), (-1, 999_000_000));
        let at = timestamp(Timestamp(1_700_000_000_123));
        assert_eq!((at.seconds, at.nanos), (1_700_000_000, 123_000_000));
    }
}
