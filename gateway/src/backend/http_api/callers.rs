//! Who calls over HTTP. Owns the way from a key to its rights; what a right allows is told in `calls`.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

use super::{Code, Problem};
use crate::backend::calls::{Caller, Rights, Scope};
use crate::config::{Api, ApiKey, ApiScope, Secret};

/// The keys of the API, and whose they are. May be replaced while the API is in use.
pub struct Callers(ArcSwap<Keys>);

#[derive(Default)]
struct Keys(Vec<(Secret, Caller)>);

impl Callers {
    /// The callers of a configuration.
    pub fn new(api: &Api) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(Keys::new(api))))
    }

    /// Lets the callers of another configuration in, and no others. Rates begin anew.
    pub fn reload(&self, api: &Api) {
        self.0.store(Arc::new(Keys::new(api)));
    }

    /// Whether everybody is let in.
    pub fn is_keyless(&self) -> bool {
        self.0.load().0.is_empty()
    }

    /// Who sends these headers.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let keys = self.0.load();
        if keys.0.is_empty() {
            return Ok(Caller::unlimited());
        }
        let given = bearer(headers).unwrap_or_default().as_bytes();
        // Every key is compared, in a time that does not depend on what they have in common.
        let mut found = None;
        for (secret, caller) in &keys.0 {
            if secret.expose().as_bytes().ct_eq(given).into() {
                found = Some(caller);
            }
        }
        let detail = "this needs the header \"Authorization: Bearer <api key>\"";
        found.cloned().ok_or_else(|| Problem::new(Code::Unauthorized, detail))
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").field("keys", &self.0.load().0.len()).finish()
    }
}

impl Keys {
    fn new(api: &Api) -> Self {
        let unlimited = api.keys.iter().map(|key| (key.clone(), Caller::unlimited()));
        let named = api.named_keys.iter().filter_map(|key| Some((key.secret.clone()?, caller(key))));
        Self(unlimited.chain(named).collect())
    }
}

fn caller(key: &ApiKey) -> Caller {
    let scopes = key.scopes.iter().map(|scope| match scope {
        ApiScope::Emit => Scope::Emit,
        ApiScope::Read => Scope::Read,
        ApiScope::Admin => Scope::Admin,
    });
    let rights = Rights {
        scopes: scopes.collect(),
        namespaces: key.namespaces.clone(),
        rooms: key.rooms.clone(),
        rate: key.rate,
    };
    Caller::new(&key.name, rights)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_whole() {
        let keys = vec![Secret::new("first"), Secret::new("second")];
        let named = ApiKey { name: "n".to_owned(), secret: Some(Secret::new("third")), ..ApiKey::default() };
        let api = Api { keys, named_keys: vec![named], ..Api::default() };
        let callers = Callers::new(&api);
        let identify = |given: Option<&str>| {
            let mut headers = HeaderMap::new();
            given.map(|given| headers.insert(header::AUTHORIZATION, given.parse().unwrap()));
            callers.identify(&headers).map(|caller| caller.name().to_owned())
        };
        assert_eq!(identify(Some("Bearer first")), Ok(String::new()));
        assert_eq!(identify(Some("bearer second")), Ok(String::new()));
        assert_eq!(identify(Some("Bearer third")), Ok("n".to_owned()));
        for given in [None, Some("Bearer "), Some("Bearer firs"), Some("Bearer FIRST"), Some("Basic first")] {
            assert_eq!(identify(given).unwrap_err().code, Code::Unauthorized, "{given:?}");
        }
        callers.reload(&Api { keys: vec![Secret::new("new")], ..Api::default() });
        assert!(identify(Some("Bearer first")).is_err() && identify(Some("Bearer new")).is_ok());
    }
}
