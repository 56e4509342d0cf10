//! A JSON Schema of the configuration file (draft 2020-12), made from the table of settings.

use serde_json::{Map, Value, json};

use super::{
    keys::{self, Effect, Key},
    value::{Kind, Raw},
};

/// Times and sizes with a unit.
const WITH_UNIT: &str = "^[0-9_]+ *[A-Za-z]+$";

/// The schema.
pub fn schema() -> Value {
    let mut root = section();
    for key in keys::all() {
        for name in key.names() {
            insert(&mut root, name, setting(key, name));
        }
    }
    let Value::Object(mut schema) = root else { return root };
    let mut all = Map::from_iter([
        ("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema")),
        ("title".to_owned(), json!("Configuration of Spear")),
    ]);
    all.append(&mut schema);
    Value::Object(all)
}

fn section() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

/// Puts a setting in its section, which is made when it is not there.
fn insert(section_of: &mut Value, name: &str, setting: Value) {
    let Some(properties) = section_of.get_mut("properties").and_then(Value::as_object_mut) else { return };
    match name.split_once('.') {
        Some((first, rest)) => insert(properties.entry(first).or_insert_with(section), rest, setting),
        None => drop(properties.insert(name.to_owned(), setting)),
    }
}

fn setting(key: &Key, name: &str) -> Value {
    let mut schema = form(key.kind);
    let Some(members) = schema.as_object_mut() else { return schema };
    let mut text = key.doc.to_owned();
    if let Effect::Nothing(why) | Effect::Refused(why) = key.effect {
        text = format!("{text} {why}.");
    }
    members.insert("description".to_owned(), text.into());
    if let Some(default) = key.default {
        members.insert("default".to_owned(), value(key.kind, default));
    }
    if name != key.name || key.effect != Effect::Works {
        members.insert("deprecated".to_owned(), true.into());
    }
    schema
}

fn form(kind: Kind) -> Value {
    let number = |least: u64, most: u64| json!({"type": "integer", "minimum": least, "maximum": most});
    let measured = |least, most| json!({"anyOf": [number(least, most), {"type": "string", "pattern": WITH_UNIT}]});
    match kind {
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Choice(words) => json!({"type": "string", "enum": words}),
        Kind::Count(least, most) => number(least, most),
        Kind::Seconds(least, most) | Kind::Millis(least, most) | Kind::Bytes(least, most) => measured(least, most),
        Kind::List => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Subtree => json!({"type": "object"}),
        Kind::Address | Kind::Target => json!({"type": "string", "pattern": "^$|:[0-9]+/?$"}),
        Kind::Url => json!({"type": "string", "pattern": "^$|^https?://"}),
        Kind::Host | Kind::Text | Kind::Secret | Kind::Path => json!({"type": "string"}),
    }
}

/// A default as it could stand in a file.
fn value(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Switch => json!(text == "true"),
        Kind::List => json!([]),
        Kind::Count(..) | Kind::Seconds(..) | Kind::Millis(..) | Kind::Bytes(..) => {
            text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
        }
        _ => match kind.read(&Raw::Bare(text.to_owned())) {
            Ok(read) => json!(read.text),
            Err(_) => json!(text),
        },
    }
}
