//! No file descriptors are left: it says so, does not spin, serves who is there, and everybody again afterwards.

use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    machine::{limit_files, open_files, usage},
    seen::{show, until},
};
use crate::support::{Client, Daemon, PATIENCE};

/// One request on an open connection, which stays open; the answer's head and body.
async fn ask(stream: &mut TcpStream, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let lower = head.to_ascii_lowercase();
                let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse::<usize>().unwrap() {
                    return text;
                }
            }
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed");
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_it_says_so_does_not_spin_and_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    let client = Client::new(&daemon.sms());
    let address = daemon.address("sms/http");
    let file = client.upload("a file", vec![1; 1000]).await;
    let file = file.strip_prefix("sms+file://").unwrap();
    let mut inside = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut inside, "GET", "/livez", "").await.starts_with("HTTP/1.1 200"));
    let room = open_files(daemon.pid()) as u64;
    limit_files(daemon.pid(), room + 8);

    // More callers than it has descriptors for; the kernel takes them all.
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    let complaint = daemon.logged(&["cannot accept connections"]);
    show("the log without file descriptors", &complaint);
    assert!(complaint.contains("Too many open files") && complaint.contains("sms/http"), "{complaint}");
    // A loop that spins takes a whole processor; one that waits takes next to nothing.
    let (began, before) = (Instant::now(), usage(daemon.pid()).cpu);
    let complaints = || daemon.log().lines().filter(|line| line.contains("cannot accept connections")).count();
    let already = complaints();
    until("it complains again", async || complaints() >= already + 3).await;
    let (spent, passed) = (usage(daemon.pid()).cpu - before, began.elapsed());
    show("processor time while nothing can be accepted", format!("{spent:?} in {passed:?}"));
    assert!(spent < passed / 4, "{spent:?} of {passed:?}");
    assert!(passed >= Duration::from_secs(2), "no more than once a second");

    // Who is in is served. What needs a file says what is missing.
    assert!(ask(&mut inside, "GET", "/api/v1/nodes", "").await.starts_with("HTTP/1.1 200"));
    let task = r#"{"name":"inside","endpoint":"e","version":"1"}"#;
    let task = format!("{task}{}", " ".repeat(10));
    let request = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{task}",
        task.len()
    );
    inside.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    tokio::time::timeout(PATIENCE, inside.read_exact(&mut begun)).await.unwrap().unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200", "commits need no new file");
    let mut other = crowd.remove(0);
    for (method, path) in [("POST", "/api/v1/files".to_owned()), ("GET", format!("/api/v1/files/{file}"))] {
        let refused = ask(&mut other, method, &path, "").await;
        show("what needs a file", &refused);
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"NO_FILE_DESCRIPTORS\""), "{refused}");
        assert!(refused.contains("LimitNOFILE"), "{refused}");
    }

    // The crowd goes home.
    drop(crowd);
    let fresh = Client::new(&daemon.sms());
    assert_eq!(fresh.get("/readyz").await.0, 200);
    let again = async || {
        let upload = fresh.http.post(format!("{}/api/v1/files", fresh.base)).body("again");
        fresh.send(upload).await.0 == 200
    };
    until("files can be opened again", again).await;
    let (status, answer) = fresh.post("/api/v1/tasks", json!({"name": "x", "endpoint": "e", "version": "1"})).await;
    assert_eq!(status, 200, "{answer}");
}
