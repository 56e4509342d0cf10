//! The page about the house and the house agree: paths, imports, sizes.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines of a file without its tests.
const MOST_LINES: usize = 500;
/// Lines between the braces of a function.
const MOST_FUNCTION_LINES: usize = 80;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The cells of the tables of a section of the page, up to the next heading.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let lines = section.lines().take_while(|line| !line.starts_with('#'));
    let rows = lines.filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let rows: Vec<Vec<String>> =
        rows.skip(1).map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect();
    assert!(!rows.is_empty(), "no table under {heading}");
    rows
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

struct Crate {
    /// Normal and build dependencies.
    uses: BTreeSet<String>,
}

fn crates() -> BTreeMap<String, Crate> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let one = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let used = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let uses = used.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        (package["name"].as_str().unwrap().to_owned(), Crate { uses })
    };
    packages.iter().map(one).collect()
}

#[test]
fn every_path_on_the_page_exists() {
    for row in table("## Where is it") {
        let [what, paths] = &row[..] else { panic!("two cells: {row:?}") };
        let paths = quoted(paths);
        assert!(!paths.is_empty(), "{what} has no path");
        for path in paths {
            assert!(root().join(&path).exists(), "{what}: {path} does not exist");
        }
    }
}

#[test]
fn every_crate_is_on_the_page_and_imports_what_its_row_allows() {
    let crates = crates();
    let rows = table("## Crates");
    let listed: BTreeSet<String> = rows.iter().map(|row| quoted(&row[0]).remove(0)).collect();
    assert_eq!(listed, crates.keys().cloned().collect(), "the page lists the crates that there are");
    for row in &rows {
        let [name, sentence, may_use, _] = &row[..] else { panic!("four cells: {row:?}") };
        let name = quoted(name).remove(0);
        assert!(sentence.len() > 20, "{name} needs a sentence");
        let allowed: BTreeSet<String> = match may_use.as_str() {
            "all" => listed.clone(),
            _ => quoted(may_use).into_iter().collect(),
        };
        assert!(allowed.is_subset(&listed), "{name} may use a crate that is not there: {allowed:?}");
        let used: BTreeSet<String> = crates[&name].uses.intersection(&listed).cloned().collect();
        let beyond: Vec<&String> = used.difference(&allowed).collect();
        assert!(beyond.is_empty(), "{name} uses {beyond:?}, and its row does not say so");
        let idle: Vec<&String> = allowed.difference(&used).filter(|_| may_use != "all").collect();
        assert!(idle.is_empty(), "{name} may use {idle:?} and does not: the row is too wide");
    }
    for row in table("### To come") {
        let name = quoted(&row[0]).remove(0);
        assert!(!listed.contains(&name), "{name} has come: move its row");
    }
}

#[test]
fn the_imports_that_must_never_be_are_not() {
    let crates = crates();
    let never: [(&str, &[&str]); 4] = [
        ("sms", &["spearlet", "runtime", "wasm", "trigger"]),
        ("spearlet", &["sms", "wasm"]),
        ("types", &["tokio", "axum", "reqwest"]),
        ("api", &["sms", "spearlet", "store"]),
    ];
    for (name, others) in never {
        for other in others {
            assert!(!crates[name].uses.contains(*other), "{name} uses {other}");
        }
    }
    for (name, one) in &crates {
        assert!(!one.uses.contains("spear"), "{name} uses spear");
    }
}

#[test]
fn what_a_crate_owns_is_used_by_it_and_named_by_nobody_else() {
    let crates = crates();
    let mut owned = 0;
    for row in table("## Crates") {
        let owner = quoted(&row[0]).remove(0);
        for thing in quoted(&row[3]) {
            owned += 1;
            for (name, one) in &crates {
                assert_eq!(one.uses.contains(&thing), *name == owner, "{thing} is {owner}'s; {name}");
            }
        }
    }
    assert!(owned > 20, "the column is read: {owned}");
}

