//! What a setting may be: its kind, how it is read, and how it is shown.

use config::ValueKind;
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `IP:port` to listen on.
    Address,
    /// `host:port` to connect to.
    Target,
    /// An IP address or a host name.
    Host,
    /// `http://` or `https://`, a host and perhaps a port.
    Url,
    /// true or false.
    Switch,
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A path; `~/` at its beginning is the home directory.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number, bounds included.
    Count(u64, u64),
    /// A time: a bare number is in seconds; the bounds are too.
    Seconds(u64, u64),
    /// A time: a bare number is in milliseconds; the bounds are too.
    Millis(u64, u64),
    /// A size: a bare number is in bytes; the bounds are too.
    Bytes(u64, u64),
    /// Several texts.
    List,
    /// A section whose inside is not looked at.
    Subtree,
}

/// A value as it stands in a file, a variable or a flag.
#[derive(Clone, Debug)]
pub enum Raw {
    /// Text in a file.
    Text(String),
    /// From a variable or a flag: numbers and switches are text there.
    Bare(String),
    /// A whole number.
    Integer(i64),
    /// true or false.
    Switch(bool),
    /// Several texts.
    Texts(Vec<String>),
    /// Something else; the word for it.
    Other(&'static str),
}

/// A value that is as its kind wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// For the typed sections: times in milliseconds, sizes in bytes.
    pub value: ValueKind,
    /// As text that could stand in a variable.
    pub text: String,
}

impl Kind {
    /// Reads a value; in the error, what would be right.
    pub fn read(self, raw: &Raw) -> Result<Read, String> {
        self.try_read(raw).ok_or_else(|| format!("{}; expected {}", shown(self, raw), self.expected()))
    }

    fn try_read(self, raw: &Raw) -> Option<Read> {
        let text = match raw {
            Raw::Text(text) | Raw::Bare(text) => Some(text.trim()),
            _ => None,
        };
        match self {
            Self::Address => {
                let given = text?;
                let whole = given.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
                let address = SocketAddr::from_str(whole.as_deref().unwrap_or(given)).ok()?;
                Some(Read::text(address.to_string()))
            }
            Self::Target => target(text?).map(Read::text),
            Self::Host => text.filter(|host| is_host(host)).map(|host| Read::text(host.to_owned())),
            Self::Url => url(text?).map(Read::text),
            Self::Switch => {
                let on = match raw {
                    Raw::Switch(on) => *on,
                    Raw::Bare(word) => switch(word.trim())?,
                    _ => return None,
                };
                Some(Read { value: on.into(), text: on.to_string() })
            }
            Self::Text | Self::Path => Some(Read::text(text?.to_owned())),
            Self::Secret => text.filter(|secret| !secret.is_empty()).map(|secret| Read::text(secret.to_owned())),
            Self::Choice(words) => {
                let given = text?.to_ascii_lowercase();
                words.contains(&&*given).then(|| Read::text(given))
            }
            Self::Count(least, most) => Read::number(whole(raw)?, least, most, 1),
            Self::Seconds(least, most) => Read::number(duration(raw, 1000)?, least * 1000, most * 1000, 1),
            Self::Millis(least, most) => Read::number(duration(raw, 1)?, least, most, 1),
            Self::Bytes(least, most) => Read::number(bytes(raw)?, least, most, 1),
            Self::List => {
                let texts: Vec<String> = match raw {
                    Raw::Texts(texts) => texts.clone(),
                    Raw::Bare(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
                    _ => return None,
                };
                let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
                let text = texts.join(",");
                Some(Read { value: texts.into(), text })
            }
            Self::Subtree => None,
        }
    }

    /// What would be right.
    pub fn expected(self) -> String {
        match self {
            Self::Address => "an IP address and a port, such as \"127.0.0.1:8080\"".to_owned(),
            Self::Target => "a host and a port, such as \"127.0.0.1:50051\"".to_owned(),
            Self::Host => "an IP address or a host name, such as \"10.0.0.5\"".to_owned(),
            Self::Url => "a URL without a path, such as \"https://127.0.0.1:9000\"".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Text | Self::Path => "text in quotes".to_owned(),
            Self::Secret => "text that is not empty".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::Seconds(least, most) => {
                format!("seconds from {least} to {most}, or a time such as \"90s\" or \"5m\"")
            }
            Self::Millis(least, most) => {
                format!("milliseconds from {least} to {most}, or a time such as \"500ms\" or \"5s\"")
            }
            Self::Bytes(least, most) => format!("bytes from {least} to {most}, or a size such as \"64MiB\""),
            Self::List => "a list of texts, such as [\"a\", \"b\"]".to_owned(),
            Self::Subtree => "a section".to_owned(),
        }
    }

    /// The word for it in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Address | Self::Target => "ADDR",
            Self::Host => "HOST",
            Self::Url => "URL",
            Self::Switch => "true|false",
            Self::Path => "PATH",
            Self::Count(..) => "NUMBER",
            Self::Seconds(..) => "SECONDS",
            Self::Millis(..) => "MILLISECONDS",
            Self::Bytes(..) => "BYTES",
            _ => "TEXT",
        }
    }
}

