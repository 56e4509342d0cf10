//! What the key-value stores can do, in five demonstrations:
//!
//! ```console
//! $ cargo run --package store --example kv_factory_usage
//! ```
//! One of them asks the environment: try it with `KV_STORE_BACKEND=redb KV_STORE_PATH=/tmp/kv`.

use std::{collections::BTreeMap, path::Path};
use store::kv::{
    KvError, KvPair, KvStore, KvStoreConfig, RangeOptions, create_kv_store_from_config, get_kv_store_factory,
};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "showing it is the purpose")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("kv_factory_usage-{}", std::process::id()));
    let told = demonstrate(&dir, KvStoreConfig::from_process_env()).await;
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    for line in told? {
        println!("{line}");
    }
    Ok(())
}

/// All five; `dir` is a directory for their files, `environment` what the environment asks for.
pub async fn demonstrate(dir: &Path, environment: KvStoreConfig) -> Result<Vec<String>, KvError> {
    Ok(vec![
        format!("1. basic: {}", basic().await?),
        format!("2. by configuration: {}", by_configuration(dir).await?),
        format!("3. by environment: {}", by_environment(environment).await?),
        format!("4. by the mode of the application: {}", by_mode(dir).await?),
        format!("5. switched while running: {}", switched(dir).await?),
    ])
}

/// A store in memory, and everything it can do.
async fn basic() -> Result<String, KvError> {
    let store = create_kv_store_from_config(&KvStoreConfig::memory()).await?;
    store.put("user:1", b"Ada").await?;
    store.batch_put(&[KvPair::new("user:2", "Grace"), KvPair::new("visits", "7")]).await?;
    let users = store.keys_with_prefix("user:").await?;
    let last = store.range(&RangeOptions::new().end_key("v").reverse(true).limit(1)).await?;
    let deleted = store.delete("visits").await?;
    let name = store.get("user:1").await?.unwrap_or_default();
    Ok(format!(
        "user:1 is {}, users are {users:?}, the last one is {:?}, visits was there: {deleted}, {} pairs are left",
        String::from_utf8_lossy(&name),
        last.first().map(|pair| &pair.key),
        store.count().await?
    ))
}

/// The same code with another configuration keeps its data on disk.
async fn by_configuration(dir: &Path) -> Result<String, KvError> {
    let config = KvStoreConfig::redb(dir.join("configured").display().to_string()).with_param("cache_bytes", "4194304");
    get_kv_store_factory().validate_config(&config)?;
    let store = create_kv_store_from_config(&config).await?;
    store.put("kept", b"on disk").await?;
    store.close().await?;
    Ok(format!("{} with {:?}", config.backend, config.get_param("cache_bytes")))
}

/// `KV_STORE_BACKEND` and `KV_STORE_<PARAMETER>`.
async fn by_environment(config: KvStoreConfig) -> Result<String, KvError> {
    let store = create_kv_store_from_config(&config).await?;
    store.put("from", b"the environment").await?;
    let exists = store.exists("from").await?;
    store.close().await?;
    Ok(format!("{}, exists: {exists}", config.backend))
}

/// One program, several modes.
async fn by_mode(dir: &Path) -> Result<String, KvError> {
    let mut told = Vec::new();
    for (mode, backend) in [("test", "memory"), ("production", "redb")] {
        let variables = BTreeMap::from([
            ("KV_STORE_BACKEND".to_owned(), backend.to_owned()),
            ("KV_STORE_PATH".to_owned(), dir.join(mode).display().to_string()),
        ]);
        let store = create_kv_store_from_config(&KvStoreConfig::from_env(&variables)).await?;
        store.put("mode", mode.as_bytes()).await?;
        told.push(format!("{mode} has {} pair in {backend}", store.count().await?));
        store.close().await?;
    }
    Ok(told.join(", "))
}

/// From memory to disk, with what is there.
async fn switched(dir: &Path) -> Result<String, KvError> {
    let mut store = create_kv_store_from_config(&KvStoreConfig::memory()).await?;
    fill(&*store).await?;
    let next = create_kv_store_from_config(&KvStoreConfig::redb(dir.join("switched").display().to_string())).await?;
    next.batch_put(&store.all().await?).await?;
    store = next;
    let moved = store.count().await?;
    store.close().await?;
    Ok(format!("{moved} pairs moved from memory to redb"))
}

async fn fill(store: &dyn KvStore) -> Result<(), KvError> {
    for n in 0..5u8 {
        store.put(&format!("item:{n}"), &[n]).await?;
    }
    Ok(())
}
