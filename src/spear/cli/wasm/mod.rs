//! `spear wasm run`: a command for WASI, in this process and without a registry.
//!
//! ```text
//!   standard input ─► guest ─► standard output, as it comes
//!                       └────► standard error, byte for byte; lines as they end
//!   exit code: the guest's; 134 when it trapped, 124 when its time ran out, 130 after Ctrl-C
//! ```
//! The guest is trusted with what the command line names, and with time and memory: it is its caller's own. What was
//! compiled is forgotten with the command.

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use api::{Body, Invocation};
use runtime::{
    Artifact, Directory, Grants, Instance, InstanceSpec, InvokeError, Limits, LogBuffer, Piece, Preparation,
    ReplyReader, Reuse, Runtime, Streams,
};
use types::{LogLine, LogStream, Reason, SystemClock};

use super::{
    client, run,
    task::flags::{limit, pair, size},
};
use crate::stopped::Stopped;

/// No call is longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// As much as a memory with addresses of 32 bits can have.
const MEMORY: u64 = 4 << 30;
/// Bytes of standard input that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Bytes of standard error that may wait to be written.
const MOST_WAITING: usize = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  spear wasm run hello.wasm
  spear wasm run --dir .::/work --env LEVEL=debug program.wasm -- -v input.txt < data > result

The exit code is that of the program; 134 when it trapped, 124 when its time ran out, 130 after Ctrl-C.";

/// Work with WebAssembly on this machine
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct WasmCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Run a command for WASI in this process, without a registry
    #[command(after_help = EXAMPLES)]
    Run(Run),
}

#[derive(Args, Clone, Debug)]
struct Run {
    /// A WebAssembly module, as a binary or as text (WAT); - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Arguments of the program; after -- if they begin with a dash
    #[arg(value_name = "ARG", trailing_var_arg = true)]
    args: Vec<String>,
    /// Variable in the environment of the program; may be given again
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Directory that the program can read and change, and its name there [default: the same]; may be given again
    #[arg(long, value_name = "HOST::GUEST", value_parser = directory)]
    dir: Vec<Directory>,
    /// Time limit: seconds, or 90s, 5m, 500ms [default: none]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    timeout: Option<Duration>,
    /// Memory that the program may use: bytes, or 64MiB, 1GiB [default: 4GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// What makes machine code of it: singlepass is there sooner, cranelift is faster then
    #[arg(long, default_value = "cranelift", value_parser = ["cranelift", "singlepass"])]
    compiler: String,
}

/// `HOST::GUEST`, or one name for both.
fn directory(text: &str) -> Result<Directory, String> {
    let (host, guest) = text.split_once("::").unwrap_or((text, text));
    if host.is_empty() || guest.is_empty() {
        return Err(format!("{text:?} has no two names: write HOST::GUEST, such as ./data::/data"));
    }
    Ok(Directory { host: host.into(), guest: guest.to_owned(), writable: true })
}

impl WasmCommand {
    pub(super) fn run(self) -> Result<(), Stopped> {
        let Verb::Run(run) = self.verb;
        run.run()
    }
}

/// A directory that goes with the command.
struct Room(PathBuf);

impl Room {
    fn new() -> io::Result<Self> {
        let (parent, process) = (std::env::temp_dir(), std::process::id());
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..100 {
            let path = parent.join(format!("spear-wasm-{process}-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => last = error,
            }
            if last.kind() != io::ErrorKind::AlreadyExists {
                break;
            }
        }
        Err(last)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            super::output::hint(&format!("spear: {} is left behind: {error}\n", self.0.display()));
        }
    }
}

impl Run {
    fn run(self) -> Result<(), Stopped> {
        let module = run::module::read(&self.file)?;
        let room = Room::new();
        let room = room.map_err(|error| Stopped::failed(format!("no directory for compiled code: {error}")))?;
        let path = room.0.join("module.wasm");
        let failed = |error: io::Error| Stopped::failed(format!("cannot write {}: {error}", path.display()));
        fs::write(&path, &module).map_err(failed)?;
        // One command, one module: the digest need not tell it from others.
        let artifact = Artifact { digest: "module".to_owned(), path: path.clone(), size: module.len() as u64 };
        client::block_on(self.perform(&room.0, artifact))
    }

