//! `spear run`: one line from a file to a result.
//!
//! ```text
//!   file ─► module ─► upload ─┐                        ┌► log stream ─► stdout, stderr ─► exit code
//!   stdin, to its end ────────┴► task with its first run┘
//!   in the end, however it came: task and file are removed (--keep: not); Ctrl-C cancels before that
//! ```
//! Nothing is polled. What was made is remembered as soon as it is known, and a request that makes something is not
//! cut short, so that nothing is left behind that nobody knows of.

pub(super) mod module;

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use types::ErrorKind;

use super::{
    Environment,
    client::{self, Client, ClientArgs, segment},
    connection::Connection,
    execution::EXECUTION,
    file,
    follow::{self, Lines},
    input::{Input, in_base64},
    output,
    show::Output,
    task::{
        TASK, TASKS,
        flags::Running,
        path as task_path,
        spec::{Executable, Spec},
    },
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear run hello.wasm
  spear run resize.wasm --timeout 10s -- -w 100 < photo.png > small.png
  spear run program.wat --env LEVEL=debug --keep

Standard input is read to its end first, unless it is a terminal. The exit code is that of the program; 1 when it \
trapped or could not be run, 124 when its time ran out, 130 after Ctrl-C.";

/// How long a cancelled program may take to end before we leave.
const GRACE: Duration = Duration::from_secs(5);

/// Run a program from a file, show what it writes, and end as it does
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// A WebAssembly module, as a binary or as text (WAT); - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Arguments of the program; after -- if they begin with a dash
    #[arg(value_name = "ARG", trailing_var_arg = true)]
    args: Vec<String>,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    running: Running,
    /// Name of the task [default: that of the file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Leave the task and the file in the registry
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What the registry has of us.
#[derive(Clone, Debug, Default)]
struct Made {
    file: Option<String>,
    task: Option<String>,
}

impl Run {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Stopped> {
        let module = module::read(&self.file)?;
        let args = ClientArgs { connection: self.connection.clone(), output: Output::default() };
        client::run_catching(&args, environment, async |client| self.perform(client, module).await)
    }

    async fn perform(self, client: &Client, module: Vec<u8>) -> Result<(), Stopped> {
        let mut signals = Signals::catch()?;
        let mut made = Made::default();
        let ended = self.steps(client, module, &mut made, &mut signals).await;
        if self.keep {
            if let Some(task) = &made.task {
                output::hint(&format!("kept: spear task run {task}\n"));
            }
            return ended;
        }
        tokio::select! {
            () = made.remove(client) => ended,
            signal = signals.next() => Err(Stopped::quietly(signal)),
        }
    }

    async fn steps(
        &self,
        client: &Client,
        module: Vec<u8>,
        made: &mut Made,
        signals: &mut Signals,
    ) -> Result<(), Stopped> {
        let name = module::name(&self.file);
        let uploading = file::upload_bytes(client, &name, module);
        let (uploaded, input) = tokio::select! {
            both = async { tokio::try_join!(uploading, self.input()) } => both?,
            signal = signals.next() => return Err(Stopped::quietly(signal)),
        };
        made.file = uploaded["id"].as_str().map(str::to_owned);
        let spec = self.spec(name, &uploaded, &input);
        let mut creating = pin!(client.send::<Value>(Method::POST, TASKS, Some(&spec)));
        let (created, early) = tokio::select! {
            created = &mut creating => (created?, None),
            signal = signals.next() => tokio::select! {
                created = &mut creating => (created?, Some(signal)),
                again = signals.next() => return Err(Stopped::quietly(again)),
            },
        };
        made.task = Some(TASK.id_of(&created));
        let execution = EXECUTION.id_of(&created);
        let signal = match early {
            Some(signal) => signal,
            None => tokio::select! {
                ended = follow::follow(client, &execution) => return ended,
                signal = signals.next() => signal,
            },
        };
        tokio::select! {
            () = cancel(client, &execution) => {}
            _ = signals.next() => {}
        }
        Err(Stopped::quietly(signal))
    }

    async fn input(&self) -> Result<Vec<u8>, Stopped> {
        match self.file.as_os_str() == "-" {
            // The module was there.
            true => self.input.read().await,
            false => self.input.read_or_piped().await,
        }
    }

    fn spec(&self, file: String, uploaded: &Value, input: &[u8]) -> Spec {
        let text = |member: &str| uploaded[member].as_str().map(str::to_owned);
        let stem = || Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Spec {
            name: self.name.clone().or_else(stem).unwrap_or_else(|| file.clone()),
            node_uuid: self.running.node.clone(),
            config: self.running.settings(),
            executable: Some(Executable {
                kind: "wasm".to_owned(),
                uri: text("uri").unwrap_or_default(),
                checksum_sha256: text("sha256"),
                args: self.args.clone(),
                env: self.running.variables(),
                name: Some(file.clone()),
            }),
            input_base64: in_base64(input),
            ..Spec::default()
        }
    }
}

/// Asks for the execution to stop, and waits a little until it has.
async fn cancel(client: &Client, execution: &str) {
    let path = format!("/api/v1/executions/{}/cancel", segment(execution));
    let asked: Result<Value, _> =
        client.rest.json(Method::POST, &path, Some(&json!({ "reason": "interrupted where it was started" }))).await;
    match asked {
        Ok(_) => {}
        // It has ended by itself.
        Err(fault) if fault.kind == ErrorKind::Conflict => return,
        Err(fault) => return output::complain(&format!("cannot cancel it: {}", fault.message)),
    }
    let ended = async {
        let mut lines = Lines::follow(client, execution, u64::MAX).await?;
        while lines.next().await?.is_some() {}
        Ok::<_, Stopped>(())
    };
    // What becomes of it then is the node's affair: it has been asked.
    drop(tokio::time::timeout(GRACE, ended).await);
}

impl Made {
    /// Removes everything; what cannot be removed is named.
    async fn remove(&self, client: &Client) {
        let task = async {
            if let Some(task) = &self.task {
                remove(client, &task_path(task), &format!("spear task rm {task}")).await;
            }
        };
        let file = async {
            if let Some(file) = &self.file {
                let path = format!("/api/v1/files/{}", segment(file));
                remove(client, &path, &format!("spear file rm {file}")).await;
            }
        };
        tokio::join!(task, file);
    }
}

async fn remove(client: &Client, path: &str, by_hand: &str) {
    match client.rest.json::<Value>(Method::DELETE, path, None::<&()>).await {
        Ok(_) => {}
        Err(fault) if fault.kind == ErrorKind::NotFound => {}
        Err(fault) => output::complain(&format!("left behind: {}; `{by_hand}` removes it", fault.message)),
    }
}

/// What asks us to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Stopped> {
        let caught = |kind| signal(kind).map_err(|error| Stopped::failed(format!("signals cannot be caught: {error}")));
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
            hangup: caught(SignalKind::hangup())?,
        })
    }

    /// The next one, as an exit code.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}
