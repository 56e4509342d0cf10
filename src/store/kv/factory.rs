//! Who makes stores: one factory for the process, which a program may replace before its first use.

use async_trait::async_trait;
use std::sync::{Arc, Once, OnceLock};
use types::SystemClock;

use super::{
    KvError, KvStore, KvStoreConfig,
    config::{ALIASES, MEMORY, REDB},
    over_engine::OverEngine,
};
use crate::{DataDir, Memory, Redb, redb};

/// Makes stores of configurations.
#[async_trait]
pub trait KvStoreFactory: Send + Sync {
    /// Makes a store.
    async fn create(&self, config: &KvStoreConfig) -> Result<Box<dyn KvStore>, KvError>;

    /// The names of backends that can be asked for.
    fn supported_backends(&self) -> Vec<String>;

    /// Would [`KvStoreFactory::create`] take it? Nothing is opened.
    ///
    /// # Errors
    /// [`KvError::Invalid`].
    fn validate_config(&self, config: &KvStoreConfig) -> Result<(), KvError>;
}

/// The factory of the process. The interface that this keeps to has one, so it is the one static of this crate.
static FACTORY: OnceLock<Box<dyn KvStoreFactory>> = OnceLock::new();

/// Sets the factory of the process; once, and before anything is made.
///
/// # Errors
/// [`KvError::AlreadyInitialized`].
pub fn set_kv_store_factory(factory: Box<dyn KvStoreFactory>) -> Result<(), KvError> {
    FACTORY.set(factory).map_err(|_| KvError::AlreadyInitialized)
}

/// The factory of the process; from its first use on it stays what it is.
pub fn get_kv_store_factory() -> &'static dyn KvStoreFactory {
    &**FACTORY.get_or_init(|| Box::new(DefaultFactory))
}

/// Makes a store with the factory of the process.
///
/// # Errors
/// The configuration is wrong, or the store cannot be opened.
pub async fn create_kv_store_from_config(config: &KvStoreConfig) -> Result<Box<dyn KvStore>, KvError> {
    get_kv_store_factory().create(config).await
}

/// Makes the store that the environment of this process asks for; see [`KvStoreConfig::from_env`].
///
/// # Errors
/// As [`create_kv_store_from_config`].
pub async fn create_kv_store_from_env() -> Result<Box<dyn KvStore>, KvError> {
    create_kv_store_from_config(&KvStoreConfig::from_process_env()).await
}

/// Makes stores of the engines of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultFactory;

#[async_trait]
impl KvStoreFactory for DefaultFactory {
    async fn create(&self, config: &KvStoreConfig) -> Result<Box<dyn KvStore>, KvError> {
        self.validate_config(config)?;
        if config.backend == MEMORY {
            return Ok(Box::new(OverEngine::new(Arc::new(Memory::new()))));
        }
        static WARNED: Once = Once::new();
        let path = config.get_param("path").unwrap_or_default().to_owned();
        if config.backend != REDB {
            WARNED.call_once(|| {
                let backend = &config.backend;
                tracing::warn!(backend, path, "this backend means redb here: the store is kept in that directory");
            });
        }
        let cache_bytes = cache_bytes(config)?;
        let opened = tokio::task::spawn_blocking(move || {
            let usual = redb::Config::new(DataDir::open(path)?, Arc::new(SystemClock::new()));
            Redb::open(redb::Config { cache_bytes: cache_bytes.unwrap_or(usual.cache_bytes), ..usual })
        });
        let engine = opened.await.unwrap_or(Err(crate::Error::Closed))?;
        Ok(Box::new(OverEngine::new(Arc::new(engine))))
    }

    fn supported_backends(&self) -> Vec<String> {
        [MEMORY, REDB].iter().chain(&ALIASES).map(|name| (*name).to_owned()).collect()
    }

    fn validate_config(&self, config: &KvStoreConfig) -> Result<(), KvError> {
        let title = match config.backend.as_str() {
            MEMORY => return Ok(()),
            REDB => "Redb",
            "sled" => "Sled",
            "rocksdb" => "RocksDB",
            other => {
                let supported = self.supported_backends();
                let message = format!("Unsupported backend: {other}. Supported backends: {supported:?}");
                return Err(KvError::Invalid(message));
            }
        };
        if config.get_param("path").is_none_or(str::is_empty) {
            return Err(KvError::Invalid(format!("{title} backend requires 'path' parameter")));
        }
        cache_bytes(config).map(drop)
    }
}

fn cache_bytes(config: &KvStoreConfig) -> Result<Option<usize>, KvError> {
    let Some(text) = config.get_param("cache_bytes") else { return Ok(None) };
    let bytes = text.parse().map_err(|_| KvError::Invalid(format!("cache_bytes: {text:?} is not a whole number")))?;
    Ok(Some(bytes))
}