    async fn perform(self, room: &Path, artifact: Artifact) -> Result<(), Stopped> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Stopped::failed(format!("the path of this program: {error}")))?;
        let wasm = ::wasm::Wasm::new(::wasm::Config::new(program, room.join("compiled")));
        let wasm =
            wasm.map_err(|error| Stopped::failed(format!("the runtime for WebAssembly does not work here: {error}")))?;
        let asked = Preparation { artifact_bytes: artifact.size, compiler: self.compiler.clone() };
        let prepared = wasm.prepare(&artifact, &asked).await.map_err(|error| self.refused(&error))?;
        let instance = wasm.start(&prepared, &Arc::new(self.spec())).await.map_err(|error| self.refused(&error))?;
        self.call(instance).await
    }

    fn spec(&self) -> InstanceSpec {
        let limits = Limits {
            memory_bytes: self.memory.unwrap_or(MEMORY),
            stack_bytes: 8 << 20,
            wall: self.timeout.unwrap_or(LONGEST),
            cpu: LONGEST,
            stdout_bytes: usize::MAX,
            stderr_bytes: usize::MAX,
            ..Limits::default()
        };
        InstanceSpec {
            name: self.file.display().to_string(),
            args: self.args.clone(),
            env: self.env.iter().cloned().collect::<BTreeMap<_, _>>(),
            limits,
            grants: Grants { directories: self.dir.clone(), ..Grants::default() },
            reuse: Reuse::Never,
            isolated: true,
        }
    }

    async fn call(&self, mut instance: Box<dyn Instance>) -> Result<(), Stopped> {
        let (logs, lines) = LogBuffer::new(Arc::new(SystemClock::new()), MOST_WAITING, 1);
        let (writer, reader) = runtime::reply();
        let cancel = CancellationToken::new();
        let body = Body::stream(ReaderStream::with_capacity(tokio::io::stdin(), CHUNK));
        let call = Invocation { body, cancel: cancel.clone(), streaming: true, ..Invocation::default() };
        let streams = Streams { logs: logs.clone(), logs_stdout: false, reply: Some(writer) };
        let guest = async {
            let answer = instance.invoke(call, streams).await;
            logs.close();
            answer
        };
        let (answer, written, ()) = tokio::join!(guest, copy(reader), errors(lines, &cancel));
        match answer {
            // Its reader went away: that is what ended it, and no error.
            _ if written.is_err() => Err(Stopped::quietly(0)),
            Ok(answer) => match answer.ended.exit_code {
                0 => Ok(()),
                code => Err(Stopped::quietly(code.to_le_bytes().first().copied().unwrap_or(1))),
            },
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn refused(&self, error: &InvokeError) -> Stopped {
        let message = format!("{}: {error}", self.file.display());
        match error.reason {
            Reason::Trap | Reason::Memory => Stopped { code: 134, message },
            Reason::Deadline => Stopped::timeout(message),
            Reason::Cancelled => Stopped::interrupted(),
            Reason::InvalidModule | Reason::Compile | Reason::Task => Stopped::usage(message),
            _ => Stopped::failed(message),
        }
    }
}

/// Standard output as it comes.
async fn copy(mut reader: ReplyReader) -> io::Result<()> {
    let mut out = tokio::io::stdout();
    while let Some(piece) = reader.next().await {
        if let Piece::Bytes(bytes) = piece {
            out.write_all(&bytes).await?;
            out.flush().await?;
        }
    }
    Ok(())
}

/// Standard error as it comes, and the signals that end the command.
async fn errors(lines: LogBuffer, cancel: &CancellationToken) {
    let mut out = tokio::io::stderr();
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate)] = signals else {
        cancel.cancel();
        return;
    };
    loop {
        let lines = tokio::select! {
            lines = lines.next() => lines,
            _ = interrupt.recv() => { cancel.cancel(); continue }
            _ = terminate.recv() => { cancel.cancel(); continue }
        };
        if lines.is_empty() {
            return;
        }
        let bytes: Vec<u8> = lines.into_iter().flat_map(bytes).collect();
        // There is nobody left to tell when this fails.
        drop(out.write_all(&bytes).await);
        drop(out.flush().await);
    }
}

/// What a line was before it became one.
fn bytes(line: LogLine) -> Vec<u8> {
    if line.stream == LogStream::System {
        return format!("spear: {}\n", line.message).into_bytes();
    }
    let raw = line.raw_base64.and_then(|raw| STANDARD.decode(raw).ok());
    let mut bytes = raw.unwrap_or_else(|| line.message.into_bytes());
    if !line.unterminated {
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests;
