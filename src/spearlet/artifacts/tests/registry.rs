//! Files of registries: our own through the contract, others by address.

use super::*;
use api::{
    AppendedLogs, AssignmentEvent, Control, Created, Cursor, ExecutionReport, FileStream, HeartbeatAck, LogBatch,
    NewExecution, Registered, Registration, WorkItem, WorkList,
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use std::collections::BTreeMap;
use types::{ErrorKind, Execution, ExecutionId, FileId, FileRecord, NodeId, NodeResource, Task, TaskId, Timestamp};

const BODY: &[u8] = b"\0asm registry";
const ID: &str = "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8";

/// A registry with one file.
struct Registry {
    record: FileRecord,
    body: &'static [u8],
    opened: AtomicUsize,
}

impl Registry {
    fn new(change: impl FnOnce(&mut FileRecord)) -> Arc<Self> {
        let mut record = FileRecord {
            id: ID.parse().unwrap(),
            name: "hello.wasm".to_owned(),
            content_type: "application/wasm".to_owned(),
            len: BODY.len() as u64,
            sha256: sha256(BODY),
            created_at: Timestamp(0),
        };
        change(&mut record);
        Arc::new(Self { record, body: BODY, opened: AtomicUsize::new(0) })
    }
}

fn never<T>() -> Result<T, Fault> {
    Err(Fault::internal("a fetch asks for files only"))
}

#[async_trait]
impl Control for Registry {
    async fn register_node(&self, _: Registration) -> Result<Registered, Fault> {
        never()
    }

    async fn heartbeat(&self, _: NodeId, _: BTreeMap<String, String>) -> Result<HeartbeatAck, Fault> {
        never()
    }

    async fn update_resource(&self, _: NodeId, _: NodeResource) -> Result<(), Fault> {
        never()
    }

    async fn leave(&self, _: NodeId, _: &str) -> Result<(), Fault> {
        never()
    }

    async fn list_work(&self, _: NodeId) -> Result<WorkList, Fault> {
        never()
    }

    async fn watch_work(
        &self,
        _: NodeId,
        _: Cursor,
    ) -> Result<BoxStream<'static, Result<AssignmentEvent, Fault>>, Fault> {
        never()
    }

    async fn get_task(&self, _: TaskId) -> Result<Task, Fault> {
        never()
    }

    async fn get_work(&self, _: ExecutionId) -> Result<WorkItem, Fault> {
        never()
    }

    async fn report_execution(&self, _: ExecutionReport) -> Result<(), Fault> {
        never()
    }

    async fn append_logs(&self, _: LogBatch) -> Result<AppendedLogs, Fault> {
        never()
    }

    async fn create_execution(&self, _: NewExecution) -> Result<Created, Fault> {
        never()
    }

    async fn get_execution(&self, _: ExecutionId) -> Result<(Execution, Bytes), Fault> {
        never()
    }

    async fn cancel_execution(&self, _: ExecutionId, _: &str) -> Result<Execution, Fault> {
        never()
    }

    async fn open_file(&self, file: FileId) -> Result<FileStream, Fault> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        if file != self.record.id {
            return Err(Fault::not_found("FILE_NOT_FOUND", "no such file"));
        }
        let bytes = futures_util::stream::iter(self.body.chunks(3).map(|chunk| Ok(Bytes::from_static(chunk))));
        Ok(FileStream { record: self.record.clone(), bytes: bytes.boxed() })
    }
}

async fn open(dir: &TempDir, registry: &Arc<Registry>) -> Fetcher {
    let control: Arc<dyn Control> = registry.clone();
    Fetcher::open(&Config::default(), dir.path().to_owned(), Some(control)).await.unwrap()
}

#[tokio::test]
async fn a_file_of_the_registry_is_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(|_| {});
    let fetcher = open(&dir, &registry).await;
    for uri in [format!("sms+file://{ID}"), format!("smsfile://{ID}")] {
        assert_eq!(read(&fetch(&fetcher, &uri, "").await.unwrap()), BODY);
    }
    assert_eq!(registry.opened.load(Ordering::SeqCst), 1, "files of a registry never change");
}

#[tokio::test]
async fn after_a_restart_the_registry_is_asked_but_the_bytes_are_here() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(|_| {});
    fetch(&open(&dir, &registry).await, &format!("sms+file://{ID}"), "").await.unwrap();
    // This one has the record but could not deliver the bytes.
    let mut hollow = Arc::into_inner(Registry::new(|_| {})).unwrap();
    hollow.body = b"";
    let hollow = Arc::new(hollow);
    let held = fetch(&open(&dir, &hollow).await, &format!("sms+file://{ID}"), "").await.unwrap();
    assert_eq!(read(&held), BODY);
    assert_eq!(hollow.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_registry_says_of_a_file_is_checked() {
    let cases: [(Arc<Registry>, &str, &str); 5] = [
        (Registry::new(|record| record.sha256 = sha256(b"other")), "", "ARTIFACT_CHECKSUM"),
        (Registry::new(|record| record.len += 1), "", "ARTIFACT_UNAVAILABLE"),
        (Registry::new(|record| record.len = 2 << 20), "", "ARTIFACT_TOO_LARGE"),
        (Registry::new(|record| record.id = FileId::new()), "", "ARTIFACT_NOT_FOUND"),
        (Registry::new(|_| {}), &sha256(b"pinned"), "ARTIFACT_CHECKSUM"),
    ];
    for (registry, checksum, code) in cases {
        let dir = tempfile::tempdir().unwrap();
        let fault = fetch(&open(&dir, &registry).await, &format!("sms+file://{ID}"), checksum).await.unwrap_err();
        assert_eq!(fault.code, code, "{fault:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{code}");
    }
}

#[tokio::test]
async fn a_node_without_a_registry_says_so() {
    let bench = Bench::new(&Config::default()).await;
    let fault = bench.fetch(&format!("sms+file://{ID}"), "").await.unwrap_err();
    assert_eq!((fault.kind, &*fault.code), (ErrorKind::Unsupported, "ARTIFACT_UNAVAILABLE"));
    assert!(fault.message.contains("belongs to no registry"), "{}", fault.message);
}

#[tokio::test]
async fn another_registry_is_asked_over_http_without_a_token() {
    let server = Server::always("200 OK", BODY).await;
    // Plain http is not allowed, but this address is the configured registry's.
    let config = Config { sms_http_addr: Some(server.address.to_string()), ..Config::default() };
    let bench = Bench::new(&config).await;
    let uri = format!("sms+file://{}/{ID}", server.address);
    for _ in 0..2 {
        assert_eq!(read(&bench.fetch(&uri, "").await.unwrap()), BODY);
    }
    let heads = server.heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with(&format!("GET /api/v1/files/{ID} HTTP/1.1\r\n")), "{}", heads[0]);
    assert!(!heads[0].to_ascii_lowercase().contains("authorization"), "{}", heads[0]);
}
