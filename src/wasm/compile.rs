//! Compiling in a child process with hard limits: a module that makes the compiler eat all memory or time
//! ends the child, and nothing else.
//!
//! ```text
//!   daemon: <program> compile-module --input F --output F --identity HASH --compiler NAME --memory BYTES --cpu SECONDS
//!             --behind BOOL
//!   child:  limits on itself ► reads F ► validates and compiles ► writes header + artifact ► exit 0
//! ```
//! The child says in the artifact's header which module it read, so the daemon notices a file that changed.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use types::Reason;

use crate::{
    cache,
    engine::{self, Compiler},
    scan,
};
use runtime::InvokeError;

/// The hidden subcommand that the program must hand to [`compile_child`].
pub const COMPILE_COMMAND: &str = "compile-module";

/// Bytes of the child's error output that are kept.
const MOST_ERROR_BYTES: u64 = 4096;
/// The child refused the module and said why.
const REFUSED: u8 = 3;

/// For the allocator of the child, where that is the GNU one: it takes a lot and gives nothing back before its end.
/// One arena on large pages, grown in large steps: 1,500 page faults instead of 8,800 for a module of half a megabyte.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "1"), ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432")];

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// What the child is told on its command line:
/// `compile-module --input F --output F --identity HASH --compiler NAME --memory BYTES --cpu SECONDS
/// --behind BOOL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileArgs {
    /// The module.
    pub input: PathBuf,
    /// Where the artifact goes; must not exist.
    pub output: PathBuf,
    /// What the module is known by; goes into the artifact's header.
    pub identity: blake3::Hash,
    /// What compiles it.
    pub compiler: Compiler,
    /// Limit of its address space in bytes.
    pub memory_bytes: u64,
    /// Limit of its processor time in seconds.
    pub cpu_seconds: u64,
    /// Nobody waits for it: it gives way to whatever else there is to do.
    pub behind: bool,
}

impl CompileArgs {
    /// The command line, the subcommand first.
    pub fn to_command_line(&self) -> Vec<OsString> {
        vec![
            COMPILE_COMMAND.into(),
            "--input".into(),
            self.input.clone().into(),
            "--output".into(),
            self.output.clone().into(),
            "--identity".into(),
            self.identity.to_hex().as_str().into(),
            "--compiler".into(),
            self.compiler.as_str().into(),
            "--memory".into(),
            self.memory_bytes.to_string().into(),
            "--cpu".into(),
            self.cpu_seconds.to_string().into(),
            "--behind".into(),
            self.behind.to_string().into(),
        ]
    }

    /// Reads a command line without the subcommand; none when something is missing or unknown.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let (mut input, mut output, mut identity) = (None, None, None);
        let (mut compiler, mut memory, mut cpu, mut behind) = (None, None, None, None);
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let value = arguments.next()?;
            match flag.to_str()? {
                "--input" => input = Some(PathBuf::from(value)),
                "--output" => output = Some(PathBuf::from(value)),
                "--identity" => identity = blake3::Hash::from_hex(value.to_str()?).ok(),
                "--compiler" => compiler = Compiler::from_word(value.to_str()?),
                "--memory" => memory = value.to_str()?.parse().ok(),
                "--cpu" => cpu = value.to_str()?.parse().ok(),
                "--behind" => behind = value.to_str()?.parse().ok(),
                _ => return None,
            }
        }
        let (input, output, identity, compiler) = (input?, output?, identity?, compiler?);
        Some(Self { input, output, identity, compiler, memory_bytes: memory?, cpu_seconds: cpu?, behind: behind? })
    }
}

/// The child: what the program's hidden subcommand `compile-module` runs, before anything else is started.
pub fn compile_child(args: &CompileArgs) -> ExitCode {
    match limit(args).map_err(|error| format!("limits: {error}")).and_then(|()| work(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // The daemon reads it; when even that fails the exit code is all there is.
            let told = writeln!(io::stderr(), "{message}");
            ExitCode::from(if told.is_ok() { REFUSED } else { 1 })
        }
    }
}

