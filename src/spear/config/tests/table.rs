//! Every variable and every flag of the table reaches its setting, and the setting reaches a part of the process.

use super::{
    keys::{Effect, Key, Kind, Side},
    *,
};

/// A value of the right form that is not the default.
fn other(key: &Key) -> String {
    let number = |least: u64, usual: u64| least.max(usual).to_string();
    match key.kind {
        Kind::Address => "127.0.0.1:7".to_owned(),
        Kind::Target => "registry.example:7".to_owned(),
        Kind::Host => "10.1.2.3".to_owned(),
        Kind::Url => "https://s3.example".to_owned(),
        Kind::Switch => (key.default != Some("true")).to_string(),
        Kind::Text => "another".to_owned(),
        Kind::Secret => "0123456789-0123456789".to_owned(),
        Kind::Path => "another/place".to_owned(),
        Kind::Choice(words) => (*words.iter().find(|word| Some(**word) != key.default).unwrap()).to_owned(),
        Kind::Count(least, _) => number(least, 3),
        // Within what other settings allow for all of them.
        Kind::Seconds(least, _) => number(least, 50),
        Kind::Millis(least, _) => number(least, 51),
        Kind::Bytes(least, _) => number(least, 70_000),
        Kind::List => "a.example".to_owned(),
        Kind::Subtree => unreachable!("a section is no single value"),
    }
}

fn role(key: &Key) -> Roles {
    if key.side == Side::Agent { Roles::SPEARLET } else { Roles::SMS }
}

/// A place in which the setting may have that value.
fn place(key: &Key, roles: Roles) -> Place {
    let place = Place::new(roles);
    match key.section() {
        "spearlet.s3" | "spearlet.minio" => {
            let whole =
                ["endpoint = \"https://o.example\"", "access_key = \"k\"", "secret_key = \"0123456789-0123456789-0\""];
            let lines: Vec<_> = whole.into_iter().filter(|line| !line.starts_with(key.own_name())).collect();
            place.home(".spear", &format!("[{}]\n{}\n", key.section(), lines.join("\n")))
        }
        // Without a collector there is nothing to be said about one.
        "otel" if key.own_name() != "endpoint" => place.home(".sms", "[otel]\nendpoint = \"http://c.example\"\n"),
        _ => place,
    }
}

/// What the parts are given, without what is only shown.
fn given(resolved: &Resolved) -> String {
    let Resolved { sms, spearlet, auth, log, shutdown, watching, .. } = resolved;
    format!("{sms:?} {spearlet:?} {auth:?} {log:?} {shutdown:?} {watching:?}")
}

/// Has a setting reached what it is for?
fn reached(place: &Place, key: &Key, wanted: &str, by: &str) {
    let resolved = place.load();
    let effective = resolved.effective.iter().find(|setting| setting.name == key.name).unwrap();
    assert_eq!(effective.origin.to_string(), by, "{}", key.name);
    let expected = match key.kind {
        Kind::Secret => "(redacted)".to_owned(),
        Kind::Seconds(..) => format!("{wanted}s"),
        Kind::Millis(..) => format!("{wanted}ms"),
        _ => wanted.to_owned(),
    };
    assert_eq!(effective.value.as_deref(), Some(&*expected), "{}", key.name);
    // A redacted secret looks the same whatever it is.
    if key.effect == Effect::Works && key.kind != Kind::Secret {
        let without = self::place(key, place.inputs.roles);
        // An S3 service is whole or none.
        let without = match (key.section(), key.own_name()) {
            ("spearlet.s3" | "spearlet.minio", "endpoint") => {
                without.variable(key.variables[0], "https://base.example")
            }
            ("spearlet.s3" | "spearlet.minio", "access_key") => without.variable(key.variables[0], "base"),
            _ => without,
        };
        assert_ne!(given(&resolved), given(&without.load()), "{} = {wanted} changes nothing", key.name);
    }
}

fn accepted(key: &Key) -> bool {
    !matches!(key.effect, Effect::Refused(_))
}

