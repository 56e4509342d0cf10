//! What a task may be: limits and their errors.

use std::collections::BTreeMap;
use types::{
    Executable, ExecutableType, ExecutionId, Fault, NodeId, Task, TaskId, TaskPriority, TaskStatus, Timestamp,
    artifact::ArtifactUri,
};

use crate::executions::{LastRun, idempotency::Fingerprint};

const MOST_NAME: usize = 256;
const MOST_TEXT: usize = 4096;
const MOST_VERSION: usize = 128;
const MOST_ENTRIES: usize = 256;
const MOST_KEY: usize = 256;
const MOST_VALUE: usize = 8192;
/// Bytes of all texts of a task together.
const MOST_TOGETHER: usize = 256 << 10;

/// A task that somebody wants to register.
#[derive(Clone, Debug)]
pub(crate) struct NewTask {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) priority: TaskPriority,
    pub(crate) node_uuid: Option<NodeId>,
    pub(crate) endpoint: String,
    pub(crate) version: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) executable: Option<Executable>,
}

/// A task as it is shown: its record, and what its executions make of it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) task: std::sync::Arc<Task>,
    pub(crate) status: TaskStatus,
    pub(crate) last: Option<LastRun>,
    /// Executions with a result, newest first.
    pub(crate) results: Vec<ExecutionId>,
}

impl NewTask {
    /// Adds what is asked for to the fingerprint of a request.
    pub(crate) fn written_to(&self, fingerprint: Fingerprint) -> Fingerprint {
        let all = |name: &str, fingerprint: Fingerprint, entries: &BTreeMap<String, String>| {
            entries.iter().fold(fingerprint, |all, (key, value)| all.with(name, key).with(name, value))
        };
        let fingerprint = fingerprint
            .with("name", &self.name)
            .with("description", &self.description)
            .with("priority", self.priority.as_str())
            .with_all("node_uuid", self.node_uuid.map(|node| node.to_string()))
            .with("endpoint", &self.endpoint)
            .with("version", &self.version)
            .with_all("capabilities", &self.capabilities);
        let fingerprint = all("config", all("metadata", fingerprint, &self.metadata), &self.config);
        let Some(executable) = &self.executable else { return fingerprint };
        let fingerprint = fingerprint
            .with("type", executable.kind.as_str())
            .with("uri", &executable.uri)
            .with("executable_name", &executable.name)
            .with("checksum_sha256", &executable.checksum_sha256)
            .with_all("args", &executable.args);
        all("env", fingerprint, &executable.env)
    }

    /// Checks everything and makes the record.
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn into_task(self, now: Timestamp) -> Result<Task, Fault> {
        if self.name.trim().is_empty() {
            return Err(Fault::invalid_field("name", "is empty; give the task a name"));
        }
        text("name", &self.name, MOST_NAME)?;
        text("description", &self.description, MOST_TEXT)?;
        text("endpoint", &self.endpoint, MOST_TEXT)?;
        text("version", &self.version, MOST_VERSION)?;
        texts("capabilities", &self.capabilities, MOST_KEY)?;
        labels("metadata", &self.metadata)?;
        labels("config", &self.config)?;
        let executable = self
            .executable
            .map(|executable| check(executable).map_err(|fault| fault.within("executable")))
            .transpose()?;
        let description = if self.description.is_empty() { format!("Task: {}", self.name) } else { self.description };
        let task = Task {
            id: TaskId::new(),
            name: self.name,
            description,
            status: TaskStatus::Registered,
            priority: self.priority,
            node_uuid: self.node_uuid,
            endpoint: self.endpoint,
            version: self.version,
            capabilities: self.capabilities,
            registered_at: now,
            last_heartbeat: now,
            metadata: self.metadata,
            config: self.config,
            executable,
        };
        let bytes = store::encode(&task)?.len();
        if bytes > MOST_TOGETHER {
            return Err(Fault::invalid(format!("the task has {bytes} bytes in all; {MOST_TOGETHER} are allowed")));
        }
        Ok(task)
    }
}

fn check(mut executable: Executable) -> Result<Executable, Fault> {
    if executable.kind == ExecutableType::Unknown {
        return Err(unknown_kind("unknown"));
    }
    match executable.kind {
        // A command or an image is not fetched: its runtime says what it may be.
        ExecutableType::Process | ExecutableType::Container => {
            if executable.uri.trim().is_empty() {
                return Err(Fault::invalid_field("uri", "is empty; name what to run"));
            }
        }
        _ => drop(ArtifactUri::parse(&executable.uri)?),
    }
    text("uri", &executable.uri, MOST_TEXT)?;
    text("name", &executable.name, MOST_NAME)?;
    let sum = executable.checksum_sha256.trim().to_ascii_lowercase();
    let right = sum.is_empty() || (sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !right {
        return Err(Fault::invalid_field("checksum_sha256", "is not a sha256: 64 hexadecimal digits"));
    }
    executable.checksum_sha256 = sum;
    texts("args", &executable.args, MOST_VALUE)?;
    labels("env", &executable.env)?;
    for key in executable.env.keys() {
        if key.contains('=') {
            return Err(Fault::invalid_field("env", format!("{:?} has a = in its name", types::id::clip(key))));
        }
    }
    Ok(executable)
}

/// The fault of a type of executable that there is not.
pub(super) fn unknown_kind(word: &str) -> Fault {
    let known: Vec<_> = ExecutableType::WORDS.iter().filter(|word| **word != "unknown").copied().collect();
    Fault::invalid_field("type", format!("{:?} is not a type; use {}", types::id::clip(word), known.join(", ")))
}

fn text(field: &str, value: &str, most: usize) -> Result<(), Fault> {
    if value.len() > most {
        return Err(Fault::invalid_field(field, format!("has {} bytes; {most} are allowed", value.len())));
    }
    if value.contains('\0') {
        return Err(Fault::invalid_field(field, "has a NUL character"));
    }
    Ok(())
}

fn texts(field: &str, values: &[String], most: usize) -> Result<(), Fault> {
    count(field, values.len())?;
    values.iter().enumerate().try_for_each(|(at, value)| text(&format!("{field}[{at}]"), value, most))
}

fn labels(field: &str, values: &BTreeMap<String, String>) -> Result<(), Fault> {
    count(field, values.len())?;
    for (key, value) in values {
        if key.is_empty() {
            return Err(Fault::invalid_field(field, "has an entry without a name"));
        }
        text(field, key, MOST_KEY)?;
        text(&format!("{field}.{key}"), value, MOST_VALUE)?;
    }
    Ok(())
}

fn count(field: &str, entries: usize) -> Result<(), Fault> {
    if entries > MOST_ENTRIES {
        return Err(Fault::invalid_field(field, format!("has {entries} entries; {MOST_ENTRIES} are allowed")));
    }
    Ok(())
}
