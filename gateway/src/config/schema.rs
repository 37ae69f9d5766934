//! The JSON Schema of the configuration, written from the structs. `docs/reference/roomcast.schema.json` is a copy, and a
//! test compares. Editors and the Helm chart go by it.

use serde_json::{Map, Value, json};

use super::{Config, Key, Kind};

impl Config {
    /// The JSON Schema (draft 2020-12) of the configuration file. Unknown keys are not allowed, as in the file.
    pub fn json_schema() -> Value {
        let defaults = serde_json::to_value(Self::default()).expect("the defaults are JSON");
        let mut schema = object(Self::KEYS, Some(&defaults));
        let head = [
            ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
            ("title", json!("Roomcast")),
            ("description", json!(prose(Self::DOC))),
        ];
        let mut whole: Map<String, Value> =
            head.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        whole.append(&mut schema);
        Value::Object(whole)
    }
}

fn object(keys: &[Key], defaults: Option<&Value>) -> Map<String, Value> {
    let properties: Map<_, _> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key, defaults.and_then(|defaults| defaults.get(key.name)))))
        .collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("properties".to_owned(), Value::Object(properties));
    object
}

fn property(key: &Key, default: Option<&Value>) -> Value {
    let mut schema = match key.kind {
        Kind::Value => match key.schema.map(|schema| schema().to_value()) {
            Some(Value::Object(schema)) => schema,
            _ => Map::new(),
        },
        Kind::Table(keys) => object(keys, default),
        // Items have no defaults of their own: what a list holds by default stands beside it.
        Kind::List(keys) => [("type", json!("array")), ("items", Value::Object(object(keys, None)))]
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
        Kind::Map(keys) => {
            [("type", json!("object")), ("additionalProperties", Value::Object(object(keys, None)))]
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect()
        }
    };
    schema.insert("description".to_owned(), json!(prose(key.doc)));
    if let (Kind::Value, Some(default)) = (&key.kind, default.filter(|default| !default.is_null())) {
        schema.insert("default".to_owned(), default.clone());
    }
    Value::Object(schema)
}

/// Documentation in one line.
pub(super) fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::golden;

    #[test]
    fn every_value_has_a_type_and_says_what_it_is() {
        fn walk(path: &str, schema: &Value, seen: &mut usize) {
            for (name, property) in schema["properties"].as_object().unwrap() {
                let path = format!("{path}.{name}");
                assert!(!property["description"].as_str().unwrap().is_empty(), "{path}");
                let is_typed =
                    ["type", "enum", "oneOf", "anyOf"].iter().any(|word| property.get(word).is_some());
                assert!(is_typed, "{path}: {property}");
                *seen += 1;
                for inner in [property, &property["items"], &property["additionalProperties"]] {
                    if inner.get("properties").is_some() {
                        assert_eq!(inner["additionalProperties"], false, "{path}");
                        walk(&path, inner, seen);
                    }
                }
            }
        }
        let mut seen = 0;
        walk("", &Config::json_schema(), &mut seen);
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn units_defaults_and_choices_are_in_it() {
        let schema = Config::json_schema();
        let adapter = &schema["properties"]["adapter"]["properties"];
        assert_eq!(adapter["heartbeat"]["default"], "1s");
        assert_eq!(adapter["heartbeat"]["type"], json!(["string", "integer"]));
        assert_eq!(adapter["url"]["type"], "string", "{}", adapter["url"]);
        assert!(adapter["kind"].to_string().contains("\"redis\""), "{}", adapter["kind"]);
    }

    #[test]
    fn the_copy_in_the_documentation_is_the_same() {
        let text = serde_json::to_string_pretty(&Config::json_schema()).unwrap();
        golden("roomcast.schema.json", &format!("{text}\n"));
    }
}
