//! Columns without lines around them, as people know them from other tools.
//!
//! A coloured word is marked by characters without a width while the table is laid out, which become the sequences
//! of the terminal afterwards: so the layout need not know of colours. No cell can have such a character of its own
//! ([`super::cell::plain`]).

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table as Layout, TableStyle, Width};
use serde_json::Value;
use types::Timestamp;

use super::{Cell, Column, Noun, Surroundings, Tone};

/// Between two columns.
const GAP: u16 = 3;
const GOOD: char = '\u{2061}';
const WAITING: char = '\u{2062}';
const BAD: char = '\u{2063}';
const END: char = '\u{2064}';

/// A table that may grow: later rows are laid out no narrower than earlier ones.
pub(in crate::cli) struct Table {
    columns: Vec<Column>,
    header: bool,
    surroundings: Surroundings,
    widths: Vec<u16>,
}

impl Table {
    pub(super) fn new(noun: &Noun, wide: bool, header: bool, surroundings: Surroundings) -> Self {
        let columns: Vec<Column> = noun.columns.iter().filter(|column| wide || !column.wide).copied().collect();
        Self { columns, header, surroundings, widths: Vec::new() }
    }

    /// The cells of a thing.
    pub(in crate::cli) fn cells(&self, row: &Value, now: Timestamp) -> Vec<Cell> {
        self.columns.iter().map(|column| (column.cell)(row, now)).collect()
    }

    /// Titles and rows.
    pub(in crate::cli) fn text(&mut self, rows: &[Value], now: Timestamp) -> String {
        self.render(rows, now, self.header)
    }

    /// Rows alone, below others.
    pub(in crate::cli) fn more(&mut self, rows: &[Value], now: Timestamp) -> String {
        self.render(rows, now, false)
    }

    fn render(&mut self, rows: &[Value], now: Timestamp, header: bool) -> String {
        let mut layout = Layout::new();
        layout.load_style(TableStyle::new());
        layout.set_truncation_indicator("…");
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        // Titles count for the width even where they are not shown, so that tables of one noun look alike.
        layout.set_header(titles);
        for row in rows {
            let cells = self.cells(row, now).into_iter().map(|cell| self.marked(cell));
            let mut line = Row::from(cells.collect::<Vec<String>>());
            line.max_height(1);
            layout.add_row(line);
        }
        self.arrange(&mut layout);
        let lines = layout.lines().skip(usize::from(!header));
        lines.map(|line| coloured(line.trim_end()) + "\n").collect()
    }

    fn arrange(&mut self, layout: &mut Layout) {
        let mut widths = layout.column_max_content_widths();
        for (width, before) in widths.iter_mut().zip(&self.widths) {
            *width = (*width).max(*before);
        }
        let last = widths.len().saturating_sub(1);
        for (index, (width, column)) in widths.iter().zip(&self.columns).enumerate() {
            let gap = if index == last { 0 } else { GAP };
            let Some(laid) = layout.column_mut(index) else { continue };
            laid.set_padding((0, gap));
            let fixed = Width::Fixed(width.saturating_add(gap));
            if column.whole || self.surroundings.terminal.is_none() {
                laid.set_constraint(ColumnConstraint::Absolute(fixed));
            }
        }
        if let Some((columns, _)) = self.surroundings.terminal {
            layout.set_width(columns);
            layout.set_content_arrangement(ContentArrangement::Dynamic);
        }
        self.widths = widths;
    }

    fn marked(&self, cell: Cell) -> String {
        let mark = match cell.tone {
            _ if !self.surroundings.colour => return cell.text,
            Tone::Plain => return cell.text,
            Tone::Good => GOOD,
            Tone::Waiting => WAITING,
            Tone::Bad => BAD,
        };
        format!("{mark}{}{END}", cell.text)
    }
}

fn coloured(line: &str) -> String {
    let style = |colour: AnsiColor| Style::new().fg_color(Some(colour.into())).render().to_string();
    let mut text = String::with_capacity(line.len());
    let mut open = false;
    for c in line.chars() {
        let colour = match c {
            GOOD => AnsiColor::Green,
            WAITING => AnsiColor::Yellow,
            BAD => AnsiColor::Red,
            END => {
                text.push_str(&Style::new().fg_color(Some(AnsiColor::Green.into())).render_reset().to_string());
                open = false;
                continue;
            }
            other => {
                text.push(other);
                continue;
            }
        };
        text.push_str(&style(colour));
        open = true;
    }
    if open {
        // The word was cut, and its end with it.
        text.push_str(&Style::new().fg_color(Some(AnsiColor::Green.into())).render_reset().to_string());
    }
    text
}
