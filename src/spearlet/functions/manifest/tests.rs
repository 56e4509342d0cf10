#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

use super::{
    fuzzing::{Node, short, task},
    *,
};
use proptest::prelude::*;
use types::ErrorKind;

/// How many cases, unless a variable says otherwise.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("SPEAR_TEST_CASES").map_or(usual, |text| text.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn granting(grants: &str) -> Task {
    task([("grants".to_owned(), grants.to_owned())])
}

/// A node in a directory that goes with it.
struct Bench {
    node: Node,
    dir: tempfile::TempDir,
}

impl std::ops::Deref for Bench {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(dir.path()).unwrap();
        Self { node, dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    /// What is wrong with these grants; it is one short line about them.
    fn refused(&self, grants: &str) -> String {
        let fault = Manifest::of(&self.config, &granting(grants)).expect_err(grants);
        assert_eq!((fault.kind, fault.errors.len()), (ErrorKind::Invalid, 1), "{fault}");
        assert_eq!(fault.errors[0].field, "config.grants");
        short(&fault).unwrap();
        fault.errors[0].detail.clone()
    }

    fn directory(&self, path: &Path, mode: &str) -> String {
        serde_json::json!({"fs": [{"host": path, "guest": "/data", "mode": mode}]}).to_string()
    }
}

#[test]
fn nothing_is_granted_that_is_not_asked_for() {
    let node = Bench::new();
    let manifest = Manifest::of(&node.config, &task([])).unwrap();
    assert!(manifest.spec.grants.is_empty() && manifest.spec.env.is_empty() && manifest.outbound.is_empty());
    let manifest = Manifest::of(&node.config, &granting("{}")).unwrap();
    assert!(manifest.spec.grants.is_empty() && manifest.spec.env.is_empty() && manifest.outbound.is_empty());
}

#[test]
fn directories_are_granted_below_those_of_the_policy_only() {
    let node = Bench::new();
    let granted = |path: &str, mode: &str| {
        let manifest = Manifest::of(&node.config, &granting(&node.directory(&node.path(path), mode))).unwrap();
        manifest.spec.grants.directories[0].clone()
    };
    assert_eq!(granted("read", "ro").host, node.path("read"));
    assert_eq!(granted("read/inner", "ro").host, node.path("read/inner"));
    assert_eq!(granted("read/inner/../inner", "ro").host, node.path("read/inner"));
    assert!(granted("write/inner", "rw").writable);
    assert!(!granted("write", "ro").writable);
    // A link leads to what may be read, so it may be read.
    assert_eq!(granted("write/over", "ro").host, node.path("read/inner"));
    for (path, mode) in [
        ("read", "rw"),
        ("read/inner", "rw"),
        ("write/over", "rw"),
        ("read/out", "ro"),
        ("read/out/inner", "ro"),
        ("read/../beside", "ro"),
        ("beside", "ro"),
        ("", "ro"),
        ("reader", "ro"),
    ] {
        let detail = node.refused(&node.directory(&node.path(path), mode));
        assert!(detail.contains("policy."), "{path} {mode}: {detail}");
    }
    assert!(node.refused(&node.directory(Path::new("read"), "ro")).contains("is not an absolute path"));
    let many: Vec<_> = (0..33).map(|_| serde_json::json!({"host": node.path("read"), "guest": "/d"})).collect();
    assert_eq!(node.refused(&serde_json::json!({"fs": many}).to_string()), "fs: 33 directories; at most 32");
}

/// Who may register tasks must not find out by them which files a node has.
#[test]
fn a_refusal_does_not_tell_what_is_there() {
    let node = Bench::new();
    let detail = |path: &str| {
        let shown = node.path(path).display().to_string();
        node.refused(&node.directory(&node.path(path), "ro")).replace(&shown, "PATH")
    };
    assert_eq!(detail("beside"), detail("nothing"));
    assert_eq!(detail("beside/inner"), detail("beside/nothing"));
    assert_eq!(detail("beside/key"), detail("beside/key/below"));
    assert_eq!(detail("read/../beside"), detail("read/../nothing"));
    assert_eq!(detail("read/out/inner"), detail("read/out/nothing"), "behind a link that leads out");
    assert!(detail("read/nothing").contains("not found"), "what lies below the policy's own is told");
}

#[test]
fn variables_secrets_hosts_and_scratch_are_those_of_the_policy() {
    let node = Bench::new();
    let grants = r#"{"env": ["TZ", "UNSET"], "secrets": {"KEY": "key"}, "outbound": ["api.example.com:443"],
                     "scratch": {"guest": "/tmp", "bytes": 1048576}}"#;
    let manifest = Manifest::of(&node.config, &granting(grants)).unwrap();
    let env = [("KEY".to_owned(), "s3cr3t".to_owned()), ("TZ".to_owned(), "UTC".to_owned())];
    assert_eq!(manifest.spec.env, env.into());
    assert_eq!(manifest.outbound, ["api.example.com:443"]);
    assert_eq!(manifest.spec.grants.scratch.unwrap().bytes, 1 << 20);
    for (grants, expected) in [
        (r#"{"env": ["HOME"]}"#, "env: HOME is not handed on by this node (policy.env)"),
        (r#"{"env": [""]}"#, "is not handed on"),
        (r#"{"secrets": {"A": "../beside/key"}}"#, "is not the name of a secret"),
        (r#"{"secrets": {"A": "/etc/passwd"}}"#, "is not the name of a secret"),
        (r#"{"secrets": {"A": ".."}}"#, "is not the name of a secret"),
        (r#"{"secrets": {"A": ""}}"#, "is not the name of a secret"),
        (r#"{"secrets": {"A": "key\u0000"}}"#, "is not the name of a secret"),
        (r#"{"secrets": {"A": "other"}}"#, "cannot be read on this node"),
        (r#"{"secrets": {"A": "large"}}"#, "is larger than 65536 bytes"),
        (r#"{"secrets": {"": "key"}}"#, "is not a variable's name"),
        (r#"{"secrets": {"A=B": "key"}}"#, "is not a variable's name"),
        (r#"{"secrets": {"A\u0000": "key"}}"#, "is not a variable's name"),
        (r#"{"outbound": ["*"]}"#, "outbound: * is not allowed by this node"),
        (r#"{"outbound": ["api.example.com"]}"#, "is not allowed by this node"),
        (r#"{"outbound": ["10.0.0.1:80"]}"#, "is not allowed by this node"),
        (r#"{"scratch": {"guest": "/tmp", "bytes": 1048577}}"#, "this node allows 1048576"),
        (r#"{"scratch": {"guest": "/tmp", "bytes": -1}}"#, "invalid value"),
        (r#"{"scratch": {"guest": "/tmp", "bytes": 18446744073709551616}}"#, "invalid"),
        (r#"{"sockets": true}"#, "unknown field `sockets`"),
        (r#"{"fs": [{"host": "/", "guest": "/", "mode": "rwx"}]}"#, "unknown variant `rwx`"),
        (r#"{"fs": [{"host": "/", "guest": "/", "follow": true}]}"#, "unknown field `follow`"),
        (r#"{"fs": {}}"#, "invalid type"),
        ("", "EOF"),
        ("null", "invalid type"),
        ("{} {}", "trailing"),
    ] {
        let detail = node.refused(grants);
        assert!(detail.contains(expected), "{grants}: {detail}");
    }
    // However much is asked for, no more is read than a function can be given.
    let many: BTreeMap<_, _> = (0..300).map(|index| (format!("KEY{index}"), "key")).collect();
    let detail = node.refused(&serde_json::json!({ "secrets": many }).to_string());
    assert_eq!(detail, "secrets: 300 of them; at most 64");
    let deep = "[".repeat(100_000);
    node.refused(&format!("{{\"fs\": {deep}"));
    let long = "x".repeat(1 << 20);
    node.refused(&serde_json::json!({ "env": [long] }).to_string());
    node.refused(&serde_json::json!({ "fs": [{"host": format!("/{long}"), "guest": "/"}] }).to_string());
    node.refused("{\"fs\": [{\"host\": \"/a\\u001b[31m\\n\", \"guest\": \"/\"}]}");
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i128>().prop_map(|number| number.to_string()),
        prop_oneof![Just("0"), Just("1"), Just("-1"), Just("true"), Just("auto"), Just(""), Just(" 7 "), Just("1e3")]
            .prop_map(str::to_owned),
        ".*".prop_map(|text: String| text),
    ]
}

fn keys() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "timeout_ms",
        "cpu_ms",
        "memory_bytes",
        "stdout_bytes",
        "stderr_bytes",
        "concurrency",
        "queue",
        "queue_wait_ms",
        "warm_min",
        "warm_max",
        "idle_ms",
        "max_uses",
        "reuse",
        "isolate",
        "compiler",
        "grants",
        "another",
    ])
    .prop_map(str::to_owned)
}

fn json(depth: u32) -> BoxedStrategy<serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        ".{0,20}".prop_map(serde_json::Value::from),
        proptest::sample::select(vec!["/tmp", "ro", "rw", "key", "TZ", "../key", "api.example.com:443", "*"])
            .prop_map(serde_json::Value::from),
    ];
    let names = vec!["fs", "scratch", "env", "secrets", "outbound", "host", "guest", "mode", "bytes", "entries", "A"];
    leaf.prop_recursive(depth, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            proptest::collection::btree_map(proptest::sample::select(names.clone()), inner, 0..6).prop_map(|map| {
                serde_json::Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
    .boxed()
}

thread_local! {
    /// Nothing changes it, so one does for all cases of a test.
    static BENCH: Bench = Bench::new();
}

fn judge_grants(grants: &serde_json::Value) -> Result<(), String> {
    BENCH.with(|bench| bench.judge([("grants".to_owned(), grants.to_string())]))
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Whatever stands in a task, it is refused in one short line or it stays within what the node allows.
    #[test]
    fn settings_stay_within_the_node(settings in proptest::collection::vec((keys(), words()), 0..8)) {
        BENCH.with(|bench| bench.judge(settings)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn grants_stay_within_the_policy(grants in json(4)) {
        judge_grants(&grants).map_err(TestCaseError::fail)?;
    }

    /// The same for grants of the right shape.
    #[test]
    fn grants_of_the_right_shape_stay_within_the_policy(
        directories in proptest::collection::vec(
            (proptest::sample::select(vec!["", "read", "read/inner", "read/out", "read/../beside", "write", "write/over", "beside", "nothing"]), any::<bool>()),
            0..4,
        ),
        bytes in any::<u64>(),
        names in proptest::collection::vec(proptest::sample::select(vec!["TZ", "UNSET", "HOME"]), 0..3),
        secrets in proptest::collection::vec(proptest::sample::select(vec!["key", "large", "../beside/key", "other"]), 0..2),
    ) {
        let fs: Vec<_> = directories
            .iter()
            .map(|(path, writable)| {
                let mode = if *writable { "rw" } else { "ro" };
                serde_json::json!({"host": BENCH.with(|bench| bench.path(path)), "guest": "/x", "mode": mode})
            })
            .collect();
        let secrets: BTreeMap<_, _> = secrets.into_iter().enumerate().map(|(index, name)| (format!("S{index}"), name)).collect();
        let grants = serde_json::json!({"fs": fs, "env": names, "secrets": secrets, "scratch": {"guest": "/t", "bytes": bytes}});
        judge_grants(&grants).map_err(TestCaseError::fail)?;
    }

    /// Whatever bytes are taken for settings.
    #[test]
    fn any_bytes_stay_within_the_node(
        noise in proptest::collection::vec(any::<u8>(), 0..100),
        settings in proptest::collection::vec((keys(), words()), 0..4),
    ) {
        let settings = settings.into_iter().map(|(key, value)| format!("\0{key}={value}"));
        let input = [noise, settings.collect::<String>().into_bytes()].concat();
        BENCH.with(|bench| bench.drive(&input)).map_err(TestCaseError::fail)?;
    }
}
