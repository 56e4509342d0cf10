//! What may be said of a file, and what its errors are called.

use http::{HeaderMap, HeaderName, header};
use std::{io, path::Path};
use types::{ErrorKind, Fault, FileId};

/// Header that names an upload.
pub(super) const NAME_HEADER: HeaderName = HeaderName::from_static("x-file-name");
/// Name of an upload that has none.
const DEFAULT_NAME: &str = "blob";
/// Media type of an upload that has none.
pub(super) const DEFAULT_TYPE: &str = "application/octet-stream";
/// Bytes of a name.
pub(super) const LONGEST_NAME: usize = 255;
/// Bytes of a media type.
pub(super) const LONGEST_TYPE: usize = 255;

/// EMFILE and ENFILE: not a matter of the disk.
const NO_DESCRIPTORS: i32 = rustix::io::Errno::MFILE.raw_os_error();
const NONE_IN_THE_SYSTEM: i32 = rustix::io::Errno::NFILE.raw_os_error();

/// What the headers of an upload say of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub name: String,
    pub content_type: String,
}

impl Label {
    /// Reads `x-file-name` (percent-encoded or plain UTF-8) and `content-type`.
    pub fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let name = match headers.get(NAME_HEADER) {
            None => DEFAULT_NAME.to_owned(),
            Some(value) => name(value.as_bytes())?,
        };
        let content_type = match headers.get(header::CONTENT_TYPE) {
            None => DEFAULT_TYPE.to_owned(),
            Some(value) => content_type(value.as_bytes())?,
        };
        Ok(Self { name, content_type })
    }
}

fn name(raw: &[u8]) -> Result<String, Fault> {
    let wrong = |detail: &str| Fault::invalid_field(NAME_HEADER.as_str(), detail);
    let name = String::from_utf8(percent_decoded(raw)).map_err(|_| wrong("is not UTF-8 once percent-decoded"))?;
    let name = name.trim();
    if name.is_empty() {
        return Ok(DEFAULT_NAME.to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Err(wrong(&format!("has {} bytes; at most {LONGEST_NAME}", name.len())));
    }
    if name.chars().any(char::is_control) {
        return Err(wrong("has control characters"));
    }
    Ok(name.to_owned())
}

fn content_type(raw: &[u8]) -> Result<String, Fault> {
    let wrong = |detail: String| Fault::invalid_field(header::CONTENT_TYPE.as_str(), detail);
    let text = std::str::from_utf8(raw).ok().map(str::trim).filter(|text| text.bytes().all(|byte| byte >= b' '));
    let text = text.ok_or_else(|| wrong("is not text".to_owned()))?;
    if text.len() > LONGEST_TYPE {
        return Err(wrong(format!("has {} bytes; at most {LONGEST_TYPE}", text.len())));
    }
    if text.to_ascii_lowercase().starts_with("multipart/") {
        let detail = "a form would be stored with its envelope; send the bytes themselves (curl --data-binary @file)";
        return Err(wrong(detail.to_owned()));
    }
    Ok(if text.is_empty() { DEFAULT_TYPE.to_owned() } else { text.to_owned() })
}

/// Decodes `%41`; a percent sign that begins no such sequence stands for itself.
fn percent_decoded(raw: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, after)) = rest.split_first() {
        let pair = (digit(after.first()), digit(after.get(1)));
        match (first, pair) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte"));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// Nothing of that name, whatever the name is: one that cannot be an id of ours is no other answer.
pub(super) fn not_found(id: &str) -> Fault {
    Fault::not_found("FILE_NOT_FOUND", format!("no file {:?} is here", types::id::clip(id)))
}

/// Over the limit of an upload.
pub(super) fn too_large(limit: u64) -> Fault {
    Fault::new(ErrorKind::TooLarge, "FILE_TOO_LARGE", format!("the file is over the limit of {limit} bytes"))
}

/// The bytes on disk are not those that were uploaded.
pub(super) fn corrupt(id: FileId, detail: &str) -> Fault {
    tracing::error!(file = %id, detail, "a stored file is damaged");
    let message = format!("the stored bytes of file {id} are damaged ({detail}); delete it and upload it again");
    Fault::new(ErrorKind::Internal, "FILE_CORRUPT", message)
}

/// An error of the disk.
pub(super) fn disk(what: &str, path: &Path, error: &io::Error) -> Fault {
    let full =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
    if full {
        let message = "the disk has not enough bytes free for this file; delete something, or give it a larger disk";
        return Fault::new(ErrorKind::StorageFull, "STORAGE_FULL", message);
    }
    if matches!(error.raw_os_error(), Some(NO_DESCRIPTORS | NONE_IN_THE_SYSTEM)) {
        tracing::warn!(path = %path.display(), %error, what, "no file could be opened");
        let message = "the registry has no file descriptors left: close connections, or raise its limit of open files \
                       (ulimit -n, LimitNOFILE=)";
        return Fault::new(ErrorKind::Unavailable, "NO_FILE_DESCRIPTORS", message);
    }
    tracing::error!(path = %path.display(), %error, what, "the disk failed");
    Fault::new(ErrorKind::Internal, "STORAGE_FAILED", format!("the disk failed: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn label(name: &[u8]) -> Result<Label, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(NAME_HEADER, HeaderValue::from_bytes(name).unwrap());
        Label::of(&headers)
    }

    #[test]
    fn a_name_may_be_percent_encoded_or_plain_utf_8() {
        for (sent, meant) in [
            ("hello.wasm", "hello.wasm"),
            ("a%20b.txt", "a b.txt"),
            ("%E4%BD%A0%E5%A5%BD.wasm", "你好.wasm"),
            ("你好.wasm", "你好.wasm"),
            ("50% off", "50% off"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("  ", "blob"),
        ] {
            assert_eq!(label(sent.as_bytes()).unwrap().name, meant, "{sent:?}");
        }
    }

    #[test]
    fn names_that_cannot_be_shown_are_refused_by_name() {
        for sent in ["a%00b", "a%0d%0aSet-Cookie:x", "%ff%fe", &"x".repeat(256)] {
            let fault = label(sent.as_bytes()).unwrap_err();
            assert_eq!(fault.errors[0].field, "x-file-name", "{sent:?}");
        }
    }

    #[test]
    fn a_form_is_refused_with_what_to_do_instead() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("Multipart/Form-Data; boundary=x"));
        let fault = Label::of(&headers).unwrap_err();
        assert!(fault.message.contains("--data-binary"), "{fault}");
    }

    proptest! {
        #[test]
        fn any_header_bytes_are_a_name_or_a_fault(bytes in proptest::collection::vec(32u8..=255, 0..400)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(NAME_HEADER, value.clone());
                headers.insert(header::CONTENT_TYPE, value);
                if let Ok(label) = Label::of(&headers) {
                    prop_assert!(!label.name.is_empty() && label.name.len() <= LONGEST_NAME);
                    prop_assert!(!label.name.chars().any(char::is_control));
                }
            }
        }

        #[test]
        fn decoding_is_the_inverse_of_encoding(bytes: Vec<u8>) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decoded(encoded.as_bytes()), bytes);
        }
    }
}
