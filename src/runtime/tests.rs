use std::sync::Arc;

use types::{LogStream, SystemClock};

use crate::{conformance, fake::Fake, *};

struct FakePrograms;

impl conformance::Programs for FakePrograms {
    fn echo(&self) -> Vec<u8> {
        b"echo".to_vec()
    }
    fn fail(&self, code: u8) -> Vec<u8> {
        format!("fail {code}").into_bytes()
    }
    fn trap(&self) -> Vec<u8> {
        b"trap".to_vec()
    }
    fn endless(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("asleep", b"sleep 3600000".to_vec())]
    }
    fn hungry(&self) -> Vec<u8> {
        b"memory".to_vec()
    }
    fn deep(&self) -> Vec<u8> {
        b"trap".to_vec()
    }
    fn flood(&self) -> Vec<u8> {
        b"flood 100000".to_vec()
    }
    fn garbage(&self) -> Vec<u8> {
        b"\0asm?".to_vec()
    }
}

#[tokio::test]
async fn the_fake_runtime_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(Arc::new(Fake::new("wasm")), &FakePrograms, dir.path()).await;
}

fn buffer(most: usize) -> (LogSink, LogBuffer) {
    LogBuffer::new(Arc::new(SystemClock::new()), most, 1)
}

#[tokio::test]
async fn output_becomes_numbered_lines_and_the_rest_is_flushed_at_the_end() {
    let (sink, buffer) = buffer(1000);
    sink.write(LogStream::Stdout, b"one\r\ntw");
    sink.write(LogStream::Stderr, b"oops\n");
    sink.write(LogStream::Stdout, b"o\nrest\xff");
    sink.close();
    let lines = buffer.next().await;
    let seen: Vec<_> = lines.iter().map(|line| (line.seq, line.stream.as_str(), line.message.as_str())).collect();
    assert_eq!(
        seen,
        [(1, "stdout", "one"), (2, "stderr", "oops"), (3, "stdout", "two"), (4, "stdout", "rest\u{fffd}")]
    );
    // What differs from the text is told as it was, so that a reader can put the very bytes together again.
    let raw: Vec<_> = lines.iter().map(|line| (line.raw_base64.as_deref(), line.unterminated)).collect();
    assert_eq!(raw, [(Some("b25lDQ=="), false), (None, false), (None, false), (Some("cmVzdP8="), true)]);
    assert!(buffer.next().await.is_empty(), "a closed and read log is at its end");
}

#[tokio::test(start_paused = true)]
async fn a_line_whose_end_does_not_come_is_handed_out_as_far_as_it_is() {
    let (sink, buffer) = buffer(1000);
    sink.write(LogStream::Stdout, b"working \xc3");
    let begun = buffer.next().await;
    assert_eq!((begun.len(), begun[0].raw_base64.as_deref(), begun[0].unterminated), (1, Some("d29ya2luZyDD"), true));
    sink.write(LogStream::Stdout, b"\xa9 done\n");
    let rest = buffer.next().await;
    assert_eq!((rest[0].raw_base64.as_deref(), rest[0].unterminated, rest[0].seq), (Some("qSBkb25l"), false, 2));
}

#[tokio::test]
async fn a_line_too_long_for_one_goes_on_in_the_next() {
    let (sink, buffer) = buffer(100_000);
    let text = "é".repeat(20_000);
    sink.write(LogStream::Stdout, format!("{text}\nshort\n").as_bytes());
    sink.close();
    let mut whole = Vec::new();
    let lines = buffer.next().await;
    for line in &lines {
        assert!(line.raw_base64.is_none(), "no character is cut in two here");
        whole.extend_from_slice(line.message.as_bytes());
        whole.extend_from_slice(if line.unterminated { b"" } else { b"\n" });
    }
    assert_eq!((lines.len(), String::from_utf8(whole).unwrap()), (4, format!("{text}\nshort\n")));
}

#[tokio::test]
async fn what_is_over_the_limit_is_cut_and_counted() {
    let (sink, buffer) = buffer(10);
    sink.write(LogStream::Stderr, b"0123456789abc\n");
    sink.close();
    let lines = buffer.next().await;
    assert_eq!(lines[0].message, "0123456789");
    assert_eq!(lines[1].message, "stderr: 4 more bytes were not kept (limit 10)");
}

#[tokio::test]
async fn a_flood_of_empty_lines_is_bounded_too() {
    let (sink, buffer) = buffer(6400);
    for _ in 0..100 {
        sink.write(LogStream::Stdout, &[b'\n'; 100]);
    }
    sink.close();
    let lines = buffer.next().await;
    assert_eq!(lines.len(), 101, "one line for every 64 bytes of the limit, and the one that counts the rest");
    assert_eq!(lines[100].message, "stdout: 9900 more bytes were not kept (limit 6400)");
}

mod pool;
