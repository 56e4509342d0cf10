//! What a task says of itself as a function: limits, pooling, grants. All of it stands in `config` of the task.
//!
//! ```text
//!   timeout_ms, cpu_ms, memory_bytes, stdout_bytes, stderr_bytes     its walls, within the node's
//!   concurrency, queue, queue_wait_ms                                how many calls at once, how many wait, how long
//!   warm_min, warm_max, idle_ms, max_uses, reuse                     its instances
//!   compiler                                                         auto, singlepass, cranelift
//!   grants                                                           JSON: {"fs", "scratch", "env", "secrets", "outbound"}
//! ```
//! The node's policy stands above all grants: what it does not allow is an error that names both, never a silent no.

use runtime::{Directory, Grants, InstanceSpec, Limits, PoolSettings, Preparation, Reuse, Scratch};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use types::{Executable, Fault, Task, id::clip};

use crate::Config;

/// Largest result the node's store can keep, bytes.
const MOST_RESULT: usize = store::MOST_VALUE - 1024;
/// Largest secret, bytes.
const MOST_SECRET: u64 = 64 << 10;
/// Secrets of one function.
const MOST_SECRETS: usize = 64;
/// Directories that one function may be granted.
const MOST_DIRECTORIES: usize = 32;

/// What any function of this node may be granted.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Directories of the host below which directories may be granted to be read.
    pub read: Vec<PathBuf>,
    /// And to be changed.
    pub write: Vec<PathBuf>,
    /// Most bytes of a scratch directory; 0: there are none.
    pub scratch_bytes: u64,
    /// Variables of the agent's own environment that may be handed on, by name, with their values; none: not set.
    pub env: BTreeMap<String, Option<String>>,
    /// Directory of secrets: each file is one, by its name; none: there are none.
    pub secrets_dir: Option<PathBuf>,
    /// Hosts that may be reached: `host`, `host:port`, `*.domain`, `*`.
    pub outbound: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            write: Vec::new(),
            scratch_bytes: 64 << 20,
            env: BTreeMap::new(),
            secrets_dir: None,
            outbound: Vec::new(),
        }
    }
}

