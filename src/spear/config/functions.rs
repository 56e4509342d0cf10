//! From `[spearlet.functions]` and `[spearlet.policy]` to what the agent wants: with the values of variables and secrets.

use secrecy::SecretString;
use std::{collections::BTreeMap, io, path::Path};

use super::{Problem, layers::Merged, resolve::at_home, sections::Functions};

/// How functions are pooled.
pub(super) fn settings(section: &Functions) -> spearlet::functions::Settings {
    spearlet::functions::Settings {
        concurrency: section.concurrency,
        queue: section.queue,
        queue_wait: section.queue_wait,
        warm_min: section.warm_min,
        warm_max: section.warm_max,
        idle: section.idle,
        uses: section.max_uses,
    }
}

/// What functions may be granted, with the values of variables and secrets.
pub(super) fn policy(merged: &Merged, problems: &mut Vec<Problem>) -> spearlet::functions::Policy {
    let section = &merged.sections.spearlet.policy;
    let value = |name: &String| Some((name.clone(), merged.environment.get(name)?.to_str()?.to_owned()));
    let mut policy = spearlet::functions::Policy {
        read: section.read.clone(),
        write: section.write.clone(),
        scratch_bytes: section.scratch,
        env: section.env.iter().filter_map(value).collect(),
        outbound: section.outbound.clone(),
        ..Default::default()
    };
    if let Some(dir) = section.secrets_dir.clone().map(|dir| at_home(dir, merged.home.as_deref())) {
        match secrets(&dir) {
            Ok(secrets) => policy.secrets = secrets,
            Err(error) => {
                let origin = merged.origin("spearlet.policy.secrets_dir");
                let shown = dir.display();
                problems.push(Problem::at(origin, format!("spearlet.policy.secrets_dir: {shown}: {error}")));
            }
        }
    }
    policy
}

/// Largest secret, bytes.
const MOST_SECRET: u64 = 64 << 10;

/// The files of a directory, without the end of their last line.
fn secrets(dir: &Path) -> io::Result<BTreeMap<String, SecretString>> {
    let mut secrets = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = std::fs::metadata(entry.path())?;
        if name.starts_with('.') || !metadata.is_file() {
            continue;
        }
        if metadata.len() > MOST_SECRET {
            return Err(io::Error::other(format!("{name} is larger than {MOST_SECRET} bytes")));
        }
        let text = std::fs::read_to_string(entry.path())?;
        secrets.insert(name, SecretString::from(text.trim_end_matches(['\r', '\n'])));
    }
    Ok(secrets)
}
