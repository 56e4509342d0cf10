//! Puts the layers one over the other, per key.

use config::{Config, ConfigError, Map, Source, Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::OsString,
    path::PathBuf,
};

use super::{
    Inputs, Origin, Problem, Problems, file, flags,
    keys::{self, Effect, Key, Kind, Side},
    sections::Sections,
    value::{Raw, Read},
};

/// A value with its origin.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    value: ValueKind,
    text: String,
    pub(super) origin: Origin,
}

impl Setting {
    /// Checks a value against its key, which is `called` so where the value stands. Empty text for a key without a
    /// default means: not set.
    pub(super) fn read(key: &Key, called: &str, raw: &Raw, origin: Origin) -> Result<Option<Self>, Problem> {
        let empty = matches!(raw, Raw::Text(text) | Raw::Bare(text) if text.trim().is_empty());
        if empty && key.default.is_none() {
            return Ok(None);
        }
        match key.kind.read(raw) {
            Ok(Read { value, text }) => Ok(Some(Self { value, text, origin })),
            Err(wrong) => Err(Problem::at(origin, format!("{called} {wrong}"))),
        }
    }

    pub(super) fn subtree(origin: Origin) -> Self {
        Self { value: ValueKind::Nil, text: "…".to_owned(), origin }
    }

    /// The opposite of a switch.
    pub(super) fn negated(self) -> Self {
        match self.value {
            ValueKind::Boolean(on) => Self { value: (!on).into(), text: (!on).to_string(), origin: self.origin },
            _ => self,
        }
    }
}

/// The settings of one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) settings: BTreeMap<&'static str, Setting>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let works = |name: &str| keys::find(name).is_some_and(|key| key.effect == Effect::Works);
        let typed = self.settings.iter().filter(|(name, _)| works(name));
        Ok(typed
            .map(|(name, setting)| {
                let origin = setting.origin.to_string();
                ((*name).to_owned(), Value::new(Some(&origin), setting.value.clone()))
            })
            .collect())
    }
}

/// A secret, to see whether it has changed.
#[derive(Clone, Debug, Default)]
struct Hidden(Option<SecretString>);

impl PartialEq for Hidden {
    fn eq(&self, other: &Self) -> bool {
        let text = |hidden: &Self| hidden.0.as_ref().map(|secret| secret.expose_secret().to_owned());
        text(self) == text(other)
    }
}

impl Eq for Hidden {}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub name: &'static str,
    /// Its value; none: not set. Secrets are redacted.
    pub value: Option<String>,
    /// Who said so.
    pub origin: Origin,
    secret: Hidden,
}

impl Effective {
    /// Is the value the same, wherever it comes from?
    pub fn same_value(&self, other: &Self) -> bool {
        (&self.value, &self.secret) == (&other.value, &other.secret)
    }
}

/// All settings, merged.
pub(super) struct Merged {
    pub(super) sections: Sections,
    pub(super) effective: BTreeMap<&'static str, Effective>,
    pub(super) home: Option<String>,
    /// That of the process.
    pub(super) environment: BTreeMap<String, OsString>,
    pub(super) notices: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Merged {
    /// Where a setting's value comes from.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.effective.get(name).map_or(Origin::Default, |effective| effective.origin.clone())
    }

    /// Did anybody set it?
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.origin(name) != Origin::Default
    }
}

/// Reads all layers and puts them one over the other.
pub(super) fn merge(inputs: &Inputs) -> Result<Merged, Problems> {
    let mut problems = Vec::new();
    let mut layers = vec![defaults(&mut problems), file::environment(&inputs.environment, &mut problems)];
    for home in home_files(inputs) {
        layers.extend(file::read(&home, false, &mut problems));
    }
    if let Some(path) = &inputs.file {
        layers.extend(file::read(path, true, &mut problems));
    }
    layers.push(flags::layer(inputs.roles, &inputs.flags, &mut problems));
    let mut warnings = warn_of_variables(inputs);
    warnings.extend(shadowed(&layers));
    let top = topmost(&layers);
    let mut notices = Vec::new();
    judge(inputs, &top, &mut problems, &mut warnings);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    if inputs.file.is_none() && layers.len() > 3 {
        let read: Vec<String> = home_files(inputs)
            .into_iter()
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        notices.push(format!("configuration read from {}", read.join(", ")));
    }
    let sections = typed(&layers)?;
    let home = inputs.environment.get("HOME").and_then(|home| home.to_str()).map(str::to_owned);
    let environment = inputs.environment.clone();
    Ok(Merged { sections, effective: effective(&top), home, environment, notices, warnings })
}

fn defaults(problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for key in keys::all() {
        let Some(text) = key.default else { continue };
        match Setting::read(key, key.name, &Raw::Bare(text.to_owned()), Origin::Default) {
            Ok(setting) => layer.settings.extend(setting.map(|setting| (key.name, setting))),
            Err(problem) => problems.push(problem),
        }
    }
    layer
}

