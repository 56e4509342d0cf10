//! `spear node`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

use super::{
    client::{Client, ClientArgs, segment},
    list::{Found, Listing, Watch, time},
    output,
    show::{Column, Form, Noun, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear node ls -o wide                              with what each has of processor, memory and disk
  spear node drain NODE --wait && spear node rm NODE  take a machine away once its work is done
  spear node resume NODE                             give it work again";

const NODES: &str = "/api/v1/nodes";

/// The machines that run things
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct NodeCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List nodes in the order of their registration
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that show this status: online, offline, draining, maintenance, or a word of yours
        #[arg(long, value_name = "WORD")]
        status: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one node
    #[command(visible_alias = "describe")]
    Get {
        /// Its id
        #[arg(value_name = "NODE")]
        node: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Give a node no new work; what runs on it goes on
    Drain {
        /// Its id
        #[arg(value_name = "NODE")]
        node: String,
        /// Wait until nothing is waiting or running there
        #[arg(long)]
        wait: bool,
        /// Give up waiting after this [default: never]
        #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = time)]
        timeout: Option<Duration>,
    },
    /// Give a drained node work again
    Resume {
        /// Its id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Have a node show a word as its status
    SetStatus {
        /// Its id
        #[arg(value_name = "NODE")]
        node: String,
        /// draining and maintenance keep new work away; online takes the word back; others are yours
        #[arg(value_name = "WORD")]
        status: String,
    },
    /// Remove nodes; one whose agent runs comes back at its next heartbeat
    #[command(visible_alias = "delete")]
    Rm {
        /// Their ids
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<String>,
    },
}

const NODE: Noun = Noun {
    kind: "node",
    list: "nodes",
    id: "uuid",
    columns: &[
        Column::new("NODE", |row, _| cell::of(row, "uuid")).whole(),
        Column::new("NAME", |row, _| cell::of(&row["metadata"], "name")),
        Column::new("STATUS", |row, _| cell::state(row, "status")).whole(),
        Column::new("ADDRESS", |row, _| cell::of(row, "ip_address")),
        Column::new("HEARTBEAT", |row, now| cell::age_of_seconds(row, "last_heartbeat", now)),
        Column::new("AGE", |row, now| cell::age_of_seconds(row, "registered_at", now)),
        Column::new("LIVENESS", |row, _| cell::state(row, "liveness")).wide(),
        Column::new("GRPC", |row, _| cell::of(row, "port")).wide(),
        Column::new("HTTP", |row, _| cell::of(row, "http_port")).wide(),
        Column::new("CPU", |row, _| cell::percent(&row["resource"], "cpu_usage_percent")).wide(),
        Column::new("MEMORY", |row, _| cell::percent(&row["resource"], "memory_usage_percent")).wide(),
        Column::new("OF", |row, _| cell::size(&row["resource"], "total_memory_bytes")).wide(),
        Column::new("DISK", |row, _| cell::percent(&row["resource"], "disk_usage_percent")).wide(),
        Column::new("LOAD", |row, _| load(&row["resource"])).wide(),
        Column::new("LABELS", |row, _| labels(&row["metadata"])).wide(),
    ],
};

/// What a node of a list is joined with.
const RESOURCES: Noun = Noun { kind: "resource", list: "resources", id: "node_uuid", columns: &[] };

impl NodeCommand {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        match self.verb {
            Verb::Ls { status, listing } => ls(client, status.as_deref(), &listing).await,
            Verb::Get { node, watch } => get(client, &node, &watch).await,
            Verb::Drain { node, wait, timeout } => drain(client, &node, wait, timeout).await,
            Verb::Resume { node } => set_status(client, &node, "online", "resumed").await,
            Verb::SetStatus { node, status } => set_status(client, &node, &status, &format!("is {status}")).await,
            Verb::Rm { nodes } => {
                for node in nodes {
                    let path = format!("{NODES}/{}", segment(&node));
                    let body: Value = client.send(Method::DELETE, &path, None::<&()>).await?;
                    client.show.done(&NODE, &node, "removed", &body)?;
                }
                Ok(())
            }
        }
    }
}

async fn ls(client: &Client, status: Option<&str>, listing: &Listing) -> Result<(), Stopped> {
    let look = async || {
        let mut found = Found::list(&NODE, client.pages(&NODE, NODES, &[("status", status)], listing.limit).await?);
        if client.show.form == Form::Wide && !client.show.quiet {
            let mut resources = resources(client).await?;
            for row in &mut found.rows {
                let resource = resources.remove(&NODE.id_of(row));
                insert(row, "resource", resource.unwrap_or_default());
            }
        }
        Ok(found)
    };
    client.watch(&NODE, &listing.watch, look).await
}

/// What every node last told of itself.
async fn resources(client: &Client) -> Result<HashMap<String, Value>, Stopped> {
    let mut body = client.pages(&RESOURCES, "/api/v1/resources", &[], None).await?;
    let all = body[RESOURCES.list].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(all.into_iter().map(|row| (RESOURCES.id_of(&row), row)).collect())
}

async fn get(client: &Client, node: &str, watch: &Watch) -> Result<(), Stopped> {
    let path = format!("{NODES}/{}", segment(node));
    let look = async || {
        let mut found = Found::one(client.get(&path).await?, Some("node"));
        if client.show.form == Form::Wide && !client.show.quiet {
            let both: Value = client.get(&format!("{path}/with-resource")).await?;
            for row in &mut found.rows {
                insert(row, "resource", both["resource"].clone());
            }
        }
        Ok(found)
    };
    client.watch(&NODE, watch, look).await
}

async fn put_status(client: &Client, node: &str, status: &str) -> Result<Value, Stopped> {
    client.send(Method::PUT, &format!("{NODES}/{}", segment(node)), Some(&json!({ "status": status }))).await
}

async fn set_status(client: &Client, node: &str, status: &str, done: &str) -> Result<(), Stopped> {
    let body = put_status(client, node, status).await?;
    client.show.done(&NODE, node, done, &body)
}

async fn drain(client: &Client, node: &str, wait: bool, timeout: Option<Duration>) -> Result<(), Stopped> {
    const PAUSE: Duration = Duration::from_millis(500);
    let body = put_status(client, node, "draining").await?;
    if !wait {
        return client.show.done(&NODE, node, "draining", &body);
    }
    let give_up = timeout.map(|timeout| Instant::now() + timeout);
    let mut told = None;
    loop {
        let left = unfinished(client, node).await?;
        if left == 0 {
            return client.show.done(&NODE, node, "drained", &body);
        }
        if give_up.is_some_and(|give_up| Instant::now() >= give_up) {
            let rest = format!("{left} executions are left on {node}");
            return Err(Stopped::timeout(format!(
                "{rest} after {}: it stays draining; wait again, or cancel them with `spear execution cancel`",
                cell::duration(timeout.unwrap_or_default()),
            )));
        }
        if told.replace(left) != Some(left) && !client.show.quiet {
            output::hint(&format!("node/{node} draining: {left} executions left\n"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Executions that are waiting or running on a node.
async fn unfinished(client: &Client, node: &str) -> Result<usize, Stopped> {
    const EXECUTIONS: Noun = Noun { kind: "execution", list: "executions", id: "execution_id", columns: &[] };
    let mut count = 0;
    for status in ["pending", "running"] {
        let query = [("node_uuid", Some(node)), ("status", Some(status))];
        let body = client.pages(&EXECUTIONS, "/api/v1/executions", &query, None).await?;
        count += body[EXECUTIONS.list].as_array().map_or(0, Vec::len);
    }
    Ok(count)
}

fn insert(row: &mut Value, member: &str, value: Value) {
    if let Value::Object(members) = row {
        members.insert(member.to_owned(), value);
    }
}

fn load(resource: &Value) -> cell::Cell {
    match resource["load_average_1m"].as_f64() {
        Some(load) => cell::text(format!("{load:.2}")).passing(),
        None => cell::text("-"),
    }
}

fn labels(metadata: &Value) -> cell::Cell {
    let pair = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    };
    match metadata.as_object().filter(|labels: &&Map<String, Value>| !labels.is_empty()) {
        Some(labels) => cell::text(labels.iter().map(pair).collect::<Vec<_>>().join(",")),
        None => cell::text("-"),
    }
}
