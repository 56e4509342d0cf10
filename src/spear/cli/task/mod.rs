//! `spear task`.

mod create;
pub(super) mod flags;
pub(super) mod spec;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

use super::{
    client::{Client, ClientArgs, segment},
    execution::EXECUTION,
    follow,
    input::{Input, in_base64},
    list::{Found, Listing, Watch},
    output,
    show::{Column, Noun, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear task create resize --uri sms+file://FILE_ID --env SIZE=10 --timeout 30s
  spear task create resize --upload resize.wasm --dry-run -o yaml > task.yaml
  spear task create -f task.yaml
  spear task run TASK --input @photo.png --wait > small.png
  spear task run TASK --idempotency-key order-17 --callback https://hooks.example.com/done
  spear task ls -q | xargs spear task rm                    all of them

What a task does is in its executions: `spear execution ls --task TASK`";

pub(super) const TASKS: &str = "/api/v1/tasks";

/// What can be run: a program with arguments, environment and limits
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct TaskCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List tasks in the order of their registration
    #[command(visible_alias = "list")]
    Ls {
        /// Only those bound to this node
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Only those with this status
        #[arg(long, value_name = "WORD", value_parser = ["registered", "active", "inactive", "unregistered", "unknown"])]
        status: Option<String>,
        /// Only those with this priority
        #[arg(long, value_name = "WORD", value_parser = spec::PRIORITIES)]
        priority: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one task
    #[command(visible_alias = "describe")]
    Get {
        /// Its id
        #[arg(value_name = "TASK")]
        task: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Register a task, which runs at once if it has something to run
    Create(Box<create::Create>),
    /// Run a task again
    Run(Again),
    /// Remove tasks; what they run is cancelled
    #[command(visible_alias = "delete")]
    Rm {
        /// Their ids
        #[arg(value_name = "TASK", required = true)]
        tasks: Vec<String>,
        /// Why, for the message of what is cancelled
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// A run of a task that is there.
#[derive(Args, Clone, Debug)]
struct Again {
    /// Its id
    #[arg(value_name = "TASK")]
    task: String,
    #[command(flatten)]
    input: Input,
    /// Show its output while it runs, and end as it does; Ctrl-C leaves it running
    #[arg(long)]
    wait: bool,
    /// Time limit of this run: seconds, or 90s, 5m, 500ms [default: that of the task]
    #[arg(long, value_name = "TIME", value_parser = flags::limit)]
    timeout: Option<Duration>,
    /// A word that makes this run one of its own: the same command with the same word makes no second one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Tell this address when the run has ended; the registry must allow its host
    #[arg(long, value_name = "URL")]
    callback: Option<String>,
}

pub(super) const TASK: Noun = Noun {
    kind: "task",
    list: "tasks",
    id: "task_id",
    columns: &[
        Column::new("TASK", |row, _| cell::of(row, "task_id")).whole(),
        Column::new("NAME", |row, _| cell::of(row, "name")),
        Column::new("STATUS", |row, _| cell::state(row, "status")).whole(),
        Column::new("LAST RESULT", |row, _| cell::state(row, "last_result_status")).whole(),
        Column::new("LAST RUN", |row, now| cell::age_of_seconds(row, "last_completed_at", now)),
        Column::new("AGE", |row, now| cell::age_of_seconds(row, "registered_at", now)),
        Column::new("PRIORITY", |row, _| cell::of(row, "priority")).wide(),
        Column::new("NODE", |row, _| cell::of(row, "node_uuid")).wide().whole(),
        Column::new("TYPE", |row, _| cell::of(&row["executable"], "type")).wide(),
        Column::new("EXECUTABLE", |row, _| cell::of(&row["executable"], "uri")).wide(),
        Column::new("VERSION", |row, _| cell::of(row, "version")).wide(),
        Column::new("ENDPOINT", |row, _| cell::of(row, "endpoint")).wide(),
    ],
};

impl TaskCommand {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        match self.verb {
            Verb::Ls { node, status, priority, listing } => {
                let query =
                    [("node_uuid", node.as_deref()), ("status", status.as_deref()), ("priority", priority.as_deref())];
                client.list(&TASK, TASKS, &query, &listing).await
            }
            Verb::Get { task, watch } => {
                let path = path(&task);
                client.watch(&TASK, &watch, async || Ok(Found::one(client.get(&path).await?, None))).await
            }
            Verb::Create(create) => create.run(client).await,
            Verb::Run(again) => again.run(client).await,
            Verb::Rm { tasks, reason } => {
                let body = reason.map(|reason| json!({ "reason": reason }));
                for task in tasks {
                    let answer: Value = client.send(Method::DELETE, &path(&task), body.as_ref()).await?;
                    client.show.done(&TASK, &task, "removed", &answer)?;
                }
                Ok(())
            }
        }
    }
}

pub(super) fn path(task: &str) -> String {
    format!("{TASKS}/{}", segment(task))
}

impl Again {
    async fn run(self, client: &Client) -> Result<(), Stopped> {
        let mut body = json!({ "mode": "async" });
        if let Some(input) = in_base64(&self.input.read().await?) {
            body["input_base64"] = Value::String(input);
        }
        if let Some(timeout) = self.timeout {
            body["timeout_ms"] = json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(url) = self.callback {
            body["callback_url"] = Value::String(url);
        }
        let key = self.idempotency_key.as_deref().map(quoted);
        let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
        let path = format!("{}/executions", path(&self.task));
        let begun: Value = client.send_with(Method::POST, &path, &headers, Some(&body)).await?;
        let execution = EXECUTION.id_of(&begun);
        if self.wait {
            return follow::follow(client, &execution).await;
        }
        client.show.done(&EXECUTION, &execution, cell::of(&begun, "status").text.as_str(), &begun)?;
        next_step(client, &execution);
        Ok(())
    }
}

/// A key in the form that leaves nothing of it to be misread.
fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What one does after something was set going.
fn next_step(client: &Client, execution: &str) {
    if client.show.is_table() {
        output::hint(&format!("its output: spear execution logs -f {execution}\n"));
    }
}