/// A task as a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) executable: Executable,
    pub(crate) spec: InstanceSpec,
    pub(crate) pool: PoolSettings,
    pub(crate) preparation: Preparation,
    /// Time limit of a call that names none.
    pub(crate) timeout: Duration,
    /// Hosts that it may reach, within the policy.
    pub(crate) outbound: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    fs: Vec<AskedDirectory>,
    scratch: Option<AskedScratch>,
    env: Vec<String>,
    secrets: BTreeMap<String, String>,
    outbound: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedDirectory {
    host: PathBuf,
    guest: String,
    #[serde(default)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Ro,
    Rw,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedScratch {
    guest: String,
    #[serde(default = "default_scratch_bytes")]
    bytes: u64,
    #[serde(default = "default_scratch_entries")]
    entries: u64,
}

fn default_scratch_bytes() -> u64 {
    64 << 20
}

fn default_scratch_entries() -> u64 {
    4096
}

impl Manifest {
    /// Of a task, on this node.
    ///
    /// # Errors
    /// A setting does not parse, or asks for more than the node allows; the field is named.
    pub(crate) fn of(config: &Config, task: &Task) -> Result<Self, Fault> {
        let nothing = || Fault::invalid_field("executable", "the task has nothing to run");
        let executable = task.executable.clone().ok_or_else(nothing)?;
        let limits = limits(config, task)?;
        let Granted { grants, env: more_env, outbound } = granted(&config.policy, task)?;
        let mut env = executable.env.clone();
        env.extend(more_env);
        let name = if executable.name.is_empty() { task.name.clone() } else { executable.name.clone() };
        let compiler = task.config.get("compiler").cloned().unwrap_or_default();
        let preparation = Preparation { artifact_bytes: limits.artifact_bytes, compiler };
        let timeout = milliseconds(task, "timeout_ms")?.unwrap_or(config.default_timeout).min(config.max_timeout);
        let pool = pool(config, task)?;
        let reuse = match boolean(task, "reuse")? {
            Some(true) => Reuse::Kept,
            _ if pool.uses == 1 => Reuse::Never,
            _ => Reuse::Clean,
        };
        let isolated = boolean(task, "isolate")?.unwrap_or(false);
        let spec = InstanceSpec { name, args: executable.args.clone(), env, limits, grants, reuse, isolated };
        Ok(Self { executable, spec, pool, preparation, timeout, outbound })
    }
}

fn limits(config: &Config, task: &Task) -> Result<Limits, Fault> {
    let mut limits = config.limits.clone();
    limits.stdout_bytes = limits.stdout_bytes.min(MOST_RESULT);
    let narrow = |most: usize, asked: Option<u64>| {
        asked.map_or(most, |asked| most.min(usize::try_from(asked).unwrap_or(usize::MAX)))
    };
    limits.memory_bytes = number(task, "memory_bytes")?.map_or(limits.memory_bytes, |it| it.min(limits.memory_bytes));
    limits.stdout_bytes = narrow(limits.stdout_bytes, number(task, "stdout_bytes")?);
    limits.stderr_bytes = narrow(limits.stderr_bytes, number(task, "stderr_bytes")?);
    limits.cpu = milliseconds(task, "cpu_ms")?.map_or(limits.cpu, |asked| asked.min(limits.cpu));
    // A call may ask for more than its task says, and for no more than this.
    limits.wall = config.max_timeout;
    Ok(limits)
}

fn pool(config: &Config, task: &Task) -> Result<PoolSettings, Fault> {
    let most = &config.functions;
    let count = |key: &str, usual: usize, most: usize| -> Result<usize, Fault> {
        let asked = number(task, key)?.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        Ok(asked.map_or(usual, |asked| asked.min(most)))
    };
    let concurrency = count("concurrency", most.concurrency, most.concurrency)?;
    let warm_max = count("warm_max", most.warm_max.min(concurrency), concurrency)?;
    Ok(PoolSettings {
        concurrency,
        queue: count("queue", most.queue, most.queue)?,
        queue_wait: milliseconds(task, "queue_wait_ms")?.unwrap_or(most.queue_wait).min(config.max_timeout),
        warm_min: count("warm_min", most.warm_min, warm_max)?.min(warm_max),
        warm_max,
        idle: milliseconds(task, "idle_ms")?.unwrap_or(most.idle),
        uses: number(task, "max_uses")?.unwrap_or(most.uses),
    })
}

/// What a task is granted.
#[derive(Default)]
struct Granted {
    grants: Grants,
    /// Variables beside those of the task.
    env: BTreeMap<String, String>,
    outbound: Vec<String>,
}

/// What a task asks for, if the policy allows all of it.
fn granted(policy: &Policy, task: &Task) -> Result<Granted, Fault> {
    let Some(text) = task.config.get("grants") else { return Ok(Granted::default()) };
    let wrong = |detail: String| Fault::invalid_field("config.grants", detail);
    let asked: Asked = serde_json::from_str(text).map_err(|error| wrong(shown(&error.to_string())))?;
    if asked.fs.len() > MOST_DIRECTORIES {
        return Err(wrong(format!("fs: {} directories; at most {MOST_DIRECTORIES}", asked.fs.len())));
    }
    let mut grants = Grants::default();
    for directory in asked.fs {
        let host = below(policy, &directory).map_err(wrong)?;
        grants.directories.push(Directory { host, guest: directory.guest, writable: directory.mode == Mode::Rw });
    }
    if let Some(AskedScratch { guest, bytes, entries }) = asked.scratch {
        let most = policy.scratch_bytes;
        if bytes > most {
            return Err(wrong(format!("scratch: {bytes} bytes; this node allows {most} (policy.scratch_bytes)")));
        }
        grants.scratch = Some(Scratch { guest, bytes, entries });
    }
    let mut env = BTreeMap::new();
    for name in asked.env {
        let missing = || wrong(format!("env: {} is not handed on by this node (policy.env)", shown(&name)));
        // One that the agent does not have, the function does not have either.
        if let Some(value) = policy.env.get(&name).ok_or_else(missing)? {
            env.insert(name.clone(), value.clone());
        }
    }
    if asked.secrets.len() > MOST_SECRETS {
        return Err(wrong(format!("secrets: {} of them; at most {MOST_SECRETS}", asked.secrets.len())));
    }
    for (name, secret) in asked.secrets {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(wrong(format!("secrets: {:?} is not a variable's name", clip(&name))));
        }
        env.insert(name, read_secret(policy, &secret).map_err(wrong)?);
    }
    for host in &asked.outbound {
        if !policy.outbound.iter().any(|allowed| allowed == "*" || allowed == host) {
            return Err(wrong(format!("outbound: {} is not allowed by this node (policy.outbound)", shown(host))));
        }
    }
    Ok(Granted { grants, env, outbound: asked.outbound })
}

