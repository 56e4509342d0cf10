//! What the flags of `spear serve` mean, depending on the role.

use super::{
    Origin, Problem, Roles,
    keys::{self, Key, Side},
    layers::{Layer, Setting},
    value::Raw,
};

/// A flag that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its name without dashes, as in the table of settings.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// The settings that the flags say.
pub(super) fn layer(roles: Roles, given: &[Given], problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for flag in given {
        match one(roles, flag) {
            Ok(None) => {}
            Ok(Some((key, setting))) => {
                if let Some(before) = layer.settings.insert(key.name, setting) {
                    problems.push(Problem::at(before.origin, format!("--{} says the opposite", flag.name)));
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    layer
}

fn one(roles: Roles, given: &Given) -> Result<Option<(&'static Key, Setting)>, Problem> {
    let (key, off) = meant(roles, given.name);
    let origin = Origin::Flag(given.name);
    let Some(key) = key else {
        return Err(Problem::at(origin, "no such setting"));
    };
    if roles.sms && matches!(key.name, "spearlet.sms_grpc_addr" | "spearlet.sms_http_addr") {
        let why = match roles.spearlet {
            true => {
                "the registry is in this process, so the agent has no other: leave the flag out, or use --role spearlet"
            }
            false => "this is the registry itself: the flag belongs to --role spearlet",
        };
        return Err(Problem::at(origin, why));
    }
    let (runs, role) = match key.side {
        Side::Registry => (roles.sms, "sms"),
        Side::Agent => (roles.spearlet, "spearlet"),
        Side::Process => (true, ""),
    };
    if !runs {
        return Err(Problem::at(origin, format!("belongs to role {role}, and this is role {}", roles.name())));
    }
    let setting = Setting::read(key, key.name, &Raw::Bare(given.value.clone()), origin)?;
    Ok(setting.map(|setting| (key, if off { setting.negated() } else { setting })))
}

/// The setting that a flag is for, and whether the flag turns it off.
fn meant(roles: Roles, name: &str) -> (Option<&'static Key>, bool) {
    let alone = || keys::all().iter().find(|key| key.flag.is_some_and(|flag| flag.alone == Some(name)));
    let on = || keys::all().iter().find(|key| key.flag.is_some_and(|flag| flag.name == name));
    let off = || keys::all().iter().find(|key| key.flag.is_some_and(|flag| flag.off == Some(name)));
    let alone = if roles == Roles::SPEARLET { alone() } else { None };
    match alone.or_else(on) {
        Some(key) => (Some(key), false),
        // The agent alone shares the registry's word for turning its switch off, too.
        None => match off() {
            Some(key) => {
                let shared = |other: &&Key| other.flag.is_some_and(|flag| flag.alone == key.flag.map(|flag| flag.name));
                let agents = keys::all().iter().find(shared).filter(|_| roles == Roles::SPEARLET);
                (Some(agents.unwrap_or(key)), true)
            }
            None => (None, false),
        },
    }
}
