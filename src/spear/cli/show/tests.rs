#![allow(clippy::unwrap_used, reason = "tests")]

use super::{surroundings::Surroundings, *};
use serde_json::json;
use std::{ffi::OsString, time::Duration};

const THING: Noun = Noun {
    kind: "thing",
    list: "things",
    id: "id",
    columns: &[
        Column::new("THING", |row, _| cell::of(row, "id")).whole(),
        Column::new("NAME", |row, _| cell::of(row, "name")),
        Column::new("STATUS", |row, _| cell::state(row, "status")),
        Column::new("AGE", |row, now| cell::age_of_seconds(row, "made", now)),
        Column::new("NOTE", |row, _| cell::of(row, "note")).wide(),
    ],
};

fn show(form: Form, terminal: Option<(u16, u16)>, colour: bool) -> Show {
    Show { form, quiet: false, header: true, surroundings: Surroundings { terminal, colour } }
}

fn body() -> Value {
    json!({"things": [
        {"id": "0123456789abcdef0123", "name": "a name of some length", "status": "online", "made": 1000, "note": "n"},
        {"id": "b", "name": "second", "status": "offline", "made": 0, "note": null},
    ], "next_cursor": null})
}

fn shown(show: &Show) -> String {
    let body = body();
    let rows = body["things"].as_array().unwrap();
    show.text(&THING, &body, rows, Timestamp(1_192_000)).unwrap()
}

#[test]
fn a_table_has_titles_columns_and_ages_and_no_lines() {
    let text = shown(&show(Form::Table, None, false));
    assert_eq!(
        text,
        "THING                  NAME                    STATUS    AGE\n\
         0123456789abcdef0123   a name of some length   online    3m12s\n\
         b                      second                  offline   -\n"
    );
    let mut bare = show(Form::Wide, None, false);
    bare.header = false;
    let text = shown(&bare);
    assert!(!text.contains("THING") && text.lines().next().unwrap().ends_with("3m12s   n"), "{text}");
}

#[test]
fn a_narrow_terminal_cuts_cells_but_never_ids_and_never_breaks_a_row() {
    let text = shown(&show(Form::Wide, Some((58, 24)), false));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("0123456789abcdef0123   ") && lines[1].contains('…'), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 58), "{text}");
}

#[test]
fn only_words_that_tell_a_state_are_coloured_and_the_columns_stay_in_place() {
    let plain = shown(&show(Form::Table, None, false));
    let coloured = shown(&show(Form::Table, None, true));
    assert!(coloured.contains("\x1b[32monline\x1b[0m") && coloured.contains("\x1b[31moffline\x1b[0m"), "{coloured:?}");
    assert_eq!(coloured.matches('\x1b').count(), 4);
    let stripped = ["\x1b[32m", "\x1b[31m", "\x1b[0m"].iter().fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
}

#[test]
fn json_and_yaml_are_the_body_and_name_and_quiet_are_for_scripts() {
    let json: Value = serde_json::from_str(&shown(&show(Form::Json, None, true))).unwrap();
    assert_eq!(json, body());
    let yaml: Value = serde_saphyr::from_str(&shown(&show(Form::Yaml, None, true))).unwrap();
    assert_eq!(yaml, body());
    assert_eq!(shown(&show(Form::Name, None, true)), "thing/0123456789abcdef0123\nthing/b\n");
    let mut quiet = show(Form::Json, None, true);
    quiet.quiet = true;
    assert_eq!(shown(&quiet), "0123456789abcdef0123\nb\n");
}

#[test]
fn an_empty_list_shows_its_titles() {
    let text = show(Form::Table, None, false).text(&THING, &json!({"things": []}), &[], Timestamp(0)).unwrap();
    assert_eq!(text, "THING   NAME   STATUS   AGE\n");
}

#[test]
fn what_comes_from_outside_cannot_act_on_the_terminal() {
    let row = json!({"id": "x\x1b[2J\r\n", "name": "\u{202e}\u{2061}abc\u{7}", "status": "on\u{9b}31mline"});
    let text = show(Form::Table, None, true).text(&THING, &json!({}), &[row], Timestamp(0)).unwrap();
    assert_eq!(text.lines().count(), 2, "{text:?}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains('\u{202e}'), "{text:?}");
    assert!(text.contains(r"\u{1b}[2J") && text.contains(r"\u{2061}abc"), "{text}");
}

#[test]
fn later_rows_stand_below_earlier_ones() {
    let body = body();
    let rows = body["things"].as_array().unwrap();
    let mut table = show(Form::Table, None, false).table(&THING);
    let first = table.text(&rows[..1], Timestamp(0));
    let second = table.more(&rows[1..], Timestamp(0));
    let column = |text: &str, word: &str| text.lines().find_map(|line| line.find(word)).unwrap();
    assert_eq!(column(&first, "a name"), column(&second, "second"));
    assert_eq!(column(&first, "online"), column(&second, "offline"));
}

#[test]
fn an_age_that_grows_is_no_change_and_a_status_is() {
    let table = show(Form::Table, None, false).table(&THING);
    let row = |status: &str| json!({"id": "a", "status": status, "made": 1});
    let (before, after) = (table.cells(&row("online"), Timestamp(5000)), table.cells(&row("online"), Timestamp(9000)));
    assert!(before.iter().zip(&after).all(|(before, after)| !before.differs(after)));
    let after = table.cells(&row("offline"), Timestamp(5000));
    assert!(before.iter().zip(&after).any(|(before, after)| before.differs(after)));
}

#[test]
fn durations_have_two_units_at_most() {
    for (seconds, text) in [
        (1, "1s"),
        (59, "59s"),
        (60, "1m"),
        (192, "3m12s"),
        (3600, "1h"),
        (18_180, "5h3m"),
        (86_400, "1d"),
        (187_200, "2d4h"),
        (3_542_400, "41d"),
    ] {
        assert_eq!(cell::duration(Duration::from_secs(seconds)), text);
    }
    assert_eq!(cell::duration(Duration::from_millis(740)), "740ms");
    let future = cell::age_of_millis(&json!({"at": 5000}), "at", Timestamp(1000));
    assert_eq!(future.text, "0ms");
}

#[test]
fn sizes_are_written_as_in_settings() {
    for (bytes, text) in [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (64 << 20, "64MiB"),
        ((1 << 20) - 1, "1MiB"),
        (u64::MAX, "16EiB"),
    ] {
        assert_eq!(cell::bytes(bytes), text);
    }
}

#[test]
fn colours_are_as_flag_and_environment_say() {
    let colour = |when: When, variables: &[(&str, &str)]| {
        let all = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Surroundings::of(when, &all).unwrap().colour
    };
    // No variable colours what goes into a pipe, but CLICOLOR_FORCE; the output of a test is one.
    assert!(!colour(When::Auto, &[("TERM", "xterm")]));
    assert!(colour(When::Auto, &[("CLICOLOR_FORCE", "1")]));
    assert!(!colour(When::Auto, &[("CLICOLOR_FORCE", "0")]));
    assert!(!colour(When::Auto, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(colour(When::Always, &[("NO_COLOR", "1")]));
    assert!(!colour(When::Never, &[("CLICOLOR_FORCE", "1")]));
}
