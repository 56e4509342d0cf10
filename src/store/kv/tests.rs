#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, path::Path};
use tempfile::TempDir;

use super::*;
use crate::Engine;

#[path = "../examples/kv_factory_usage.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod usage;

/// A new store of each backend that there is.
async fn each() -> Vec<(&'static str, Box<dyn KvStore>, TempDir)> {
    let mut stores = Vec::new();
    for backend in ["memory", "redb"] {
        let dir = tempfile::tempdir().unwrap();
        let config = match backend {
            "memory" => KvStoreConfig::memory(),
            _ => KvStoreConfig::redb(dir.path().join("kv").display().to_string()),
        };
        stores.push((backend, DefaultFactory.create(&config).await.unwrap(), dir));
    }
    stores
}

fn pairs(keys: &[&str]) -> Vec<KvPair> {
    keys.iter().map(|key| KvPair::new(*key, format!("value of {key}"))).collect()
}

fn keys(pairs: Vec<KvPair>) -> Vec<String> {
    pairs.into_iter().map(|pair| pair.key).collect()
}

#[tokio::test]
async fn values_are_written_read_and_removed() {
    for (backend, store, _dir) in each().await {
        assert_eq!(store.get("a").await.unwrap(), None, "{backend}");
        assert!(!store.exists("a").await.unwrap() && !store.delete("a").await.unwrap(), "{backend}");
        let (key, value) = (String::from("a"), Vec::from(*b"1"));
        store.put(&key, &value).await.unwrap();
        store.put("a", &[0, 255]).await.unwrap();
        store.put("empty", b"").await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), Some(vec![0, 255]), "{backend}");
        assert_eq!(store.get("empty").await.unwrap(), Some(Vec::new()), "{backend}");
        assert!(store.exists("empty").await.unwrap() && store.delete("a").await.unwrap(), "{backend}");
        assert!(!store.delete("a").await.unwrap(), "{backend}: only once");
        assert_eq!(store.count().await.unwrap(), 1, "{backend}");
    }
}

#[tokio::test]
async fn lists_are_sorted_and_a_prefix_is_no_more_than_that() {
    for (backend, store, _dir) in each().await {
        for key in ["b/2", "a/1", "b/10", "b", "c", "b/1", "ü"] {
            store.put(key, key.as_bytes()).await.unwrap();
        }
        assert_eq!(store.keys_with_prefix("b/").await.unwrap(), ["b/1", "b/10", "b/2"], "{backend}");
        assert_eq!(store.keys_with_prefix("x").await.unwrap(), [""; 0], "{backend}");
        let scanned = store.scan_prefix("b/1").await.unwrap();
        assert_eq!(scanned, [KvPair::new("b/1", "b/1"), KvPair::new("b/10", "b/10")], "{backend}");
        let all = keys(store.all().await.unwrap());
        assert_eq!(all, ["a/1", "b", "b/1", "b/10", "b/2", "c", "ü"], "{backend}");
    }
}

#[tokio::test]
async fn a_range_has_a_beginning_an_end_a_limit_and_a_direction() {
    for (backend, store, _dir) in each().await {
        store.batch_put(&pairs(&["a", "b", "c", "d", "e"])).await.unwrap();
        let all = RangeOptions::new();
        let cases: [(RangeOptions, &[&str]); 10] = [
            (all.clone(), &["a", "b", "c", "d", "e"]),
            (all.clone().start_key("b").end_key("d"), &["b", "c"]),
            (all.clone().start_key("bb"), &["c", "d", "e"]),
            (all.clone().limit(2), &["a", "b"]),
            (all.clone().reverse(true), &["e", "d", "c", "b", "a"]),
            (all.clone().reverse(true).limit(2), &["e", "d"]),
            (all.clone().start_key("b").end_key("e").reverse(true).limit(2), &["d", "c"]),
            (all.clone().end_key("c").limit(9), &["a", "b"]),
            (all.clone().start_key("d").end_key("b"), &[]),
            (all.clone().limit(0), &[]),
        ];
        for (options, wanted) in cases {
            assert_eq!(keys(store.range(&options).await.unwrap()), wanted, "{backend} {options:?}");
        }
    }
}

