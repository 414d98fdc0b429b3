use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use super::read::{from_dot_env, of_ours};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn none() -> Settings {
    Settings::from_pairs::<String, String>([]).expect("the defaults are valid")
}

fn refused(name: &str, value: &str) -> String {
    let e = Settings::from_pairs([(name, value)]).expect_err("a bad value was let in");
    e.to_string()
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let s = none();
    assert_eq!(s.bind, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(s.data_dir, Path::new("./lastpong-data"));
    assert!(
        matches!(s.database(), Database::Sqlite(path) if path == Path::new("./lastpong-data/lastpong.db"))
    );
    assert_eq!((s.ping_interval, s.pong_timeout), (Duration::from_secs(25), Duration::from_secs(10)));
    assert_eq!((s.max_missed_pongs, s.max_reconnects, s.flap_count), (2, 3, 15));
    assert_eq!(s.event_retention, Duration::from_secs(7 * 86_400));
    assert_eq!((s.max_frame_bytes, s.max_message_bytes, s.max_output_bytes), (65_536, 262_144, 65_536));
    assert_eq!((s.log_format, s.token_replay), (LogFormat::Text, TokenReplay::Allow));
    assert_eq!(s.log_lines_per_sec, 50);
    assert!(s.workers >= 1 && !s.node_id.as_str().is_empty());
    assert!(s.allowed_origins.is_empty() && s.token_secret.is_none() && s.admin_token.is_none());
    assert!(!s.adaptive_ping && !s.suspect_events && !s.metrics_public);
    assert!(s.without_effect().is_empty());
}

#[test]
fn each_default_and_each_bound_is_one_that_its_field_can_hold() {
    for setting in TABLE {
        assert!(setting.default.is_empty() || setting.kind.allows(setting.default), "{}", setting.name);
        let highest = match setting.kind {
            Kind::Duration(_, max) => units::show_duration(max),
            Kind::Bytes(_, max) => units::show_bytes(max),
            Kind::Count(_, max) => max.to_string(),
            _ => continue,
        };
        match Settings::from_pairs([(setting.name, &*highest), ("LASTPONG_MAX_MESSAGE_BYTES", "64MiB")]) {
            Ok(_) => {}
            Err(e) => assert_eq!(setting.name, "LASTPONG_RESUME_WINDOW", "{e}"),
        }
    }
}

#[test]
fn every_setting_is_read_from_its_own_variable() {
    let s = Settings::from_pairs([
        ("LASTPONG_BIND", "[::1]:0"),
        ("LASTPONG_DATA_DIR", "/tmp/x"),
        ("LASTPONG_NODE_ID", "n1"),
        ("LASTPONG_WORKERS", "3"),
        ("LASTPONG_LOG_FORMAT", "json"),
        ("LASTPONG_PING_INTERVAL", "200ms"),
        ("LASTPONG_COMMIT_DELAY", "5ms"),
        ("LASTPONG_MAX_OUTPUT_BYTES", "1MiB"),
        ("LASTPONG_METRICS_PUBLIC", "true"),
        ("LASTPONG_TOKEN_REPLAY", "once"),
        ("LASTPONG_TOKEN_SECRET", SECRET),
        ("LASTPONG_ALLOWED_ORIGINS", "https://a.example/, http://b.example:3000"),
        ("DATABASE_URL", "sqlite:///var/lib/x.db"),
        ("RUST_LOG", "debug"),
        ("HOME", "/root"),
    ])
    .unwrap();
    assert_eq!((s.bind.port(), s.workers, s.node_id.as_str()), (0, 3, "n1"));
    assert_eq!((s.log_format, s.token_replay), (LogFormat::Json, TokenReplay::Once));
    assert_eq!((s.ping_interval, s.commit_delay), (Duration::from_millis(200), Duration::from_millis(5)));
    assert_eq!((s.max_output_bytes, s.metrics_public, &*s.rust_log), (1 << 20, true, "debug"));
    assert_eq!(s.token_secret.as_ref().unwrap().expose(), SECRET);
    assert_eq!(s.allowed_origins, ["https://a.example", "http://b.example:3000"]);
    assert!(matches!(s.database(), Database::Sqlite(path) if path == Path::new("/var/lib/x.db")));
    assert_eq!(s.data_dir, Path::new("/tmp/x"));
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed_in_one_line() {
    assert_eq!(
        refused("LASTPONG_PING_INTERVAL", "10x"),
        r#"LASTPONG_PING_INTERVAL="10x": allowed is a duration of 50ms to 1h, as 500ms, 25s, 5m, 1h or 7d"#
    );
    assert_eq!(
        refused("LASTPONG_COMMIT_BATCH", "0"),
        r#"LASTPONG_COMMIT_BATCH="0": allowed is a whole number of 1 to 100000"#
    );
    for (name, value) in [
        ("LASTPONG_PING_INTERVAL", "49ms"),
        ("LASTPONG_PING_INTERVAL", ""),
        ("LASTPONG_BIND", "localhost:8080"),
        ("LASTPONG_NODE_ID", "a\nb"),
        ("LASTPONG_MAX_FRAME_BYTES", "64KB"),
        ("LASTPONG_METRICS_PUBLIC", "yes"),
        ("LASTPONG_WORKERS", "99999999999999999999"),
        ("RUST_LOG", "lastpong=loud"),
    ] {
        let line = refused(name, value);
        assert!(line.starts_with(&format!("{name}={value:?}: allowed is ")), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn a_refused_secret_is_not_shown() {
    for name in ["LASTPONG_TOKEN_SECRET", "LASTPONG_ADMIN_TOKEN"] {
        let line = refused(name, "hunter2");
        assert!(line.starts_with(&format!("{name}=\"***\": allowed is at least ")), "{line}");
    }
    let line = refused("DATABASE_URL", "mysql://me:hunter2@db/x");
    assert!(!line.contains("hunter2"), "{line}");
    let set =
        Settings::from_pairs([("LASTPONG_TOKEN_SECRET", SECRET), ("LASTPONG_ADMIN_TOKEN", SECRET)]).unwrap();
    assert!(!format!("{set:?}").contains(SECRET), "a secret is in the debug text");
}

#[test]
fn a_postgres_url_is_taken_and_not_shown() {
    for url in ["postgres://me:hunter2@db/x", "postgresql://me:hunter2@db:5432/x?connect_timeout=3"] {
        let set = Settings::from_pairs([("DATABASE_URL", url)]).unwrap();
        assert!(matches!(set.database(), Database::Postgres(secret) if secret.expose() == url));
        assert!(!format!("{set:?}").contains("hunter2"), "{set:?}");
    }
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    for (name, nearest) in [
        ("LASTPONG_PING_INTERVALL", "LASTPONG_PING_INTERVAL"),
        ("LASTPONG_DATADIR", "LASTPONG_DATA_DIR"),
        ("lastpong_bind", "LASTPONG_BIND"),
        ("LASTPONG_REDIS_URL", "REDIS_URL"),
        ("LASTPONG_ORIGINS", "LASTPONG_ALLOWED_ORIGINS"),
        ("LASTPONG_PONG_TIMOUT", "LASTPONG_PONG_TIMEOUT"),
    ] {
        let line = refused(name, "7 apples");
        let told = format!(r#"{name}="7 apples": no such setting, the nearest is {nearest};"#);
        assert!(line.contains(&told), "{line}");
    }
    for name in ["LASTPONG_TOKEN_SECRT", "LASTPONG_ADMIN_TOKN", "LASTPONG_ADMINTOKEN", "LASTPONG_PASSWORD"] {
        let line = refused(name, "7 apples");
        assert!(line.contains(r#"="***": no such setting"#) && !line.contains("apples"), "{line}");
    }
    assert!(refused("LASTPONG_WEBHOOK_TIMEOUT", "5s").contains("webhooks are not supported by this version"));
}

#[test]
fn what_is_not_built_yet_stops_the_start() {
    for (name, value) in [
        ("DATABASE_URL", "mysql://db/lastpong"),
        ("DATABASE_URL", "postgres://"),
        ("DATABASE_URL", "host=db dbname=lastpong"),
        ("DATABASE_URL", ":memory:"),
        ("DATABASE_URL", "sqlite::memory:"),
        ("DATABASE_URL", "sqlite:x.db?mode=memory"),
        ("DATABASE_URL", "file:x.db"),
        ("DATABASE_URL", "mysql://a\rb"),
        ("LASTPONG_RESUME_WINDOW", "1s"),
    ] {
        let line = refused(name, value);
        assert!(line.starts_with(name) && line.contains("is not supported by this version"), "{line}");
        assert!(!line.contains(char::is_control), "{line:?} is more than a line");
    }
}

#[test]
fn what_is_without_effect_is_told_once_it_is_changed() {
    let s = Settings::from_pairs([
        ("LASTPONG_SUSPECT_EVENTS", "true"),
        ("LASTPONG_FLAP_COUNT", "15"),
        ("LASTPONG_NODE_LEASE", "20s"),
        ("LASTPONG_FLAP_BAN", "1h"),
        ("LASTPONG_PING_INTERVAL", "1s"),
    ])
    .unwrap();
    assert_eq!(s.without_effect(), ["LASTPONG_SUSPECT_EVENTS"]);
}

#[test]
fn settings_must_fit_each_other() {
    let line = refused("LASTPONG_MAX_MESSAGE_BYTES", "1KiB");
    assert!(line.starts_with(r#"LASTPONG_MAX_FRAME_BYTES="64KiB": allowed is at most"#), "{line}");
}

#[test]
fn only_this_machine_is_served_without_secrets_of_ones_own() {
    for bind in ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080", "[::ffff:192.0.2.1]:8080"] {
        let line = refused("LASTPONG_BIND", bind);
        assert!(line.contains("LASTPONG_ADMIN_TOKEN and LASTPONG_TOKEN_SECRET is set"), "{line}");
        let half =
            Settings::from_pairs([("LASTPONG_BIND", bind), ("LASTPONG_ADMIN_TOKEN", SECRET)]).unwrap_err();
        assert!(half.to_string().contains("once LASTPONG_TOKEN_SECRET is set"), "{half}");
        let whole =
            [("LASTPONG_BIND", bind), ("LASTPONG_ADMIN_TOKEN", SECRET), ("LASTPONG_TOKEN_SECRET", SECRET)];
        assert!(!Settings::from_pairs(whole).unwrap().is_local());
    }
    for bind in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(Settings::from_pairs([("LASTPONG_BIND", bind)]).unwrap().is_local(), "{bind}");
    }
}

#[test]
fn a_page_of_another_site_is_let_in_only_by_the_list() {
    let s = none();
    let host = Some("Pong.example");
    assert!(s.origin_allowed(None, host));
    for origin in ["https://pong.example", "http://pong.example:80", "https://PONG.example:443"] {
        assert!(s.origin_allowed(Some(origin), host), "{origin}");
    }
    let foreign = [
        "https://evil.example",
        "null",
        "",
        "http://",
        "https://pong.example:8443",
        "http://pong.example:443",
    ];
    for origin in foreign.into_iter().chain([
        "https://pong.example.evil.example",
        "pong.example",
        "file://pong.example",
    ]) {
        assert!(!s.origin_allowed(Some(origin), host), "{origin}");
    }
    assert!(s.origin_allowed(Some("http://127.0.0.1:8080"), Some("127.0.0.1:8080")));
    assert!(!s.origin_allowed(Some("https://pong.example"), None));

    let listed = Settings::from_pairs([("LASTPONG_ALLOWED_ORIGINS", "https://ui.example")]).unwrap();
    assert!(listed.origin_allowed(Some("https://ui.example"), host));
    assert!(!listed.origin_allowed(Some("http://ui.example"), host));
    assert!(!listed.origin_allowed(Some("https://pong.example"), host));
    let any = Settings::from_pairs([("LASTPONG_ALLOWED_ORIGINS", "*")]).unwrap();
    assert!(any.origin_allowed(Some("null"), host));
}

#[test]
fn a_dot_env_file_is_read_and_a_broken_one_named_without_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    assert!(from_dot_env(&path).unwrap().is_empty());

    std::fs::write(&path, "# a comment\nLASTPONG_WORKERS=2\nexport LASTPONG_NODE_ID='n 1'\nOTHER=x\n")
        .unwrap();
    let given = from_dot_env(&path).unwrap();
    assert_eq!(given["LASTPONG_WORKERS"], ("2".to_owned(), Source::DotEnv));
    assert_eq!(given["LASTPONG_NODE_ID"].0, "n 1");
    assert_eq!(given.len(), 2);

    std::fs::write(&path, "LASTPONG_WORKERS=2\nLASTPONG_ADMIN TOKEN=hunter2\n").unwrap();
    assert_eq!(from_dot_env(&path).unwrap_err().to_string(), ".env: line 2 is not NAME=value");
}

#[test]
fn what_is_not_text_is_refused_only_where_it_is_ours() {
    let bytes = || OsString::from_vec(vec![0xff, 0xfe]);
    assert_eq!(of_ours("OTHER".into(), bytes()), Ok(None));
    let e = of_ours("LASTPONG_NODE_ID".into(), bytes()).unwrap_err();
    assert!(e.to_string().starts_with("LASTPONG_NODE_ID="), "{e}");
}

#[test]
fn the_list_says_where_each_value_is_from_and_no_secret() {
    let s = Settings::from_pairs([("LASTPONG_ADMIN_TOKEN", SECRET), ("LASTPONG_WORKERS", "2")]).unwrap();
    let of = |name: &str| s.effective().iter().find(|e| e.setting.name == name).unwrap();
    assert_eq!(s.effective().len(), TABLE.len());
    assert_eq!(
        (&*of("LASTPONG_ADMIN_TOKEN").shown, of("LASTPONG_ADMIN_TOKEN").source),
        ("***", Source::Environment)
    );
    assert_eq!((&*of("LASTPONG_WORKERS").shown, of("LASTPONG_WORKERS").source), ("2", Source::Environment));
    assert_eq!(
        (&*of("LASTPONG_BIND").shown, of("LASTPONG_BIND").source),
        ("127.0.0.1:8080", Source::Default)
    );
    assert_eq!(
        (&*of("LASTPONG_TOKEN_SECRET").shown, of("LASTPONG_TOKEN_SECRET").source),
        ("", Source::Default)
    );
    assert_eq!(of("DATABASE_URL").shown, "sqlite:./lastpong-data/lastpong.db");
}

#[test]
fn the_example_file_lists_every_setting_and_is_itself_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, env_example(), "make it anew: cargo run -- check-config --example > .env.example");
    let given = from_dot_env(&path).unwrap();
    for setting in TABLE {
        assert_eq!(given[setting.name].0, setting.default, "{}", setting.name);
    }
    let read = Settings::build(given).unwrap();
    assert!(read.without_effect().is_empty());
    for (a, b) in read.effective().iter().zip(none().effective()) {
        assert_eq!(a.shown, b.shown, "{}", a.setting.name);
    }
}
