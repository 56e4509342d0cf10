//! Which store is wanted: the name of a backend and its parameters.

use std::collections::BTreeMap;

/// Variables that name the backend, in the order in which they count.
const BACKEND: [&str; 2] = ["KV_STORE_BACKEND", "SPEAR_KV_BACKEND"];
/// Begins the variables of parameters.
const PARAM: &str = "KV_STORE_";
/// The path, by an older name; it counts more than `KV_STORE_PATH`.
const LEGACY_PATH: &str = "SPEAR_KV_SLED_PATH";
/// Where a store lies that the environment asks for without saying where.
const DEFAULT_PATH: &str = "./data/kv.db";

pub(super) const MEMORY: &str = "memory";
pub(super) const REDB: &str = "redb";
/// Names of the original's backends; they mean redb.
pub(super) const ALIASES: [&str; 2] = ["sled", "rocksdb"];

/// What a store is made from. Parameters that a backend does not know are kept and mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvStoreConfig {
    /// `memory` or `redb`; `sled` and `rocksdb` mean redb.
    pub backend: String,
    /// `path`: the directory of redb. `cache_bytes`: its memory for pages.
    pub params: BTreeMap<String, String>,
}

impl Default for KvStoreConfig {
    fn default() -> Self {
        Self::memory()
    }
}

impl KvStoreConfig {
    fn new(backend: &str) -> Self {
        Self { backend: backend.to_owned(), params: BTreeMap::new() }
    }

    /// In memory; forgotten with the store.
    pub fn memory() -> Self {
        Self::new(MEMORY)
    }

    /// On disk, in a directory of its own.
    pub fn redb(path: impl Into<String>) -> Self {
        Self::new(REDB).with_param("path", path)
    }

    /// By the original's name; means [`KvStoreConfig::redb`].
    pub fn sled(path: impl Into<String>) -> Self {
        Self::new("sled").with_param("path", path)
    }

    /// By the original's name; means [`KvStoreConfig::redb`].
    pub fn rocksdb(path: impl Into<String>) -> Self {
        Self::new("rocksdb").with_param("path", path)
    }

    /// With a parameter.
    #[must_use]
    pub fn with_param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// A parameter.
    pub fn get_param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// As variables say: `KV_STORE_BACKEND` (or `SPEAR_KV_BACKEND`; memory when neither is set), and `KV_STORE_<NAME>`
    /// as the parameter `<name>`. `SPEAR_KV_SLED_PATH` is the path by its older name. A backend on disk without a path
    /// is in `./data/kv.db`. Empty variables count as not set.
    pub fn from_env(variables: &BTreeMap<String, String>) -> Self {
        let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let backend = BACKEND.iter().find_map(|name| set(name)).map_or(MEMORY, String::as_str);
        let mut config = Self::new(&backend.to_ascii_lowercase());
        for (name, value) in variables {
            if let Some(param) = name.strip_prefix(PARAM).filter(|param| !param.is_empty())
                && !BACKEND.contains(&name.as_str())
                && !value.is_empty()
            {
                config.params.insert(param.to_ascii_lowercase(), value.clone());
            }
        }
        if config.on_disk() {
            if let Some(path) = set(LEGACY_PATH) {
                config.params.insert("path".to_owned(), path.clone());
            }
            config.params.entry("path".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
        }
        config
    }

    /// As the variables of this process say; see [`KvStoreConfig::from_env`].
    ///
    /// Nothing else below the program reads the environment: the interface that this keeps to promises it, for
    /// programs that have no configuration of their own.
    pub fn from_process_env() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self::from_env(&variables.filter_map(|(name, value)| Some((name, value.into_string().ok()?))).collect())
    }

    /// Is it redb, by whatever name?
    pub(super) fn on_disk(&self) -> bool {
        self.backend == REDB || ALIASES.contains(&self.backend.as_str())
    }
}
