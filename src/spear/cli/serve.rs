//! `spear serve`.

use clap::{Args, ValueEnum};
use std::{collections::BTreeMap, ffi::OsString, io::IsTerminal, path::PathBuf};

use super::{banner, output, settings::Settings};
use crate::{
    compose,
    config::{self, Inputs, Problems, Resolved, Roles},
    instruments::Instruments,
    logging,
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

SIGTERM and SIGINT (Ctrl-C) let running work end; a second one ends at once.

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

    /// The configuration that these flags lead to.
    pub(super) fn configuration(self, environment: BTreeMap<String, OsString>) -> Result<Resolved, Problems> {
        config::load(&Inputs { roles: self.roles(), environment, file: self.config, flags: self.settings.0 })
    }

    pub(super) fn run(self, environment: BTreeMap<String, OsString>) -> Result<(), Stopped> {
        let text = |name: &str| environment.get(name).and_then(|value| value.to_str()).map(str::to_owned);
        let (rust_log, no_colour) = (text("RUST_LOG"), text("NO_COLOR").is_some_and(|value| !value.is_empty()));
        let resolved = self.configuration(environment).map_err(Stopped::usage)?;
        let terminal = std::io::stderr().is_terminal();
        let surroundings = logging::Surroundings { terminal, colour: !no_colour, rust_log: rust_log.as_deref() };
        let instruments = Instruments::new(&resolved)?;
        logging::init(&resolved.log, surroundings, &instruments)?;
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        for notice in &resolved.notices {
            tracing::info!("{notice}");
        }
        raise_file_limit();
        let program = std::env::current_exe()
            .map_err(|error| Stopped::failed(format!("the path of this program is not known: {error}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Stopped::failed(format!("no threads: {error}")))?;
        let extras = banner::Extras::of(&resolved);
        let ended = runtime.block_on(async {
            let signals = supervise::stop_signals().map_err(Stopped::failed)?;
            let ready = |running: &compose::Running| {
                if terminal {
                    output::hint(&banner::banner(running, &extras));
                }
            };
            Box::pin(compose::watched(resolved, instruments, program, supervise::stop_signal(signals), ready)).await
        });
        // Everything has been stopped in order; what is still blocked somewhere must not hold up the end.
        runtime.shutdown_background();
        ended
    }
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
