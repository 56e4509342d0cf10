//! `config.example.toml`, made from the table of settings.

use std::fmt::Write as _;

use super::{
    keys::{self, Effect, Key},
    value::Kind,
};

const HEADER: &str = "\
# All settings of Spear with their defaults; made by `spear config example`.
#
# Each setting is taken from the last of these that has it:
#   built-in default < environment variable < ~/.sms/config.toml (registry), ~/.spear/config.toml (agent)
#   < the file given with --config < its flag
# Lines that begin with # are comments: remove the # before a setting to change it.
# Where it says live, a change takes effect when the process gets SIGHUP; anything else needs a restart.
# Times are bare numbers in the unit named, or \"500ms\", \"90s\", \"5m\", \"24h\"; sizes are bytes, or \"64MiB\".
";

/// The text of the file.
pub fn example() -> String {
    let shown: Vec<&Key> = keys::all().iter().filter(|key| key.effect == Effect::Works).collect();
    let mut sections: Vec<&str> = Vec::new();
    for key in &shown {
        if !sections.contains(&key.section()) {
            sections.push(key.section());
        }
    }
    // Settings outside of any section must stand before the first of them.
    sections.sort_by_key(|section| !section.is_empty());
    let mut text = HEADER.to_owned();
    for section in sections {
        if !section.is_empty() {
            line(&mut text, &format!("\n[{section}]"));
        }
        for key in shown.iter().filter(|key| key.section() == section) {
            setting(&mut text, key);
        }
    }
    text
}

fn setting(text: &mut String, key: &Key) {
    text.push('\n');
    for part in wrapped(key.doc, 100) {
        line(text, &format!("# {part}"));
    }
    let mut from = Vec::new();
    if let Some(flag) = key.flag {
        from.push(format!("--{}", flag.name));
        from.extend([flag.alias, flag.off].into_iter().flatten().map(|other| format!("--{other}")));
        from.extend(flag.alone.map(|alone| format!("in role spearlet --{alone}")));
    }
    from.extend(key.variables.iter().map(|variable| (*variable).to_owned()));
    from.extend(key.live.then(|| "live".to_owned()));
    if !from.is_empty() {
        line(text, &format!("# ({})", from.join(", ")));
    }
    line(text, &format!("# {} = {}", key.own_name(), literal(key)));
}

/// The default as TOML; a value of the right form where there is none.
fn literal(key: &Key) -> String {
    let default = key.default.unwrap_or_default();
    match key.kind {
        Kind::Switch | Kind::Count(..) if !default.is_empty() => default.to_owned(),
        Kind::Count(least, _) => least.to_string(),
        Kind::Seconds(..) | Kind::Millis(..) | Kind::Bytes(..) if default.bytes().all(|byte| byte.is_ascii_digit()) => {
            default.to_owned()
        }
        Kind::List => "[]".to_owned(),
        _ => format!("{default:?}"),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let gap = if line.is_empty() { "" } else { " " };
            line.push_str(gap);
            line.push_str(word);
        }
    }
    lines
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}
