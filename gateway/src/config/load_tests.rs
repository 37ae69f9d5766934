//! What each source says, and what is said about a wrong one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::{AdapterKind, Transport};
use super::*;

/// A directory of its own for each test, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roomcast-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(name: &str, text: &str) -> Self {
        let dir = Self::new();
        std::fs::write(dir.0.join(name), text).unwrap();
        dir
    }

    fn load(&self, env: &[(&str, &str)], flags: &[Override]) -> Result<Loaded, ConfigError> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(&Sources { file: None, working_dir: self.0.clone(), env, flags: flags.to_vec() })
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn from_file(toml: &str) -> Result<Config, ConfigError> {
    Dir::with("roomcast.toml", toml).load(&[], &[]).map(|loaded| loaded.config)
}

fn from_env(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Dir::new().load(env, &[]).map(|loaded| loaded.config)
}

#[test]
fn nothing_configured_is_loopback_only() {
    let loaded = Dir::new().load(&[], &[]).unwrap();
    let public = super::super::Public { listen: "127.0.0.1:3000".parse().unwrap(), ..Default::default() };
    assert_eq!(
        loaded,
        Loaded { config: Config { public, ..Config::default() }, file: None, notes: Vec::new() }
    );
    let configured = from_env(&[("ROOMCAST__PUBLIC__LISTEN", "0.0.0.0:80")]).unwrap();
    assert_eq!(configured.public.listen.to_string(), "0.0.0.0:80");
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(from_file("").unwrap(), Config::default());
    assert_eq!(Config::default().public.listen.to_string(), "0.0.0.0:3000");
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let dir = Dir::with(
        "roomcast.toml",
        "[public]\nlisten = '127.0.0.1:1'\npath = '/a/'\n[api]\nlisten='127.0.0.1:9'",
    );
    let env = [("ROOMCAST__PUBLIC__LISTEN", "127.0.0.1:2"), ("ROOMCAST__API__LISTEN", "127.0.0.1:3")];
    let flag = Override { flag: "--listen", key: "public.listen", value: "127.0.0.1:4".to_owned() };
    let loaded = dir.load(&env, &[flag]).unwrap();
    assert_eq!(loaded.file, Some(dir.0.join("roomcast.toml")));
    assert_eq!(loaded.config.public.listen.port(), 4);
    assert_eq!(loaded.config.api.listen.port(), 3);
    assert_eq!(loaded.config.public.path, "/a/");
}

#[test]
fn the_environment_has_lists_numbers_and_text() {
    let config = from_env(&[
        ("ROOMCAST__ENGINE__TRANSPORTS", "websocket"),
        ("ROOMCAST__ENGINE__PING_INTERVAL", "300"),
        ("ROOMCAST__ENGINE__MAX_PAYLOAD", "2MB"),
        ("ROOMCAST__ENGINE__HTTP_COMPRESSION__ENABLED", "false"),
        ("ROOMCAST__PUBLIC__ORIGINS", "https://a.example, https://b.example"),
        ("ROOMCAST__CORS__ORIGINS", "[\"*\"]"),
        ("ROOMCAST__API__KEYS", "1234567890123456"),
        ("ROOMCAST__ADAPTER__KIND", "redis"),
        ("ROOMCAST__ADAPTER__URL", "redis://127.0.0.1"),
        ("ROOMCAST__ADAPTER__PREFIX", "42"),
        ("ROOMCAST__LOG__LEVEL", ""),
        ("ROOMCAST_TEST_REDIS_URL", "ours, but no setting"),
    ])
    .unwrap();
    assert_eq!(config.engine.transports, [Transport::Websocket]);
    assert_eq!(config.engine.ping_interval, Duration::from_millis(300));
    assert_eq!(config.engine.max_payload, 2_000_000);
    assert!(!config.engine.http_compression.enabled);
    assert_eq!(config.public.origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.cors.origins, ["*"]);
    assert_eq!(config.api.keys[0].expose(), "1234567890123456");
    assert_eq!(config.adapter.kind, AdapterKind::Redis);
    assert_eq!(config.adapter.url.unwrap().expose(), "redis://127.0.0.1");
    assert_eq!(config.adapter.prefix, "42");
    assert_eq!(config.log.level, "info");
}

