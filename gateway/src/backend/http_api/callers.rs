//! Who calls over HTTP. Owns the way from a key to its rights; what a right allows is told in `calls`.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::{Code, Problem};
use crate::auth::{AuthError, Verifier};
use crate::backend::calls::{Caller, Rights, Scope};
use crate::config::{Api, ApiKey, ApiScope, RoomPattern, Secret};
use crate::metrics::Metrics;

/// The name in the certificate with which a connection proved who it is. Whoever verified it puts it into each request.
#[derive(Debug, Clone)]
pub struct CertificateName(pub Arc<str>);

/// The keys of the API, and whose they are. May be replaced while the API is in use.
pub struct Callers {
    keys: ArcSwap<Keys>,
    metrics: Arc<Metrics>,
}

struct Keys {
    secrets: Vec<(Secret, Caller)>,
    tokens: Option<Tokens>,
    /// A certificate is a credential, too.
    certificates: bool,
}

/// Tokens as credentials.
struct Tokens {
    verifier: Arc<Verifier>,
    claim: String,
}

impl Callers {
    /// The callers of a configuration.
    pub fn new(api: &Api, metrics: &Arc<Metrics>) -> Arc<Self> {
        let keys = ArcSwap::from_pointee(Keys::new(api, None, metrics));
        Arc::new(Self { keys, metrics: Arc::clone(metrics) })
    }

    /// Lets the callers of another configuration in, and no others. Rates begin anew.
    pub fn reload(&self, api: &Api) {
        let before = self.keys.load_full();
        let verifier = before.tokens.as_ref().map(|tokens| &*tokens.verifier);
        self.keys.store(Arc::new(Keys::new(api, verifier, &self.metrics)));
    }

    /// Whether everybody is let in.
    pub fn is_keyless(&self) -> bool {
        self.keys.load().is_empty()
    }

    /// Who sends these headers, over a connection that has shown this certificate. A key goes before a certificate: it may
    /// be allowed less.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&CertificateName>,
    ) -> Result<Caller, Problem> {
        let keys = self.keys.load_full();
        if let Some(CertificateName(name)) = certificate
            && keys.certificates
            && !headers.contains_key(header::AUTHORIZATION)
        {
            // No key has a name with a colon.
            return Ok(Caller::named(&format!("cert:{name}")));
        }
        if keys.is_empty() {
            return Ok(Caller::unlimited());
        }
        let text = bearer(headers).unwrap_or_default();
        let given = text.as_bytes();
        // Every key is compared, in a time that does not depend on what they have in common.
        let mut found = None;
        for (secret, caller) in &keys.secrets {
            if secret.expose().as_bytes().ct_eq(given).into() {
                found = Some(caller);
            }
        }
        if let Some(caller) = found {
            return Ok(caller.clone());
        }
        match &keys.tokens {
            // A token has three parts.
            Some(tokens) if text.matches('.').count() == 2 => tokens.identify(text).await,
            _ => {
                let detail = match keys.certificates {
                    true => {
                        "this needs a client certificate, or the header \"Authorization: Bearer <api key>\""
                    }
                    false => "this needs the header \"Authorization: Bearer <api key>\"",
                };
                Err(Problem::new(Code::Unauthorized, detail))
            }
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").field("keys", &self.keys.load().secrets.len()).finish()
    }
}

impl Keys {
    fn new(api: &Api, before: Option<&Verifier>, metrics: &Arc<Metrics>) -> Self {
        let unlimited = api.keys.iter().map(|key| (key.clone(), Caller::unlimited()));
        let named = api.named_keys.iter().filter_map(|key| Some((key.secret.clone()?, caller(key))));
        let verifier = Verifier::new(&api.jwt.to_jwt(), before, metrics).unwrap_or_else(|error| {
            // A configuration with such a key was refused.
            tracing::error!(%error, "tokens are no credentials of the API");
            None
        });
        let claim = api.jwt.claim.clone();
        let tokens = verifier.map(|verifier| Tokens { verifier: Arc::new(verifier), claim });
        let certificates = api.tls.takes_client_certificates();
        Self { secrets: unlimited.chain(named).collect(), tokens, certificates }
    }

    fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.tokens.is_none() && !self.certificates
    }
}

impl Tokens {
    async fn identify(&self, token: &str) -> Result<Caller, Problem> {
        let verified = self.verifier.verify(token, SystemTime::now()).await.map_err(|error| match error {
            AuthError::KeysUnavailable => Problem::new(Code::Unavailable, error.to_string()).retry_after(5),
            _ => Problem::new(Code::Unauthorized, error.to_string()),
        })?;
        let rights = rights(&verified.claims, &self.claim).ok_or_else(|| {
            Problem::new(Code::Unauthorized, format!("the token has no valid `{}`", self.claim))
        })?;
        // No key has a name with a colon.
        Ok(Caller::new(&format!("jwt:{}", verified.user), rights))
    }
}

