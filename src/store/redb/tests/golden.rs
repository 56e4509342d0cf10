//! The format on disk: a store that version 1 wrote is read for ever.

use std::fs;

use super::*;
use crate::{ChangeItem, directory::DataDir};
use types::{Timestamp, clock::ManualClock};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/store-1.redb");

fn batches() -> Vec<Batch> {
    vec![
        Batch::new().put("task/1", "{\"name\":\"one\"}").put("task/2", "two"),
        Batch::new().put("task/1", "changed").delete("task/2"),
        Batch::new().put("file/ü", vec![0, 255, 10, 13]).put("file/empty", ""),
        Batch::new(),
        Batch::new().put("large", "0123456789".repeat(2000)),
        Batch::new().put("last", "6"),
    ]
}

/// Writes the golden file anew when a new version of the format needs one of its own.
async fn write(path: &str) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let engine = Redb::open(Config::new(DataDir::open(dir.path()).unwrap(), clock)).unwrap();
    for batch in batches() {
        engine.commit_many(vec![batch]).await.unwrap();
    }
    engine.trim(1).await.unwrap();
    engine.close().await.unwrap();
    fs::copy(dir.path().join(FILE), path).unwrap();
}

#[tokio::test]
async fn a_store_of_format_1_is_read() {
    if std::env::var_os("STORE_WRITE_GOLDEN").is_some() {
        write(GOLDEN).await;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::copy(GOLDEN, dir.path().join(FILE)).unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!((report.damage.as_slice(), report.records, report.entries), ([].as_slice(), 5, 5));

    let engine = open(dir.path()).unwrap();
    assert_eq!((*engine.head().borrow(), engine.floor().await.unwrap()), (6, 1));
    let records = engine.list("", None, 100).await.unwrap().records;
    let record = |key: &str, value: &[u8], created, modified| Record {
        key: key.to_owned(),
        value: value.to_vec().into(),
        created,
        modified,
    };
    let large = "0123456789".repeat(2000);
    let wanted = [
        record("file/empty", b"", 3, 3),
        record("file/ü", &[0, 255, 10, 13], 3, 3),
        record("large", large.as_bytes(), 5, 5),
        record("last", b"6", 6, 6),
        record("task/1", b"changed", 1, 2),
    ];
    assert_eq!(records, wanted);
    let changes = engine.changes(1, 100).await.unwrap();
    let items = vec![
        ChangeItem { key: "task/1".into(), value: Some("changed".into()), created: false },
        ChangeItem { key: "task/2".into(), value: None, created: false },
    ];
    assert_eq!(changes.first(), Some(&Change { rev: 2, items }));
    assert_eq!(changes.len(), 5);
    let written = Timestamp(1_700_000_000_000);
    assert_eq!(engine.aged(6, Timestamp(written.0 + 1)).await.unwrap(), 6);
    assert_eq!(engine.aged(6, written).await.unwrap(), 1);
    assert_eq!(put(&engine, "new", "x").await.unwrap(), 7);
}

#[test]
fn the_bytes_of_format_1_stay_as_they_are() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let record = hex(format::record("task/1", b"one", 1, 2));
    assert_eq!(record, RECORD);
    let items = vec![
        ChangeItem { key: "a".into(), value: Some("v".into()), created: true },
        ChangeItem { key: "b".into(), value: None, created: false },
    ];
    assert_eq!(hex(format::change(&Change { rev: 7, items }, Timestamp(1000))), CHANGE);
    let log_id = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    let meta = Meta { head: 9, floor: 3, ..Meta::new(log_id) };
    assert_eq!(hex(meta.encode()), META_BYTES);
}

const RECORD: &str = "c2740b7579230f4cd1134b7b5eb3cc39010000000000000002000000000000006f6e65";
const CHANGE: &str = "a7d5f6d63e41a4e5580149cf75476c25e8030000000000000200000003010061010000007600010062";
const META_BYTES: &str =
    "3414c750ff2ee219751ada0ab37f6f1d010000000100000001890a5dac96774bbcceb302099a805709000000000000000300000000000000";