/// A secret by its name, without the end of its last line.
fn read_secret(policy: &Policy, name: &str) -> Result<String, String> {
    let shown = clip(name);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        return Err(format!("secrets: {shown:?} is not the name of a secret"));
    }
    let dir = policy.secrets_dir.as_ref();
    let path = dir.ok_or_else(|| format!("secrets: {shown}: this node has none (policy.secrets_dir)"))?.join(name);
    let read = || -> std::io::Result<String> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(MOST_SECRET + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() as u64 > MOST_SECRET => {
            Err(format!("secrets: {shown} is larger than {MOST_SECRET} bytes"))
        }
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => {
            Err(format!("secrets: {shown} cannot be read on this node (policy.secrets_dir): {}", error.kind()))
        }
    }
}

/// The directory as it really lies, if the policy allows it: links are followed first.
fn below(policy: &Policy, asked: &AskedDirectory) -> Result<PathBuf, String> {
    let shown = shown(&asked.host.display().to_string());
    if !asked.host.is_absolute() {
        return Err(format!("fs: {shown} is not an absolute path"));
    }
    let within = |real: &Path, roots: &[PathBuf]| {
        roots.iter().any(|root| root.canonicalize().is_ok_and(|root| real.starts_with(root)))
    };
    let allowed = |real: &Path| within(real, &policy.write) || (asked.mode == Mode::Ro && within(real, &policy.read));
    match asked.host.canonicalize() {
        Ok(real) if allowed(&real) => return Ok(real),
        // What is not there is told only of directories that may be granted: nobody is to look around here.
        Err(error) if nearest(&asked.host).is_some_and(|real| allowed(&real)) => {
            return Err(format!("fs: {shown}: {}", error.kind()));
        }
        _ => {}
    }
    match asked.mode {
        Mode::Ro => Err(format!("fs: {shown} is not below a directory that this node grants (policy.read)")),
        Mode::Rw => Err(format!("fs: {shown} is not below a directory that this node lets be changed (policy.write)")),
    }
}

/// The lowest directory on the way to a path that is there, as it really lies.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find_map(|above| above.canonicalize().ok())
}

/// A text from outside for a message: clipped, and without characters that act on a terminal.
fn shown(text: &str) -> String {
    clip(text).escape_debug().to_string()
}

fn milliseconds(task: &Task, key: &str) -> Result<Option<Duration>, Fault> {
    Ok(number(task, key)?.map(Duration::from_millis))
}

fn boolean(task: &Task, key: &str) -> Result<Option<bool>, Fault> {
    let Some(text) = task.config.get(key) else { return Ok(None) };
    let wrong =
        |_| Fault::invalid_field(format!("config.{key}"), format!("{:?} is neither true nor false", clip(text)));
    text.trim().parse().map(Some).map_err(wrong)
}

fn number(task: &Task, key: &str) -> Result<Option<u64>, Fault> {
    let Some(text) = task.config.get(key) else { return Ok(None) };
    let none_needed = matches!(key, "queue" | "warm_min" | "warm_max");
    match text.trim().parse::<u64>() {
        Ok(0) if none_needed => Ok(Some(0)),
        Ok(0) | Err(_) => {
            let detail = format!("{:?} is not a whole number above 0", clip(text));
            Err(Fault::invalid_field(format!("config.{key}"), detail))
        }
        Ok(number) => Ok(Some(number)),
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod tests;
