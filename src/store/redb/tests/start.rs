//! What is accepted and refused at the start.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

#[tokio::test]
async fn a_second_open_of_a_directory_names_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    match open(dir.path()).err() {
        Some(Error::InUse { path, pid }) => {
            assert_eq!((path.as_path(), pid), (dir.path(), std::process::id().to_string()));
        }
        other => panic!("{other:?}"),
    }
    put(&engine, "a", "1").await.unwrap();
}

#[test]
fn one_directory_opens_one_store_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let held = DataDir::open(dir.path()).unwrap();
    let _engine = Redb::open(config(held.clone())).unwrap();
    assert!(matches!(Redb::open(config(held)), Err(Error::InUse { .. })));
}

#[test]
fn a_data_directory_is_made_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let held = DataDir::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), format!("{}\n", std::process::id()));
    drop(held);
    DataDir::open(&path).unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    match DataDir::open(dir.path().join("file/below")) {
        Err(error @ Error::Unusable { .. }) => assert!(error.to_string().contains("file/below"), "{error}"),
        other => panic!("{other:?}"),
    }
    // A directory stands where the lock should: this holds for root too, whom permissions do not stop.
    fs::create_dir_all(dir.path().join("blocked/lock")).unwrap();
    assert!(matches!(DataDir::open(dir.path().join("blocked")), Err(Error::Unusable { .. })));
}

/// Everything in a directory, to see that nothing was touched.
fn listing(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

#[test]
fn databases_of_other_programs_are_refused_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    for (name, files) in [("sled", ["conf", "db", "blobs"]), ("rocksdb", ["CURRENT", "IDENTITY", "LOCK"])] {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        files.iter().for_each(|file| fs::write(path.join(file), name).unwrap());
        let before = listing(&path);
        match DataDir::open(&path) {
            Err(Error::Foreign { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(listing(&path), before);
    }
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(DataDir::open(&file), Err(Error::Foreign { .. })));
}

#[test]
fn a_foreign_file_in_the_place_of_the_store_is_refused_and_left_untouched() {
    let plain_redb = {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain");
        drop(::redb::Database::create(&path).unwrap());
        fs::read(path).unwrap()
    };
    let contents: [&[u8]; 4] = [b"SQLite format 3\0 and more", &[0; 5000], &[0xff; 700], &plain_redb];
    for content in contents {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), content).unwrap();
        match open(dir.path()).err() {
            Some(Error::Foreign { path, .. }) => assert_eq!(path, dir.path().join(FILE)),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), content);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FILE)).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Foreign { .. })));
}

#[test]
fn an_empty_file_in_the_place_of_the_store_is_damage_not_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), "").unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })));
    assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"");
}

#[tokio::test]
async fn a_newer_format_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let newer = |format, oldest_reader| {
        engine.core.write(move |txn, meta| {
            let new = Meta { format, oldest_reader, ..*meta };
            txn.open_table(META)?.insert(STORE, new.encode().as_slice())?;
            *meta = new;
            Ok(())
        })
    };
    newer(9, 1).unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let engine = reopened(dir.path());
    engine
        .core
        .write(|_, meta| {
            meta.oldest_reader = 9;
            Ok(())
        })
        .unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let refused = loop {
        match open(dir.path()) {
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            other => break other.err(),
        }
    };
    assert!(matches!(refused, Some(Error::Version { found: 9, known: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn an_older_copy_in_the_place_of_the_store_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    put(&engine, "a", "1").await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let old = fs::read(dir.path().join(FILE)).unwrap();
    let engine = reopened(dir.path());
    put(&engine, "a", "2").await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    fs::write(dir.path().join(FILE), old).unwrap();
    match try_reopen(dir.path()).err() {
        Some(Error::Corrupt { detail, .. }) => assert!(detail.contains("older copy"), "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_start_after_an_unclean_stop_looks_at_every_record_and_log_entry() {
    for (letter, clean) in [("record", true), ("record", false), ("log", false)] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        for n in 0..10 {
            put(&engine, &format!("k{n}"), "value").await.unwrap();
        }
        // Wrong bytes that every block checksum takes for right, as a fault above the disk would leave them.
        let spoiled = engine.core.write(|txn, meta| {
            if letter == "record" {
                txn.open_table(RECORDS)?.insert(b"k5".as_slice(), format::record("k4", b"value", 5, 5).as_slice())?;
            } else {
                txn.open_table(LOG)?.insert(5, b"nothing of the kind".as_slice())?;
            }
            meta.format = 1 + u32::from(meta.format == 1);
            Ok(())
        });
        spoiled.unwrap();
        engine.close().await.unwrap();
        drop(engine);
        if !clean {
            fs::remove_file(dir.path().join("store.clean")).unwrap();
        }
        let opened = try_reopen(dir.path());
        if clean {
            let engine = opened.unwrap();
            assert!(matches!(engine.get("k5").await, Err(Error::Corrupt { .. })), "found when it is read");
            assert_eq!(value(&engine, "k4").await.unwrap().as_deref(), Some("value"), "the others are served");
            assert!(matches!(engine.list("", None, 100).await, Err(Error::Corrupt { .. })));
            engine.close().await.unwrap();
            assert!(!dir.path().join("store.clean").exists(), "the next start looks at everything");
        } else {
            match opened.err() {
                Some(Error::Corrupt { path, detail }) => {
                    assert_eq!(path, dir.path().join(FILE));
                    assert!(detail.contains('5') && detail.contains("restore a backup"), "{detail}");
                }
                other => panic!("{letter}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_check_reports_what_is_wrong_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(check(&dir.path().join("none")), Err(Error::Unusable { .. })));
    let engine = open(dir.path()).unwrap();
    for n in 0..10 {
        put(&engine, &format!("k{n}"), "value").await.unwrap();
    }
    assert!(matches!(check(dir.path()), Err(Error::InUse { .. })));
    let log_id = engine.log_id();
    let unclean = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join(FILE), unclean.path().join(FILE)).unwrap();
    engine.close().await.unwrap();
    drop(engine);
    drop(reopened(dir.path()));
    wait_until_free(dir.path());
    for (path, clean) in [(dir.path(), true), (unclean.path(), false)] {
        let before = fs::read(path.join(FILE)).unwrap();
        let report = check(path).unwrap();
        assert_eq!((report.damage.as_slice(), report.clean, report.log_id), ([].as_slice(), clean, Some(log_id)));
        assert_eq!((report.records, report.entries, report.head, report.floor), (10, 10, 10, 0));
        assert_eq!(report.bytes, before.len() as u64);
        assert!(fs::read(path.join(FILE)).unwrap() == before, "a check writes nothing");
    }
    let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
    let at = bytes.windows(5).position(|window| window == b"value").unwrap();
    bytes[at] ^= 1;
    fs::write(dir.path().join(FILE), bytes).unwrap();
    let report = check(dir.path()).unwrap();
    assert!(report.damage.iter().any(|found| found.contains("checksum")), "{report:?}");
}

pub(super) fn wait_until_free(dir: &Path) {
    while let Err(error) = DataDir::open(dir) {
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        std::thread::yield_now();
    }
}

fn try_reopen(dir: &Path) -> Result<Redb, Error> {
    wait_until_free(dir);
    open(dir)
}

pub(super) fn reopened(dir: &Path) -> Redb {
    try_reopen(dir).unwrap()
}
