//! The default configuration as a commented file, written from the structs. `docs/reference/roomcast.toml` is a copy,
//! and a test compares.

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
        "room" => Table::try_from(super::RoomRule::default()).expect("the defaults are TOML"),
        _ => Table::new(),
    }
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
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/roomcast.toml");
        let written = Config::default_toml();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference")).unwrap();
            std::fs::write(path, &written).unwrap();
        }
        let copy = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(copy, written, "UPDATE_GOLDEN=1 cargo test -p roomcast reference writes it");
    }
}