#[test]
fn files_and_functions_are_of_a_size_that_can_be_read() {
    let mut sources = Vec::new();
    collect(&root().join("src"), &mut sources);
    assert!(sources.len() > 100, "{} files", sources.len());
    let tests = test_modules(&sources);
    let mut wrong = Vec::new();
    for path in sources.iter().filter(|path| !is_test(path, &tests)) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let lines = code.lines().count();
        if lines > MOST_LINES {
            wrong.push(format!("{shown}: {lines} lines of at most {MOST_LINES}"));
        }
        for (name, line, lines) in functions(&plain(code)) {
            if lines > MOST_FUNCTION_LINES {
                wrong.push(format!("{shown}:{line}: fn {name} has {lines} lines of at most {MOST_FUNCTION_LINES}"));
            }
        }
    }
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

#[test]
fn the_count_of_a_functions_lines_is_right() {
    let text = "impl A {\n    /// fn not_me() {\n    fn a<'x>(b: &'x str, c: [u8; 2]) -> char {\n        let s = \"}}\";\n        let r = r#\"fn x() {\"#; // }\n        '{'\n    }\n    fn declared(&self);\n}\nfn outer() { fn inner() {\n    }\n}\n";
    let found = functions(&plain(text));
    assert_eq!(found, [("a".to_owned(), 3, 3), ("outer".to_owned(), 10, 1), ("inner".to_owned(), 10, 0)]);
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

/// What `#[cfg(test)] mod name;` declares, as paths without ending.
fn test_modules(sources: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for path in sources {
        let (dir, stem) = (path.parent().unwrap(), path.file_stem().unwrap());
        let dir = if ["lib", "mod", "main"].iter().any(|name| stem == *name) { dir.to_owned() } else { dir.join(stem) };
        let text = fs::read_to_string(path).unwrap();
        for rest in text.split("#[cfg(test)]").skip(1) {
            let words: Vec<&str> = rest.split_whitespace().take(3).collect();
            let name = match words[..] {
                ["mod", name, ..] => name,
                [_, "mod", name] => name,
                _ => continue,
            };
            if let Some(name) = name.strip_suffix(';') {
                all.insert(dir.join(name));
            }
        }
    }
    all
}

fn is_test(path: &Path, tests: &BTreeSet<PathBuf>) -> bool {
    let integration = path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches");
    let declared = |path: &Path| tests.contains(&path.with_extension("")) || tests.contains(path);
    // Suites that other crates run against their own are tests, too.
    let suite = path.file_stem().is_some_and(|stem| stem == "conformance");
    integration || suite || path.ancestors().any(declared)
}

/// The text with comments, strings and characters blanked; lines stay where they are.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let blank = |out: &mut String, part: &str| out.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    while let Some(first) = rest.chars().next() {
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let hashes = rest.strip_prefix('r').map(|after| after.len() - after.trim_start_matches('#').len());
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let (Some(hashes), false) = (hashes.filter(|n| rest[1 + n..].starts_with('"')), word_before) {
            let end = format!("\"{}", "#".repeat(hashes));
            rest[2 + hashes..].find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len())
        } else if first == '"' {
            string_end(rest)
        } else if first == '\'' {
            character_end(rest)
        } else {
            0
        };
        match taken {
            0 => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
            taken => {
                blank(&mut out, &rest[..taken]);
                rest = &rest[taken..];
            }
        }
    }
    out
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The end of a character; 0 for a lifetime.
fn character_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[2..].find('\'').map_or(0, |at| {
            // `'\''` ends one further.
            if text[2..].starts_with('\'') { 4 } else { at + 3 }
        }),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Name, first line and number of lines between the braces of every function.
fn functions(plain: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, _) in plain.match_indices("fn ") {
        if plain[..at].ends_with(word) {
            continue;
        }
        let name: String = plain[at + 3..].chars().take_while(|c| word(*c)).collect();
        if name.is_empty() {
            continue;
        }
        let mut depth = 0i32;
        let open = plain[at..].char_indices().find(|(_, c)| {
            depth += i32::from(matches!(c, '(' | '[')) - i32::from(matches!(c, ')' | ']'));
            depth == 0 && matches!(c, '{' | ';')
        });
        let Some((offset, '{')) = open else { continue };
        let mut braces = 0i32;
        let close = plain[at + offset..].char_indices().find(|(_, c)| {
            braces += i32::from(*c == '{') - i32::from(*c == '}');
            braces == 0
        });
        let end = close.map_or(plain.len(), |(length, _)| at + offset + length);
        let lines = plain[at + offset..end].matches('\n').count().saturating_sub(1);
        found.push((name, 1 + plain[..at].matches('\n').count(), lines));
    }
    found
}
