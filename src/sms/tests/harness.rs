//! A registry with its store on disk, served on free ports of this machine.

use net::{Access, ServeOptions, Sockets};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sms::{Config, Deps, Sms};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{DataDir, Redb, Store};
use supervise::{Budget, Phase, Supervisor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use types::SystemClock;

pub struct Registry {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub client: Client,
    home: PathBuf,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Registry {
    pub async fn start(home: &Path) -> Self {
        Self::with(home, Config::default()).await
    }

    pub async fn with(home: &Path, config: Config) -> Self {
        let clock = Arc::new(SystemClock::new());
        let supervisor = Supervisor::new(Budget { total: Duration::from_secs(5) });
        let dir = DataDir::open(home).unwrap();
        let engine = Redb::open(store::redb::Config::new(dir, clock.clone())).unwrap();
        let store = Store::start(Arc::new(engine), &supervisor.scope(Phase::Store, "store"));
        let bus = bus::Bus::start(&store, &supervisor.scope(Phase::Bus, "bus"));
        let (data_dir, ready) = (home.to_owned(), net::Readiness::new());
        let process = net::Process::new(("sms", "test"), &[], &supervisor, &ready, clock.clone());
        let sms = Sms::start(Deps { store, bus, clock, data_dir, process, config: config.into() }, &supervisor)
            .await
            .unwrap();
        let mut places = Vec::new();
        for (name, router) in [("http", sms.http()), ("grpc", sms.grpc().unwrap())] {
            let listener = Sockets::bind(name, name, "127.0.0.1:0".parse().unwrap()).await.unwrap();
            places.push(listener.local_addr());
            let scope = supervisor.scope(Phase::Intake, name);
            let (access, options) = (Access::loopback::<&str>([]), ServeOptions::default());
            net::serve(listener, router, access, options, &scope, supervisor.stopping());
        }
        drop(sms);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            supervisor.run(async { drop(stopped.await) }).await.unwrap();
        });
        Self { http: places[0], grpc: places[1], client: Client::new(), home: home.to_owned(), stop, running }
    }

    pub async fn stop(self) {
        drop(self.client);
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
        // The last thread that knew the store gives its directory up.
        until("the data directory is free again", || DataDir::open(&self.home).is_ok()).await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub fn put(&self, path: &str) -> RequestBuilder {
        self.client.put(self.url(path))
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(self.url(path))
    }

    /// Names in the directory of files.
    pub fn stored(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home.join("files")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "store-id").collect()
    }

    /// Sends bytes as they are, for what no proper client would send, and reads to the end of the answer.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A JSON answer with a status.
pub async fn json(request: RequestBuilder, status: u16) -> Value {
    let (found, body) = answer(request.send().await.unwrap()).await;
    assert_eq!(found.as_u16(), status, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// An error answer: its status, that it is a problem in full, and its code.
pub async fn problem(request: RequestBuilder, status: u16, code: &str) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let (found, body) = answer(response).await;
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((found.as_u16(), problem["code"].as_str().unwrap()), (status, code), "{body}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["success"], false);
    for member in ["type", "title", "detail", "message", "error", "request_id"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
    }
    problem
}

/// The name of the field that a problem blames.
pub fn field(problem: &Value) -> &str {
    problem["errors"][0]["field"].as_str().unwrap_or_default()
}

async fn answer(response: Response) -> (StatusCode, String) {
    (response.status(), response.text().await.unwrap())
}

/// Waits until something is so, 10 seconds at most.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(tokio::time::Instant::now() < end, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
