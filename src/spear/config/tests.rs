//! Layers, their order and origins; what is refused, and what is said about it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod mutations;
mod table;

use super::*;
use secrecy::ExposeSecret;
use std::{fs, time::Duration};

/// A home directory and a working directory with files.
struct Place {
    dir: tempfile::TempDir,
    inputs: Inputs,
}

impl Place {
    fn new(roles: Roles) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let environment = BTreeMap::from([("HOME".to_owned(), dir.path().into())]);
        Self { inputs: Inputs { roles, environment, file: None, flags: Vec::new() }, dir }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.inputs.environment.insert(name.to_owned(), value.into());
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn home(self, dir: &str, text: &str) -> Self {
        self.write(&format!("{dir}/config.toml"), text);
        self
    }

    fn file(mut self, text: &str) -> Self {
        self.inputs.file = Some(self.write("given.toml", text));
        self
    }

    fn flag(mut self, name: &'static str, value: &str) -> Self {
        self.inputs.flags.push(Given { name, value: value.to_owned() });
        self
    }

    fn load(&self) -> Resolved {
        load(&self.inputs).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// What is wrong, with the directory of the test left out.
    fn refused(&self) -> String {
        let text = load(&self.inputs).unwrap_err().to_string();
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn origin(resolved: &Resolved, name: &str) -> String {
    resolved.effective.iter().find(|setting| setting.name == name).unwrap().origin.to_string()
}

fn sms(resolved: &Resolved) -> &SmsSettings {
    resolved.sms.as_ref().unwrap()
}

fn spearlet(resolved: &Resolved) -> &SpearletSettings {
    resolved.spearlet.as_ref().unwrap()
}

/// The two files of the seed's README.
const SEED_SMS: &str = include_str!("../tests/seed/sms.toml");
const SEED_SPEARLET: &str = include_str!("../tests/seed/spearlet.toml");

#[test]
fn without_anything_the_defaults_are_those_of_the_parts() {
    let resolved = Place::new(Roles::ALL).load();
    let (registry, agent) = (sms(&resolved), spearlet(&resolved));
    assert_eq!(format!("{:?}", registry.config), format!("{:?}", sms::Config::default()));
    assert_eq!(format!("{:?}", agent.config), format!("{:?}", ::spearlet::Config::default()));
    let addresses = [registry.grpc.addr, registry.http.addr, agent.grpc.addr, agent.http.addr];
    let shown = addresses.map(|addr| addr.to_string());
    assert_eq!(shown, ["127.0.0.1:50051", "127.0.0.1:8080", "127.0.0.1:50052", "127.0.0.1:8082"]);
    assert_eq!((&*registry.data_dir, &*agent.data_dir), ("./data/sms".as_ref(), "./data/spearlet".as_ref()));
    assert_eq!((registry.engine, agent.sms_addr.as_deref(), agent.sms_addr_from_flag), (Engine::Redb, None, false));
    assert_eq!(resolved.shutdown.total, Duration::from_secs(20));
    assert!(matches!(resolved.auth.token, TokenSource::None) && !resolved.auth.insecure_no_auth);
    assert!(resolved.warnings.is_empty(), "{:?}", resolved.warnings);
    assert!(
        resolved.notices.iter().any(|notice| notice.contains("8082")),
        "the moved port is said: {:?}",
        resolved.notices
    );
}

#[test]
fn the_agent_alone_keeps_its_usual_port() {
    let resolved = Place::new(Roles::SPEARLET).load();
    assert_eq!(spearlet(&resolved).http.addr.to_string(), "127.0.0.1:8081");
    assert!(resolved.sms.is_none() && resolved.notices.is_empty());
}

#[test]
fn each_layer_goes_before_the_one_below_it_key_by_key() {
    let place = Place::new(Roles::SMS)
        .variable("SMS_HEARTBEAT_TIMEOUT", "100")
        .variable("SMS_CLEANUP_INTERVAL", "11")
        .home(".sms", "heartbeat_timeout = 101\ncleanup_interval = 12\n[http]\naddr = \"127.0.0.1:7001\"\n")
        .file("heartbeat_timeout = 102\n\n[http]\naddr = \"127.0.0.1:7002\"\n")
        .flag("heartbeat-timeout", "103");
    let resolved = place.load();
    let config = &sms(&resolved).config;
    assert_eq!(config.heartbeat_timeout, Duration::from_secs(103), "a flag goes before all");
    assert_eq!(config.cleanup_interval, Duration::from_secs(12), "the home file goes before the environment");
    assert_eq!(sms(&resolved).http.addr.port(), 7002, "the given file goes before the home file");
    assert_eq!(sms(&resolved).grpc.addr.port(), 50051, "what nobody sets keeps its default");
    assert_eq!(origin(&resolved, "heartbeat_timeout"), "flag --heartbeat-timeout");
    assert!(origin(&resolved, "cleanup_interval").ends_with("/.sms/config.toml:2"));
    assert!(origin(&resolved, "http.addr").ends_with("/given.toml:4"));
    assert_eq!(origin(&resolved, "grpc.addr"), "default");
    let setting = &sms(&resolved).http.setting;
    assert!(setting.contains("given.toml:4") && setting.contains("--http-addr"), "{setting}");
}

#[test]
fn a_variable_that_a_file_hides_is_named_in_a_warning_and_one_that_counts_is_not() {
    let place = Place::new(Roles::SMS)
        .variable("SMS_HTTP_ADDR", "127.0.0.1:7001")
        .variable("SMS_GRPC_ADDR", "127.0.0.1:7003")
        .home(".sms", "[http]\naddr = \"127.0.0.1:7002\"\n");
    let resolved = place.load();
    assert_eq!((sms(&resolved).http.addr.port(), sms(&resolved).grpc.addr.port()), (7002, 7003));
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert!(warning.contains("SMS_HTTP_ADDR") && warning.contains("config.toml:2"), "{warning}");
    assert_eq!(origin(&resolved, "grpc.addr"), "environment variable SMS_GRPC_ADDR");
}

#[test]
fn home_files_are_those_of_the_roles_and_of_the_homes_named_by_variables() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join(".sms")).unwrap();
    fs::write(elsewhere.path().join(".sms/config.toml"), "sync_wait = 5\n").unwrap();
    let place = Place::new(Roles::SMS)
        .home(".sms", "sync_wait = 4\n")
        .home(".spear", "not toml at all")
        .variable("SMS_HOME", elsewhere.path().to_str().unwrap());
    assert_eq!(sms(&place.load()).config.sync_wait, Duration::from_secs(5));
    let agent = Place { inputs: Inputs { roles: Roles::SPEARLET, ..place.inputs.clone() }, ..place };
    assert!(agent.refused().starts_with(".spear/config.toml:1: not valid TOML"), "{}", agent.refused());
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    for (text, line, told) in [
        ("[http]\nadr = \"127.0.0.1:1\"\n", 2, "unknown key http.adr; did you mean http.addr?"),
        ("\nheartbeat-timeout = 5\n", 2, "unknown key heartbeat-timeout; did you mean heartbeat_timeout?"),
        ("[grpc]\nenable_swagger = true\n", 2, "unknown key grpc.enable_swagger; did you mean http.enable_swagger?"),
        ("[spearlet]\nnode_nam = \"a\"\n", 2, "unknown key spearlet.node_nam; did you mean spearlet.node_name?"),
        ("[databse]\npath = \"x\"\n", 1, "unknown section databse; did you mean [database]?"),
        (
            "[spearlet.stroage]\ndata_dir = \"x\"\n",
            1,
            "unknown section spearlet.stroage; did you mean [spearlet.storage]?",
        ),
        ("zzzzzzzzzzzzzzz = 1\n", 1, "unknown key zzzzzzzzzzzzzzz; `spear config example` lists all keys"),
        ("http = 5\n", 1, "http is a section, not a setting: write [http]"),
        ("[heartbeat_timeout]\nx = 1\n", 1, "heartbeat_timeout is a setting, not a section"),
        ("a = \n", 1, "not valid TOML"),
        ("enable_swagger = true\n[http]\nenable_swagger = false\n", 3, "http.enable_swagger is set twice"),
    ] {
        let refused = Place::new(Roles::ALL).file(text).refused();
        assert!(refused.starts_with(&format!("given.toml:{line}: {told}")), "{text}\n{refused}");
    }
}

#[test]
fn a_bad_value_is_refused_with_its_place_its_key_and_what_would_be_right() {
    for (text, told) in [
        ("[http]\naddr = \"8080\"\n", "given.toml:2: http.addr is \"8080\"; expected an IP address and a port"),
        ("heartbeat_timeout = \"soon\"\n", "given.toml:1: heartbeat_timeout is \"soon\"; expected seconds from 1"),
        ("heartbeat_timeout = 0\n", "given.toml:1: heartbeat_timeout is 0; expected seconds from 1"),
        ("heartbeat_timeout = -5\n", "given.toml:1: heartbeat_timeout is -5"),
        ("heartbeat_timeout = 1.5\n", "given.toml:1: heartbeat_timeout is a number with a fraction"),
        ("enable_swagger = \"true\"\n", "given.toml:1: enable_swagger is \"true\"; expected true or false"),
        ("[database]\ndb_type = \"postgre\"\n", "expected one of redb, memory, sled, rocksdb"),
        ("[spearlet.artifacts]\nallow_hosts = [1]\n", "expected a list of texts"),
        ("[spearlet]\nsms_grpc_addr = \"nowhere\"\n", "expected a host and a port"),
        ("max_upload_bytes = \"64 elephants\"\n", "expected bytes from 1"),
    ] {
        let refused = Place::new(Roles::ALL).file(text).refused();
        assert!(refused.contains(told) && refused.lines().count() == 1, "{text}\n{refused}");
    }
    let refused = Place::new(Roles::SMS).variable("SMS_HTTP_ADDR", "x").refused();
    assert!(refused.starts_with("environment variable SMS_HTTP_ADDR: http.addr is \"x\""), "{refused}");
    let refused = Place::new(Roles::SMS).flag("http-addr", "x").refused();
    assert!(refused.starts_with("flag --http-addr: http.addr is \"x\""), "{refused}");
    let refused = Place::new(Roles::SMS).file("a = 1\nb = 2\n").variable("SMS_GRPC_ADDR", "y").refused();
    assert_eq!(refused.lines().count(), 3, "everything that is wrong is told at once: {refused}");
}

#[test]
fn a_given_file_that_is_missing_is_an_error_and_a_missing_home_file_is_none() {
    let mut place = Place::new(Roles::SMS);
    place.load();
    place.inputs.file = Some(place.dir.path().join("absent.toml"));
    assert!(place.refused().starts_with("absent.toml: cannot read the configuration"), "{}", place.refused());
}

#[test]
fn the_seeds_file_of_the_registry_starts_unchanged_with_one_warning() {
    let resolved = Place::new(Roles::SMS).file(SEED_SMS).load();
    let registry = sms(&resolved);
    assert_eq!((registry.engine, &*registry.data_dir), (Engine::Redb, "./data/sms.db".as_ref()));
    let log =
        Log { level: LogLevel::Debug, format: LogFormat::Json, file: Some("./logs/sms.log".into()), ..Log::usual() };
    assert_eq!(resolved.log, log);
    assert!(registry.config.enable_swagger);
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert!(warning.contains("sled means redb here: the store is ./data/sms.db"), "{warning}");
}

#[test]
fn the_seeds_file_of_the_agent_starts_unchanged_and_says_what_it_does_not_do() {
    let resolved = Place::new(Roles::SPEARLET).file(SEED_SPEARLET).load();
    let agent = spearlet(&resolved);
    assert_eq!((&*agent.grpc.addr.to_string(), &*agent.http.addr.to_string()), ("0.0.0.0:50052", "0.0.0.0:8081"));
    assert_eq!((agent.sms_addr.as_deref(), agent.sms_addr_from_flag), (Some("127.0.0.1:50051"), false));
    assert_eq!((&*agent.config.node_name, agent.config.connect_or_fail), ("spearlet-node", false));
    assert_eq!(agent.config.artifacts.max_cache_bytes, 512 << 20);
    assert_eq!(agent.config.objects.backend, ::spearlet::objects::Backend::Memory);
    assert_eq!((resolved.log.level, resolved.log.format), (LogLevel::Debug, LogFormat::Pretty));
    let [cors, compression] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert!(cors.contains("cors_enabled") && compression.contains("compression_enabled"), "{:?}", resolved.warnings);
}

#[test]
fn both_seed_files_together_start_role_all() {
    let place = Place::new(Roles::ALL).home(".sms", SEED_SMS).home(".spear", SEED_SPEARLET);
    let resolved = place.load();
    assert_eq!((sms(&resolved).http.addr.port(), spearlet(&resolved).http.addr.port()), (8080, 8081));
    assert_eq!(spearlet(&resolved).sms_addr, None, "the registry is in this process");
    assert_eq!(resolved.log.file.as_deref(), Some("./logs/sms.log".as_ref()));
    assert!(
        resolved.notices.iter().any(|notice| notice.contains("sms_grpc_addr is not used")),
        "{:?}",
        resolved.notices
    );
    assert!(resolved.notices.iter().any(|notice| notice.contains("[spearlet.logging]")), "{:?}", resolved.notices);
}

#[test]
fn tls_that_is_wanted_is_refused_and_what_changes_nothing_is_said() {
    let refused = Place::new(Roles::SMS).file("[http]\nenable_tls = true\n").refused();
    assert!(refused.starts_with("given.toml:2: http.enable_tls = true: TLS is not supported yet"), "{refused}");
    let resolved = Place::new(Roles::SMS).file("[database]\npool_size = 20\n").flag("enable-web-admin", "true").load();
    assert_eq!(resolved.warnings.len(), 2, "{:?}", resolved.warnings);
    let later =
        Place::new(Roles::SPEARLET).file("[spearlet.llm]\ndefault_policy = \"x\"\n[[spearlet.llm.backends]]\n").load();
    assert!(later.warnings.iter().any(|warning| warning.contains("spearlet.llm")), "{:?}", later.warnings);
}

#[test]
fn a_flag_means_the_part_that_runs_alone_and_the_registry_where_both_do() {
    let place = Place::new(Roles::SPEARLET)
        .flag("grpc-addr", "127.0.0.1:1")
        .flag("http-addr", "127.0.0.1:2")
        .flag("log-level", "warn")
        .flag("disable-swagger", "true");
    let resolved = place.load();
    let agent = spearlet(&resolved);
    assert_eq!((agent.grpc.addr.port(), agent.http.addr.port()), (1, 2));
    assert_eq!((resolved.log.level, agent.config.swagger_enabled), (LogLevel::Warn, false));
    let place = Place::new(Roles::ALL)
        .flag("http-addr", "127.0.0.1:2")
        .flag("spearlet-http-addr", "127.0.0.1:3")
        .flag("disable-swagger", "true");
    let resolved = place.load();
    assert_eq!((sms(&resolved).http.addr.port(), spearlet(&resolved).http.addr.port()), (2, 3));
    assert_eq!((sms(&resolved).config.enable_swagger, spearlet(&resolved).config.swagger_enabled), (false, true));
}

#[test]
fn a_registrys_address_given_by_flag_must_answer_and_is_refused_where_the_registry_is_here() {
    let given = |roles| Place::new(roles).flag("sms-addr", "registry.example:50051");
    let resolved = given(Roles::SPEARLET).load();
    let agent = spearlet(&resolved);
    assert!(agent.sms_addr_from_flag && agent.config.connect_or_fail);
    assert_eq!(agent.config.sms_address, "registry.example:50051");
    let refused = given(Roles::ALL).refused();
    assert!(refused.contains("--sms-addr") && refused.contains("the registry is in this process"), "{refused}");
    assert!(given(Roles::SMS).refused().contains("belongs to --role spearlet"));
    let refused = Place::new(Roles::SPEARLET).flag("db-path", "x").refused();
    assert_eq!(refused, "flag --db-path: belongs to role sms, and this is role spearlet");
    let both = Place::new(Roles::SMS).flag("enable-swagger", "true").flag("disable-swagger", "true").refused();
    assert!(both.contains("says the opposite"), "{both}");
}

#[test]
fn two_listeners_on_one_address_and_one_directory_for_two_parts_are_refused_by_name() {
    let refused = Place::new(Roles::ALL).file("[spearlet.grpc]\naddr = \"127.0.0.1:8080\"\n").refused();
    assert_eq!(
        refused,
        "given.toml:2: spearlet.grpc.addr is 127.0.0.1:8080, and so is http.addr (default): each needs its own"
    );
    let free = Place::new(Roles::ALL).flag("grpc-addr", "127.0.0.1:0").flag("http-addr", "127.0.0.1:0");
    free.load();
    let refused = Place::new(Roles::ALL).flag("db-path", "d").flag("storage-path", "d").refused();
    assert!(refused.contains("database.path are both d"), "{refused}");
}

#[test]
fn times_and_sizes_are_read_with_units_and_paths_from_the_home_directory() {
    let place = Place::new(Roles::ALL)
        .file("heartbeat_timeout = \"2m\"\nmax_upload_bytes = \"1GiB\"\n[database]\npath = \"~/spear\"\n")
        .variable("SPEARLET_SMS_CONNECT_RETRY_MS", "2s")
        .variable("SPEARLET_RUNTIME_MAX_MEMORY", "64MiB")
        .variable("SPEARLET_ARTIFACTS_ALLOW_HOSTS", "a.example, b.example:9000")
        .flag("http-addr", "localhost:7000");
    let resolved = place.load();
    assert_eq!(sms(&resolved).config.heartbeat_timeout, Duration::from_secs(120));
    assert_eq!(sms(&resolved).config.max_upload_bytes, 1 << 30);
    assert_eq!(sms(&resolved).data_dir, place.dir.path().join("spear"));
    assert_eq!(sms(&resolved).http.addr.to_string(), "127.0.0.1:7000");
    let agent = &spearlet(&resolved).config;
    assert_eq!((agent.sms_connect_retry, agent.limits.memory_bytes), (Duration::from_secs(2), 64 << 20));
    assert_eq!(agent.artifacts.allow_hosts, ["a.example", "b.example:9000"]);
}

#[test]
fn a_token_comes_from_a_file_before_a_variable_and_is_never_shown() {
    let variable = Place::new(Roles::SMS).variable("SPEAR_TOKEN", "correct-horse-battery");
    let resolved = variable.load();
    let TokenSource::Text(text) = &resolved.auth.token else { panic!("{:?}", resolved.auth) };
    assert_eq!(text.expose_secret(), "correct-horse-battery");
    assert!(!format!("{resolved:?}").contains("horse"), "{resolved:?}");
    let resolved = variable.flag("token-file", "/run/token").load();
    assert!(matches!(&resolved.auth.token, TokenSource::File(path) if path == "/run/token"));
    assert_eq!(resolved.warnings.len(), 1, "{:?}", resolved.warnings);
    let both = Place::new(Roles::SMS).flag("token-file", "t").flag("insecure-no-auth", "true").refused();
    assert!(both.contains("choose one"), "{both}");
}

#[test]
fn an_s3_service_is_complete_or_refused() {
    let section = "[spearlet.minio]\nendpoint = \"http://127.0.0.1:9000\"\naccess_key = \"k\"\n";
    let refused = Place::new(Roles::SPEARLET).file(section).refused();
    assert!(refused.contains("given.toml:2: spearlet.minio.endpoint: http:// is not encrypted"), "{refused}");
    assert!(refused.contains("given.toml:3: spearlet.minio.access_key: secret_key is missing"), "{refused}");
    let whole = format!("{section}secret_key = \"s3cret\"\nallow_http = true\n");
    let resolved = Place::new(Roles::SPEARLET).file(&whole).load();
    let minio = spearlet(&resolved).config.artifacts.minio.as_ref().unwrap();
    assert_eq!(minio.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert!(spearlet(&resolved).config.artifacts.s3.is_none());
    assert!(!format!("{resolved:?}").contains("s3cret"));
    let aws = Place::new(Roles::SPEARLET).variable("AWS_REGION", "eu-central-1").load();
    assert_eq!(spearlet(&aws).config.artifacts.s3.as_ref().unwrap().region, "eu-central-1");
}

#[test]
fn a_variable_like_one_of_ours_is_pointed_out() {
    let resolved = Place::new(Roles::SMS).variable("SMS_HTP_ADDR", "x").variable("SMS_PORT_8080_TCP", "tcp://x").load();
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert!(warning.contains("SMS_HTP_ADDR") && warning.contains("did you mean SMS_HTTP_ADDR?"), "{warning}");
}

#[test]
fn the_log_of_an_agent_alone_listens_to_a_shared_file_too() {
    let resolved = Place::new(Roles::SPEARLET).file("[logging]\nlevel = \"error\"\nformat = \"compact\"\n").load();
    assert_eq!((resolved.log.level, resolved.log.format), (LogLevel::Error, LogFormat::Compact));
}

#[test]
fn the_table_of_settings_is_sound() {
    let mut names = Vec::new();
    let mut variables = Vec::new();
    let mut flags = Vec::new();
    for key in keys::all() {
        names.extend(key.names());
        variables.extend(key.variables);
        flags.extend(key.flag.into_iter().flat_map(|flag| [Some(flag.name), flag.alias, flag.off]).flatten());
        assert!(key.doc.ends_with('.') && !key.doc.contains('\n'), "{}", key.name);
        let alone = key.flag.and_then(|flag| flag.alone);
        let shared = |other: &&keys::Key| other.flag.is_some_and(|flag| Some(flag.name) == alone);
        assert!(
            alone.is_none() || keys::all().iter().any(|other| shared(&other)),
            "{}: --{alone:?} is no flag",
            key.name
        );
        assert_eq!(keys::find(key.name).unwrap().name, key.name);
    }
    for mut list in [names, variables.into_iter().copied().collect(), flags] {
        let all = list.len();
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), all, "every name is given once");
    }
}

