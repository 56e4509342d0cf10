//! Tasks with arbitrary settings on a node that has something to grant, and beside that what nobody may have; for fuzz
//! targets and property tests.
//!
//! ```text
//!   input: key=value NUL key=value NUL …            $ stands for the directory of the node
//! ```
//! Whatever comes: it is refused in one short line that names a setting of the task, or it stays within what the node
//! allows, and comes out the same when all that was taken of it is set again.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};
use types::{ErrorKind, Executable, ExecutableType, Fault, Task, TaskId, TaskPriority, TaskStatus, Timestamp};

use super::{MOST_SECRET, Manifest, Policy, Reuse};
use crate::Config;

const SECRET: &str = "s3cr3t";
const BESIDE: &str = "not for functions";
/// Longest message.
const MOST_MESSAGE: usize = 1000;

/// A node with directories to grant: `read`, `write`, and beside them what nobody may have.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    dir: PathBuf,
}

impl Node {
    /// Made in a directory that is empty.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(dir: &Path) -> io::Result<Self> {
        for path in ["read/inner", "write/inner", "beside/inner", "secrets"] {
            fs::create_dir_all(dir.join(path))?;
        }
        symlink("../beside", dir.join("read/out"))?;
        symlink("../read/inner", dir.join("write/over"))?;
        fs::write(dir.join("secrets/key"), format!("{SECRET}\n"))?;
        fs::write(dir.join("secrets/large"), "x".repeat(usize::try_from(MOST_SECRET).map_err(io::Error::other)? + 1))?;
        fs::write(dir.join("beside/key"), BESIDE)?;
        let dir = dir.canonicalize()?;
        let policy = Policy {
            read: vec![dir.join("read")],
            write: vec![dir.join("write")],
            scratch_bytes: 1 << 20,
            env: [("TZ".to_owned(), Some("UTC".to_owned())), ("UNSET".to_owned(), None)].into(),
            secrets_dir: Some(dir.join("secrets")),
            outbound: vec!["api.example.com:443".into(), "*.example.org".into()],
        };
        Ok(Self { config: Config { policy, ..Config::default() }, dir })
    }

    /// Takes an input for what a task sets.
    ///
    /// # Errors
    /// What should never be, in a sentence.
    pub fn drive(&self, input: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(input).replace('$', &self.dir.display().to_string());
        let settings = text.split('\0').filter_map(|setting| setting.split_once('='));
        self.judge(settings.map(|(key, value)| (key.to_owned(), value.to_owned())))
    }

    /// Looks at what becomes of settings.
    pub(super) fn judge(&self, settings: impl IntoIterator<Item = (String, String)>) -> Result<(), String> {
        let mut task = task(settings);
        let manifest = match Manifest::of(&self.config, &task) {
            Ok(manifest) => manifest,
            Err(fault) => return refused(&task, &fault),
        };
        self.within(&manifest)?;
        task.config = said(&manifest, &task);
        match Manifest::of(&self.config, &task) {
            Ok(again) if again == manifest => Ok(()),
            Ok(again) => Err(format!("said again it is another: {manifest:?} {again:?}")),
            Err(fault) => Err(format!("said again it is refused: {fault}")),
        }
    }

    /// Is it within what the node allows?
    fn within(&self, manifest: &Manifest) -> Result<(), String> {
        let (config, limits, pool) = (&self.config, &manifest.spec.limits, &manifest.pool);
        let (most, policy, grants) = (&config.limits, &config.policy, &manifest.spec.grants);
        let granted = |directory: &runtime::Directory| {
            let below = |roots: &[PathBuf]| roots.iter().any(|root| directory.host.starts_with(root));
            below(&policy.write) || (!directory.writable && below(&policy.read))
        };
        let allowed = [
            ("memory", limits.memory_bytes <= most.memory_bytes),
            ("processor", limits.cpu <= most.cpu),
            ("output", limits.stdout_bytes <= most.stdout_bytes && limits.stderr_bytes <= most.stderr_bytes),
            ("time", limits.wall <= config.max_timeout && manifest.timeout <= config.max_timeout),
            ("stack", limits.stack_bytes == most.stack_bytes && limits.artifact_bytes == most.artifact_bytes),
            ("places", (1..=config.functions.concurrency).contains(&pool.concurrency)),
            ("queue", pool.queue <= config.functions.queue && pool.queue_wait <= config.max_timeout),
            ("instances", pool.warm_min <= pool.warm_max && pool.warm_max <= pool.concurrency && pool.uses >= 1),
            ("directories", grants.directories.iter().all(granted)),
            ("scratch", grants.scratch.as_ref().is_none_or(|scratch| scratch.bytes <= policy.scratch_bytes)),
            ("hosts", manifest.outbound.iter().all(|host| policy.outbound.contains(host))),
            ("variables", manifest.spec.env.values().all(|value| ["UTC", SECRET].contains(&value.as_str()))),
        ];
        match allowed.iter().find(|(_, allowed)| !allowed) {
            Some((what, _)) => Err(format!("{what}: more than the node allows: {manifest:?} {:?}", manifest.spec.env)),
            None => Ok(()),
        }
    }
}