/// What a token may do. A claim that is not of its form makes it invalid: the other way is a token without limits.
fn rights(claims: &Map<String, Value>, claim: &str) -> Option<Rights> {
    let scopes = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
    let scopes = scopes.split(' ').filter_map(Scope::named).collect();
    let mut rights = Rights { scopes, ..Rights::default() };
    let Some(limits) = claims.get(claim) else { return Some(rights) };
    for (name, value) in limits.as_object()? {
        let patterns =
            value.as_array()?.iter().map(|pattern| pattern.as_str().filter(|text| !text.is_empty()));
        let patterns: Vec<RoomPattern> =
            patterns.map(|text| text.map(RoomPattern::from)).collect::<Option<_>>()?;
        // An empty list is no pattern that could match, and would be no limit.
        let patterns = Some(patterns).filter(|patterns| !patterns.is_empty())?;
        match name.as_str() {
            "namespaces" => rights.namespaces = patterns,
            "rooms" => rights.rooms = patterns,
            _ => return None,
        }
    }
    Some(rights)
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
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Pair, SECRET, claims};
    use crate::config::{ApiJwt, ListenerTls};

    async fn identify(callers: &Callers, given: Option<&str>) -> Result<Caller, Code> {
        let mut headers = HeaderMap::new();
        given.map(|given| headers.insert(header::AUTHORIZATION, given.parse().unwrap()));
        callers.identify(&headers, None).await.map_err(|problem| problem.code)
    }

    #[tokio::test]
    async fn a_certificate_may_do_everything_and_a_key_beside_it_what_the_key_may() {
        let tls = ListenerTls {
            cert_file: Some("a".into()),
            key_file: Some("b".into()),
            client_ca_file: Some("c".into()),
            ..ListenerTls::default()
        };
        let key = ApiKey { name: "n".to_owned(), secret: Some(Secret::new("key")), ..ApiKey::default() };
        let callers = Callers::new(&Api { tls, ..Api::default() }, &Arc::default());
        assert!(!callers.is_keyless());
        let shown = CertificateName("orders".into());
        let (none, mut with) = (HeaderMap::new(), HeaderMap::new());
        with.insert(header::AUTHORIZATION, "Bearer key".parse().unwrap());
        let caller = callers.identify(&none, Some(&shown)).await.unwrap();
        assert_eq!(caller.name(), "cert:orders");
        assert!(Scope::ALL.into_iter().all(|scope| caller.check_everywhere(scope).is_ok()));
        assert_eq!(callers.identify(&none, None).await.unwrap_err().code, Code::Unauthorized);
        assert_eq!(callers.identify(&with, Some(&shown)).await.unwrap_err().code, Code::Unauthorized);

        let callers = Callers::new(&Api { named_keys: vec![key], ..Api::default() }, &Arc::default());
        assert_eq!(callers.identify(&with, Some(&shown)).await.unwrap().name(), "n");
        assert!(callers.identify(&none, Some(&shown)).await.is_err(), "nobody asked for certificates");
    }

    #[tokio::test]
    async fn a_key_is_known_whole() {
        let keys = vec![Secret::new("first"), Secret::new("second")];
        let named = ApiKey { name: "n".to_owned(), secret: Some(Secret::new("third")), ..ApiKey::default() };
        let api = Api { keys, named_keys: vec![named], ..Api::default() };
        let callers = Callers::new(&api, &Arc::default());
        for (given, name) in [("Bearer first", ""), ("bearer second", ""), ("Bearer third", "n")] {
            assert_eq!(identify(&callers, Some(given)).await.unwrap().name(), name);
        }
        for given in [None, Some("Bearer "), Some("Bearer firs"), Some("Bearer FIRST"), Some("Basic first")] {
            assert_eq!(identify(&callers, given).await.unwrap_err(), Code::Unauthorized, "{given:?}");
        }
        callers.reload(&Api { keys: vec![Secret::new("new")], ..Api::default() });
        assert!(identify(&callers, Some("Bearer first")).await.is_err());
        assert!(identify(&callers, Some("Bearer new")).await.is_ok());
    }

    #[tokio::test]
    async fn a_token_may_what_its_claims_say() {
        let jwt = ApiJwt {
            secret: Some(Secret::new(SECRET)),
            audience: vec!["api".to_owned()],
            ..ApiJwt::default()
        };
        let api = Api { keys: vec![Secret::new("0123456789abcdef")], jwt, ..Api::default() };
        let callers = Callers::new(&api, &Arc::default());
        let token = |more: Value| {
            let mut claims = claims("billing");
            claims["aud"] = json!("api");
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            format!("Bearer {}", Pair::shared(SECRET).token(&claims))
        };
        let limits = json!({ "namespaces": ["/shop"], "rooms": ["order:{id}"] });
        let some = token(json!({ "scope": "openid emit", "roomcast_api": limits }));
        let caller = identify(&callers, Some(&some)).await.unwrap();
        assert_eq!(caller.name(), "jwt:billing");
        assert!(caller.check(Scope::Emit).is_ok() && caller.check(Scope::Read).is_err());
        assert!(caller.check_everywhere(Scope::Emit).is_err());
        let all = identify(&callers, Some(&token(json!({ "scope": "emit read admin" })))).await.unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| all.check_everywhere(scope).is_ok()));
        let none = identify(&callers, Some(&token(json!({})))).await.unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| none.check(scope).is_err()));

        let other = format!("Bearer {}", Pair::shared(&SECRET.replace('0', "1")).token(&claims("billing")));
        let refused = [
            other,
            token(json!({ "aud": "shop" })),
            token(json!({ "exp": 1 })),
            token(json!({ "roomcast_api": "everything" })),
            token(json!({ "roomcast_api": { "rooms": [] } })),
            token(json!({ "roomcast_api": { "rooms": "order:1" } })),
            token(json!({ "roomcast_api": { "room": ["order:1"] } })),
            "Bearer a.b.c".to_owned(),
        ];
        for given in refused {
            assert_eq!(identify(&callers, Some(&given)).await.unwrap_err(), Code::Unauthorized, "{given}");
        }
        assert!(identify(&callers, Some("Bearer 0123456789abcdef")).await.is_ok());
    }
}
