//! `spear version`.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Environment,
    show::{Output, Show},
};
use crate::stopped::Stopped;

/// Show what this program was built from
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  spear version\n  spear version -o json | jq -r .version")]
pub(super) struct Version {
    #[command(flatten)]
    output: Output,
}

impl Version {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Stopped> {
        let body = facts();
        Show::new(&self.output, environment)?.text_or(&body, || text(&body))
    }
}

/// The commit is told by whoever builds, in `SPEAR_COMMIT`; a source archive has none.
fn facts() -> Value {
    let features: &[&str] = if cfg!(feature = "otel") { &["otel"] } else { &[] };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("SPEAR_COMMIT").filter(|commit| !commit.is_empty()),
        "rustc": env!("SPEAR_RUSTC"),
        "target": env!("SPEAR_TARGET"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "features": features,
        "wasmer": wasm::engine_version(),
    })
}

fn text(facts: &Value) -> String {
    let word = |name: &str| facts[name].as_str().unwrap_or("unknown").to_owned();
    let features: Vec<&str> = facts["features"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let lines = [
        ("spear", word("version")),
        ("commit", word("commit")),
        ("rustc", word("rustc")),
        ("target", word("target")),
        ("profile", word("profile")),
        ("features", if features.is_empty() { "none".to_owned() } else { features.join(", ") }),
        ("wasmer", word("wasmer")),
    ];
    lines.iter().map(|(name, value)| format!("{name:<9} {value}\n")).collect()
}
