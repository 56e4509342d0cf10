#![allow(clippy::unwrap_used, reason = "tests")]

use bus::Bus;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use std::{collections::BTreeSet, fs, io, path::PathBuf, sync::Arc};
use store::{Memory, Store};
use supervise::{Budget, Phase, Supervisor};
use tempfile::TempDir;
use types::{ErrorKind, Fault, FileId, FileRecord, Timestamp, clock::ManualClock};

use super::{
    read::checked,
    records::{Label, disk},
    service::{Service, fits},
};
use crate::{
    Config,
    page::{MOST, Page},
};

const LIMIT: u64 = 1000;
const OWNER: &str = "store-id";

struct World {
    files: Arc<Service>,
    store: Store,
    bus: Bus,
    supervisor: Supervisor,
    home: TempDir,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(Budget::default());
        let store = Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store"));
        let bus = Bus::start(&store, &supervisor.scope(Phase::Bus, "bus"));
        let files = start(&store, &bus, &supervisor, home.path().join("files")).await;
        Self { files, store, bus, supervisor, home }
    }

    async fn restart(&mut self) {
        self.files = start(&self.store, &self.bus, &self.supervisor, self.dir()).await;
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("files")
    }

    fn place(&self, id: FileId) -> PathBuf {
        self.dir().join(id.to_string())
    }

    async fn put(&self, bytes: &[u8]) -> FileRecord {
        self.send(pieces(bytes)).await.unwrap()
    }

    async fn send(&self, pieces: Vec<io::Result<Bytes>>) -> Result<FileRecord, Fault> {
        self.files.upload(label("a.bin"), None, stream::iter(pieces)).await
    }

    /// Names in the directory.
    fn names(&self) -> BTreeSet<String> {
        fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.names(), BTreeSet::from([OWNER.to_owned()]));
        assert_eq!(self.files.list(None, &Page::parse("files", (None, None, None), MOST).unwrap()).unwrap().total, 0);
    }

    async fn read(&self, id: FileId) -> Result<Vec<u8>, Fault> {
        let stream = self.files.open_stream(id).await?;
        let bytes: Vec<Bytes> = stream.bytes.try_collect().await.map_err(|error| Fault::internal(error.to_string()))?;
        Ok(bytes.concat())
    }
}

async fn start(store: &Store, bus: &Bus, supervisor: &Supervisor, dir: PathBuf) -> Arc<Service> {
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let config = Config { max_upload_bytes: LIMIT, ..Config::default() };
    Service::start(store, bus, (clock, config.into()), dir, &supervisor.scope(Phase::Work, "sms")).await.unwrap()
}

fn label(name: &str) -> Label {
    Label { name: name.to_owned(), content_type: "application/wasm".to_owned() }
}

fn pieces(bytes: &[u8]) -> Vec<io::Result<Bytes>> {
    bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
}

