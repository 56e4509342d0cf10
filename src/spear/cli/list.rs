//! Lists to their end, and looking again and again.
//!
//! A list follows `next_cursor` until there is none or `--limit` is reached; its JSON is the body of the REST answer,
//! or that of the first page with the things of all pages in it. With `--watch` a terminal is painted anew each time;
//! anything else gets the rows that are new or have changed, and ages do not count as a change.

use clap::Args;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

use super::{
    client::{Client, segment},
    output,
    show::{Cell, Form, Noun, Show, Table},
};
use crate::{config, stopped::Stopped};

/// What the server gives on one page at most.
const PAGE: u64 = 1000;
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// Flags of what lists.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Listing {
    /// Stop after this many [default: all there are]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) watch: Watch,
}

/// The flag of what can be looked at again and again.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Watch {
    /// Look again and again until Ctrl-C, with this pause [without a value: 2s]
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2s")]
    #[arg(value_parser = pause)]
    pub(super) watch: Option<Duration>,
}

/// What was found at one look.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// As the REST interface says it.
    pub(super) body: Value,
    /// What the table shows.
    pub(super) rows: Vec<Value>,
}

impl Found {
    /// A list of a noun: the rows are those of the body.
    pub(super) fn list(noun: &Noun, body: Value) -> Self {
        let rows = body[noun.list].as_array().cloned().unwrap_or_default();
        Self { body, rows }
    }

    /// One thing, which is the body or a member of it.
    pub(super) fn one(body: Value, member: Option<&str>) -> Self {
        let row = member.map_or(&body, |member| &body[member]).clone();
        Self { body, rows: vec![row] }
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    time(text).map(|pause| pause.max(LEAST_PAUSE))
}

/// A time on the command line; a bare number is in seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    config::time(text).ok_or_else(|| format!("{text:?} is no time: write seconds, or something like 90s, 5m, 500ms"))
}

impl Client {
    /// Every page of a list as one body. `query` has no limit and no cursor; empty values are left out.
    pub(super) async fn pages(
        &self,
        noun: &Noun,
        path: &str,
        query: &[(&str, Option<&str>)],
        limit: Option<u64>,
    ) -> Result<Value, Stopped> {
        let mut whole: Option<Value> = None;
        let (mut cursor, mut left): (Option<String>, u64) = (None, limit.unwrap_or(u64::MAX));
        loop {
            let page: Value = self.get(&page_path(path, query, left.min(PAGE), cursor.as_deref())).await?;
            let count = page[noun.list].as_array().map(Vec::len).ok_or_else(|| {
                let address = self.rest.address();
                Stopped::failed(format!("{address} answers without {:?}: is it a registry of this version?", noun.list))
            })?;
            left = left.saturating_sub(count as u64);
            let next = page["next_cursor"].as_str().map(str::to_owned);
            let all = match whole.take() {
                None => page,
                Some(all) => append(all, page, noun.list),
            };
            match next {
                // A cursor that stands still would go round for ever.
                Some(next) if left > 0 && count > 0 && cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(all),
            }
            whole = Some(all);
        }
    }

    /// Shows a list, once or again and again.
    pub(super) async fn list(
        &self,
        noun: &Noun,
        path: &str,
        query: &[(&str, Option<&str>)],
        listing: &Listing,
    ) -> Result<(), Stopped> {
        let look = async || Ok(Found::list(noun, self.pages(noun, path, query, listing.limit).await?));
        self.watch(noun, &listing.watch, look).await
    }

    /// Shows what a look finds, once or again and again.
    pub(super) async fn watch(
        &self,
        noun: &Noun,
        watch: &Watch,
        mut look: impl AsyncFnMut() -> Result<Found, Stopped>,
    ) -> Result<(), Stopped> {
        let first = look().await?;
        let Some(pause) = watch.watch else { return self.show.rows(noun, &first.body, &first.rows) };
        let mut shown = Shown::new(noun, &self.show);
        shown.show(&first)?;
        let mut told = false;
        loop {
            tokio::time::sleep(pause).await;
            match look().await {
                Ok(found) => {
                    shown.show(&found)?;
                    told = false;
                }
                // The registry may come back; what is gone does not.
                Err(stopped) if matches!(stopped.code, 69 | 75 | 124) => {
                    if !std::mem::replace(&mut told, true) {
                        output::complain(&stopped.message);
                    }
                }
                Err(stopped) => return Err(stopped),
            }
        }
    }
}

