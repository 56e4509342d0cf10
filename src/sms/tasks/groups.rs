//! Tasks by what lists of them are filtered by. Told of changes by the live map of tasks and by the index of
//! executions, each in its own time.

use std::collections::{BTreeSet, HashSet};
use types::{NodeId, Task, TaskId, TaskPriority, TaskStatus};

use super::service::Wanted;
use crate::groups::Groups;

/// The groups of all tasks.
#[derive(Debug, Default)]
pub(crate) struct TaskGroups {
    nodes: Groups<NodeId, TaskId>,
    priorities: Groups<TaskPriority, TaskId>,
    statuses: Groups<TaskStatus, TaskId>,
    /// Tasks of which something has run.
    begun: HashSet<TaskId>,
}

impl TaskGroups {
    /// A task as it is now; none: removed.
    pub(crate) fn told(&mut self, id: TaskId, task: Option<&Task>) {
        let status = task.map(|task| shown(task.status, self.begun.contains(&id)));
        self.nodes.set(id, task.and_then(|task| task.node_uuid));
        self.priorities.set(id, task.map(|task| task.priority));
        self.statuses.set(id, status);
    }

    /// Something of a task has run, or nothing of what has run is kept any more.
    pub(crate) fn set_begun(&mut self, id: TaskId, begun: bool) {
        let changed = if begun { self.begun.insert(id) } else { self.begun.remove(&id) };
        // A record never changes, and none says `active` of itself.
        match self.statuses.word(id) {
            Some(TaskStatus::Registered | TaskStatus::Active) if changed => {
                self.statuses.set(id, Some(shown(TaskStatus::Registered, begun)));
            }
            _ => {}
        }
    }

    /// The smallest group in which all that is wanted are; none: nothing is asked for. Also, whether it has others.
    pub(crate) fn smallest(&self, wanted: Wanted) -> Option<(Option<&BTreeSet<TaskId>>, bool)> {
        let groups = [
            wanted.node_uuid.map(|node| self.nodes.get(&node)),
            wanted.priority.map(|priority| self.priorities.get(&priority)),
            wanted.status.map(|status| self.statuses.get(&status)),
        ];
        let asked = groups.iter().flatten().count();
        let smallest = groups.into_iter().flatten().min_by_key(|group| group.map_or(0, BTreeSet::len))?;
        Some((smallest, asked > 1))
    }
}

/// What a task shows when its record says `status`.
pub(crate) fn shown(status: TaskStatus, begun: bool) -> TaskStatus {
    match status {
        TaskStatus::Registered if begun => TaskStatus::Active,
        status => status,
    }
}