#[tokio::test]
async fn what_is_uploaded_is_read_back_with_its_hash() {
    let world = World::new().await;
    for bytes in [&b""[..], b"x", &[7u8; 1000]] {
        let record = world.put(bytes).await;
        assert_eq!(record.len, bytes.len() as u64);
        assert_eq!(world.read(record.id).await.unwrap(), bytes);
    }
    let empty = world.put(b"").await;
    assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[tokio::test]
async fn a_file_at_the_limit_is_taken_and_one_byte_more_leaves_nothing() {
    let world = World::new().await;
    let fault = world.send(pieces(&[1; 1001])).await.unwrap_err();
    assert_eq!((fault.kind, &*fault.code), (ErrorKind::TooLarge, "FILE_TOO_LARGE"));
    world.nothing_is_left();
    world.put(&[1; 1000]).await;
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_before_a_byte_is_read() {
    let world = World::new().await;
    let body = stream::poll_fn(|_| -> std::task::Poll<Option<io::Result<Bytes>>> { panic!("read") });
    let fault = world.files.upload(label("a"), Some(LIMIT + 1), body).await.unwrap_err();
    assert_eq!(fault.kind, ErrorKind::TooLarge);
    world.nothing_is_left();
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let world = World::new().await;
    let mut broken = pieces(&[1; 900]);
    broken.push(Err(io::ErrorKind::ConnectionReset.into()));
    assert_eq!(world.send(broken).await.unwrap_err().code, "UPLOAD_ABORTED");
    world.nothing_is_left();
}

#[tokio::test]
async fn an_upload_whose_client_goes_away_leaves_nothing() {
    let world = World::new().await;
    let endless = stream::iter(pieces(&[1; 900])).chain(stream::pending());
    let mut upload = Box::pin(world.files.upload(label("a"), None, endless));
    while world.names().iter().all(|name| !name.ends_with(".part")) {
        assert!((&mut upload).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(upload);
    world.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn an_upload_without_a_byte_for_thirty_seconds_is_cut_off_and_leaves_nothing() {
    let world = World::new().await;
    let stalled = stream::iter(pieces(&[1; 900])).chain(stream::pending());
    let fault = world.files.upload(label("a"), None, stalled).await.unwrap_err();
    assert_eq!((fault.kind, &*fault.code), (ErrorKind::Deadline, "UPLOAD_STALLED"));
    world.nothing_is_left();
}

#[tokio::test]
async fn more_uploads_than_there_is_room_for_are_told_to_come_back() {
    let world = World::new().await;
    let upload = || Box::pin(world.files.upload(label("a"), None, stream::pending::<io::Result<Bytes>>()));
    let mut waiting: Vec<_> = (0..128).map(|_| upload()).collect();
    for one in &mut waiting {
        assert!(one.now_or_never().is_none());
    }
    assert_eq!(upload().await.unwrap_err().kind, ErrorKind::Exhausted);
    drop(waiting);
    world.put(b"x").await;
}

#[tokio::test]
async fn damaged_bytes_are_refused_and_never_read_as_whole() {
    let world = World::new().await;
    let damages: [fn(&std::path::Path); 4] = [
        |path| fs::write(path, [&[9u8; 1][..], &[7; 999]].concat()).unwrap(),
        |path| fs::write(path, [7u8; 999]).unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let record = world.put(&[7; 1000]).await;
        damage(&world.place(record.id));
        let fault = world.read(record.id).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.code), (ErrorKind::Internal, "FILE_CORRUPT"));
    }
}

#[tokio::test]
async fn damage_after_a_file_was_found_right_is_noticed_too() {
    let world = World::new().await;
    let record = world.put(&[7; 1000]).await;
    world.read(record.id).await.unwrap();
    // Dated, because the system's own stamps may be as coarse as the test is fast.
    let overwrite = |byte: u8, second: u64| {
        let place = world.place(record.id);
        fs::write(&place, [byte; 1000]).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
        fs::File::options().write(true).open(place).unwrap().set_modified(at).unwrap();
    };
    overwrite(8, 1);
    assert_eq!(world.read(record.id).await.unwrap_err().code, "FILE_CORRUPT");
    overwrite(7, 2);
    world.read(record.id).await.unwrap();
}

#[tokio::test]
async fn bytes_that_change_while_they_are_sent_never_reach_the_end() {
    let world = World::new().await;
    let record = world.put(&[7; 1000]).await;
    let other: Vec<io::Result<Bytes>> = pieces(&[8; 1000]);
    let sent: Vec<_> = checked(stream::iter(other), record.clone()).collect().await;
    assert_eq!(sent.iter().filter(|piece| piece.is_ok()).count(), 9, "the last of ten is held back");
    assert!(sent.last().unwrap().is_err());
    let right: Vec<Bytes> = checked(stream::iter(pieces(&[7; 1000])), record).try_collect().await.unwrap();
    assert_eq!(right.concat(), [7; 1000]);
}

#[tokio::test]
async fn a_start_removes_what_nobody_owns_and_nothing_else() {
    let mut world = World::new().await;
    let kept = world.put(b"kept").await;
    let (part, orphan) = (FileId::new(), FileId::new());
    fs::write(world.dir().join(format!("{part}.part")), b"half").unwrap();
    fs::write(world.place(orphan), b"no record").unwrap();
    fs::write(world.dir().join("notes.txt"), b"an operator's").unwrap();
    world.restart().await;
    let left = [kept.id.to_string(), "notes.txt".to_owned(), OWNER.to_owned()];
    assert_eq!(world.names(), BTreeSet::from(left));
    assert_eq!(world.read(kept.id).await.unwrap(), b"kept");
}

#[tokio::test]
async fn files_of_another_store_are_left_alone() {
    let world = World::new().await;
    let record = world.put(b"precious").await;
    let other = Store::start(Arc::new(Memory::new()), &world.supervisor.scope(Phase::Store, "other"));
    let bus = Bus::start(&other, &world.supervisor.scope(Phase::Bus, "other"));
    let stranger = start(&other, &bus, &world.supervisor, world.dir()).await;
    assert_eq!(stranger.get(record.id).unwrap_err().code, "FILE_NOT_FOUND");
    assert_eq!(world.read(record.id).await.unwrap(), b"precious");
}

#[tokio::test]
async fn a_deleted_file_is_gone_from_store_and_disk_but_who_reads_it_reads_on() {
    let world = World::new().await;
    let record = world.put(&[3; 1000]).await;
    let reading = world.files.open_stream(record.id).await.unwrap();
    world.files.delete(record.id).await.unwrap();
    world.nothing_is_left();
    assert_eq!(world.files.delete(record.id).await.unwrap_err().code, "FILE_NOT_FOUND");
    let read: Vec<Bytes> = reading.bytes.try_collect().await.unwrap();
    assert_eq!(read.concat(), [3; 1000]);
}

#[tokio::test]
async fn the_list_is_newest_first_and_searches_name_and_id_in_any_case() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for name in ["Hello.wasm", "world.wasm", "notes"] {
        let body = stream::iter(pieces(b"x"));
        ids.push(world.files.upload(label(name), None, body).await.unwrap().id);
    }
    let page = |limit, cursor: Option<&str>| Page::parse("files", (limit, None, cursor), MOST).unwrap();
    let names = |part: Option<&str>| -> Vec<String> {
        world.files.list(part, &page(None, None)).unwrap().items.iter().map(|file| file.name.clone()).collect()
    };
    assert_eq!(names(None), ["notes", "world.wasm", "Hello.wasm"]);
    assert_eq!(names(Some("hELLO")), ["Hello.wasm"]);
    assert_eq!(names(Some(&ids[1].to_string().to_uppercase())), ["world.wasm"]);
    let first = world.files.list(Some(".wasm"), &page(Some(1), None)).unwrap();
    assert_eq!((first.total, first.items[0].name.as_str()), (2, "world.wasm"));
    // Newer ones do not move the place of a cursor.
    world.files.upload(label("newer.wasm"), None, stream::iter(pieces(b"x"))).await.unwrap();
    let second = world.files.list(Some(".wasm"), &page(Some(1), first.next.as_deref())).unwrap();
    assert_eq!((second.items[0].name.as_str(), second.next), ("Hello.wasm", None));
}

#[test]
fn a_full_disk_is_told_as_such_whoever_notices_it() {
    for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT, rustix::io::Errno::FBIG] {
        let fault = disk("writing a file", std::path::Path::new("x"), &io::Error::from(errno));
        assert_eq!((fault.kind, &*fault.code), (ErrorKind::StorageFull, "STORAGE_FULL"), "{errno}");
    }
    let broken = disk("writing a file", std::path::Path::new("x"), &io::Error::from(rustix::io::Errno::IO));
    assert_eq!(broken.kind, ErrorKind::Internal);
}

#[test]
fn uploads_leave_the_last_of_the_disk_for_records_and_deletions() {
    const GIB: u64 = 1 << 30;
    assert!(fits(GIB, 2 * GIB, 100 * GIB).is_ok());
    assert_eq!(fits(GIB, GIB + 1, 100 * GIB).unwrap_err().kind, ErrorKind::StorageFull);
    assert!(fits(0, 5, 100).is_ok(), "on a small disk a twentieth is enough");
    assert!(fits(0, 4, 100).is_err());
    assert!(fits(u64::MAX, GIB, GIB).is_err());
}

#[test]
fn the_record_on_disk_keeps_its_released_shape() {
    let released = concat!(
        r#"{"id":"01a1fdf4-f8b4-744f-8bce-bb34bfa9a1f3","name":"a","content_type":"application/wasm","len":1,"#,
        r#""sha256":"00","created_at":1700000000000}"#
    );
    let record: FileRecord = serde_json::from_str(released).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), released);
}
