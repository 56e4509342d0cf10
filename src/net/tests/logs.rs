//! What the log says of a request, and what it never says.

use axum::{Router, routing::get};
use std::{
    io,
    sync::{Arc, Mutex},
};
use tracing_subscriber::fmt::MakeWriter;
use types::Fault;

use super::Server;
use crate::{Access, Problem, ServeOptions, Token};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_failure_is_logged_with_its_cause_and_id_and_a_token_never() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let failing = || async { Problem::new(Fault::internal("cannot read")).caused_by("sector 7 is gone") };
    let panicking = || async {
        if std::hint::black_box(true) {
            panic!("the reason of the panic");
        }
    };
    let token = Token::from_text("canary-canary-canary").unwrap();
    let router = Router::new().route("/", get(failing)).route("/panic", get(panicking));
    let server = Server::with(router, Access::token(token), ServeOptions::default()).await;
    for (path, token, id) in [
        ("/", "canary-canary-canary", "id-1"),
        ("/panic", "canary-canary-canary", "id-2"),
        ("/", "canary-but-a-wrong-one", "id-3"),
    ] {
        let headers = format!("Authorization: Bearer {token}\r\nX-Request-Id: {id}\r\n");
        let answer = server.get(path, &headers).await;
        assert_eq!(answer.json()["request_id"], id);
        assert!(
            !answer.body.contains("sector") && !answer.body.contains("reason of") && !answer.body.contains("canary")
        );
    }

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = |id: &str, word: &str| {
        let found = log.lines().any(|line| line.contains("ERROR") && line.contains(id) && line.contains(word));
        assert!(found, "{id} {word}: {log}");
    };
    line("id-1", "sector 7 is gone");
    line("id-2", "the reason of the panic");
    assert!(log.contains("id-3"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}
