//! From `[spearlet.functions]` and `[spearlet.policy]` to what the agent wants: with the values of variables.

use super::{layers::Merged, resolve::at_home, sections::Functions};

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

/// What functions may be granted, with the values of variables.
pub(super) fn policy(merged: &Merged) -> spearlet::functions::Policy {
    let section = &merged.sections.spearlet.policy;
    let value = |name: &String| {
        let value = merged.environment.get(name).and_then(|value| value.to_str());
        (name.clone(), value.map(str::to_owned))
    };
    spearlet::functions::Policy {
        read: section.read.clone(),
        write: section.write.clone(),
        scratch_bytes: section.scratch,
        env: section.env.iter().map(value).collect(),
        secrets_dir: section.secrets_dir.clone().map(|dir| at_home(dir, merged.home.as_deref())),
        outbound: section.outbound.clone(),
    }
}
