//! A module for the registry from a file of whatever is in it: the registry takes binaries only, so text is
//! translated here, and what is no module at all is refused before anything is sent.

use std::{fs, io::Read, path::Path};

use crate::stopped::Stopped;

/// What a binary begins with; the four bytes after it are the version.
const MAGIC: &[u8; 4] = b"\0asm";
const MODULE: [u8; 4] = [1, 0, 0, 0];
/// A component has a version and a layer.
const COMPONENT_LAYER: [u8; 2] = [1, 0];

/// The module in a file, or on standard input when the path is `-`.
///
/// # Errors
/// The file cannot be read, or what it is instead of a module.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<u8>, Stopped> {
    let shown = path.display();
    let read = if path.as_os_str() == "-" { standard_input() } else { fs::read(path) };
    let bytes = read.map_err(|error| {
        let next = match error.kind() {
            std::io::ErrorKind::NotFound => "; `spear sample write hello` makes a first program",
            _ => "",
        };
        Stopped::usage(format!("cannot read {shown}: {error}{next}"))
    })?;
    module(path, bytes)
}

/// The name it is kept under: the last part of its path.
pub(in crate::cli) fn name(path: &Path) -> String {
    match path.file_name() {
        Some(name) if path.as_os_str() != "-" => name.to_string_lossy().into_owned(),
        _ => "module.wasm".to_owned(),
    }
}

fn standard_input() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn module(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, Stopped> {
    let shown = path.display();
    let refused = |why: &str| Err(Stopped::usage(format!("{shown} {why}")));
    match &bytes[..] {
        [] => refused("is empty, not a WebAssembly module"),
        [_, _, _, _, rest @ ..] if bytes.starts_with(MAGIC) => match rest {
            [a, b, c, d, ..] if [*a, *b, *c, *d] == MODULE => Ok(bytes),
            [_, _, layer @ ..] if layer.starts_with(&COMPONENT_LAYER) => {
                refused("is a WebAssembly component; only modules can be run: build for wasm32-wasip1")
            }
            [_, _, _, _, ..] => refused("is WebAssembly of a version that nobody knows: only version 1 can be run"),
            _ => refused("ends in the first bytes of a WebAssembly module: is it complete?"),
        },
        [0x7f, b'E', b'L', b'F', ..] => {
            refused("is a program for this machine, not a WebAssembly module: build it for wasm32-wasip1")
        }
        [b'#', b'!', ..] => refused("is a script, not a WebAssembly module"),
        [0x1f, 0x8b, ..] => refused("is compressed: unpack it first, gzip -d does"),
        _ => text(path, &bytes),
    }
}

/// Text begins with a parenthesis or a comment.
fn text(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, Stopped> {
    let shown = path.display();
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with(['(', ';']));
    let neither = "is neither a WebAssembly module (it would begin with \\0asm) nor one as text (with a parenthesis)";
    let text = text.ok_or_else(|| Stopped::usage(format!("{shown} {neither}")))?;
    wat::parse_str(text).map_err(|mut error| {
        error.set_path(path);
        Stopped::usage(error)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_binary_is_taken_as_it_is_and_text_is_translated() {
        let binary = wat::parse_str("(module)").unwrap();
        assert_eq!(module(Path::new("a"), binary.clone()).unwrap(), binary);
        assert_eq!(module(Path::new("a"), b"\n ;; nothing\n(module)".to_vec()).unwrap(), binary);
    }

    #[test]
    fn what_is_no_module_is_called_by_its_name() {
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b"\0asm", "complete"),
            (b"\0asm\x01", "complete"),
            (b"\0asm\x0d\0\x01\0", "component"),
            (b"\0asm\x02\0\0\0", "version"),
            (b"\x7fELF\x02", "for this machine"),
            (b"#!/bin/sh\n", "script"),
            (b"\x1f\x8b\x08", "compressed"),
            (b"hello", "neither"),
            (b"\xff\xfe", "neither"),
        ] {
            let error = module(Path::new("some.wasm"), bytes.to_vec()).unwrap_err();
            assert_eq!(error.code, 2);
            assert!(error.message.starts_with("some.wasm ") && error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn an_error_in_the_text_says_where() {
        let error = module(Path::new("some.wat"), b"(module\n  (func (export \"f\") i32.cons))".to_vec()).unwrap_err();
        assert!(error.message.contains("some.wat:2:"), "{error}");
        assert!(read(Path::new("/no/such.wasm")).unwrap_err().message.contains("spear sample write"));
    }
}