/// The home files of the roles that run.
fn home_files(inputs: &Inputs) -> Vec<PathBuf> {
    let variable = |name: &str| inputs.environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let file = |own: &str, dir: &str| {
        variable(own).or_else(|| variable("HOME")).map(|home| home.join(dir).join("config.toml"))
    };
    let sms = file("SMS_HOME", ".sms").filter(|_| inputs.roles.sms);
    let spearlet = file("SPEAR_HOME", ".spear").filter(|_| inputs.roles.spearlet);
    sms.into_iter().chain(spearlet).collect()
}

/// The strongest setting of each key.
fn topmost(layers: &[Layer]) -> BTreeMap<&'static str, Setting> {
    let mut top = BTreeMap::new();
    for (name, setting) in layers.iter().flat_map(|layer| &layer.settings) {
        top.insert(*name, setting.clone());
    }
    top
}

fn typed(layers: &[Layer]) -> Result<Sections, Problems> {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer.clone());
    }
    let merged = builder.build().and_then(Config::try_deserialize);
    merged.map_err(|error| Problem::new(format!("the configuration does not fit: {error}")).into())
}

fn effective(top: &BTreeMap<&'static str, Setting>) -> BTreeMap<&'static str, Effective> {
    let one = |key: &Key| {
        let set = top.get(key.name);
        let value = set.map(|setting| match key.kind {
            Kind::Secret => "(redacted)".to_owned(),
            Kind::Seconds(..) | Kind::Millis(..) => match setting.text.strip_suffix("000") {
                Some(seconds) if !seconds.is_empty() => format!("{seconds}s"),
                _ => format!("{}ms", setting.text),
            },
            _ => setting.text.clone(),
        });
        let origin = set.map_or(Origin::Default, |setting| setting.origin.clone());
        let secret = Hidden(set.filter(|_| key.kind == Kind::Secret).map(|setting| setting.text.clone().into()));
        (key.name, Effective { name: key.name, value, origin, secret })
    };
    keys::all().iter().map(one).collect()
}

/// Variables that a file overrides: the order is unusual, so it is said.
fn shadowed(layers: &[Layer]) -> Vec<String> {
    let mut strongest: BTreeMap<&'static str, (&Origin, &Origin)> = BTreeMap::new();
    for (name, setting) in layers.iter().flat_map(|layer| &layer.settings) {
        match (&setting.origin, strongest.entry(name)) {
            (Origin::Variable(_), Entry::Vacant(entry)) => drop(entry.insert((&setting.origin, &setting.origin))),
            (Origin::File { .. }, Entry::Occupied(mut entry)) => entry.get_mut().1 = &setting.origin,
            _ => {}
        }
    }
    let hidden = strongest.into_iter().filter(|(_, (variable, winner))| variable != winner);
    hidden
        .map(|(name, (variable, file))| {
            format!("{variable} is not used: {file} sets {name}, and files go before variables")
        })
        .collect()
}

/// Variables of ours that nobody reads, when they look like a slip of the pen.
fn warn_of_variables(inputs: &Inputs) -> Vec<String> {
    let ours = |name: &&String| ["SMS_", "SPEARLET_", "SPEAR_"].iter().any(|prefix| name.starts_with(prefix));
    let known = ["SMS_HOME", "SPEAR_HOME"];
    let names = inputs.environment.keys().filter(ours).filter(|name| !known.contains(&name.as_str()));
    names
        .filter_map(|name| Some((name, keys::nearest_variable(name)?)))
        .map(|(name, near)| format!("environment variable {name} is not known and not used; did you mean {near}?"))
        .collect()
}

/// Refuses and warns of values that do not do what they say.
fn judge(
    inputs: &Inputs,
    top: &BTreeMap<&'static str, Setting>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    for key in keys::all() {
        let runs = match key.side {
            Side::Registry => inputs.roles.sms,
            Side::Agent => inputs.roles.spearlet,
            Side::Process => true,
        };
        let Some(setting) = top.get(key.name).filter(|setting| runs && setting.origin != Origin::Default) else {
            continue;
        };
        let usual = key.default.is_some_and(|default| default == setting.text)
            || key
                .default
                .and_then(|text| key.kind.read(&Raw::Bare(text.to_owned())).ok())
                .is_some_and(|read| read.text == setting.text);
        match key.effect {
            Effect::Refused(why) if !usual => {
                problems.push(Problem::at(setting.origin.clone(), format!("{} = {}: {why}", key.name, setting.text)));
            }
            Effect::Nothing(why) if !usual => {
                warnings.push(format!("{}: {} changes nothing: {why}", setting.origin, key.name));
            }
            _ => {}
        }
    }
}
