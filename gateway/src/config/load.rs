//! Loading: the file, the environment over it, flags over that.
//!
//! Owns the order of the sources and saying where a wrong value stands. Each override is tried by itself, so that an
//! error names the variable or the flag that it came by.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::unknown::{self, Step};
use super::{Config, ConfigError, Kind, Place, Problem, Secret, SecretError, SecretUrl, otel, validate};

/// What environment variables begin with.
const ENV_PREFIX: &str = "ROOMCAST__";

/// The file that is read when no other is named.
const DEFAULT_FILE: &str = "roomcast.toml";

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that has to be read. `None`: `roomcast.toml` in `working_dir`, if it is there.
    pub file: Option<PathBuf>,
    /// Where the default file is looked for.
    pub working_dir: PathBuf,
    /// The environment: names and values. Names that do not begin with `ROOMCAST__` are not looked at, but
    /// for those of OpenTelemetry.
    pub env: Vec<(String, String)>,
    /// What flags say.
    pub flags: Vec<Override>,
}

/// A flag that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The flag, such as `--listen`.
    pub flag: &'static str,
    /// The key, such as `public.listen`.
    pub key: &'static str,
    /// The value, in the form of an environment variable.
    pub value: String,
}

impl Sources {
    /// The sources of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Override>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { file, working_dir: PathBuf::new(), env, flags }
    }
}

/// A configuration, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration, checked.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What people should know of it.
    pub notes: Vec<String>,
}

impl Config {
    /// Loads a configuration from all its sources, fetches its secrets and checks it. All problems that can be found
    /// are told at once.
    ///
    /// With no file at all, and unless something else says it, clients are listened for on loopback only.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let file = match &sources.file {
            Some(path) => Some(path.clone()),
            None => Some(sources.working_dir.join(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        let mut problems = Vec::new();
        let mut merged = match &file {
            Some(path) => read(path, &mut problems)?,
            None => Table::new(),
        };
        let env = sources.env.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase().replace("__", ".");
            (!value.is_empty()).then(|| (Place::Environment(name.clone()), key, value.as_str()))
        });
        let flags = sources.flags.iter();
        let flags = flags.map(|set| (Place::Flag(set.flag), set.key.to_owned(), set.value.as_str()));
        for (at, key, text) in env.chain(flags) {
            match read_override(at, &key, text) {
                Ok(value) => put(&mut merged, &key, value),
                Err(problem) => problems.push(problem),
            }
        }
        if file.is_none() && merged.get("public").and_then(|public| public.get("listen")).is_none() {
            put(&mut merged, "public.listen", Value::String("127.0.0.1:3000".to_owned()));
        }
        // A build without traces has no use for them.
        let notes = if cfg!(feature = "otlp") { otel::fill(&mut merged, &sources.env) } else { Vec::new() };
        let adapter = |key| merged.get("adapter").and_then(|adapter| adapter.get(key)).is_some();
        if adapter("url") && !adapter("kind") {
            problems.push(Problem::UrlWithoutKind);
        }
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        // File and overrides were each read as a configuration, so that together they are one.
        let mut config: Config = Value::Table(merged).try_into().map_err(|error: toml::de::Error| {
            ConfigError::Invalid(vec![value_problem(at_file(&file), "", &error)])
        })?;
        resolve_secrets(&mut config, &mut problems);
        problems.extend(validate::problems(&config));
        if problems.is_empty() {
            Ok(Loaded { config, file, notes })
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }
}

fn at_file(file: &Option<PathBuf>) -> Place {
    Place::File { path: file.clone().unwrap_or_default(), line: None }
}

fn value_problem(at: Place, key: &str, error: &toml::de::Error) -> Problem {
    Problem::Value { at, key: key.to_owned(), message: error.message().to_owned() }
}

/// Reads a file as TOML, or as JSON if its name ends so.
fn read(path: &Path, problems: &mut Vec<Problem>) -> Result<Table, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let place = |line| Place::File { path: path.to_owned(), line };
    let table: Table = if is_json {
        serde_json::from_str(&text).map_err(|source| ConfigError::Json { path: path.to_owned(), source })?
    } else {
        text.parse().map_err(|error: toml::de::Error| ConfigError::Toml {
            at: place(error.span().map(|span| line_of(&text, span.start))),
            message: error.message().to_owned(),
        })?
    };
    let unknown = unknown::find(&table);
    for path in &unknown {
        let key = unknown::dotted(path);
        let line = if is_json { None } else { line_of_key(&text, path) };
        problems.push(Problem::UnknownKey { at: place(line), nearest: unknown::nearest(&key), key });
    }
    // With an unknown key serde would stop at that one.
    if unknown.is_empty() {
        let (result, located) = if is_json {
            (Value::Table(table.clone()).try_into::<Config>(), false)
        } else {
            (toml::from_str::<Config>(&text), true)
        };
        if let Err(error) = result {
            let span = error.span().filter(|_| located);
            let line = span.as_ref().map(|span| line_of(&text, span.start));
            let key = span.and_then(|span| key_at(&text, span.start)).unwrap_or_else(|| "value".to_owned());
            problems.push(value_problem(place(line), &key, &error));
        }
    }
    Ok(table)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The line of a key in a file that is known to be TOML.
fn line_of_key(text: &str, path: &[Step]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut value: Option<&DeValue<'_>> = None;
    let mut line = None;
    for step in path {
        match step {
            Step::Key(name) => {
                let table = value.map_or(Some(document.get_ref()), DeValue::as_table)?;
                let (key, next) = table.iter().find(|(key, _)| key.get_ref() == name)?;
                line = Some(line_of(text, key.span().start));
                value = Some(next.get_ref());
            }
            Step::Index(index) => value = Some(value?.as_array()?.get(*index)?.get_ref()),
        }
    }
    line
}