#[test]
fn every_variable_reaches_its_setting() {
    let mut variables = 0;
    for key in keys::all().iter().filter(|key| accepted(key)) {
        for variable in key.variables {
            variables += 1;
            let (value, by) = (other(key), format!("environment variable {variable}"));
            reached(&place(key, role(key)).variable(variable, &value), key, &value, &by);
        }
        if let [first, second, ..] = key.variables {
            let value = other(key);
            let both = place(key, role(key)).variable(first, &value).variable(second, key.default.unwrap_or(&value));
            reached(&both, key, &value, &format!("environment variable {first}"));
        }
    }
    assert!(variables > 90, "{variables}");
}

#[test]
fn every_flag_reaches_its_setting_in_every_role_that_has_it() {
    let mut flags = 0;
    for key in keys::all().iter().filter(|key| accepted(key)) {
        let Some(flag) = key.flag else { continue };
        let mut names = vec![(flag.name, role(key))];
        // Where both parts run, the agent's flags have their long names, and it has no registry elsewhere.
        if !key.name.starts_with("spearlet.sms_") || key.kind != Kind::Target {
            names.push((flag.name, Roles::ALL));
        }
        names.extend(flag.alone.map(|alone| (alone, Roles::SPEARLET)));
        for (name, roles) in names {
            flags += 1;
            let value = other(key);
            let place = place(key, roles).flag(name, &value);
            match key.name {
                // Used by the agent alone only.
                "spearlet.logging.level"
                | "spearlet.logging.format"
                | "spearlet.logging.file"
                | "spearlet.logging.rotation"
                | "spearlet.logging.keep"
                    if roles == Roles::ALL =>
                {
                    drop(place.load())
                }
                _ => reached(&place, key, &value, &format!("flag --{name}")),
            }
        }
        if let Some(off) = flag.off {
            let opposite = Place::new(role(key)).flag(off, "true").load();
            let value = opposite.effective.iter().find(|setting| setting.name == key.name).unwrap();
            assert_eq!((value.value.as_deref(), origin(&opposite, key.name)), (Some("false"), format!("flag --{off}")));
        }
    }
    assert!(flags > 50, "{flags}");
}

#[test]
fn the_variables_and_flags_that_the_original_documents_are_in_the_table() {
    let registry = "SMS_GRPC_ADDR SMS_HTTP_ADDR SMS_ENABLE_SWAGGER SMS_DB_TYPE SMS_DB_PATH SMS_DB_POOL_SIZE SMS_LOG_LEVEL \
        SMS_LOG_FORMAT SMS_LOG_FILE SMS_ENABLE_WEB_ADMIN SMS_WEB_ADMIN_ADDR SMS_HEARTBEAT_TIMEOUT SMS_CLEANUP_INTERVAL \
        SMS_ENABLE_CONSOLE SMS_MAX_UPLOAD_BYTES SMS_FILES_DIR SMS_EXECUTION_LOGS_DIR SMS_EXECUTION_LOG_MAX_BYTES \
        SMS_EVENTS_KV_BACKEND SMS_EVENTS_KV_PATH SMS_MCP_DIR SMS_WEB_ADMIN_TOKEN KV_STORE_BACKEND KV_STORE_PATH \
        SPEAR_KV_BACKEND";
    let agent = "SPEARLET_NODE_NAME SPEARLET_SMS_GRPC_ADDR SPEARLET_AUTO_REGISTER SPEARLET_HEARTBEAT_INTERVAL \
        SPEARLET_CLEANUP_INTERVAL SPEARLET_SMS_HTTP_ADDR SPEARLET_GRPC_ADDR SPEARLET_HTTP_ADDR SPEARLET_STORAGE_BACKEND \
        SPEARLET_STORAGE_DATA_DIR SPEARLET_STORAGE_MAX_CACHE_MB SPEARLET_STORAGE_COMPRESSION_ENABLED \
        SPEARLET_STORAGE_MAX_OBJECT_SIZE SPEARLET_LOG_LEVEL SPEARLET_LOG_FORMAT SPEARLET_LOG_FILE \
        SPEARLET_SMS_CONNECT_TIMEOUT_MS SPEARLET_SMS_CONNECT_RETRY_MS SPEARLET_RECONNECT_TOTAL_TIMEOUT_MS \
        SPEARLET_GRPC_ENABLE_TLS SPEARLET_GRPC_TLS_CERT_PATH SPEARLET_GRPC_TLS_KEY_PATH SPEARLET_HTTP_CORS_ENABLED \
        SPEARLET_HTTP_SWAGGER_ENABLED SPEARLET_LOCAL_MODELS_DIR SPEARLET_ADVERTISE_IP POD_IP";
    for variable in registry.split_whitespace().chain(agent.split_whitespace()) {
        assert!(keys::all().iter().any(|key| key.variables.contains(&variable)), "{variable}");
    }
    let flags = "grpc-addr http-addr enable-web-admin disable-web-admin web-admin-addr heartbeat-timeout cleanup-interval \
        enable-swagger disable-swagger log-level log-format log-file enable-console disable-console db-type db-path \
        db-pool-size max-upload-bytes files-dir execution-logs-dir mcp-dir node-name sms-grpc-addr sms-addr sms-http-addr \
        storage-backend storage-path auto-register sms-connect-timeout-ms sms-connect-retry-ms \
        reconnect-total-timeout-ms local-models-dir";
    for name in flags.split_whitespace() {
        let has = |flag: keys::Flag| [Some(flag.name), flag.alias, flag.off, flag.alone].contains(&Some(name));
        assert!(keys::all().iter().filter_map(|key| key.flag).any(has), "--{name}");
    }
    let homes = Place::new(Roles::ALL).variable("SMS_HOME", "/nowhere").variable("SPEAR_HOME", "/nowhere").load();
    assert!(homes.warnings.is_empty(), "{:?}", homes.warnings);
}

