//! The flags of all settings, made from the table of settings.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{
    Given,
    keys::{self, Effect, Key, Kind, Side},
};

const REGISTRY: &str = "Registry (roles sms and all)";
const AGENT: &str = "Agent (roles spearlet and all)";
const PROCESS: &str = "Process";

/// Flags that were given for settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(pub(super) Vec<Given>);

impl Settings {
    /// Every flag: its name, its setting, and whether it turns a switch off.
    fn flags() -> impl Iterator<Item = (&'static str, &'static Key, bool)> {
        keys::all().iter().filter_map(|key| Some((key, key.flag?))).flat_map(|(key, flag)| {
            [Some((flag.name, key, false)), flag.off.map(|off| (off, key, true))].into_iter().flatten()
        })
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        Self::flags().fold(command, |command, (name, key, off)| command.arg(argument(name, key, off)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Self::flags().filter_map(|(name, _, off)| {
            let value = match off {
                true => matches.get_flag(name).then(|| "true".to_owned()),
                false => matches.get_one::<String>(name).cloned(),
            };
            value.map(|value| Given { name, value })
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(name: &'static str, key: &Key, off: bool) -> Arg {
    let heading = match key.side {
        Side::Registry => REGISTRY,
        Side::Agent => AGENT,
        Side::Process => PROCESS,
    };
    let arg = Arg::new(name).long(name).help_heading(heading);
    if off {
        return arg
            .action(ArgAction::SetTrue)
            .help(format!("The opposite of --{}", key.flag.map_or(name, |flag| flag.name)));
    }
    let mut arg = arg.value_name(key.kind.placeholder()).help(help(name, key));
    if let Some(alias) = key.flag.and_then(|flag| flag.alias) {
        arg = arg.visible_alias(alias);
    }
    match key.kind {
        Kind::Switch => arg.num_args(0..=1).default_missing_value("true"),
        _ => arg.num_args(1),
    }
}

fn help(name: &str, key: &Key) -> String {
    let mut text = key.doc.to_owned();
    if let Effect::Nothing(why) = key.effect {
        text = format!("{text} Changes nothing: {why}.");
    }
    if keys::all().iter().any(|other| other.flag.is_some_and(|flag| flag.alone == Some(name))) {
        text.push_str(" With --role spearlet: the agent's.");
    }
    if let Kind::Choice(words) = key.kind {
        text = format!("{text} [one of: {}]", words.join(", "));
    }
    if let Some(default) = key.default.filter(|_| key.effect == Effect::Works) {
        text = format!("{text} [default: {default}]");
    }
    match key.variables.first() {
        Some(variable) => format!("{text} [env: {variable}]"),
        None => text,
    }
}
