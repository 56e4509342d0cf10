//! The rules of the object store: by call, over gRPC and over HTTP on real sockets, across restarts and damage.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

use api::proto::spearlet::{
    AddObjectRefRequest, DeleteObjectRequest, GetObjectRequest, ListObjectsRequest, PinObjectRequest, PutObjectRequest,
    RemoveObjectRefRequest, UnpinObjectRequest, object_service_client::ObjectServiceClient,
};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use store::{Batch, Change, Conflict, DataDir, Engine, Memory, Page, Record, Redb, Rev, Store, redb};
use supervise::{Budget, Phase, Supervisor};
use tempfile::TempDir;
use tokio::sync::watch;
use types::{Clock, ErrorKind, Keyed, LogId, SystemClock, Timestamp, clock::ManualClock};
use uuid::Uuid;

use super::{Backend, Config, Error, MOST_KEY, ObjectRecord, Put, Refusal, Service, grpc, http};

/// An object store on disk with both its faces on real sockets.
struct Node {
    supervisor: Supervisor,
    store: Store,
    service: Arc<Service>,
    http: SocketAddr,
    grpc: SocketAddr,
}

/// The directory, once the last task of the node before has let go of it.
async fn free(dir: &TempDir) -> DataDir {
    let taken = async {
        loop {
            match DataDir::open(dir.path()) {
                Ok(taken) => return taken,
                Err(store::Error::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap()
}

async fn listen(router: axum::Router, supervisor: &Supervisor) -> SocketAddr {
    let listener = net::Sockets::bind("test", "test", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr();
    let (access, options) = (net::Access::loopback([""; 0]), net::ServeOptions::default());
    net::serve(listener, router, access, options, &supervisor.scope(Phase::Intake, "test"), supervisor.stopping());
    address
}

impl Node {
    async fn start(dir: &TempDir, config: &Config) -> Self {
        let supervisor = Supervisor::new(Budget::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let engine = Redb::open(redb::Config::new(free(dir).await, clock.clone())).unwrap();
        let store = Store::start(Arc::new(engine), &supervisor.scope(Phase::Store, "store"));
        let scope = supervisor.scope(Phase::Work, "objects");
        let service = Service::open(&store, clock, config, dir.path().join("objects"), scope).await.unwrap();
        let http = listen(http::router(service.clone()), &supervisor).await;
        let routes = tonic::service::Routes::new(grpc::server(service.clone()));
        let grpc = listen(routes.into_axum_router().reset_fallback(), &supervisor).await;
        Self { supervisor, store, service, http, grpc }
    }

    async fn stop(self) {
        let Self { supervisor, store, service, .. } = self;
        drop((store, service));
        supervisor.run(std::future::ready(())).await.unwrap();
    }

    async fn client(&self) -> ObjectServiceClient<net::channel::Channel> {
        let channel = net::channel::connect(&self.grpc.to_string(), None, net::channel::ConnectOptions::default());
        ObjectServiceClient::new(channel.unwrap()).max_decoding_message_size(64 << 20)
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request =
            reqwest::Client::new().request(method.parse().unwrap(), format!("http://{}{path}", self.http));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn put(&self, path: &str, value: &[u8]) -> (u16, Value) {
        self.call("PUT", path, Some(json!({"value": BASE64_STANDARD.encode(value)}))).await
    }
}

fn put(key: &str, value: &'static [u8]) -> Put {
    Put { key: key.to_owned(), value: Bytes::from_static(value), ..Put::default() }
}

/// A store in memory with objects on disk, whose parts tests take hold of.
struct Bench {
    dir: TempDir,
    store: Store,
    supervisor: Supervisor,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        let supervisor = Supervisor::new(Budget::default());
        let store = Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store"));
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        Self { dir: tempfile::tempdir().unwrap(), store, supervisor, clock }
    }

    fn objects(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    async fn open(&self, config: &Config) -> Arc<Service> {
        let scope = self.supervisor.scope(Phase::Work, "objects");
        Service::open(&self.store, self.clock.clone(), config, self.objects(), scope).await.unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.objects()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

#[tokio::test]
async fn the_rules_hold_over_grpc() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    let mut client = node.client().await;
    let request = |overwrite| PutObjectRequest {
        key: "a/b".into(),
        value: Bytes::from_static(b"one"),
        metadata: [("kind".to_owned(), "test".to_owned())].into(),
        overwrite,
    };
    let answer = client.put_object(request(false)).await.unwrap().into_inner();
    let meta = answer.object_meta.unwrap();
    assert!(answer.success);
    assert_eq!((meta.key.as_str(), meta.size, meta.ref_count, meta.pinned), ("a/b", 3, 1, false));
    assert_eq!(meta.metadata["kind"], "test");
    assert!(meta.created_at > 1_600_000_000 && meta.created_at < 10_000_000_000, "seconds");

    let again = client.put_object(request(false)).await.unwrap().into_inner();
    assert_eq!((again.success, again.message.as_str()), (false, "Object already exists and overwrite is false"));
    assert!(client.put_object(request(true)).await.unwrap().into_inner().success);

    let get = |include_value| GetObjectRequest { key: "a/b".into(), include_value };
    let found = client.get_object(get(true)).await.unwrap().into_inner();
    assert_eq!((found.found, found.object.unwrap().value), (true, Bytes::from_static(b"one")));
    let bare = client.get_object(get(false)).await.unwrap().into_inner().object.unwrap();
    assert_eq!((bare.value.len(), bare.size), (0, 3));
    let none =
        client.get_object(GetObjectRequest { key: "no".into(), include_value: true }).await.unwrap().into_inner();
    assert_eq!((none.found, none.object, none.message.as_str()), (false, None, "Object not found"));

    let empty = client.put_object(PutObjectRequest::default()).await.unwrap().into_inner();
    assert_eq!((empty.success, empty.message.as_str()), (false, "Object key must not be empty"));

    let add = |key: &str, count| AddObjectRefRequest { key: key.into(), count };
    assert_eq!(client.add_object_ref(add("a/b", 2)).await.unwrap().into_inner().new_ref_count, 3);
    assert_eq!(client.add_object_ref(add("a/b", 0)).await.unwrap().into_inner().new_ref_count, 4, "absent means 1");
    assert!(!client.add_object_ref(add("no", 1)).await.unwrap().into_inner().success);
    for count in [-1, i32::MAX] {
        let status = client.add_object_ref(add("a/b", count)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(net::grpc::fault(status).errors[0].field, "count");
    }

    let key = || "a/b".to_owned();
    let unpinned = client.unpin_object(UnpinObjectRequest { key: key() }).await.unwrap().into_inner();
    assert_eq!((unpinned.success, unpinned.message.as_str()), (false, "Object is not pinned"));
    assert!(client.pin_object(PinObjectRequest { key: key() }).await.unwrap().into_inner().success);
    let kept = client.delete_object(DeleteObjectRequest { key: key(), force: false }).await.unwrap().into_inner();
    assert_eq!((kept.success, kept.deleted), (false, false));
    assert_eq!(kept.message, "Cannot delete pinned object without force flag");

    let remove = |count| RemoveObjectRefRequest { key: "a/b".into(), count };
    let left = client.remove_object_ref(remove(3)).await.unwrap().into_inner();
    assert_eq!((left.new_ref_count, left.deleted), (1, false));
    let pinned = client.remove_object_ref(remove(9)).await.unwrap().into_inner();
    assert_eq!((pinned.new_ref_count, pinned.deleted), (0, false), "a pinned object stays without references");
    assert!(client.unpin_object(UnpinObjectRequest { key: key() }).await.unwrap().into_inner().success);
    let gone = client.remove_object_ref(remove(1)).await.unwrap().into_inner();
    assert_eq!((gone.success, gone.deleted), (true, true));
    assert_eq!(gone.message, "Object deleted due to zero references");
    assert!(!client.get_object(get(false)).await.unwrap().into_inner().found);
    node.stop().await;
}

#[tokio::test]
async fn the_rules_hold_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    let body = json!({"value": "b25l", "metadata": {"kind": "test"}});
    let stored = (200, json!({"success": true, "message": "Object stored successfully", "key": "a/b"}));
    assert_eq!(node.call("PUT", "/objects/a/b", Some(body.clone())).await, stored);
    let (status, again) = node.call("PUT", "/objects/a/b", Some(body)).await;
    assert_eq!((status, &again["success"]), (200, &json!(false)));
    assert_eq!(again["message"], "Object already exists and overwrite is false");

    let (status, mut object) = node.call("GET", "/objects/a%2Fb", None).await;
    assert_eq!(status, 200);
    assert!(object["created_at"].take().as_i64().unwrap() > 1_600_000_000);
    assert!(object["updated_at"].take().as_i64().unwrap() > 1_600_000_000);
    let expected = json!({"found": true, "key": "a/b", "value": "b25l", "metadata": {"kind": "test"}, "size": 3,
        "created_at": null, "updated_at": null, "ref_count": 1, "pinned": false});
    assert_eq!(object, expected);
    let (status, missing) = node.call("GET", "/objects/none", None).await;
    assert_eq!((status, &missing["code"]), (404, &json!("OBJECT_NOT_FOUND")));

    let refs = |answer: Value| (answer["success"].clone(), answer["new_ref_count"].clone());
    assert_eq!(
        refs(node.call("POST", "/objects/a/b/refs", Some(json!({"count": 2}))).await.1),
        (json!(true), json!(3))
    );
    assert_eq!(refs(node.call("POST", "/objects/a/b/refs", Some(json!({}))).await.1), (json!(true), json!(4)));
    assert_eq!(refs(node.call("DELETE", "/objects/a/b/refs", None).await.1), (json!(true), json!(3)));
    assert_eq!(refs(node.call("POST", "/objects/no/refs", None).await.1), (json!(false), json!(0)));
    let (status, bad) = node.call("POST", "/objects/a/b/refs", Some(json!({"count": 0}))).await;
    assert_eq!((status, &bad["errors"][0]["field"]), (400, &json!("count")));

    let (status, answer) = node.call("DELETE", "/objects/a/b/pin", None).await;
    assert_eq!((status, answer), (200, json!({"success": false, "message": "Object is not pinned"})));
    assert_eq!(node.call("POST", "/objects/a/b/pin", None).await.1["success"], true);
    let (status, answer) = node.call("DELETE", "/objects/a/b", None).await;
    let refused = json!({"success": false, "message": "Cannot delete pinned object without force flag"});
    assert_eq!((status, answer), (200, refused));
    assert_eq!(node.call("GET", "/objects", None).await.1["objects"][0]["is_pinned"], true);
    assert_eq!(node.call("DELETE", "/objects/a/b?force=true", None).await.1["success"], true);
    assert_eq!(node.call("GET", "/objects/a/b", None).await.0, 404);
    assert_eq!(node.call("POST", "/objects/a/b", None).await.0, 405);
    node.stop().await;
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    let long = format!("/objects/{}", "k".repeat(MOST_KEY + 1));
    let labels = json!({"value": "", "metadata": {"x": "y".repeat(20_000)}});
    let cases: [(&str, &str, Option<Value>, u16, &str); 11] = [
        ("PUT", "/objects/a", Some(json!({"value": "not base64!"})), 400, "value"),
        ("PUT", "/objects/a", Some(json!({})), 422, "value"),
        ("PUT", "/objects/a", Some(json!({"value": 1})), 422, "value"),
        ("PUT", "/objects/a", Some(labels), 400, "metadata"),
        ("PUT", "/objects/", Some(json!({"value": ""})), 400, "key"),
        ("PUT", &long, Some(json!({"value": ""})), 400, "key"),
        ("GET", "/objects/%ff", None, 400, "key"),
        ("GET", "/objects?limit=0", None, 400, "limit"),
        ("GET", "/objects?limit=x", None, 400, "limit"),
        ("GET", "/objects?continuation_token=zz", None, 400, "continuation_token"),
        ("DELETE", "/objects/a?force=maybe", None, 400, "force"),
    ];
    for (method, path, body, expected, field) in cases {
        let (status, problem) = node.call(method, path, body).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (expected, &json!(field)), "{method} {path}: {problem}");
        assert_eq!(problem["success"], false);
    }
    assert_eq!(node.service.stats().objects, 0);
    node.stop().await;
}

#[tokio::test]
async fn any_text_is_a_key_and_stays_within_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    let keys =
        ["../../etc/passwd", "/", "//a//", "a\0b", "a\\..\\b", "ключ ∕ 鍵", "a/refs", "a/pin", "refs", "%2e%2e", " "];
    let everything = percent_encoding::NON_ALPHANUMERIC;
    for key in keys {
        let path = format!("/objects/{}", percent_encoding::utf8_percent_encode(key, everything));
        let (status, answer) = node.put(&path, key.as_bytes()).await;
        assert_eq!((status, &answer["success"], &answer["key"]), (200, &json!(true), &json!(key)), "{key:?}");
        let (status, object) = node.call("GET", &path, None).await;
        assert_eq!((status, &object["value"]), (200, &json!(BASE64_STANDARD.encode(key))), "{key:?}");
    }
    // Clients resolve these two in a URL before they send it.
    let mut client = node.client().await;
    for key in [".", ".."] {
        let request = PutObjectRequest { key: key.into(), value: key.into(), ..Default::default() };
        assert!(client.put_object(request).await.unwrap().into_inner().success);
        let found = client.get_object(GetObjectRequest { key: key.into(), include_value: true }).await.unwrap();
        assert_eq!(found.into_inner().object.unwrap().value, key);
        let delete = DeleteObjectRequest { key: key.into(), force: false };
        assert!(client.delete_object(delete).await.unwrap().into_inner().deleted);
    }
    let listed = node.call("GET", "/objects", None).await.1;
    let listed: BTreeSet<_> =
        listed["objects"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!(listed, keys.into_iter().collect());
    for entry in std::fs::read_dir(dir.path().join("objects")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(Uuid::try_parse(&name).is_ok(), "{name}");
    }
    // A part of an object, and an object whose key ends the same way.
    assert_eq!(node.put("/objects/a", b"a").await.1["success"], true);
    assert_eq!(node.call("POST", "/objects/a/pin", None).await.1["success"], true);
    assert_eq!(node.call("DELETE", "/objects/a%2Fpin", None).await.1["success"], true);
    assert_eq!(node.call("GET", "/objects/a/pin", None).await.0, 404);
    assert_eq!(node.call("GET", "/objects/a", None).await.1["pinned"], true);
    for key in keys.into_iter().filter(|key| *key != "a/pin") {
        let path = format!("/objects/{}", percent_encoding::utf8_percent_encode(key, everything));
        assert_eq!(node.call("DELETE", &path, None).await.1["success"], true, "{key:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn lists_page_by_token_and_by_the_original_index() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    for number in 0..5 {
        assert_eq!(node.put(&format!("/objects/n/{number}"), b"x").await.1["success"], true);
    }
    assert_eq!(node.put("/objects/other", b"x").await.1["success"], true);
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("/objects?prefix=n/&limit=2&continuation_token={token}");
        let (status, page) = node.call("GET", &path, None).await;
        assert_eq!(status, 200);
        seen.extend(page["objects"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned()));
        assert_eq!(page["has_more"].as_bool().unwrap(), page["continuation_token"].is_string());
        match page["continuation_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["n/0", "n/1", "n/2", "n/3", "n/4"]);
    let by_index = node.call("GET", "/objects?prefix=n/&continuation_token=3", None).await.1;
    assert_eq!(by_index["objects"].as_array().unwrap().len(), 2);
    for beyond in ["6", "99999999999999999999999999"] {
        let (status, page) = node.call("GET", &format!("/objects?continuation_token={beyond}"), None).await;
        assert_eq!((status, page), (200, json!({"objects": [], "continuation_token": null, "has_more": false})));
    }
    let mut client = node.client().await;
    let mut request = ListObjectsRequest { prefix: "n/".into(), limit: 3, include_values: true, ..Default::default() };
    let first = client.list_objects(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.objects.len(), first.has_more, first.next_start_after.as_str()), (3, true, "n/2"));
    assert_eq!(first.objects[0].value, Bytes::from_static(b"x"));
    request.start_after = first.next_start_after;
    let second = client.list_objects(request).await.unwrap().into_inner();
    assert_eq!((second.objects.len(), second.has_more, second.next_start_after.as_str()), (2, false, ""));
    node.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_objects() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    assert_eq!(node.put("/objects/kept", b"value").await.1["success"], true);
    assert_eq!(node.call("POST", "/objects/kept/pin", None).await.1["success"], true);
    assert_eq!(node.put("/objects/gone", b"value").await.1["success"], true);
    assert_eq!(node.call("DELETE", "/objects/gone", None).await.1["success"], true);
    let before = node.call("GET", "/objects/kept", None).await;
    node.stop().await;
    let node = Node::start(&dir, &Config::default()).await;
    assert_eq!(node.call("GET", "/objects/kept", None).await, before);
    assert_eq!(node.call("GET", "/objects/gone", None).await.0, 404);
    let stats = node.service.stats();
    assert_eq!((stats.objects, stats.bytes, stats.pinned), (1, 5, 1));
    node.stop().await;
}

#[tokio::test]
async fn objects_in_memory_leave_nothing_on_disk() {
    let bench = Bench::new();
    let config = Config { backend: Backend::Memory, ..Config::default() };
    let service = bench.open(&config).await;
    service.put(put("a", b"one")).await.unwrap();
    assert_eq!(service.get("a", true).await.unwrap().value.unwrap(), "one");
    assert!(!bench.objects().exists());
    assert_eq!(*bench.store.head().borrow(), 0, "no record either");
    assert_eq!(bench.open(&config).await.stats().objects, 0);
}

#[tokio::test]
async fn limits_hold_and_leave_nothing_behind() {
    let bench = Bench::new();
    let config = Config { max_object_size: 4, max_total_bytes: 10, max_objects: 3, ..Config::default() };
    let service = bench.open(&config).await;
    let refused = |result: Result<_, Error>| match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(service.put(put("a", b"12345")).await), Refusal::TooLarge { size: 5, limit: 4 });
    for key in ["a", "b"] {
        service.put(put(key, b"1234")).await.unwrap();
    }
    assert_eq!(refused(service.put(put("c", b"123")).await), Refusal::Full { bytes: 11, limit: 10 });
    service.put(put("c", b"12")).await.unwrap();
    assert_eq!(refused(service.put(put("d", b"")).await), Refusal::TooMany { objects: 3, limit: 3 });
    assert_eq!(bench.files().len(), 3);
    // What replaces an object needs only the difference.
    service.put(Put { overwrite: true, ..put("a", b"4321") }).await.unwrap();
    assert_eq!((bench.files().len(), service.stats().bytes), (3, 10));
    service.delete("a".into(), false).await.unwrap();
    service.put(put("d", b"1")).await.unwrap();
    assert_eq!((bench.files().len(), service.stats().bytes), (3, 7));
}

#[tokio::test]
async fn over_http_a_limit_has_its_own_status() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_object_size: 4096, max_total_bytes: 5000, ..Config::default() };
    let node = Node::start(&dir, &config).await;
    let (status, problem) = node.put("/objects/a", &[0; 4097]).await;
    assert_eq!((status, &problem["code"], &problem["success"]), (413, &json!("OBJECT_TOO_LARGE"), &json!(false)));
    let (status, problem) = node.put("/objects/a", &vec![0; 4 << 20]).await;
    assert_eq!((status, &problem["success"]), (413, &json!(false)), "the body itself is over the limit");
    assert_eq!(node.put("/objects/a", &[0; 4096]).await.0, 200);
    let (status, problem) = node.put("/objects/b", &[0; 4096]).await;
    assert_eq!((status, &problem["code"]), (507, &json!("OBJECTS_FULL")));
    let mut client = node.client().await;
    let large = PutObjectRequest { key: "c".into(), value: vec![0; 4097].into(), ..Default::default() };
    let answer = client.put_object(large).await.unwrap().into_inner();
    assert_eq!(
        (answer.success, answer.message.as_str()),
        (false, "Object size 4097 exceeds the maximum of 4096 bytes")
    );
    let huge = PutObjectRequest { key: "c".into(), value: vec![0; 4 << 20].into(), ..Default::default() };
    assert_eq!(client.put_object(huge).await.unwrap_err().code(), tonic::Code::OutOfRange);
    node.stop().await;
}

#[tokio::test]
async fn the_largest_object_goes_through_both_interfaces() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config { max_object_size: 3 << 20, ..Config::default() }).await;
    let value: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
    assert_eq!(node.put("/objects/http", &value).await.0, 200);
    let mut client = node.client().await;
    let request = PutObjectRequest { key: "grpc".into(), value: value.clone().into(), ..Default::default() };
    assert!(client.put_object(request).await.unwrap().into_inner().success);
    let get = GetObjectRequest { key: "http".into(), include_value: true };
    assert_eq!(client.get_object(get).await.unwrap().into_inner().object.unwrap().value, value);
    let (_, object) = node.call("GET", "/objects/grpc", None).await;
    assert_eq!(BASE64_STANDARD.decode(object["value"].as_str().unwrap()).unwrap(), value);
    // A page of values ends before it is larger than one object may be.
    let all = ListObjectsRequest { include_values: true, ..Default::default() };
    let page = client.list_objects(all).await.unwrap().into_inner();
    assert_eq!((page.objects.len(), page.has_more, page.next_start_after.as_str()), (1, true, "grpc"));
    node.stop().await;
}

#[tokio::test]
async fn damaged_bytes_are_an_error_and_never_an_answer() {
    let damages: [Option<&[u8]>; 4] = [Some(b"vAlue"), Some(b"va"), Some(b"value and more"), None];
    for (number, damage) in damages.into_iter().enumerate() {
        let bench = Bench::new();
        let service = bench.open(&Config::default()).await;
        service.put(put("a", b"value")).await.unwrap();
        let file = bench.files().pop().unwrap();
        match damage {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        match service.get("a", true).await {
            Err(Error::Fault(fault)) => {
                assert_eq!((fault.kind, &*fault.code), (ErrorKind::Internal, "OBJECT_CORRUPT"), "damage {number}");
            }
            other => panic!("damage {number}: {other:?}"),
        }
        assert!(service.list("", None, 10, true).await.is_err());
        // Writing it anew mends it.
        service.put(Put { overwrite: true, ..put("a", b"fresh") }).await.unwrap();
        assert_eq!(service.get("a", true).await.unwrap().value.unwrap(), "fresh");
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir, &Config::default()).await;
    node.put("/objects/a", b"value").await;
    let file = std::fs::read_dir(dir.path().join("objects")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, b"vAlue").unwrap();
    let (status, problem) = node.call("GET", "/objects/a", None).await;
    assert_eq!((status, &problem["code"]), (500, &json!("OBJECT_CORRUPT")));
    node.stop().await;
}

#[tokio::test]
async fn a_crash_between_bytes_and_record_leaves_no_object() {
    let bench = Bench::new();
    let service = bench.open(&Config::default()).await;
    service.put(put("a", b"value")).await.unwrap();
    drop(service);
    // As a process leaves it that ends while it writes, and after the rename but before the commit.
    let dir = bench.objects();
    std::fs::write(dir.join(format!("tmp-{}", Uuid::now_v7())), b"half").unwrap();
    std::fs::write(dir.join(Uuid::now_v7().to_string()), b"whole").unwrap();
    std::fs::write(dir.join("README"), b"not ours").unwrap();
    let service = bench.open(&Config::default()).await;
    assert_eq!(service.stats().objects, 1);
    assert_eq!(service.get("a", true).await.unwrap().value.unwrap(), "value");
    assert_eq!(bench.files().len(), 2, "the object and what is not ours");
}

#[tokio::test]
async fn of_many_first_writers_one_wins_and_the_rest_is_told() {
    let bench = Bench::new();
    let service = bench.open(&Config::default()).await;
    let puts = (0..50).map(|number: u32| {
        let put = Put { key: "a".into(), value: number.to_string().into(), ..Put::default() };
        service.put(put)
    });
    let results = futures_util::future::join_all(puts).await;
    let won: Vec<_> =
        results.iter().enumerate().filter(|(_, result)| result.is_ok()).map(|(number, _)| number).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(results.iter().filter(|result| matches!(result, Err(Error::Refused(Refusal::Exists)))).count(), 49);
    assert_eq!(service.get("a", true).await.unwrap().value.unwrap(), won[0].to_string());
    assert_eq!(bench.files().len(), 1);
}

#[tokio::test]
async fn readers_of_an_object_that_is_written_over_see_one_version_or_the_next() {
    let bench = Bench::new();
    let service = bench.open(&Config::default()).await;
    service.put(put("a", b"0")).await.unwrap();
    let write = async {
        for number in 1..60u32 {
            let value = number.to_string().repeat(number as usize);
            service.put(Put { key: "a".into(), value: value.into(), overwrite: true, ..Put::default() }).await.unwrap();
        }
    };
    let read = async {
        loop {
            let found = service.get("a", true).await.unwrap();
            assert_eq!(found.value.unwrap().len() as u64, found.record.size);
            if found.record.size == 118 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(write, read) }).await.unwrap();
    assert_eq!(bench.files().len(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_index_and_store_in_step() {
    let bench = Bench::new();
    let service = bench.open(&Config::default()).await;
    for round in 0..40u32 {
        let key = format!("k{round}");
        let put = Put { key: key.clone(), value: Bytes::from_static(b"x"), ..Put::default() };
        let mut call = Box::pin(service.put(put));
        // Polled a few times, then dropped.
        for _ in 0..round % 5 {
            tokio::select! {
                biased;
                _ = &mut call => break,
                () = tokio::task::yield_now() => {}
            }
        }
        drop(call);
    }
    // Every change that began has its turn before this one of the same key.
    for round in 0..40u32 {
        let key = format!("k{round}");
        let outcome = service.put(Put { key: key.clone(), overwrite: true, ..Put::default() }).await;
        assert!(outcome.is_ok(), "{key}: {outcome:?}");
    }
    assert_eq!(bench.open(&Config::default()).await.stats(), service.stats());
}

#[tokio::test]
async fn overwriting_keeps_references_pin_and_birth() {
    let bench = Bench::new();
    let service = bench.open(&Config::default()).await;
    let first = service.put(put("a", b"one")).await.unwrap();
    service.add_ref("a".into(), 4).await.unwrap();
    service.pin("a".into()).await.unwrap();
    bench.clock.advance(Duration::from_secs(5));
    let second = service.put(Put { overwrite: true, ..put("a", b"two") }).await.unwrap();
    assert_eq!((second.ref_count, second.pinned, second.created_at), (5, true, first.created_at));
    assert_eq!(second.updated_at.millis(), first.updated_at.millis() + 5000);
}

/// An engine that can be told that its disk is full.
struct Filling {
    memory: Memory,
    full: AtomicBool,
}

#[async_trait]
impl Engine for Filling {
    async fn get(&self, key: &str) -> Result<Option<Record>, store::Error> {
        self.memory.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, store::Error> {
        self.memory.list(prefix, after, limit).await
    }

    async fn snapshot(&self) -> Result<Box<dyn store::Snapshot>, store::Error> {
        self.memory.snapshot().await
    }

    async fn commit_many(&self, batches: Vec<Batch>) -> Result<Vec<Result<Rev, Conflict>>, store::Error> {
        if self.full.load(Ordering::SeqCst) {
            return Err(store::Error::Full { path: "disk".into(), detail: "0 bytes left".to_owned() });
        }
        self.memory.commit_many(batches).await
    }

    async fn changes(&self, after: Rev, limit: usize) -> Result<Vec<Change>, store::Error> {
        self.memory.changes(after, limit).await
    }

    async fn trim(&self, upto: Rev) -> Result<(), store::Error> {
        self.memory.trim(upto).await
    }

    async fn floor(&self) -> Result<Rev, store::Error> {
        self.memory.floor().await
    }

    fn head(&self) -> watch::Receiver<Rev> {
        self.memory.head()
    }

    fn log_id(&self) -> LogId {
        self.memory.log_id()
    }

    async fn close(&self) -> Result<(), store::Error> {
        self.memory.close().await
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_what_is_there_and_is_forgotten_when_it_has_room() {
    let mut bench = Bench::new();
    let engine = Arc::new(Filling { memory: Memory::new(), full: AtomicBool::new(false) });
    bench.store = Store::start(engine.clone(), &bench.supervisor.scope(Phase::Store, "filling"));
    let service = bench.open(&Config { max_total_bytes: 8, ..Config::default() }).await;
    service.put(put("a", b"1234")).await.unwrap();
    engine.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        for refused in [put("b", b"1234"), Put { overwrite: true, ..put("a", b"5678") }] {
            match service.put(refused).await {
                Err(Error::Fault(fault)) => assert_eq!(fault.kind, ErrorKind::StorageFull),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(service.delete("a".into(), false).await.is_err());
    assert_eq!(service.get("a", true).await.unwrap().value.unwrap(), "1234");
    assert_eq!(bench.files().len(), 1);
    engine.full.store(false, Ordering::SeqCst);
    // The room of the refused writes is free again.
    service.put(put("b", b"5678")).await.unwrap();
    assert_eq!((bench.files().len(), service.stats().bytes), (2, 8));
}

#[test]
fn the_record_of_the_first_release_is_still_read() {
    let golden = r#"{"key":"a/b","size":3,"sha256":"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed","blob":"01890a5d-ac96-774b-bcce-b302099a8057","created_at":1700000000000,"updated_at":1700000001000,"ref_count":1,"pinned":true,"metadata":{"k":"v"}}"#;
    let record: ObjectRecord = serde_json::from_str(golden).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), golden);
    assert_eq!(record.key(), "object/c14cddc033f64b9dea80ea675cf280a015e672516090a5626781153dc68fea11");
    let bare = r#"{"key":"a","size":0,"sha256":"","blob":"01890a5d-ac96-774b-bcce-b302099a8057","created_at":0,"updated_at":0,"ref_count":1}"#;
    let record: ObjectRecord = serde_json::from_str(bare).unwrap();
    assert_eq!((record.pinned, record.metadata.len()), (false, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn paging_through_a_list_gives_every_key_once_in_order(
        keys in proptest::collection::btree_set("[ab/é\u{0}-\u{2}]{1,6}", 0..40),
        prefix in "[ab/]{0,2}",
        limit in 1usize..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let service = bench.open(&Config { backend: Backend::Memory, ..Config::default() }).await;
            for key in &keys {
                service.put(Put { key: key.clone(), ..Put::default() }).await.unwrap();
            }
            let expected: Vec<_> = keys.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
            let (mut seen, mut after, mut skip) = (Vec::new(), None::<String>, 0);
            loop {
                let page = service.list(&prefix, after.as_deref(), limit, false).await.unwrap();
                let names: Vec<_> = page.objects.iter().map(|found| found.record.key.clone()).collect();
                let by_index = service.list_at(&prefix, skip, limit);
                let same: Vec<_> = by_index.objects.iter().map(|found| found.record.key.clone()).collect();
                prop_assert_eq!((&names, page.more), (&same, by_index.more));
                prop_assert!(names.len() <= limit);
                skip += names.len();
                after = names.last().cloned().or(after);
                seen.extend(names);
                if !page.more {
                    break;
                }
            }
            prop_assert_eq!(seen, expected);
            Ok(())
        })?;
    }
}
