//! The settings for people, written from the structs: a commented file and a page. `docs/reference/roomcast.toml` and
//! `configuration.md` are copies, and a test compares.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::{Config, Key, Kind};

/// What a table is called whose name is the user's choice.
const EXAMPLE_NAME: &str = "orders";

impl Config {
    /// The default configuration, with the documentation of each key. Loading it gives [`Config::default`].
    pub fn default_toml() -> String {
        let defaults = Table::try_from(Config::default()).expect("the defaults are TOML");
        let mut out = String::new();
        comment(&mut out, Self::DOC);
        keys(&mut out, "", Self::KEYS, &defaults, false);
        out
    }
}

impl Config {
    /// Every setting as a page of tables: key, default, environment variable, meaning.
    pub fn reference_page() -> String {
        let defaults = Table::try_from(Config::default()).expect("the defaults are TOML");
        let mut page = String::from(
            "# Settings\n\nWritten from the code. [roomcast.toml](roomcast.toml) is the same as a file to begin with,\n\
             [roomcast.schema.json](roomcast.schema.json) a JSON Schema for editors. One file (TOML, or the same keys as \
             JSON),\nthe environment over it, flags over that. A duration is `\"25s\"` or a number of milliseconds, a size \
             `\"16MiB\"` or a number\nof bytes, a secret itself, `env:NAME` or `file:PATH`. Lists of tables can only stand in \
             the file.\n",
        );
        section_page(&mut page, "", Self::KEYS, Some(&defaults), true);
        page
    }
}

/// The table of one section, then its inner sections. `path` is its name with a dot behind; `env` says whether the
/// environment can set it.
fn section_page(page: &mut String, path: &str, keys: &[Key], defaults: Option<&Table>, env: bool) {
    let values: Vec<_> = keys.iter().filter(|key| matches!(key.kind, Kind::Value)).collect();
    if !values.is_empty() {
        page.push_str(if env {
            "\n| key | default | environment | |\n|---|---|---|---|\n"
        } else {
            "\n| key | default | |\n|---|---|---|\n"
        });
    }
    for key in values {
        let default = defaults.and_then(|defaults| defaults.get(key.name));
        let default = default.map(|value| format!("`{value}`")).unwrap_or_default();
        let name = format!("ROOMCAST__{path}{}", key.name).replace('.', "__").to_uppercase();
        let name = if env { format!(" `{name}` |") } else { String::new() };
        let text = super::schema::prose(key.doc).replace('|', "\\|");
        writeln!(page, "| `{}` | {default} |{name} {text} |", key.name).expect("writing to a string");
    }
    for key in keys {
        let (head, inner, env) = match key.kind {
            Kind::Value => continue,
            Kind::Table(inner) => (format!("[{path}{}]", key.name), inner, env),
            Kind::List(inner) => (format!("[[{path}{}]]", key.name), inner, false),
            Kind::Map(inner) => (format!("[{path}{}.NAME]", key.name), inner, env),
        };
        let inner_path = match key.kind {
            Kind::Map(_) => format!("{path}{}.NAME.", key.name),
            _ => format!("{path}{}.", key.name),
        };
        writeln!(page, "\n## `{head}`\n\n{}", super::schema::prose(key.doc)).expect("writing to a string");
        let item;
        let inner_defaults = match key.kind {
            Kind::Table(_) => defaults.and_then(|defaults| defaults.get(key.name)).and_then(Value::as_table),
            _ => {
                item = example_item(key.name);
                Some(&item)
            }
        };
        section_page(page, &inner_path, inner, inner_defaults, env);
    }
}

fn comment(out: &mut String, doc: &[&str]) {
    for line in doc {
        writeln!(out, "#{line}").expect("writing to a string");
    }
}

/// Writes the keys of one table. `path` is its name with a dot behind, or empty; `off` comments the values out.
fn keys(out: &mut String, path: &str, keys: &[Key], defaults: &Table, off: bool) {
    let hash = if off { "# " } else { "" };
    for key in keys {
        let name = key.name;
        match (&key.kind, defaults.get(name)) {
            (Kind::Value, default) => {
                comment(out, key.doc);
                match (key.example, default) {
                    (Some(example), _) => writeln!(out, "# {name} = {example}"),
                    (None, Some(value)) => writeln!(out, "{hash}{name} = {value}"),
                    (None, None) => unreachable!("{path}{name} has neither default nor example"),
                }
                .expect("writing to a string");
            }
            (Kind::Table(inner), default) => {
                head(out, key, &format!("{hash}[{path}{name}]"));
                let empty = Table::new();
                let default = default.and_then(Value::as_table).unwrap_or(&empty);
                self::keys(out, &format!("{path}{name}."), inner, default, off);
            }
            (Kind::Map(inner), _) => {
                head(out, key, &format!("# [{path}{name}.{EXAMPLE_NAME}]"));
                self::keys(out, &format!("{path}{name}.{EXAMPLE_NAME}."), inner, &example_item(name), true);
            }
            (Kind::List(inner), default) => {
                let items = default.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let shown = items.first().and_then(Value::as_table).cloned();
                let off = off || shown.is_none();
                let hash = if off { "# " } else { "" };
                head(out, key, &format!("{hash}[[{path}{name}]]"));
                let shown = shown.unwrap_or_else(|| example_item(name));
                self::keys(out, &format!("{path}{name}."), inner, &shown, off);
            }
        }
    }
}

fn head(out: &mut String, key: &Key, head: &str) {
    out.push('\n');
    comment(out, key.doc);
    writeln!(out, "{head}").expect("writing to a string");
}

/// An item of a list that is empty by default.
fn example_item(list: &str) -> Table {
    match list {
        "namespace" => Table::try_from(super::Namespace::default()).expect("the defaults are TOML"),
        "key" => Table::try_from(super::ApiKey::default()).expect("the defaults are TOML"),
        "room" => Table::try_from(super::RoomRule::default()).expect("the defaults are TOML"),
        "route" => Table::try_from(super::Route::default()).expect("the defaults are TOML"),
        "backend" => Table::try_from(super::Backend::default()).expect("the defaults are TOML"),
        _ => Table::new(),
    }
}

/// Compares a file of docs/reference with what the code gives, or writes it.
#[cfg(test)]
pub(crate) fn golden(name: &str, written: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference");
    let path = format!("{folder}/{name}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&path, written).unwrap();
    }
    let copy = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(copy, written, "UPDATE_GOLDEN=1 cargo test -p roomcast --lib config writes {name}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_gives_the_defaults() {
        assert_eq!(toml::from_str::<Config>(&Config::default_toml()).unwrap(), Config::default());
    }

    #[test]
    fn what_is_commented_out_can_be_used() {
        let toml = Config::default_toml().lines().fold(String::new(), |mut toml, line| {
            let off = line.strip_prefix("# ").filter(|rest| rest.starts_with('[') || rest.contains(" = "));
            // Prose may hold ` = ` too; a key is one word.
            let is_key = |rest: &str| !rest.split(" = ").next().unwrap_or(rest).contains(' ');
            writeln!(toml, "{}", off.filter(|rest| is_key(rest)).unwrap_or(line)).unwrap();
            toml
        });
        let config: Config = toml::from_str(&toml).unwrap();
        assert_eq!(config.namespaces[0].rooms[0].pattern.as_str(), "order:{id}");
        assert!(config.adapter.url.is_some());
    }

    #[test]
    fn the_copy_in_the_documentation_is_the_same() {
        golden("roomcast.toml", &Config::default_toml());
    }

    #[test]
    fn the_page_in_the_documentation_is_the_same() {
        golden("configuration.md", &Config::reference_page());
    }
}
