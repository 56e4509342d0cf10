#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;
use std::path::Path;
use types::{ErrorKind, ExecutableType, TaskId, TaskPriority, TaskStatus, Timestamp};

/// How many cases, unless a variable says otherwise.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("SPEAR_TEST_CASES").map_or(usual, |text| text.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn task(config: impl IntoIterator<Item = (String, String)>) -> Task {
    Task {
        id: TaskId::new(),
        name: "greet".into(),
        description: String::new(),
        status: TaskStatus::Active,
        priority: TaskPriority::Normal,
        node_uuid: None,
        endpoint: String::new(),
        version: String::new(),
        capabilities: Vec::new(),
        registered_at: Timestamp(0),
        last_heartbeat: Timestamp(0),
        metadata: BTreeMap::new(),
        config: config.into_iter().collect(),
        executable: Some(Executable {
            kind: ExecutableType::Wasm,
            uri: "https://example.com/greet.wasm".into(),
            name: String::new(),
            checksum_sha256: String::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
        }),
    }
}

fn granting(grants: &str) -> Task {
    task([("grants".to_owned(), grants.to_owned())])
}

/// A node with directories to grant: `read`, `write`, and beside them what nobody may have.
struct Node {
    dir: tempfile::TempDir,
    config: Config,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in ["read/inner", "write/inner", "beside/inner", "secrets"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::os::unix::fs::symlink("../beside", dir.path().join("read/out")).unwrap();
        std::os::unix::fs::symlink("../read/inner", dir.path().join("write/over")).unwrap();
        std::fs::write(dir.path().join("secrets/key"), "s3cr3t\n").unwrap();
        std::fs::write(dir.path().join("secrets/large"), vec![b'x'; MOST_SECRET as usize + 1]).unwrap();
        std::fs::write(dir.path().join("beside/key"), "not for functions").unwrap();
        let real = dir.path().canonicalize().unwrap();
        let policy = Policy {
            read: vec![real.join("read")],
            write: vec![real.join("write")],
            scratch_bytes: 1 << 20,
            env: [("TZ".to_owned(), Some("UTC".to_owned())), ("UNSET".to_owned(), None)].into(),
            secrets_dir: Some(real.join("secrets")),
            outbound: vec!["api.example.com:443".into(), "*.example.org".into()],
        };
        Self { dir, config: Config { policy, ..Config::default() } }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    /// What is wrong with these grants; it is one short line about them.
    fn refused(&self, grants: &str) -> String {
        let fault = Manifest::of(&self.config, &granting(grants)).expect_err(grants);
        assert_eq!((fault.kind, fault.errors.len()), (ErrorKind::Invalid, 1), "{fault}");
        assert_eq!(fault.errors[0].field, "config.grants");
        short(&fault);
        fault.errors[0].detail.clone()
    }

    fn directory(&self, path: &Path, mode: &str) -> String {
        serde_json::json!({"fs": [{"host": path, "guest": "/data", "mode": mode}]}).to_string()
    }
}

fn short(fault: &Fault) {
    let message = &fault.message;
    assert!(message.len() < 1000 && !message.chars().any(char::is_control), "{message:?}");
}

#[test]
fn nothing_is_granted_that_is_not_asked_for() {
    let node = Node::new();
    let manifest = Manifest::of(&node.config, &task([])).unwrap();
    assert!(manifest.spec.grants.is_empty() && manifest.spec.env.is_empty() && manifest.outbound.is_empty());
    let manifest = Manifest::of(&node.config, &granting("{}")).unwrap();
    assert!(manifest.spec.grants.is_empty() && manifest.spec.env.is_empty() && manifest.outbound.is_empty());
}

#[test]
fn directories_are_granted_below_those_of_the_policy_only() {
    let node = Node::new();
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
    let node = Node::new();
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
    let node = Node::new();
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

fn within(node: &Node, manifest: &Manifest) {
    let (config, limits, pool) = (&node.config, &manifest.spec.limits, &manifest.pool);
    assert!(limits.memory_bytes <= config.limits.memory_bytes && limits.cpu <= config.limits.cpu);
    assert!(limits.stdout_bytes <= config.limits.stdout_bytes && limits.stderr_bytes <= config.limits.stderr_bytes);
    assert!(limits.wall <= config.max_timeout && manifest.timeout <= config.max_timeout);
    assert_eq!((limits.stack_bytes, limits.artifact_bytes), (config.limits.stack_bytes, config.limits.artifact_bytes));
    assert!(pool.concurrency >= 1 && pool.concurrency <= config.functions.concurrency);
    assert!(pool.queue <= config.functions.queue && pool.queue_wait <= config.max_timeout && pool.uses >= 1);
    assert!(pool.warm_min <= pool.warm_max && pool.warm_max <= pool.concurrency);
    let policy = &config.policy;
    for directory in &manifest.spec.grants.directories {
        let below = |roots: &[PathBuf]| roots.iter().any(|root| directory.host.starts_with(root));
        assert!(below(&policy.write) || (!directory.writable && below(&policy.read)), "{directory:?}");
    }
    assert!(manifest.spec.grants.scratch.as_ref().is_none_or(|scratch| scratch.bytes <= policy.scratch_bytes));
    assert!(manifest.outbound.iter().all(|host| policy.outbound.contains(host)));
    let known = ["UTC", "s3cr3t"];
    assert!(manifest.spec.env.values().all(|value| known.contains(&value.as_str())), "{:?}", manifest.spec.env);
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Whatever stands in a task, it is refused in one short line or it stays within what the node allows.
    #[test]
    fn settings_stay_within_the_node(settings in proptest::collection::vec((keys(), words()), 0..8)) {
        let node = Node::new();
        match Manifest::of(&node.config, &task(settings)) {
            Ok(manifest) => within(&node, &manifest),
            Err(fault) => {
                prop_assert_eq!(fault.kind, ErrorKind::Invalid);
                prop_assert!(fault.errors[0].field.starts_with("config."), "{:?}", fault);
                short(&fault);
            }
        }
    }

    #[test]
    fn grants_stay_within_the_policy(grants in json(4)) {
        let node = Node::new();
        match Manifest::of(&node.config, &granting(&grants.to_string())) {
            Ok(manifest) => within(&node, &manifest),
            Err(fault) => short(&fault),
        }
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
        let node = Node::new();
        let fs: Vec<_> = directories
            .iter()
            .map(|(path, writable)| {
                let mode = if *writable { "rw" } else { "ro" };
                serde_json::json!({"host": node.path(path), "guest": "/x", "mode": mode})
            })
            .collect();
        let secrets: BTreeMap<_, _> = secrets.into_iter().enumerate().map(|(index, name)| (format!("S{index}"), name)).collect();
        let grants = serde_json::json!({"fs": fs, "env": names, "secrets": secrets, "scratch": {"guest": "/t", "bytes": bytes}});
        match Manifest::of(&node.config, &granting(&grants.to_string())) {
            Ok(manifest) => within(&node, &manifest),
            Err(fault) => short(&fault),
        }
    }
}
