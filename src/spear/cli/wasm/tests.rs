#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn a_directory_has_one_name_or_two() {
    let named = |text| directory(text).map(|directory| (directory.host, directory.guest));
    assert_eq!(named("./data::/data"), Ok(("./data".into(), "/data".to_owned())));
    assert_eq!(named("data"), Ok(("data".into(), "data".to_owned())));
    assert_eq!(named("a::b::c"), Ok(("a".into(), "b::c".to_owned())));
    for wrong in ["", "::", "::/data", "data::"] {
        assert!(named(wrong).unwrap_err().contains("HOST::GUEST"), "{wrong}");
    }
}

#[tokio::test]
async fn standard_error_is_the_bytes_that_were_written() {
    for written in [&b"one\ntwo"[..], b"\n\n", b"crlf\r\nend\r", b"\xff\xfe\n\0", b"x"] {
        let (logs, lines) = LogBuffer::new(Arc::new(SystemClock::new()), MOST_WAITING, 1);
        for byte in written {
            logs.write(LogStream::Stderr, &[*byte]);
        }
        let found: Vec<u8> = lines.drain().into_iter().flat_map(bytes).collect();
        assert_eq!(found, written);
    }
}

#[test]
fn how_a_guest_ended_is_the_exit_code() {
    let run = Run {
        file: "guest.wasm".into(),
        args: Vec::new(),
        env: Vec::new(),
        dir: Vec::new(),
        timeout: None,
        memory: None,
        compiler: "cranelift".to_owned(),
    };
    for (reason, code) in [
        (Reason::Trap, 134),
        (Reason::Memory, 134),
        (Reason::Deadline, 124),
        (Reason::Cancelled, 130),
        (Reason::InvalidModule, 2),
        (Reason::Internal, 1),
    ] {
        assert_eq!(run.refused(&InvokeError::new(reason, "why")).code, code, "{reason:?}");
    }
    assert_eq!(run.refused(&InvokeError::new(Reason::Trap, "unreachable")).message, "guest.wasm: unreachable");
}