fn page_path(path: &str, query: &[(&str, Option<&str>)], limit: u64, cursor: Option<&str>) -> String {
    let limit = limit.to_string();
    let paging = [("limit", Some(&*limit)), ("cursor", cursor)];
    let given = query.iter().chain(&paging).filter_map(|(name, value)| Some((name, value.filter(|v| !v.is_empty())?)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", segment(value))).collect();
    format!("{path}?{}", pairs.join("&"))
}

fn append(mut whole: Value, mut page: Value, list: &str) -> Value {
    if let (Some(all), Some(more)) = (whole[list].as_array_mut(), page[list].as_array_mut()) {
        all.append(more);
    }
    whole["next_cursor"] = page["next_cursor"].take();
    whole
}

/// What has been shown of something that is looked at again and again.
struct Shown<'a> {
    noun: &'a Noun,
    show: &'a Show,
    table: Table,
    before: Option<BTreeMap<String, Vec<Cell>>>,
}

impl<'a> Shown<'a> {
    fn new(noun: &'a Noun, show: &'a Show) -> Self {
        Self { noun, show, table: show.table(noun), before: None }
    }

    fn show(&mut self, found: &Found) -> Result<(), Stopped> {
        match self.show.surroundings.terminal {
            Some((_, lines)) => {
                let text = self.show.text(self.noun, &found.body, &found.rows, Show::now())?;
                output::say(&painted(&text, usize::from(lines), self.before.replace(BTreeMap::new()).is_none()))
            }
            None => self.show_changes(found),
        }
    }

    fn show_changes(&mut self, found: &Found) -> Result<(), Stopped> {
        let now = Show::now();
        // All columns count as what a thing is, whichever are shown.
        let all = self.show.whole_table(self.noun);
        let cells = found.rows.iter().map(|row| (self.noun.id_of(row), all.cells(row, now)));
        let cells: BTreeMap<String, Vec<Cell>> = cells.collect();
        let first = self.before.is_none();
        let before = self.before.take().unwrap_or_default();
        let changed = |row: &&Value| {
            let id = self.noun.id_of(row);
            match (before.get(&id), cells.get(&id)) {
                (Some(before), Some(now)) => before.iter().zip(now).any(|(before, now)| before.differs(now)),
                _ => true,
            }
        };
        let rows: Vec<Value> = found.rows.iter().filter(changed).cloned().collect();
        for gone in before.keys().filter(|id| !cells.contains_key(*id)) {
            output::hint(&format!("{}/{gone} is gone\n", self.noun.kind));
        }
        self.before = Some(cells);
        let text = match self.show.form {
            Form::Table | Form::Wide if !self.show.quiet && first => self.table.text(&rows, now),
            Form::Table | Form::Wide if !self.show.quiet => self.table.more(&rows, now),
            Form::Json | Form::Yaml if !self.show.quiet => {
                rows.iter().map(|row| self.show.line(row)).collect::<Result<String, Stopped>>()?
            }
            _ => self.show.text(self.noun, &found.body, &rows, now)?,
        };
        if text.is_empty() { Ok(()) } else { output::say(&text) }
    }
}

/// A screen full of text, over what was there.
fn painted(text: &str, lines: usize, first: bool) -> String {
    let all: Vec<&str> = text.lines().collect();
    let fit = lines.saturating_sub(1).max(1);
    let mut screen = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    let (shown, rest) = if all.len() > fit { all.split_at(fit - 1) } else { (&all[..], &[][..]) };
    for line in shown {
        screen.push_str(line);
        screen.push_str("\x1b[K\n");
    }
    if !rest.is_empty() {
        screen.push_str(&format!("… and {} more lines\x1b[K\n", rest.len()));
    }
    screen.push_str("\x1b[J");
    screen
}

#[cfg(test)]
mod tests;