#[tokio::test]
async fn more_than_a_page_is_listed_counted_and_cleared() {
    for (backend, store, _dir) in each().await {
        let many: Vec<KvPair> = (0..2500).map(|n| KvPair::new(format!("k/{n:05}"), "v")).collect();
        store.batch_put(&many).await.unwrap();
        assert_eq!(store.count().await.unwrap(), 2500, "{backend}");
        assert!(store.all().await.unwrap() == many, "{backend}");
        let last = store.range(&RangeOptions::new().start_key("k/01200").reverse(true).limit(1)).await.unwrap();
        assert_eq!(keys(last), ["k/02499"], "{backend}");
        store.clear().await.unwrap();
        assert_eq!((store.count().await.unwrap(), store.all().await.unwrap().len()), (0, 0), "{backend}");
    }
}

#[tokio::test]
async fn a_batch_is_applied_whole_or_not_at_all() {
    for (backend, store, _dir) in each().await {
        let mut wrong = pairs(&["a", "b"]);
        wrong.push(KvPair::new("k".repeat(513), "too long a key"));
        assert!(matches!(store.batch_put(&wrong).await, Err(KvError::Store(Error::TooLarge(_)))), "{backend}");
        assert_eq!(store.count().await.unwrap(), 0, "{backend}: nothing of it");
        store.batch_put(&pairs(&["a", "b", "c"])).await.unwrap();
        let some = ["a", "x", "c", "a"].map(str::to_owned);
        assert_eq!(store.batch_delete(&some).await.unwrap(), 2, "{backend}");
        assert_eq!(keys(store.all().await.unwrap()), ["b"], "{backend}");
        assert_eq!(store.batch_delete(&[]).await.unwrap(), 0, "{backend}");
        store.batch_put(&[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_remove_a_key_one_did() {
    for (backend, store, _dir) in each().await {
        for _ in 0..10 {
            store.put("a", b"1").await.unwrap();
            let removed = futures_util::future::join_all((0..8).map(|_| store.delete("a"))).await;
            let count = removed.into_iter().filter(|removed| *removed.as_ref().unwrap()).count();
            assert_eq!(count, 1, "{backend}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_written_over_and_over_does_not_grow_with_its_history() {
    for (backend, store, dir) in each().await {
        for n in 0..300u32 {
            store.put("a", &vec![n as u8; 20_000]).await.unwrap();
        }
        assert_eq!(store.get("a").await.unwrap(), Some(vec![43; 20_000]), "{backend}");
        if backend == "redb" {
            let engine = redb_of(dir, store).await;
            assert!(engine.floor().await.unwrap() >= 256, "the log is trimmed");
        }
    }
}

/// The engine below a store that is closed.
async fn redb_of(dir: TempDir, store: Box<dyn KvStore>) -> crate::Redb {
    store.close().await.unwrap();
    drop(store);
    let path = dir.path().join("kv");
    let held = loop {
        match crate::DataDir::open(&path) {
            Ok(held) => break held,
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let clock = std::sync::Arc::new(types::SystemClock::new());
    crate::Redb::open(crate::redb::Config::new(held, clock)).unwrap()
}

#[tokio::test]
async fn what_is_on_disk_is_there_again_and_a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv").display().to_string();
    for (n, config) in
        [KvStoreConfig::redb(&path), KvStoreConfig::sled(&path), KvStoreConfig::rocksdb(&path)].into_iter().enumerate()
    {
        let store = loop {
            match DefaultFactory.create(&config).await {
                Ok(store) => break store,
                Err(KvError::Store(Error::InUse { .. })) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(store.count().await.unwrap(), n, "{config:?}");
        store.put(&config.backend, b"was here").await.unwrap();
        store.close().await.unwrap();
        assert!(matches!(store.get("a").await, Err(KvError::Store(Error::Closed))));
    }
}

/// Names and bytes of a directory.
fn listing(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default())).collect()
}

#[tokio::test]
async fn another_programs_store_is_refused_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, files: &[&str]| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        files.iter().for_each(|file| fs::write(path.join(file), "theirs").unwrap());
        path
    };
    let sled = make("sled", &["conf", "db"]);
    fs::create_dir(sled.join("blobs")).unwrap();
    let rocks = make("rocks", &["CURRENT", "IDENTITY"]);
    let other = make("other", &["store.redb"]);
    let file = dir.path().join("file");
    fs::write(&file, "theirs").unwrap();
    for (path, config) in [
        (&sled, KvStoreConfig::sled(sled.display().to_string())),
        (&rocks, KvStoreConfig::rocksdb(rocks.display().to_string())),
        (&other, KvStoreConfig::redb(other.display().to_string())),
        (&file, KvStoreConfig::redb(file.display().to_string())),
    ] {
        let before = if path.is_dir() { listing(path) } else { BTreeMap::new() };
        match DefaultFactory.create(&config).await.err() {
            Some(KvError::Store(Error::Foreign { .. })) => {}
            error => panic!("{path:?}: {error:?}"),
        }
        if path.is_dir() {
            let mut after = listing(path);
            // The directory of a store is taken before its file is looked at.
            after.remove(&path.join("lock").display().to_string());
            assert_eq!(after, before, "{path:?}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
}

#[test]
fn a_wrong_configuration_is_told_in_the_words_of_the_original() {
    let told = |config: KvStoreConfig| DefaultFactory.validate_config(&config).unwrap_err().to_string();
    let unknown = KvStoreConfig { backend: "etcd".into(), ..KvStoreConfig::memory() };
    assert_eq!(
        told(unknown),
        r#"Unsupported backend: etcd. Supported backends: ["memory", "redb", "sled", "rocksdb"]"#
    );
    let without = |backend: &str| KvStoreConfig { backend: backend.into(), params: BTreeMap::new() };
    assert_eq!(told(without("redb")), "Redb backend requires 'path' parameter");
    assert_eq!(told(without("sled")), "Sled backend requires 'path' parameter");
    assert_eq!(told(without("rocksdb").with_param("path", "")), "RocksDB backend requires 'path' parameter");
    let cache = KvStoreConfig::redb("x").with_param("cache_bytes", "much");
    assert_eq!(told(cache), r#"cache_bytes: "much" is not a whole number"#);
    DefaultFactory.validate_config(&KvStoreConfig::memory().with_param("debug", "true")).unwrap();
}

#[test]
fn the_environment_names_backend_and_parameters() {
    let from = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        KvStoreConfig::from_env(&variables.collect())
    };
    assert_eq!(from(&[]), KvStoreConfig::memory());
    assert_eq!(from(&[("KV_STORE_BACKEND", ""), ("PATH", "/bin")]), KvStoreConfig::default());
    assert_eq!(from(&[("SPEAR_KV_BACKEND", "redb"), ("KV_STORE_PATH", "/a")]), KvStoreConfig::redb("/a"));
    let both = [("KV_STORE_BACKEND", "memory"), ("SPEAR_KV_BACKEND", "redb"), ("KV_STORE_CACHE_SIZE", "5000")];
    assert_eq!(from(&both), KvStoreConfig::memory().with_param("cache_size", "5000"));
    let legacy = [("KV_STORE_BACKEND", "Sled"), ("KV_STORE_PATH", "/a"), ("SPEAR_KV_SLED_PATH", "/b")];
    assert_eq!(from(&legacy), KvStoreConfig::sled("/b"));
    assert_eq!(from(&[("KV_STORE_BACKEND", "rocksdb")]), KvStoreConfig::rocksdb("./data/kv.db"));
    assert_eq!(from(&[("KV_STORE_DEBUG", "true")]).get_param("debug"), Some("true"));
}

/// The one test that touches the factory of the process, for there is only one.
#[tokio::test]
async fn the_factory_of_the_process_is_set_once() {
    struct Refusing;

    #[async_trait]
    impl KvStoreFactory for Refusing {
        async fn create(&self, _: &KvStoreConfig) -> Result<Box<dyn KvStore>, KvError> {
            Err(KvError::Invalid("this one makes nothing".into()))
        }
        fn supported_backends(&self) -> Vec<String> {
            Vec::new()
        }
        fn validate_config(&self, _: &KvStoreConfig) -> Result<(), KvError> {
            Ok(())
        }
    }
    set_kv_store_factory(Box::new(Refusing)).unwrap();
    let again = set_kv_store_factory(Box::new(DefaultFactory)).unwrap_err();
    assert_eq!(again.to_string(), "KV store factory already initialized");
    assert_eq!(get_kv_store_factory().supported_backends(), [""; 0]);
    let refused = create_kv_store_from_config(&KvStoreConfig::memory()).await.err().unwrap();
    assert_eq!(refused.to_string(), "this one makes nothing");
    assert!(create_kv_store_from_env().await.is_err());
}

#[tokio::test]
async fn the_example_shows_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let told = usage::demonstrate(dir.path(), KvStoreConfig::memory()).await.unwrap();
    assert_eq!(
        told,
        [
            "1. basic: user:1 is Ada, users are [\"user:1\", \"user:2\"], the last one is Some(\"user:2\"), visits was there: true, 2 pairs are left",
            "2. by configuration: redb with Some(\"4194304\")",
            "3. by environment: memory, exists: true",
            "4. by the mode of the application: test has 1 pair in memory, production has 1 pair in redb",
            "5. switched while running: 5 pairs moved from memory to redb",
        ]
    );
}