impl Read {
    fn text(text: String) -> Self {
        Self { value: text.clone().into(), text }
    }

    fn number(number: u64, least: u64, most: u64, per: u64) -> Option<Self> {
        let value = i64::try_from(number).ok()?;
        (least..=most).contains(&number).then(|| Self { value: value.into(), text: (number / per).to_string() })
    }
}

/// A time as it is written in settings; a bare number is in seconds.
pub fn time(text: &str) -> Option<Duration> {
    duration(&Raw::Bare(text.to_owned()), 1000).map(Duration::from_millis)
}

/// A size as it is written in settings; a bare number is in bytes.
pub fn size(text: &str) -> Option<u64> {
    bytes(&Raw::Bare(text.to_owned()))
}

/// `is "x"` for an error message.
fn shown(kind: Kind, raw: &Raw) -> String {
    let given = match raw {
        _ if kind == Kind::Secret => return "is not right".to_owned(),
        Raw::Text(text) => format!("{text:?}"),
        Raw::Bare(text) => format!("{text:?}"),
        Raw::Integer(number) => number.to_string(),
        Raw::Switch(on) => on.to_string(),
        Raw::Texts(texts) => format!("{texts:?}"),
        Raw::Other(word) => (*word).to_owned(),
    };
    format!("is {given}")
}

fn switch(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.len() <= 253 && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

fn is_host(host: &str) -> bool {
    is_name(host) || IpAddr::from_str(host).is_ok()
}

fn target(text: &str) -> Option<String> {
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':')?;
    let named = is_name(host);
    let bracketed = || SocketAddr::from_str(bare).is_ok();
    let port: u16 = port.parse().ok()?;
    (port != 0 && (named || bracketed())).then(|| bare.to_owned())
}

fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.trim_end_matches('/').split_once("://")?;
    let fits = matches!(scheme, "http" | "https") && !rest.is_empty();
    let host = fits && !rest.contains(|c: char| "/?#@".contains(c) || c.is_whitespace());
    host.then(|| format!("{scheme}://{rest}"))
}

fn whole(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Bare(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    }
}

/// Number and unit of `90s`.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

/// Milliseconds; a bare number counts `bare` of them.
fn duration(raw: &Raw, bare: u64) -> Option<u64> {
    let (number, unit) = match raw {
        Raw::Integer(number) => (u64::try_from(*number).ok()?, ""),
        Raw::Text(text) if text.trim().ends_with(|c: char| c.is_ascii_alphabetic()) => with_unit(text)?,
        Raw::Bare(text) => with_unit(text)?,
        _ => return None,
    };
    let millis = match unit {
        "" => bare,
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis)
}

fn bytes(raw: &Raw) -> Option<u64> {
    let (number, unit) = match raw {
        Raw::Integer(number) => (u64::try_from(*number).ok()?, ""),
        Raw::Text(text) if text.trim().ends_with(|c: char| c.is_ascii_alphabetic()) => with_unit(text)?,
        Raw::Bare(text) => with_unit(text)?,
        _ => return None,
    };
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}
