//! Thousands of clients that send and read as slowly as they can, beside some that mean well. How much slower the
//! good ones get is measured by `bench/registry`; here they are answered, and the slow ones are gone in the end.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use super::{
    machine::{open_files, usage},
    seen::show,
};
use crate::support::{Client, Daemon};

const SLOW: usize = 5000;
const GOOD: usize = 200;
/// What one slow client may cost, bytes of resident memory.
const EACH: u64 = 128 << 10;
/// Longest that any limit of a connection lasts, with time for a busy machine to act on so many.
const GONE_WITHIN: Duration = Duration::from_secs(400);

/// Connects and is slow in one of four ways, until the other side lets go or the test ends.
async fn slow(address: SocketAddr, file: Arc<str>, number: usize, there: Arc<AtomicUsize>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begin = match number % 4 {
        // Headers that never end.
        0 => "GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_owned(),
        // A body that never ends.
        1 => "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
              Content-Length: 1000000\r\n\r\n{"
            .to_owned(),
        // Nobody reads the answer.
        2 => format!("GET {file} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        // Nobody says anything, at first or after an answer.
        _ if number % 8 == 3 => String::new(),
        _ => "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    };
    drop(stream.write_all(begin.as_bytes()).await);
    there.fetch_add(1, Ordering::SeqCst);
    let drips = number % 4 < 2;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if drips && stream.write_all(b" ").await.is_err() {
            return;
        }
    }
}

/// Asks again and again until told to stop; every answer must be the right one.
async fn good(client: Client, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::SeqCst) {
        let (status, answer) = client.get("/api/v1/nodes").await;
        assert_eq!(status, 200, "{answer}");
        answered.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_slow_clients_are_let_go_and_two_hundred_good_ones_answered() {
    let limit = getrlimit(Resource::Nofile);
    let enough = Some(limit.maximum.unwrap_or(u64::MAX).max(SLOW as u64 + 4096).min(1 << 20));
    setrlimit(Resource::Nofile, Rlimit { current: enough, maximum: enough })
        .unwrap_or_else(|error| panic!("this test opens {SLOW} connections: {error}"));
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    let client = Client::new(&daemon.sms());
    let uri = client.upload("large", vec![7; 8 << 20]).await;
    let file: Arc<str> = format!("/api/v1/files/{}", uri.strip_prefix("sms+file://").unwrap()).into();
    // Hashed once before it is sent to thousands.
    assert_eq!(client.http.get(format!("{}{file}", client.base)).send().await.unwrap().status(), 200);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut good_ones = JoinSet::new();
    for _ in 0..GOOD {
        good_ones.spawn(good(Client::new(&client.base), stop.clone(), answered.clone()));
    }
    let give_up = Instant::now() + GONE_WITHIN;
    let wait = async |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(Instant::now() < give_up, "not within {GONE_WITHIN:?}: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    wait("every good one has been answered", &|| answered.load(Ordering::SeqCst) >= 3 * GOOD).await;
    let (files, memory) = (open_files(daemon.pid()), usage(daemon.pid()).resident);

    let there = Arc::new(AtomicUsize::new(0));
    let mut slow_ones = JoinSet::new();
    for number in 0..SLOW {
        slow_ones.spawn(slow(daemon.address("sms/http"), file.clone(), number, there.clone()));
        if number % 100 == 99 {
            wait("they get in", &|| there.load(Ordering::SeqCst) + 100 > number).await;
        }
    }
    wait("all are there", &|| there.load(Ordering::SeqCst) == SLOW).await;
    let (most_files, before) = (open_files(daemon.pid()), answered.load(Ordering::SeqCst));
    let most_memory = usage(daemon.pid()).resident;
    let each = most_memory.saturating_sub(memory) / SLOW as u64;
    show("slow clients", format!("{most_files} files open, {files} before; {each} bytes of memory for each"));
    assert!(each < EACH, "{each} bytes for each");
    wait("good ones are answered beside them", &|| answered.load(Ordering::SeqCst) >= before + 3 * GOOD).await;
    // A few connections of the good ones may have been opened anew.
    wait("the slow ones are let go", &|| open_files(daemon.pid()) <= files + GOOD / 4).await;
    stop.store(true, Ordering::SeqCst);
    while let Some(done) = good_ones.join_next().await {
        done.unwrap();
    }
    show("answers to good ones", answered.load(Ordering::SeqCst));
    slow_ones.abort_all();
}
