//! `Idempotency-Key`, as draft-ietf-httpapi-idempotency-key-header has it: the form of the key.

use http::{HeaderMap, HeaderName};
use types::Fault;

/// The header of a request, and its metadata in gRPC.
pub const HEADER: &str = "Idempotency-Key";
/// The header of an answer that was given before, and its metadata in gRPC.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Longest key, characters.
const MOST_KEY: usize = 255;
const NAME: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request; none when it brings none.
///
/// # Errors
/// There are several, or it is not of the form.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::invalid_field(HEADER, "is given more than once; a request has one"));
    }
    let text = value.to_str().map_err(|_| malformed("has characters that are not ASCII"))?;
    parse(text.trim_matches([' ', '\t'])).map(Some)
}

/// An answer of gRPC; marked, where it was given before.
pub fn marked<T>(answer: T, replayed: bool) -> tonic::Response<T> {
    let mut response = tonic::Response::new(answer);
    if replayed {
        let name = tonic::metadata::MetadataKey::from_static("idempotent-replayed");
        response.metadata_mut().insert(name, tonic::metadata::MetadataValue::from_static("true"));
    }
    response
}

/// A string of structured fields (RFC 9651 §3.3.3), or a bare word of visible characters.
fn parse(text: &str) -> Result<String, Fault> {
    let key = match text.strip_prefix('"') {
        Some(rest) => unquoted(rest)?,
        None if text.contains(['"', ',', ';', '\\']) => {
            return Err(malformed("has one of \" , ; \\ in it, which are for keys in quotes"));
        }
        None => text.to_owned(),
    };
    if key.is_empty() || key.len() > MOST_KEY {
        return Err(malformed(&format!("has {} characters", key.len())));
    }
    match key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(key),
        false => Err(malformed("has characters that are not visible ASCII")),
    }
}

/// What stands behind the first quote.
fn unquoted(rest: &str) -> Result<String, Fault> {
    let (mut key, mut chars) = (String::new(), rest.chars());
    loop {
        match chars.next() {
            None => return Err(malformed("begins with a quote and does not end with one")),
            Some('"') if chars.as_str().is_empty() => return Ok(key),
            Some('"') => return Err(malformed("goes on after its closing quote")),
            Some('\\') => match chars.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(malformed("has a \\ that stands before neither \" nor \\")),
            },
            Some(plain) => key.push(plain),
        }
    }
}

fn malformed(wrong: &str) -> Fault {
    Fault::invalid_field(HEADER, format!("{wrong}; use 1 to {MOST_KEY} visible ASCII characters, best in quotes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_a_word_or_a_string_in_quotes() {
        let read = |text: &str| key(&HeaderMap::from_iter([(NAME, HeaderValue::from_str(text).unwrap())]));
        for (text, expected) in [
            ("8e03978e-40d5", "8e03978e-40d5"),
            (" plain\t", "plain"),
            ("YWJj/+==", "YWJj/+=="),
            (r#""a,b;c""#, "a,b;c"),
            (r#""a\"b\\""#, r#"a"b\"#),
            (&"k".repeat(255), &"k".repeat(255)),
        ] {
            assert_eq!(read(text).unwrap().as_deref(), Some(expected), "{text}");
        }
        let long = "k".repeat(256);
        let (quoted, parts) =
            (format!("\"{long}\""), ["a,b", "a;b", "a\"b", "a b", "\"a\" b", "\"a\";p=1", r#""a", "b""#]);
        let forms = ["", r#""""#, r#""a"#, r#""a"b"#, r#""a\x""#, r#""a\"#, r#""a b""#, "\u{e9}", &long, &quoted];
        for text in parts.into_iter().chain(forms) {
            let fault = read(text).unwrap_err();
            assert_eq!(fault.errors[0].field, HEADER, "{text}");
            assert!(fault.message.contains("1 to 255 visible ASCII"), "{fault}");
        }
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
        let two = ["a", "b"].map(|text| (NAME, HeaderValue::from_static(text)));
        let mut headers = HeaderMap::new();
        for (name, value) in two {
            headers.append(name, value);
        }
        assert!(key(&headers).unwrap_err().message.contains("more than once"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_quoted_is_read_again_and_nothing_panics(key in "[!-~]{1,255}", any in "\\PC{0,300}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse(&quoted).unwrap(), key);
            if let Ok(key) = parse(&any) {
                prop_assert!(!key.is_empty() && key.len() <= 255 && key.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
