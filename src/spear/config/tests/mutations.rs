//! More than a hundred ways to spoil a good file: each is refused with its line, its key and what would be right.

use super::*;

/// A line of a file that sets something.
struct Line<'a> {
    number: usize,
    section: &'a str,
    key: &'a str,
    value: &'a str,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut section = "";
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            found.push(Line { number: index + 1, section, key, value });
        }
    }
    found
}

/// The text with another line in the place of one.
fn with(text: &str, number: usize, line: &str) -> String {
    let swapped = text.lines().enumerate().map(|(index, old)| if index + 1 == number { line } else { old });
    swapped.collect::<Vec<_>>().join("\n") + "\n"
}

/// A spoilt file: its text, the line to be named, and words to be said.
struct Spoilt {
    text: String,
    line: usize,
    told: Vec<String>,
}

fn spoil(text: &str) -> Vec<Spoilt> {
    let mut all = Vec::new();
    for Line { number, section, key, value } in lines(text) {
        let full = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let mut add = |line: String, at: usize, told: &[&str]| {
            let told = told.iter().map(|told| (*told).to_owned()).collect();
            all.push(Spoilt { text: with(text, number, &line), line: at, told });
        };
        // Slips of the pen: a letter left out, two letters swapped, a dash for an underscore, capitals.
        let (front, back) = key.split_at(key.len() / 2);
        let dropped = format!("{front}{}", &back[1..]);
        let right = format!("did you mean {full}?");
        if keys::find(&full.replace(key, &dropped)).is_none() && key.len() > 3 {
            add(format!("{dropped} = {value}"), number, &["unknown key", &right]);
        }
        if key.contains('_') {
            let dashed = key.replace('_', "-");
            add(format!("{dashed} = {value}"), number, &["unknown key", &dashed, &right]);
        }
        add(format!("{} = {value}", key.to_uppercase()), number, &["unknown key", &right]);
        // Something else than is wanted.
        add(format!("{key} = [[1]]"), number, &[&full, "expected"]);
        add(format!("{key} = 2020-01-01"), number, &[&full, "expected"]);
        add(format!("{key} = {{ a = 1 }}"), number, &[&full, "expected"]);
        add(format!("{key} = -1"), number, &[&full, "expected"]);
        // No TOML.
        add(format!("{key} ="), number, &["not valid TOML"]);
        add(format!("{key} {value}"), number, &["not valid TOML"]);
        add(format!("{key} = \"{key}"), number, &["not valid TOML"]);
        add(format!("{key} = {value}\n{key} = {value}"), number + 1, &["not valid TOML", "duplicate key"]);
    }
    for (index, line) in text.lines().enumerate() {
        let Some(name) = line.strip_prefix('[').map(|name| name.trim_end_matches(']')) else { continue };
        let spoilt = format!("[{}x]", name);
        let told = vec![format!("unknown section {name}x"), "did you mean [".to_owned()];
        all.push(Spoilt { text: with(text, index + 1, &spoilt), line: index + 1, told });
        let told = vec!["not valid TOML".to_owned()];
        all.push(Spoilt { text: with(text, index + 1, &format!("[{name}")), line: index + 1, told });
    }
    all
}

#[test]
fn every_spoilt_file_is_refused_with_its_line_its_key_and_what_would_be_right() {
    let mut tried = 0;
    for (roles, text) in [(Roles::SMS, SEED_SMS), (Roles::SPEARLET, SEED_SPEARLET)] {
        Place::new(roles).file(text).load();
        for Spoilt { text, line, told } in spoil(text) {
            let refused = Place::new(roles).file(&text).refused();
            let place = format!("given.toml:{line}: ");
            let first = refused.lines().find(|problem| problem.starts_with(&place));
            let first = first.unwrap_or_else(|| panic!("{place}not named:\n{refused}\nin\n{text}"));
            for word in told {
                assert!(first.contains(&word), "{word:?} is not said: {first}\nin\n{text}");
            }
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn values_out_of_range_name_the_range() {
    for key in keys::all().iter().filter(|key| matches!(key.effect, keys::Effect::Works)) {
        let (keys::Kind::Count(least, most)
        | keys::Kind::Seconds(least, most)
        | keys::Kind::Millis(least, most)
        | keys::Kind::Bytes(least, most)) = key.kind
        else {
            continue;
        };
        let too_small = least.checked_sub(1).map(|value| value.to_string());
        let too_large = [(most + 1).to_string(), i64::MAX.to_string(), "99999999999999999999".to_owned()];
        for value in too_small.into_iter().chain(too_large) {
            let text = match key.section() {
                "" => format!("{} = {value}\n", key.name),
                section => format!("[{section}]\n{} = {value}\n", key.own_name()),
            };
            let refused = Place::new(Roles::ALL).file(&text).refused();
            let range = format!("from {least} to {most}");
            assert!(refused.contains(key.name) && refused.contains(&range), "{text}{refused}");
        }
    }
}

#[test]
fn files_that_are_none_are_refused_and_not_read_for_ever() {
    let place = Place::new(Roles::SMS);
    let given = |make: &dyn Fn(&std::path::Path)| {
        let path = place.dir.path().join("given.toml");
        make(&path);
        let inputs = Inputs { file: Some(path), ..place.inputs.clone() };
        load(&inputs).unwrap_err().to_string().replace(&format!("{}/", place.dir.path().display()), "")
    };
    let refused = given(&|path| fs::write(path, b"# fine\n[http]\naddr = \"\xff\xfe\"\n").unwrap());
    assert_eq!(refused, "given.toml:3: not valid UTF-8: save the file in that encoding");
    let refused = given(&|path| fs::write(path, vec![b'#'; (1 << 20) + 1]).unwrap());
    assert!(refused.contains("more than 1048576 bytes"), "{refused}");
    let refused = given(&|path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    assert!(refused.starts_with("given.toml: cannot read the configuration: Is a directory"), "{refused}");
    let refused = given(&|path| {
        fs::remove_dir(path).unwrap();
        std::os::unix::fs::symlink("given.toml", path).unwrap();
    });
    assert!(refused.starts_with("given.toml: cannot read the configuration"), "{refused}");
    let endless = Inputs { file: Some("/dev/zero".into()), ..place.inputs.clone() };
    assert!(load(&endless).unwrap_err().to_string().contains("more than 1048576 bytes"));
}

#[test]
fn what_editors_add_to_a_file_does_no_harm() {
    let place = Place::new(Roles::SMS).file("\u{feff}heartbeat_timeout = 5\r\n[http]\r\naddr = \"127.0.0.1:7\"\r\n");
    let resolved = place.load();
    assert_eq!((sms(&resolved).config.heartbeat_timeout, sms(&resolved).http.addr.port()), (Duration::from_secs(5), 7));
    Place::new(Roles::SMS).file("").load();
    Place::new(Roles::SMS).file("# nothing").load();
}
