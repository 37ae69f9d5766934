//! Keys that do not exist. Owns finding them and the known name that was probably meant.

use toml::{Table, Value};

use super::{Config, Key, Kind};

/// Similarity from 0 to 1 below which a name is no suggestion.
const SIMILAR: f64 = 0.6;

/// One step into a file: a key, or the place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// All unknown keys of a table.
pub(super) fn find(table: &Table) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    walk(table, Config::KEYS, &mut Vec::new(), &mut found);
    found
}

fn walk(table: &Table, keys: &[Key], path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    for (name, value) in table {
        path.push(Step::Key(name.clone()));
        match (keys.iter().find(|key| key.name == name).map(|key| &key.kind), value) {
            (None, _) => found.push(path.clone()),
            (Some(Kind::Table(keys)), Value::Table(table)) => walk(table, keys, path, found),
            (Some(Kind::Map(keys)), Value::Table(items)) => {
                for (name, item) in items {
                    path.push(Step::Key(name.clone()));
                    if let Value::Table(table) = item {
                        walk(table, keys, path, found);
                    }
                    path.pop();
                }
            }
            (Some(Kind::List(keys)), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Index(index));
                    if let Value::Table(table) = item {
                        walk(table, keys, path, found);
                    }
                    path.pop();
                }
            }
            // Whether the value has the right type is serde's to say.
            (Some(_), _) => {}
        }
        path.pop();
    }
}

/// A path with dots, without the places in lists.
pub(super) fn dotted(path: &[Step]) -> String {
    let names = path.iter().filter_map(|step| match step {
        Step::Key(name) => Some(name.as_str()),
        Step::Index(_) => None,
    });
    names.collect::<Vec<_>>().join(".")
}

/// The key of a path, if there is one.
pub(super) fn lookup(path: &str) -> Option<&'static Key> {
    let mut keys = Config::KEYS;
    let mut names = path.split('.').peekable();
    loop {
        let key = keys.iter().find(|key| Some(&key.name) == names.peek())?;
        names.next();
        keys = match key.kind {
            _ if names.peek().is_none() => return Some(key),
            Kind::Value => return None,
            Kind::Table(keys) | Kind::List(keys) => keys,
            // The name is the user's: any will do.
            Kind::Map(keys) => {
                names.next();
                names.peek()?;
                keys
            }
        };
    }
}

/// The known path that was probably meant: a similar name in the same place, or else the same word elsewhere.
pub(super) fn nearest(path: &str) -> Option<String> {
    let mut known = Vec::new();
    collect(Config::KEYS, "", &mut known);
    let split = |path: &str| {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        (parent.to_owned(), name.to_owned())
    };
    let (parent, name) = split(path);
    let score = |candidate: &str| {
        let (known_parent, known_name) = split(candidate);
        let names = strsim::normalized_damerau_levenshtein(&name, &known_name);
        let parents = strsim::normalized_damerau_levenshtein(&parent, &known_parent);
        // The same word under another parent is a guess worth making; a similar word there is not.
        if known_parent == parent || parents > SIMILAR || names > 0.99 {
            names * (0.7 + 0.3 * parents)
        } else {
            0.0
        }
    };
    let best = known.into_iter().map(|candidate| (score(&candidate), candidate));
    let best = best.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= SIMILAR).map(|(_, candidate)| candidate)
}

fn collect(keys: &[Key], parent: &str, known: &mut Vec<String>) {
    for key in keys {
        let path = format!("{parent}{}", key.name);
        if let Kind::Table(keys) | Kind::List(keys) | Kind::Map(keys) = key.kind {
            collect(keys, &format!("{path}."), known);
        }
        known.push(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_found_at_every_depth() {
        let toml = "
            colour = 1
            [public]
            listn = 'x'
            [engine.http_compression]
            treshold = 1
            [[namespace]]
            name = '/'
            [[namespace.room]]
            match = '*'
            [[namespace.room]]
            macth = '*'
        ";
        let found: Vec<_> = find(&toml.parse().unwrap()).iter().map(|path| dotted(path)).collect();
        let mut expected =
            ["colour", "public.listn", "engine.http_compression.treshold", "namespace.room.macth"];
        expected.sort_unstable();
        assert_eq!(
            {
                let mut found = found;
                found.sort_unstable();
                found
            },
            expected
        );
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let cases = [
            ("public.listn", Some("public.listen")),
            ("pubic.listen", Some("public.listen")),
            ("publc", Some("public")),
            ("engine.http_compression.treshold", Some("engine.http_compression.threshold")),
            ("engine.pingTimeout", Some("engine.ping_timeout")),
            ("max_payload", Some("engine.max_payload")),
            ("public.max_payload", Some("engine.max_payload")),
            ("namespace.room.macth", Some("namespace.room.match")),
            ("namespaces", Some("namespace")),
            ("zebra", None),
            ("public.zebra", None),
        ];
        for (path, expected) in cases {
            assert_eq!(nearest(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn known_keys_are_looked_up() {
        assert!(lookup("engine.http_compression.threshold").is_some());
        assert!(matches!(lookup("engine.http_compression").unwrap().kind, Kind::Table(_)));
        for path in ["", "engine.", "engine.http", "public.listen.port", "namespace..name"] {
            assert!(lookup(path).is_none(), "{path}");
        }
    }
}
