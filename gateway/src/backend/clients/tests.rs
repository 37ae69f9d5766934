//! What is shared by the clients of a node, when the configuration changes.

use std::sync::Arc;
use std::time::SystemTime;

use roomcast_adapter::{AdapterFactory, LocalFactory};

use super::Clients;
use crate::auth::Revoked;
use crate::auth::testing::{Pair, SECRET, claims};
use crate::config::Config;
use crate::metrics::Metrics;

fn config(toml: &str) -> Config {
    toml::from_str(toml).unwrap()
}

fn start(config: &Config) -> Arc<Clients> {
    let factory: Arc<dyn AdapterFactory> = LocalFactory::with_random_tag().unwrap();
    Clients::start(config, &factory, &Arc::new(Metrics::new())).unwrap()
}

async fn takes(clients: &Clients, token: &str) -> bool {
    match clients.verifier() {
        None => false,
        Some(verifier) => verifier.verify(token, SystemTime::now()).await.is_ok(),
    }
}

#[tokio::test]
async fn keys_and_limits_are_replaced_at_once() {
    let before = config("");
    let clients = start(&before);
    let token = Pair::shared(SECRET).token(&claims("u"));
    assert!(!takes(&clients, &token).await && clients.refreshed_by("auth:refresh").is_none());

    let after = config(&format!(
        "auth.jwt.secret = '{SECRET}'
        auth.refresh_event = 'renew'
        limits.sockets_per_user = 1"
    ));
    clients.reload(&after);
    assert!(takes(&clients, &token).await);
    assert!(clients.refreshed_by("renew").is_some() && clients.refreshed_by("auth:refresh").is_none());
    let place = clients.sessions.reserve(&"u".into()).unwrap();
    assert!(clients.sessions.reserve(&"u".into()).is_none());
    drop(place);

    // A key that is none changes nothing.
    let weak = config("auth.jwt.secret = 'short'\nlimits.sockets_per_user = 7");
    clients.reload(&weak);
    assert!(takes(&clients, &token).await && clients.refreshed_by("renew").is_some());

    clients.reload(&before);
    assert!(clients.verifier().is_none());
}

#[tokio::test]
async fn what_is_revoked_stays_so_over_a_reload() {
    let settings = config(&format!("auth.jwt.secret = '{SECRET}'"));
    let clients = start(&settings);
    let mut claims = claims("u");
    claims["jti"] = "t1".into();
    let token = Pair::shared(SECRET).token(&claims);
    let verified = clients.verifier().unwrap().verify(&token, SystemTime::now()).await.unwrap();
    assert!(!clients.revocations().has_verified(&verified));
    let done = clients.revocations().revoke(Revoked::Token { jti: "t1".into() }, None).await.unwrap();
    assert!(done.missing.is_empty());
    clients.reload(&settings);
    assert!(clients.revocations().has_verified(&verified));
}
