//! `spear execution`.

use clap::{Args, Subcommand, ValueEnum};
use futures_util::StreamExt;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};
use types::Timestamp;

use super::{
    client::{Client, ClientArgs, segment},
    follow::{Line, Lines},
    list::{Found, Listing, Watch, time},
    output,
    show::{Cell, Column, Form, Noun, Show, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear execution ls --status running
  spear execution logs EXECUTION -f --tail 20
  spear execution logs EXECUTION -o wide                with time and stream of every line
  spear execution result EXECUTION > result.bin
  spear execution ls --status pending -q | xargs spear execution cancel";

const EXECUTIONS: &str = "/api/v1/executions";
const STATUSES: [&str; 7] = ["pending", "running", "completed", "failed", "cancelled", "timeout", "lost"];
/// Lines of a page of a log.
const PAGE: u64 = 2000;
/// Lines that `--tail` can keep.
const MOST_TAIL: u64 = 1_000_000;

/// Runs of tasks: how they stand, what they wrote
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExecutionCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List executions in the order of their creation
    #[command(visible_alias = "list")]
    Ls {
        /// Only those of this task
        #[arg(long, value_name = "TASK")]
        task: Option<String>,
        /// Only those on this node
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Only those with this status
        #[arg(long, value_name = "WORD", value_parser = STATUSES)]
        status: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one execution
    #[command(visible_alias = "describe")]
    Get {
        /// Its id
        #[arg(value_name = "EXECUTION")]
        execution: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show what it wrote, and what its node has to say
    Logs {
        /// Its id
        #[arg(value_name = "EXECUTION")]
        execution: String,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Stop executions
    Cancel {
        /// Their ids
        #[arg(value_name = "EXECUTION", required = true)]
        executions: Vec<String>,
        /// Why, for its message
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Write what it wrote to its standard output, byte for byte
    Result {
        /// Its id
        #[arg(value_name = "EXECUTION")]
        execution: String,
    },
}

/// Which lines of a log.
#[derive(Args, Clone, Debug)]
struct Wanted {
    /// Go on with new lines until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of those there are
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=MOST_TAIL))]
    tail: Option<u64>,
    /// Only lines younger than this: seconds, or 90s, 5m, 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Duration>,
    /// Only lines of this stream; system is the node itself
    #[arg(long, value_name = "STREAM", value_enum)]
    stream: Option<Source>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    Stdout,
    Stderr,
    System,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
}

pub(super) const EXECUTION: Noun = Noun {
    kind: "execution",
    list: "executions",
    id: "execution_id",
    columns: &[
        Column::new("EXECUTION", |row, _| cell::of(row, "execution_id")).whole(),
        Column::new("PROGRAM", |row, _| cell::of(row, "function_name")),
        Column::new("STATUS", |row, _| cell::state(row, "status")).whole(),
        Column::new("REASON", |row, _| cell::of(row, "reason")),
        Column::new("EXIT", |row, _| cell::of(row, "exit_code")),
        Column::new("AGE", |row, now| cell::age_of_millis(row, "created_at_ms", now)),
        Column::new("TOOK", took),
        Column::new("TASK", |row, _| cell::of(row, "task_id")).wide().whole(),
        Column::new("NODE", |row, _| cell::of(row, "node_uuid")).wide().whole(),
        Column::new("ATTEMPT", |row, _| cell::of(row, "attempt")).wide(),
        Column::new("RESULT", |row, _| cell::size(&row["result"], "size")).wide(),
        Column::new("CALLBACK", |row, _| cell::state(&row["callback"], "status")).wide(),
        Column::new("MESSAGE", |row, _| cell::of(row, "message")).wide(),
    ],
};

/// From its start to its end, or to now.
fn took(row: &Value, now: Timestamp) -> Cell {
    let Some(started) = row["started_at_ms"].as_i64() else { return cell::text("-") };
    let ended = row["completed_at_ms"].as_i64();
    let took = u64::try_from(ended.unwrap_or_else(|| now.millis()).saturating_sub(started)).unwrap_or_default();
    let cell = cell::text(cell::duration(Duration::from_millis(took)));
    if ended.is_some() { cell } else { cell.passing() }
}

impl ExecutionCommand {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        match self.verb {
            Verb::Ls { task, node, status, listing } => {
                let query =
                    [("task_id", task.as_deref()), ("node_uuid", node.as_deref()), ("status", status.as_deref())];
                client.list(&EXECUTION, EXECUTIONS, &query, &listing).await
            }
            Verb::Get { execution, watch } => {
                let path = path(&execution);
                client.watch(&EXECUTION, &watch, async || Ok(Found::one(client.get(&path).await?, None))).await
            }
            Verb::Logs { execution, wanted } => logs(client, &execution, &wanted).await,
            Verb::Cancel { executions, reason } => {
                let body = reason.map(|reason| json!({ "reason": reason }));
                for execution in executions {
                    let path = format!("{}/cancel", path(&execution));
                    let answer: Value = client.send(Method::POST, &path, body.as_ref()).await?;
                    let done = if answer["status"] == "cancelled" { "cancelled" } else { "asked to stop" };
                    client.show.done(&EXECUTION, &execution, done, &answer)?;
                }
                Ok(())
            }
            Verb::Result { execution } => result(client, &execution).await,
        }
    }
}

fn path(execution: &str) -> String {
    format!("{EXECUTIONS}/{}", segment(execution))
}

async fn result(client: &Client, execution: &str) -> Result<(), Stopped> {
    let path = format!("{}/result", path(execution));
    let mut content = client.rest.download(&path).await.map_err(|fault| client.refused(&fault))?;
    while let Some(chunk) = content.bytes.next().await {
        let chunk = chunk.map_err(|error| Stopped::unavailable(format!("the result broke off: {error}; repeat it")))?;
        output::write(&chunk)?;
    }
    Ok(())
}

async fn logs(client: &Client, execution: &str, wanted: &Wanted) -> Result<(), Stopped> {
    let since = wanted.since.map_or(i64::MIN, |since| {
        Show::now().millis().saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    });
    let fits = |line: &Line| line.ts_ms >= since && wanted.stream.is_none_or(|source| source.word() == line.stream);
    // The registry has no page from behind: everything is read, and only the end kept.
    let most = wanted.tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
    let (mut kept, mut printer, mut after) = (VecDeque::new(), Printer::default(), 0);
    loop {
        let query = format!("{}/logs?limit={PAGE}&cursor={after}", path(execution));
        let page: Value = client.get(&query).await?;
        let lines = page["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        for data in lines {
            let line = line(data)?;
            after = line.seq;
            if !fits(&line) {
                continue;
            }
            if wanted.tail.is_none() {
                printer.show(client, &line, data)?;
                continue;
            }
            kept.push_back((line, data.clone()));
            if kept.len() > most {
                kept.pop_front();
            }
        }
        if lines.is_empty() || page["completed"] == true {
            for (line, data) in &kept {
                printer.show(client, line, data)?;
            }
            if !wanted.follow || page["completed"] == true {
                return Ok(());
            }
            break;
        }
    }
    let mut lines = Lines::follow(client, execution, after).await?;
    while let Some((line, data)) = lines.next().await? {
        if fits(&line) {
            printer.show(client, &line, &data)?;
        }
    }
    Ok(())
}

fn line(data: &Value) -> Result<Line, Stopped> {
    Line::deserialize(data)
        .map_err(|error| Stopped::failed(format!("the log comes in another form than expected: {error}")))
}

/// Writes lines one below the other.
#[derive(Default)]
struct Printer {
    /// Stream of the line before, if it had no line feed.
    open: Option<String>,
}

impl Printer {
    /// A line as it was written; what the node says of it stands apart by two dashes.
    fn show(&mut self, client: &Client, line: &Line, data: &Value) -> Result<(), Stopped> {
        match client.show.form {
            Form::Json | Form::Yaml => return output::say(&client.show.line(data)?),
            Form::Wide => {
                let (time, message) = (Timestamp(line.ts_ms), cell::plain(&line.message));
                return output::say(&format!("{time}  {:<6}  {:<5}  {message}\n", line.stream, line.level));
            }
            Form::Name => return Err(Stopped::usage("lines of a log have no names: use -o table, wide, json or yaml")),
            Form::Table => {}
        }
        if self.open.take().is_some_and(|stream| stream != line.stream) {
            output::say("\n")?;
        }
        self.open = line.unterminated.then(|| line.stream.clone());
        match &*line.stream {
            "system" => output::say(&format!("-- {}\n", cell::plain(&line.message))),
            // Somebody else's program cannot do anything to this terminal.
            _ if client.show.surroundings.terminal.is_some() => {
                let pieces: Vec<String> = line.message.split('\t').map(cell::plain).collect();
                let end = if line.unterminated { "" } else { "\n" };
                output::say(&format!("{}{end}", pieces.join("\t")))
            }
            _ => output::write(&line.bytes()?),
        }
    }
}
