//! Which records the public stream shows, and how.

use bus::RawChange;
use serde::Serialize;
use serde_json::Value;
use store::{Rev, decode};
use types::{Execution, Fault, FileRecord, Keyed, Node, Task};

use crate::{Sms, files::http::FileView, nodes::views::NodeView, tasks::http::TaskView};

/// A type of record on the public stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Task,
    Execution,
    File,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Node, Self::Task, Self::Execution, Self::File];

    pub(super) fn as_str(self) -> &'static str {
        self.prefix().trim_end_matches('/')
    }

    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Node => Node::PREFIX,
            Self::Task => Task::PREFIX,
            Self::Execution => Execution::PREFIX,
            Self::File => FileRecord::PREFIX,
        }
    }

    /// The types named in a list, all when it is absent or empty.
    pub(super) fn list(text: Option<&str>) -> Result<Vec<Self>, Fault> {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Self::ALL.to_vec()) };
        let one = |word: &str| {
            Self::ALL.into_iter().find(|kind| kind.as_str() == word.trim()).ok_or_else(|| {
                let wrong = types::id::clip(word);
                Fault::invalid_field("types", format!("{wrong:?} is none of node, task, execution, file"))
            })
        };
        text.split(',').map(one).collect()
    }
}

/// One change as data of an event.
#[derive(Serialize)]
pub(super) struct ChangeView {
    rev: Rev,
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    op: &'static str,
    /// As REST shows it; null when deleted.
    record: Value,
}

impl ChangeView {
    /// `task.created`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.kind, self.op)
    }

    /// The view of a change, if it is of one of the kinds wanted.
    pub(super) fn new(sms: &Sms, wanted: &[Kind], change: &RawChange) -> Result<Option<Self>, Fault> {
        let of = |kind: &Kind| Some((*kind, change.key.strip_prefix(kind.prefix())?));
        let Some((kind, id)) = wanted.iter().find_map(of) else { return Ok(None) };
        let (op, record) = match &change.value {
            None => ("deleted", Value::Null),
            Some(value) => (if change.created { "created" } else { "updated" }, show(sms, kind, &change.key, value)?),
        };
        Ok(Some(Self { rev: change.rev, kind: kind.as_str(), id: id.to_owned(), op, record }))
    }
}

fn show(sms: &Sms, kind: Kind, key: &str, value: &[u8]) -> Result<Value, Fault> {
    match kind {
        Kind::Node => json(&NodeView::from(decode::<Node>(key, value)?)),
        Kind::File => json(&FileView::from(&decode::<FileRecord>(key, value)?)),
        Kind::Task => json(&TaskView::from(&sms.tasks.brief(decode::<Task>(key, value)?.into()))),
        Kind::Execution => json(&sms.executions.view(&decode::<Execution>(key, value)?)),
    }
}

fn json(record: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(record).map_err(|error| Fault::internal(error.to_string()))
}