/// The key whose value begins at an offset, with dots.
fn key_at(text: &str, offset: usize) -> Option<String> {
    fn search(table: &DeTable<'_>, offset: usize, path: &str) -> Option<String> {
        table.iter().find_map(|(key, value)| {
            let path = format!("{path}{}", key.get_ref());
            if value.span().start == offset || key.span().start == offset {
                return Some(path);
            }
            let within = format!("{path}.");
            match value.get_ref() {
                DeValue::Table(table) => search(table, offset, &within),
                DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                    DeValue::Table(table) => search(table, offset, &within),
                    _ => (item.span().start == offset).then(|| path.clone()),
                }),
                _ => None,
            }
        })
    }
    search(DeTable::parse(text).ok()?.get_ref(), offset, "")
}

/// Reads the text of one override, and tries it as a whole configuration.
fn read_override(at: Place, key: &str, text: &str) -> Result<Value, Problem> {
    let Some(known) = unknown::lookup(key) else {
        return Err(Problem::UnknownKey { at, key: key.to_owned(), nearest: unknown::nearest(key) });
    };
    if !matches!(known.kind, Kind::Value)
        || ["namespace.", "api.key."].iter().any(|list| key.starts_with(list))
    {
        let list = !matches!(known.kind, Kind::Table(_));
        return Err(Problem::NotOneValue { at, key: key.to_owned(), list });
    }
    let value = parse(text, &shape(key, known.example));
    let mut alone = Table::new();
    put(&mut alone, key, value.clone());
    match Value::Table(alone).try_into::<Config>() {
        Ok(_) => Ok(value),
        Err(error) => Err(value_problem(at, key, &error)),
    }
}

/// A value of the type that a key has: its default, or its example.
fn shape(key: &str, example: Option<&str>) -> Value {
    let defaults = Table::try_from(Config::default()).expect("the defaults are TOML");
    let mut value = Some(&Value::Table(defaults));
    for name in key.split('.') {
        value = value.and_then(|value| value.get(name));
    }
    value.cloned().or_else(|| example.and_then(toml_value)).unwrap_or_else(|| Value::String(String::new()))
}

fn toml_value(text: &str) -> Option<Value> {
    use serde::Deserialize as _;
    Value::deserialize(toml::de::ValueDeserializer::parse(text).ok()?).ok()
}

/// The environment has only text: what it means depends on the key.
fn parse(text: &str, shape: &Value) -> Value {
    let text = text.trim();
    let plain = || Value::String(text.to_owned());
    match shape {
        Value::Array(_) if text.starts_with('[') => toml_value(text).unwrap_or_else(plain),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        Value::String(_) if !text.starts_with(['"', '\'']) => plain(),
        _ => toml_value(text).unwrap_or_else(plain),
    }
}

/// Sets a key with dots.
pub(super) fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            // A section that is no table was reported with the file.
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn resolve_secrets(config: &mut Config, problems: &mut Vec<Problem>) {
    let mut check = |key, result: Result<(), SecretError>| {
        problems.extend(result.err().map(|source| Problem::Secret { key, source }));
    };
    config.api.keys.iter_mut().map(Secret::resolve).for_each(|result| check("api.keys", result));
    let named = config.api.named_keys.iter_mut().filter_map(|key| key.secret.as_mut());
    named.map(Secret::resolve).for_each(|result| check("api.key.secret", result));
    config.adapter.url.iter_mut().map(SecretUrl::resolve).for_each(|result| check("adapter.url", result));
    config
        .auth
        .jwt
        .secret
        .iter_mut()
        .map(Secret::resolve)
        .for_each(|result| check("auth.jwt.secret", result));
    let ingest = &mut config.ingest;
    ingest.redis.url.iter_mut().map(SecretUrl::resolve).for_each(|result| check("ingest.redis.url", result));
    ingest.nats.url.iter_mut().map(SecretUrl::resolve).for_each(|result| check("ingest.nats.url", result));
    let seed = ingest.nats.nkey_seed.iter_mut().map(Secret::resolve);
    seed.for_each(|result| check("ingest.nats.nkey_seed", result));
    let jwt = &mut config.auth.jwt;
    check("auth.jwt.public_key_file", read_public_key(jwt.public_key_file.as_deref(), &mut jwt.public_key));
    let jwt = &mut config.api.jwt;
    jwt.secret.iter_mut().map(Secret::resolve).for_each(|result| check("api.jwt.secret", result));
    check("api.jwt.public_key_file", read_public_key(jwt.public_key_file.as_deref(), &mut jwt.public_key));
    let seed = config.adapter.nats.nkey_seed.iter_mut().map(Secret::resolve);
    seed.for_each(|result| check("adapter.nats.nkey_seed", result));
    let headers = config.trace.headers.iter_mut().map(Secret::resolve);
    headers.for_each(|result| check("trace.headers", result));
    for backend in config.backends.values_mut() {
        let url = backend.webhook.iter_mut().map(SecretUrl::resolve);
        url.for_each(|result| check("backend.webhook", result));
        let secrets = backend.secrets.iter_mut().map(Secret::resolve);
        secrets.for_each(|result| check("backend.secrets", result));
    }
}

/// Takes over the keys of the file, beside those that stand in the configuration itself.
fn read_public_key(path: Option<&Path>, keys: &mut Option<String>) -> Result<(), SecretError> {
    let Some(path) = path else { return Ok(()) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::File { path: path.display().to_string(), source })?;
    let keys = keys.get_or_insert_default();
    keys.push('\n');
    keys.push_str(&text);
    Ok(())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
