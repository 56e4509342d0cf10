//! `spear serve`.

use clap::{Args, ValueEnum};
use std::{collections::BTreeMap, ffi::OsString, io::IsTerminal, path::PathBuf, sync::Arc};
use tokio::{signal::unix::Signal, sync::mpsc};

use super::{banner, output, settings::Settings};
use crate::{
    compose,
    config::{self, Inputs, Problems, Resolved, Roles},
    instruments::Instruments,
    logging::{self, Logs},
    reload::Reloads,
    stopped::Stopped,
};

pub(super) const ORDER: &str = "\
Examples:
  spear serve                                                registry and agent, for this machine only
  spear serve --role sms --config /etc/spear/sms.toml        a registry
  spear serve --role spearlet --sms-addr 10.0.0.1:50051      an agent of that registry

Every setting is taken from the last of these that has it: built-in default, environment variable, \
~/.sms/config.toml (registry) and ~/.spear/config.toml (agent), the file given with --config, its flag. \
`spear config example` shows all of them, `spear config print --sources` those in force.

Without a token, listeners on this machine (127.0.0.1) are open to it; any other address wants the token that is \
made at the first start and kept in the data directory.

SIGTERM and SIGINT (Ctrl-C) let running work end; a second one ends at once. SIGHUP reads all settings again: those
that `spear config print --sources` marks as live change at once, the others are named; the log file is opened anew.

Exit codes: 0 stopped as asked, 1 a task failed, 2 usage or configuration, 74 the disk failed, 75 in use or try again";

/// Run the registry, an agent, or both.
#[derive(Args, Clone, Debug)]
#[command(after_help = ORDER)]
pub(super) struct Serve {
    /// What to run: sms (the registry), spearlet (an agent), all (both); several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    role: Vec<Role>,
    /// A configuration file; goes before the files in the home directory
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// A word of `--role`. The flag says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Sms,
    Spearlet,
    All,
}

impl Serve {
    /// One role, as if asked for with `--role`.
    pub(super) fn one(role: Roles, config: Option<PathBuf>, settings: Settings) -> Self {
        let role = if role.sms { Role::Sms } else { Role::Spearlet };
        Self { role: vec![role], config, settings }
    }

    fn roles(&self) -> Roles {
        let has = |role| self.role.contains(&role) || self.role.contains(&Role::All);
        Roles { sms: has(Role::Sms), spearlet: has(Role::Spearlet) }
    }

    /// Everything that settings come from.
    fn inputs(self, environment: BTreeMap<String, OsString>) -> Inputs {
        Inputs { roles: self.roles(), environment, file: self.config, flags: self.settings.0 }
    }

    /// The configuration that these flags lead to.
    pub(super) fn configuration(self, environment: BTreeMap<String, OsString>) -> Result<Resolved, Problems> {
        config::load(&self.inputs(environment))
    }

    pub(super) fn run(self, environment: BTreeMap<String, OsString>) -> Result<(), Stopped> {
        let inputs = self.inputs(environment);
        let resolved = config::load(&inputs).map_err(Stopped::usage)?;
        let terminal = std::io::stderr().is_terminal();
        let instruments = Instruments::new(&resolved)?;
        let logs = start_logging(&resolved, &inputs.environment, terminal, &instruments)?;
        let ended = run((resolved, instruments), inputs, terminal, logs.clone());
        logs.flush();
        ended
    }
}

fn start_logging(
    resolved: &Resolved,
    environment: &BTreeMap<String, OsString>,
    terminal: bool,
    instruments: &Instruments,
) -> Result<Logs, Stopped> {
    let text = |name: &str| environment.get(name).and_then(|value| value.to_str());
    let surroundings = logging::Surroundings {
        terminal,
        colour: text("NO_COLOR").is_none_or(str::is_empty),
        rust_log: text("RUST_LOG"),
        journal: logging::is_journal(text("JOURNAL_STREAM")),
    };
    let logs = logging::init(&resolved.log, surroundings, instruments)?;
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    for notice in &resolved.notices {
        tracing::info!("{notice}");
    }
    Ok(logs)
}

fn run(
    (settings, instruments): (Resolved, Instruments),
    inputs: Inputs,
    terminal: bool,
    logs: Logs,
) -> Result<(), Stopped> {
    raise_file_limit();
    let program = std::env::current_exe()
        .map_err(|error| Stopped::failed(format!("the path of this program is not known: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stopped::failed(format!("no threads: {error}")))?;
    let extras = banner::Extras::of(&settings);
    let ended = runtime.block_on(async {
        let stops = supervise::stop_signals().map_err(Stopped::failed)?;
        let hangups = supervise::reload_signal().map_err(Stopped::failed)?;
        // Full: a reload is due anyway, and will see the same files.
        let (ask, asked) = mpsc::channel(1);
        let stop = async {
            tokio::select! {
                () = supervise::stop_signal(stops) => {}
                () = closed_terminal(hangups, ask, terminal) => {}
            }
        };
        let reloads = Reloads { asked, load: Arc::new(move || config::load(&inputs)), logs: Some(logs) };
        let ready = |running: &compose::Running| {
            if terminal {
                output::hint(&banner::banner(running, &extras));
            }
        };
        let start = compose::Start { settings, instruments, reloads, program };
        Box::pin(compose::serve(start, stop, ready)).await
    });
    // Everything has been stopped in order; what is still blocked somewhere must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Asks for a reload at each SIGHUP; ends at the one that says that the terminal was closed, since whoever started
/// the process there means to end it.
async fn closed_terminal(mut hangups: Signal, ask: mpsc::Sender<()>, terminal: bool) {
    while hangups.recv().await.is_some() {
        if terminal && !std::io::stderr().is_terminal() {
            return;
        }
        ask.try_send(()).ok();
    }
    std::future::pending().await
}

/// Connections are files: the soft limit of 1024 that many systems begin with is for programs of another kind.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