fn limit(args: &CompileArgs) -> io::Result<()> {
    let set = |resource, soft: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) }).map_err(io::Error::from)
    };
    // Where the system refuses it, it is as urgent as everything else, which is no reason not to do it.
    if args.behind {
        let _refused = rustix::process::nice(10);
    }
    set(Resource::Core, 0, 0)?;
    set(Resource::As, args.memory_bytes, args.memory_bytes)?;
    // Soft first: SIGXCPU tells the daemon which limit it was.
    set(Resource::Cpu, args.cpu_seconds, args.cpu_seconds.saturating_add(2))?;
    let size = std::fs::metadata(&args.input)?.len();
    let most = size.saturating_mul(32).saturating_add(64 << 20);
    set(Resource::Fsize, most, most)
}

fn work(args: &CompileArgs) -> Result<(), String> {
    let wasm = std::fs::read(&args.input).map_err(|error| format!("reading the module: {error}"))?;
    let facts = scan::scan(&wasm).map_err(|error| error.message)?;
    let artifact = engine::compile(&wasm, args.compiler)?;
    let source = cache::Hashes { identity: args.identity, module: blake3::hash(&wasm) };
    let header = cache::header(&engine::settings(args.compiler), source, facts, &artifact);
    let write = || {
        let mut file = File::create_new(&args.output)?;
        file.write_all(&header)?;
        // Not synced: what a crash leaves of it is found out by its checksum, and compiled again.
        file.write_all(&artifact)
    };
    write().map_err(|error: io::Error| format!("writing the artifact: {error}"))
}

/// Runs the child. The artifact is in `args.output` when this returns well.
///
/// # Errors
/// [`Reason::Compile`] with the limit that was passed, or with what the compiler said.
pub(crate) async fn run(program: &Path, args: &CompileArgs) -> Result<(), InvokeError> {
    let internal = |what: &str, error: io::Error| {
        tracing::error!(program = %program.display(), %error, "{what}");
        InvokeError::new(Reason::Internal, "the compiling process could not be run")
    };
    let mut child = tokio::process::Command::new(program)
        .args(args.to_command_line())
        .env_clear()
        .envs(ALLOCATOR)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| internal("cannot start the compiling process", error))?;
    let stderr = child.stderr.take();
    // Wall-clock time is a backstop for a child that waits instead of working; a busy machine gets its time.
    let patience = Duration::from_secs(args.cpu_seconds.saturating_mul(6).saturating_add(20));
    let end = tokio::time::timeout(patience, async { tokio::join!(child.wait(), bounded(stderr)) }).await;
    match end {
        Ok((status, said)) => {
            let status = status.map_err(|error| internal("cannot wait for the compiling process", error))?;
            verdict(status, said.trim(), args)
        }
        Err(_) => {
            child.kill().await.map_err(|error| internal("cannot kill the compiling process", error))?;
            Err(InvokeError::new(Reason::Compile, format!("compiling took longer than its limit of {patience:?}")))
        }
    }
}

/// The beginning of a stream; the rest is read and forgotten, so that the writer never waits.
async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let read = (&mut stream).take(MOST_ERROR_BYTES).read_to_end(&mut kept).await;
    let rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    if let Some(error) = read.err().or_else(|| rest.err()) {
        tracing::warn!(%error, "the error output of the compiling process broke off");
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn verdict(status: ExitStatus, said: &str, args: &CompileArgs) -> Result<(), InvokeError> {
    use std::os::unix::process::ExitStatusExt;
    let failed = |message: String| Err(InvokeError::new(Reason::Compile, message));
    let memory = || format!("compiling needs more than its limit of {} bytes of memory", args.memory_bytes);
    let cpu = || format!("compiling needs more than its limit of {} s of processor time", args.cpu_seconds);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    let first: String = first.chars().take(300).collect();
    tracing::debug!(%status, said, "compiling process ended");
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        // Rust's allocator says so and aborts.
        _ if said.contains("memory allocation of") || said.contains("Cannot allocate memory") => failed(memory()),
        (Some(code), _) if code == i32::from(REFUSED) => failed(format!("the module does not compile: {first}")),
        (_, Some(SIGXCPU)) => failed(cpu()),
        (_, Some(SIGXFSZ)) => failed("the compiled module is larger than its limit".to_owned()),
        (_, Some(SIGABRT | SIGSEGV)) => failed(memory()),
        (_, Some(SIGKILL)) => {
            failed("the compiling process was killed by the system, most likely for its memory".into())
        }
        (code, _) => failed(format!("the compiler failed (code {code:?}): {first}")),
    }
}

#[cfg(test)]
mod tests;
