//! The body of a new task: from a file of JSON or YAML, or from flags.
//!
//! Stricter than the registry, which passes over what it does not know: a member of another name is a slip.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::stopped::Stopped;

/// The longest file that is read, bytes: the longest input in base64, and the rest.
const MOST: u64 = 12 << 20;
/// Words of `priority`.
pub(super) const PRIORITIES: [&str; 4] = ["low", "normal", "high", "urgent"];
/// Words of `executable.type`.
pub(super) const TYPES: [&str; 5] = ["wasm", "process", "container", "binary", "script"];

/// `RegisterTaskRequest` of the REST interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Spec {
    pub(in crate::cli) name: String,
    #[serde(default)]
    pub(in crate::cli) endpoint: String,
    #[serde(default)]
    pub(in crate::cli) version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) priority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) node_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::cli) capabilities: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::cli) metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::cli) config: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) executable: Option<Executable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) input: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) input_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) callback_url: Option<String>,
}

/// `TaskExecutable` of the REST interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Executable {
    #[serde(rename = "type")]
    pub(in crate::cli) kind: String,
    pub(in crate::cli) uri: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) checksum_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::cli) args: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::cli) env: BTreeMap<String, String>,
}

/// The task in a file, or on standard input when the path is `-`.
///
/// # Errors
/// The file cannot be read, or where in it something is wrong.
pub(super) fn read(path: &Path) -> Result<Spec, Stopped> {
    let (shown, bytes) = if path.as_os_str() == "-" {
        (PathBuf::from("standard input"), limited(std::io::stdin()))
    } else {
        (path.to_owned(), fs::File::open(path).and_then(limited))
    };
    let shown = shown.display();
    let bytes = bytes.map_err(|error| Stopped::usage(format!("cannot read {shown}: {error}")))?;
    if bytes.len() as u64 > MOST {
        return Err(Stopped::usage(format!("{shown} is longer than any task can be ({} MiB)", MOST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| Stopped::usage(format!("{shown} is not text")))?;
    parse(&shown.to_string(), &text)
}

fn limited(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// JSON begins with a brace; everything else is YAML.
fn parse(shown: &str, text: &str) -> Result<Spec, Stopped> {
    let spec: Spec = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let told = error.to_string();
            let told = told.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&told);
            Stopped::usage(format!("{shown}:{line}:{column}: {told}"))
        })?
    } else {
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
            Stopped::usage(format!("{shown}{place}: {}", first_line(&error.without_snippet().to_string())))
        })?
    };
    check(shown, &spec)?;
    Ok(spec)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    // The place is said already.
    let line = match line.rfind(" at line ") {
        Some(at) => line.get(..at).unwrap_or(line),
        None => line,
    };
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// What the registry would take for something else without a word.
fn check(shown: &str, spec: &Spec) -> Result<(), Stopped> {
    let known = |word: &str| PRIORITIES.iter().any(|known| known.eq_ignore_ascii_case(word));
    match spec.priority.as_deref().filter(|word| !known(word)) {
        Some(wrong) => {
            let words = PRIORITIES.join(", ");
            Err(Stopped::usage(format!("{shown}: priority: {wrong:?} is none of {words}")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const JSON: &str = r#"{
  "name": "resize",
  "priority": "High",
  "executable": {"type": "wasm", "uri": "https://example.org/x.wasm", "args": ["-v"], "env": {"SIZE": "10"}},
  "config": {"timeout_ms": "30000"}
}"#;
    const YAML: &str = "
# a comment
name: resize
priority: High
executable:
  type: wasm
  uri: https://example.org/x.wasm
  args: [-v]
  env:
    SIZE: '10'
config:
  timeout_ms: '30000'
";

    #[test]
    fn json_and_yaml_say_the_same() {
        let spec = parse("task.json", JSON).unwrap();
        assert_eq!(spec, parse("task.yaml", YAML).unwrap());
        let body = serde_json::to_value(&spec).unwrap();
        assert_eq!(body["executable"]["env"]["SIZE"], "10");
        assert_eq!((&body["endpoint"], body.get("description")), (&serde_json::json!(""), None));
    }

    #[test]
    fn an_error_says_where_it_is_and_what_would_be_right() {
        let wrong = |text: &str| parse("task", text).unwrap_err().message;
        let json = wrong(&JSON.replace("\"args\"", "\"arguments\""));
        assert!(json.starts_with("task:4:") && json.contains("unknown field `arguments`, expected"), "{json}");
        let json = wrong(&JSON.replace("\"10\"", "10"));
        assert!(json.starts_with("task:4:") && json.contains("integer `10`, expected a string"), "{json}");
        let json = wrong(&JSON.replace("\"High\",", "\"High\""));
        assert!(json.starts_with("task:4:3: expected `,` or `}`"), "{json}");
        let yaml = wrong(&YAML.replace("  args", "  arguments"));
        assert!(yaml.starts_with("task:8:") && yaml.contains("arguments") && !yaml.contains(" at line "), "{yaml}");
        let yaml = wrong(&YAML.replace("executable:", "executable: ["));
        assert!(yaml.starts_with("task:"), "{yaml}");
        let yaml = wrong(&YAML.replace("name: resize", ""));
        assert!(yaml.contains("name"), "{yaml}");
        assert!(wrong("").contains("task"));
        assert_eq!(
            wrong(&JSON.replace("High", "hihg")),
            "task: priority: \"hihg\" is none of low, normal, high, urgent"
        );
    }
}
