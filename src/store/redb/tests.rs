#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use async_trait::async_trait;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use types::{LogId, SystemClock};

use super::*;
use crate::conformance::{Durable, Engines};

/// Opens the store of a directory.
fn open(dir: &Path) -> Result<Redb, Error> {
    Redb::open(config(DataDir::open(dir)?))
}

fn config(dir: DataDir) -> Config {
    Config::new(dir, Arc::new(SystemClock::new()))
}

#[derive(Default)]
struct OnDisk {
    dirs: Mutex<HashMap<LogId, TempDir>>,
}

#[async_trait]
impl Engines for OnDisk {
    async fn fresh(&self) -> Arc<dyn Engine> {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        self.dirs.lock().unwrap().insert(engine.log_id(), dir);
        Arc::new(engine)
    }
}

#[async_trait]
impl Durable for OnDisk {
    async fn reopen(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        engine.close().await.unwrap();
        let path = self.dirs.lock().unwrap()[&engine.log_id()].path().to_owned();
        drop(engine);
        // The write thread holds the directory until it ends, a moment after the last handle has gone.
        let dir = loop {
            match DataDir::open(&path) {
                Ok(dir) => break dir,
                Err(Error::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        Arc::new(Redb::open(config(dir)).unwrap())
    }
}

mod conforms {
    use super::OnDisk;
    crate::conformance!(durable OnDisk::default());
}

mod compact;
mod crash;
mod damage;
mod full;
mod golden;
mod model;
mod power;
mod start;

/// A simple generator (SplitMix64); tests print its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Commits one batch that nothing guards.
async fn put(engine: &Redb, key: &str, value: &str) -> Result<Rev, Error> {
    let done = engine.commit_many(vec![Batch::new().put(key, value.to_owned())]).await?;
    Ok(*done[0].as_ref().unwrap())
}

async fn value(engine: &Redb, key: &str) -> Result<Option<String>, Error> {
    let found = engine.get(key).await?;
    Ok(found.map(|record| String::from_utf8(record.value.to_vec()).unwrap()))
}