#[test]
fn every_setting_that_works_reaches_the_typed_sections() {
    // The sections refuse unknown keys, so a key of the table that none of them has would fail here; those with a
    // default are also missed when the table lacks them.
    let mut text = String::new();
    for line in example().lines() {
        match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") && keyed(setting) => text.push_str(&filled(setting)),
            _ if line.starts_with('[') => text.push_str(line),
            _ => {}
        }
        text.push('\n');
    }
    let resolved = Place::new(Roles::ALL).file(&text).load();
    let from_file = resolved.effective.iter().filter(|setting| setting.origin != Origin::Default).count();
    let works = keys::all().iter().filter(|key| key.effect == keys::Effect::Works).count();
    assert_eq!(from_file, works, "every setting of the example is taken from it");
}

fn keyed(line: &str) -> bool {
    line.split(" = ")
        .next()
        .is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
}

/// The line of the example, with a value where it has none.
fn filled(line: &str) -> String {
    let (name, value) = line.split_once(" = ").unwrap();
    let value = match (name, value) {
        ("endpoint", _) => "\"https://s3.example\"",
        ("sms_grpc_addr" | "sms_http_addr", _) => "\"registry.example:1\"",
        (_, "\"\"") => "\"something-long-enough\"",
        (_, value) => value,
    };
    format!("{name} = {value}")
}

#[test]
fn the_example_with_every_comment_taken_away_says_what_the_defaults_say() {
    let text: String = example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") && keyed(setting) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (plain, given) = (Place::new(Roles::ALL).load(), Place::new(Roles::ALL).file(&text).load());
    let of =
        |resolved: &Resolved, name: &str| resolved.effective.iter().find(|one| one.name == name).unwrap().value.clone();
    for setting in &plain.effective {
        // In role all this default moves, unless somebody sets it.
        if setting.name != "spearlet.http.server.addr" {
            assert_eq!(
                of(&given, setting.name).unwrap_or_default(),
                setting.value.clone().unwrap_or_default(),
                "{}",
                setting.name
            );
        }
    }
}

#[test]
fn the_committed_example_is_the_one_that_the_program_makes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config.example.toml");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        committed,
        example(),
        "make config.example.toml anew: cargo run -- config example > config.example.toml"
    );
}
