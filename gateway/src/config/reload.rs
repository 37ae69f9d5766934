//! Which settings may change while a node runs. Owns the list; reading again and taking up are the server's.

use std::time::Duration;

use serde_json::Value;

use super::section::section;
use super::{Config, units};

section! {
    /// Settings that change while the node runs: keys of the API, rules and routes of namespaces, authentication, limits,
    /// admission, draining, rebalancing, backends and the level of logs. Everything else needs a restart, and is told. A
    /// configuration with a fault changes nothing. SIGHUP has it read again at once.
    pub struct Reload {
        /// How often the file, and the files of secrets, are read again. "0s": only at SIGHUP.
        #[serde(with = "units::duration")]
        interval: Duration = Duration::from_secs(2),
    }
}

impl Config {
    /// This configuration with those sections of another one that may change while a node runs.
    pub(crate) fn with_reloadable(&self, new: &Self) -> Self {
        let mut config = self.clone();
        config.api.keys.clone_from(&new.api.keys);
        config.api.named_keys.clone_from(&new.api.named_keys);
        config.api.jwt.clone_from(&new.api.jwt);
        config.namespaces.clone_from(&new.namespaces);
        config.auth.clone_from(&new.auth);
        config.limits.clone_from(&new.limits);
        config.admission.clone_from(&new.admission);
        config.drain.clone_from(&new.drain);
        config.rebalance.clone_from(&new.rebalance);
        config.backends.clone_from(&new.backends);
        config.log.level.clone_from(&new.log.level);
        config.reload.clone_from(&new.reload);
        config
    }

    /// The keys whose values differ, such as "engine.max_payload"; a list of tables is one key.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let json = |config: &Self| serde_json::to_value(config).expect("a configuration is JSON");
        let mut found = Vec::new();
        compare(&json(self), &json(other), "", &mut found);
        // Secrets do not show.
        if found.is_empty() && self != other {
            found.push("a secret".to_owned());
        }
        found
    }
}

fn compare(a: &Value, b: &Value, path: &str, found: &mut Vec<String>) {
    match (a, b) {
        _ if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(
                    a.get(name).unwrap_or(&Value::Null),
                    b.get(name).unwrap_or(&Value::Null),
                    &path,
                    found,
                );
            }
        }
        _ => found.push(path.to_owned()),
    }
}
