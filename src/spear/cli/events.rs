//! `spear events`: what happens, as it happens.
//!
//! A broken connection is taken up where it broke off. A position that the registry can no longer continue is told,
//! never passed over: whoever kept a copy of what there is has to list it again.

use clap::Args;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs, segment},
    output,
    show::{Cell, Column, Noun, Show, Tone, cell},
    stream::Resuming,
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear events                                      everything that is kept
  spear events -f --kind execution
  spear events -f -o json | jq .record.status
  spear events -f -o json --after CURSOR            go on after the event that had this cursor";

/// Show what happened to nodes, tasks, executions and files
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Events {
    /// Go on with new events until Ctrl-C, from now or from --after
    #[arg(short, long)]
    follow: bool,
    /// Only events after this one, by its cursor in the form json or wide
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Only these; may be given again
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = ["node", "task", "execution", "file"])]
    kind: Vec<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

const EVENT: Noun = Noun {
    kind: "event",
    list: "events",
    id: "cursor",
    columns: &[
        Column::new("REVISION", |row, _| cell::of(row, "rev")),
        Column::new("EVENT", event).whole(),
        Column::new("ID", |row, _| cell::of(row, "id")).whole(),
        Column::new("STATUS", |row, _| cell::state(&row["record"], "status")),
        Column::new("NAME", name),
        Column::new("CURSOR", |row, _| cell::of(row, "cursor")).wide().whole(),
    ],
};

fn event(row: &Value, _: types::Timestamp) -> Cell {
    let cell = cell::of(row, "event");
    let tone = if row["op"] == "deleted" { Tone::Bad } else { Tone::Plain };
    cell.tone(tone)
}

fn name(row: &Value, _: types::Timestamp) -> Cell {
    let record = &row["record"];
    let named = ["name", "function_name", "ip_address"].into_iter().find(|member| record[*member].is_string());
    cell::of(record, named.unwrap_or("name"))
}

impl Events {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        let mut query = vec![format!("follow={}", self.follow)];
        query.extend(self.after.iter().map(|after| format!("after={}", segment(after))));
        query.extend((!self.kind.is_empty()).then(|| format!("types={}", self.kind.join(","))));
        let path = format!("/api/v1/events?{}", query.join("&"));
        let mut printer = Printer { client, table: None };
        if !self.follow {
            let opened = client.rest.events(&path, None).await;
            let mut events = opened.map_err(|fault| client.refused(&fault))?;
            while let Some(event) = events.next().await.map_err(|fault| client.refused(&fault))? {
                printer.show(&event)?;
            }
            return Ok(());
        }
        let mut events = Resuming::open(client, path, None, None).await?;
        loop {
            printer.show(&events.next().await?)?;
        }
    }
}

/// Shows events one by one.
struct Printer<'a> {
    client: &'a Client,
    table: Option<super::show::Table>,
}

impl Printer<'_> {
    fn show(&mut self, event: &net::rest::ServerEvent) -> Result<(), Stopped> {
        let mut data: Value = serde_json::from_str(&event.data)
            .map_err(|error| Stopped::failed(format!("an event is not as expected: {error}")))?;
        if event.name == "bookmark" {
            return Ok(());
        }
        if let Value::Object(members) = &mut data {
            members.insert("event".to_owned(), Value::String(event.name.clone()));
            members.insert("cursor".to_owned(), Value::String(event.id.clone()));
        }
        let show = &self.client.show;
        if event.name == "resync" {
            let (floor, head) = (cell::of(&data, "floor").text, cell::of(&data, "head").text);
            output::complain(&format!(
                "events are missing here: this position cannot be continued (kept: {floor} to {head}); what was known \
                 has to be listed again"
            ));
            return if show.is_table() || show.quiet { Ok(()) } else { output::say(&show.line(&data)?) };
        }
        if !show.is_table() {
            return match show.form {
                super::show::Form::Json | super::show::Form::Yaml if !show.quiet => output::say(&show.line(&data)?),
                _ => output::say(&show.text(&EVENT, &Value::Null, &[data], Show::now())?),
            };
        }
        let rows = [data];
        let text = match &mut self.table {
            Some(table) => table.more(&rows, Show::now()),
            none => none.insert(show.table(&EVENT)).text(&rows, Show::now()),
        };
        output::say(&text)
    }
}