#[test]
fn wrong_settings_are_told_with_their_place() {
    let in_file = [
        (
            "\n[public]\nlistn = 1",
            "roomcast.toml:3: unknown key `public.listn`; did you mean `public.listen`?",
        ),
        ("[zebra]", "roomcast.toml:1: unknown key `zebra`"),
        (
            "[[namespace]]\nname='/'\n[[namespace.room]]\nmtch='*'",
            "roomcast.toml:4: unknown key `namespace.room.mtch`",
        ),
        ("[public]\nlisten = 'x'", "roomcast.toml:2: `public.listen`: invalid socket address syntax"),
        (
            "[engine]\nping_interval = 'soon'",
            "roomcast.toml:2: `engine.ping_interval`: invalid value: string \"soon\", expected a duration",
        ),
        (
            "[adapter]\nkind = 'kafka'",
            "roomcast.toml:2: `adapter.kind`: unknown variant `kafka`, expected one of",
        ),
        ("public = 3", "roomcast.toml:1: `public`: invalid type"),
        ("[public\n", "roomcast.toml:1: "),
    ];
    for (toml, expected) in in_file {
        let error = from_file(toml).unwrap_err().to_string();
        assert!(error.contains(expected), "{toml}: {error}");
    }
    let in_env = [
        (
            "ROOMCAST__PUBLIC__LISTN",
            "x",
            "environment variable ROOMCAST__PUBLIC__LISTN: unknown key `public.listn`; did",
        ),
        (
            "ROOMCAST__PUBLIC__LISTEN",
            "x",
            "environment variable ROOMCAST__PUBLIC__LISTEN: `public.listen`: invalid",
        ),
        ("ROOMCAST__PUBLIC", "x", "`public` holds other keys; set one of those"),
        ("ROOMCAST__NAMESPACE", "x", "`namespace` holds other keys; it can only be set in the file"),
        ("ROOMCAST__NAMESPACE__NAME", "x", "it can only be set in the file"),
    ];
    for (name, value, expected) in in_env {
        let error = from_env(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let flag = Override { flag: "--listen", key: "public.listen", value: "x".to_owned() };
    let error = Dir::new().load(&[], &[flag]).unwrap_err().to_string();
    assert!(error.starts_with("flag --listen: `public.listen`: "), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let error =
        from_env(&[("ROOMCAST__API__LISTEN", "0.0.0.0:1"), ("ROOMCAST__PUBLIC__PATH", "x")]).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2, "{error}");
    assert_eq!(error.code(), "config_invalid");
}

#[test]
fn a_broker_that_is_only_half_configured_is_no_memory_adapter() {
    let error = from_env(&[("ROOMCAST__ADAPTER__URL", "redis://127.0.0.1")]).unwrap_err();
    assert!(error.to_string().contains("set it to \"redis\" or \"nats\""), "{error}");
    assert!(from_file("[adapter]\nkind = 'memory'\nurl = 'redis://127.0.0.1'").is_ok());
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let sources = Sources { file: Some("/nonexistent.toml".into()), ..Sources::default() };
    let error = Config::load(&sources).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent.toml: "), "{error}");
}

#[test]
fn the_same_keys_can_be_json() {
    let dir = Dir::with("c.json", r#"{"engine":{"max_payload":"1MiB"},"namespace":[{"name":"/a"}]}"#);
    let load = |name: &str| Config::load(&Sources { file: Some(dir.0.join(name)), ..Sources::default() });
    let config = load("c.json").unwrap().config;
    assert_eq!((config.engine.max_payload, config.namespaces[0].name.as_str()), (1 << 20, "/a"));
    std::fs::write(dir.0.join("c.json"), r#"{"engin":{}}"#).unwrap();
    let error = load("c.json").unwrap_err().to_string();
    assert!(error.contains("c.json: unknown key `engin`; did you mean `engine`?"), "{error}");
}

#[test]
fn secrets_are_fetched_and_a_missing_one_is_told() {
    let dir = Dir::with("key", "0123456789abcdef\n");
    let key = format!("file:{}", dir.0.join("key").display());
    let config = dir.load(&[("ROOMCAST__API__KEYS", &key)], &[]).unwrap().config;
    assert_eq!(config.api.keys[0].expose(), "0123456789abcdef");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    let key = "ROOMCAST__ADAPTER__NATS__NKEY_SEED";
    let config = from_env(&[(key, "env:PATH")]).unwrap();
    assert_eq!(config.adapter.nats.nkey_seed.unwrap().expose(), std::env::var("PATH").unwrap());
    let error = from_env(&[(key, "env:ROOMCAST_NO_SUCH")]).unwrap_err().to_string();
    assert!(error.contains("adapter.nats.nkey_seed") && error.contains("ROOMCAST_NO_SUCH"), "{error}");
    let error = from_env(&[("ROOMCAST__API__KEYS", "env:ROOMCAST_NO_SUCH")]).unwrap_err().to_string();
    assert!(error.contains("`api.keys`: environment variable ROOMCAST_NO_SUCH"), "{error}");
}
