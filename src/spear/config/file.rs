//! Reads a TOML file into settings with their lines.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Origin, Problem,
    keys::{self, Kind},
    layers::{Layer, Setting},
    value::Raw,
};

/// A configuration file is no larger than this, bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The settings of a file; none when it does not exist and need not.
pub(super) fn read(path: &Path, required: bool, problems: &mut Vec<Problem>) -> Option<Layer> {
    match bytes_of(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Some(parse(path, text.strip_prefix('\u{feff}').unwrap_or(&text), problems)),
            Err(error) => {
                let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
                let line = 1 + before.filter(|byte| **byte == b'\n').count();
                let origin = Origin::File { path: path.to_owned(), line };
                problems.push(Problem::at(origin, "not valid UTF-8: save the file in that encoding"));
                None
            }
        },
        Err(error) if !required && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            None
        }
        Err(error) => {
            problems.push(Problem::new(format!("{}: cannot read the configuration: {error}", path.display())));
            None
        }
    }
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The settings of a file's text.
pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Layer {
    let mut reader = Reader { path: path.to_owned(), text, layer: Layer::default(), problems };
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.get_ref()),
        Err(error) => {
            let line = error.span().map_or(1, |span| reader.line(span.start));
            let origin = Origin::File { path: path.to_owned(), line };
            reader.problems.push(Problem::at(origin, format!("not valid TOML: {}", error.message())));
        }
    }
    reader.layer
}

struct Reader<'a> {
    path: PathBuf,
    text: &'a str,
    layer: Layer,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    fn refuse(&mut self, origin: Origin, text: String) {
        self.problems.push(Problem::at(origin, text));
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        // The parser orders by name; people read from top to bottom.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let full =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let origin = Origin::File { path: self.path.clone(), line: self.line(name.span().start) };
            self.entry(&full, value, origin);
        }
    }

    fn entry(&mut self, name: &str, value: &Spanned<DeValue<'_>>, origin: Origin) {
        let inside = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
        match (keys::find(name), inside) {
            (Some(key), inside) if (key.kind == Kind::Subtree) == inside.is_some() => {
                let raw = raw(value.get_ref());
                let setting = match key.kind {
                    Kind::Subtree => Ok(Some(Setting::subtree(origin.clone()))),
                    _ => Setting::read(key, name, &raw, origin.clone()),
                };
                match setting {
                    Err(problem) => self.problems.push(problem),
                    Ok(None) => {}
                    Ok(Some(setting)) => {
                        if let Some(before) = self.layer.settings.insert(key.name, setting) {
                            let text = format!("{name} is set twice: {} sets {} too", before.origin, key.name);
                            self.refuse(origin, text);
                        }
                    }
                }
            }
            (Some(key), Some(_)) => {
                self.refuse(origin, format!("{name} is a setting, not a section: expected {}", key.kind.expected()));
            }
            (None, Some(table)) if keys::is_section(name) => self.table(name, table),
            (None, None) if keys::is_section(name) => {
                self.refuse(origin, format!("{name} is a section, not a setting: write [{name}]"));
            }
            (found, inside) => {
                let what = if inside.is_some() { "section" } else { "key" };
                let text = match found {
                    Some(key) => format!("{name}: expected {}", key.kind.expected()),
                    None => format!("unknown {what} {name}{}", did_you_mean(name, inside)),
                };
                self.refuse(origin, text);
            }
        }
    }
}

/// `; did you mean …?` or where to look.
fn did_you_mean(name: &str, section: Option<&DeTable<'_>>) -> String {
    let near = match section {
        None => keys::nearest(name).map(str::to_owned),
        Some(table) => nearest_section(name, table),
    };
    near.map_or_else(|| "; `spear config example` lists all keys".to_owned(), |near| format!("; did you mean {near}?"))
}

fn nearest_section(name: &str, table: &DeTable<'_>) -> Option<String> {
    // What stands in the section tells more than its name.
    let inside = table.keys().find_map(|key| keys::nearest(&format!("{name}.{}", key.get_ref())));
    let section = inside.and_then(|key| key.rsplit_once('.')).map(|(section, _)| format!("[{section}]"));
    section.or_else(|| keys::nearest(name).map(str::to_owned))
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number that is too large"), Raw::Integer),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a section"),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect();
            texts.map_or(Raw::Other("a list of other things than texts"), Raw::Texts)
        }
    }
}

/// The settings of the environment.
pub(super) fn environment(variables: &BTreeMap<String, std::ffi::OsString>, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for key in keys::all() {
        // An empty variable is one that is not set: that is how compose files leave them out.
        let set =
            key.variables.iter().find_map(|name| variables.get(*name).filter(|v| !v.is_empty()).map(|v| (*name, v)));
        let Some((name, value)) = set else { continue };
        let origin = Origin::Variable(name.to_owned());
        let Some(text) = value.to_str() else {
            problems.push(Problem::at(origin, format!("{}: not valid UTF-8", key.name)));
            continue;
        };
        match Setting::read(key, key.name, &Raw::Bare(text.to_owned()), origin) {
            Ok(setting) => layer.settings.extend(setting.map(|setting| (key.name, setting))),
            Err(problem) => problems.push(problem),
        }
    }
    layer
}