#[test]
fn the_kv_stores_other_variables_are_none_of_ours() {
    let place = Place::new(Roles::SMS).variable("KV_STORE_CACHE_SIZE", "5000").variable("KV_STORE_DEBUG", "true");
    assert!(place.load().warnings.is_empty());
    let below = Place::new(Roles::SMS).variable("KV_STORE_BACKEND", "memory").variable("SMS_DB_TYPE", "redb").load();
    assert_eq!(sms(&below).engine, Engine::Redb, "the registry's own variable goes before it");
    let path = Place::new(Roles::SMS).variable("KV_STORE_PATH", "kv").variable("KV_STORE_BACKEND", "rocksdb").load();
    assert_eq!((sms(&path).engine, &*sms(&path).data_dir), (Engine::Redb, "kv".as_ref()));
}

#[test]
fn the_schema_knows_every_setting_and_the_seeds_files_fit_it() {
    let schema = schema();
    for key in keys::all() {
        for name in key.names() {
            let mut at = &schema;
            for part in name.split('.') {
                at = &at["properties"][part];
            }
            assert!(at["description"].is_string() || key.kind == Kind::Subtree, "{name}: {at}");
        }
    }
    for (text, whose) in [(SEED_SMS, "sms"), (SEED_SPEARLET, "spearlet")] {
        let file: toml::Table = text.parse().unwrap();
        fits(&serde_json::to_value(file).unwrap(), &schema, whose);
    }
    let wrong =
        std::panic::catch_unwind(|| fits(&serde_json::json!({"heartbeat_timeout": true}), &super::schema(), ""));
    assert!(wrong.is_err(), "the check of this test can fail");
}

/// The part of JSON Schema that is used here.
fn fits(value: &serde_json::Value, schema: &serde_json::Value, at: &str) {
    use serde_json::Value;
    if let Some(any) = schema["anyOf"].as_array() {
        let one = |schema: &Value| std::panic::catch_unwind(|| fits(value, schema, at)).is_ok();
        return assert!(any.iter().any(one), "{at}: {value} is none of {any:?}");
    }
    match (schema["type"].as_str().unwrap(), value) {
        ("object", Value::Object(members)) => {
            for (name, value) in members {
                let inside = &schema["properties"][name];
                assert!(!inside.is_null(), "{at}.{name} is not known");
                fits(value, inside, &format!("{at}.{name}"));
            }
        }
        ("boolean", Value::Bool(_)) | ("array", Value::Array(_)) => {}
        ("integer", Value::Number(number)) => {
            let number = number.as_u64().unwrap();
            assert!(
                (schema["minimum"].as_u64().unwrap()..=schema["maximum"].as_u64().unwrap()).contains(&number),
                "{at}"
            );
        }
        ("string", Value::String(_)) => {
            let words = schema["enum"].as_array();
            assert!(words.is_none_or(|words| words.contains(value)), "{at}: {value}");
        }
        (wanted, found) => panic!("{at}: {found} is no {wanted}"),
    }
}