/// A task with settings.
pub(super) fn task(settings: impl IntoIterator<Item = (String, String)>) -> Task {
    Task {
        id: TaskId::new(),
        name: "greet".into(),
        description: String::new(),
        status: TaskStatus::Active,
        priority: TaskPriority::Normal,
        node_uuid: None,
        endpoint: String::new(),
        version: String::new(),
        capabilities: Vec::new(),
        registered_at: Timestamp(0),
        last_heartbeat: Timestamp(0),
        metadata: BTreeMap::new(),
        config: settings.into_iter().collect(),
        executable: Some(Executable {
            kind: ExecutableType::Wasm,
            uri: "https://example.com/greet.wasm".into(),
            name: String::new(),
            checksum_sha256: String::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
        }),
    }
}

/// Everything that a task can set, as it was taken.
fn said(manifest: &Manifest, task: &Task) -> BTreeMap<String, String> {
    let (limits, pool) = (&manifest.spec.limits, &manifest.pool);
    let all = [
        ("timeout_ms", manifest.timeout.as_millis().to_string()),
        ("cpu_ms", limits.cpu.as_millis().to_string()),
        ("memory_bytes", limits.memory_bytes.to_string()),
        ("stdout_bytes", limits.stdout_bytes.to_string()),
        ("stderr_bytes", limits.stderr_bytes.to_string()),
        ("concurrency", pool.concurrency.to_string()),
        ("queue", pool.queue.to_string()),
        ("queue_wait_ms", pool.queue_wait.as_millis().to_string()),
        ("warm_min", pool.warm_min.to_string()),
        ("warm_max", pool.warm_max.to_string()),
        ("idle_ms", pool.idle.as_millis().to_string()),
        ("max_uses", pool.uses.to_string()),
        ("reuse", (manifest.spec.reuse == Reuse::Kept).to_string()),
        ("isolate", manifest.spec.isolated.to_string()),
        ("compiler", manifest.preparation.compiler.clone()),
    ];
    let grants = task.config.get("grants").map(|grants| ("grants".to_owned(), grants.clone()));
    all.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(grants).collect()
}

fn refused(task: &Task, fault: &Fault) -> Result<(), String> {
    let [error] = &fault.errors[..] else { return Err(format!("it does not blame one field: {fault:?}")) };
    let blamed = error.field.strip_prefix("config.").is_some_and(|key| task.config.contains_key(key));
    if fault.kind != ErrorKind::Invalid || !blamed {
        return Err(format!("it does not name a setting: {fault:?}"));
    }
    let given = |text| task.config.values().any(|value| value.contains(text));
    if [SECRET, BESIDE].into_iter().any(|text| fault.message.contains(text) && !given(text)) {
        return Err(format!("it tells what nobody may have: {fault:?}"));
    }
    short(fault)
}

/// Is it one short line, without characters that act on a terminal?
pub(super) fn short(fault: &Fault) -> Result<(), String> {
    let message = &fault.message;
    match message.len() < MOST_MESSAGE && !message.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!("not one short line: {message:?}")),
    }
}
