//! Tokens of every algorithm, and those that must not pass.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::testing::{Issuer, Pair, SECRET, claims, in_seconds};
use super::{AuthError, KeyError, Verified, Verifier, check_static_keys};
use crate::config::{Jwt, JwtAlgorithm, Secret};
use crate::metrics::{JwksFetch, Metrics};

/// Making an RSA key takes a second or two.
static RSA: LazyLock<Pair> = LazyLock::new(|| Pair::rsa(2048));

fn with_secret() -> Jwt {
    Jwt { secret: Some(Secret::new(SECRET)), ..Jwt::default() }
}

fn with_public(pem: &str) -> Jwt {
    Jwt { public_key: Some(pem.to_owned()), ..Jwt::default() }
}

fn with_issuer(issuer: &Issuer) -> Jwt {
    Jwt {
        jwks_url: Some(issuer.url.clone()),
        jwks_cooldown: Duration::from_millis(1),
        jwks_timeout: Duration::from_millis(500),
        ..Jwt::default()
    }
}

fn verifier(jwt: &Jwt) -> Verifier {
    Verifier::new(jwt, None, &Arc::new(Metrics::new())).unwrap().unwrap()
}

async fn verify(jwt: &Jwt, token: &str) -> Result<Verified, AuthError> {
    verifier(jwt).verify(token, SystemTime::now()).await
}

/// The error of a token with an HS256 signature that is right.
async fn judged(jwt: &Jwt, claims: &Value) -> Result<Verified, AuthError> {
    let jwt = Jwt { secret: Some(Secret::new(SECRET)), ..jwt.clone() };
    verify(&jwt, &Pair::shared(SECRET).token(claims)).await
}

#[tokio::test]
async fn every_algorithm_is_verified_by_its_key() {
    let shared = Pair::shared(SECRET).token(&claims("u7"));
    let verified = verify(&with_secret(), &shared).await.unwrap();
    assert_eq!(&*verified.user, "u7");
    assert_eq!(verified.claims["sub"], "u7");
    assert!(verified.expires_at.unwrap() > SystemTime::now() + Duration::from_secs(3_590));
    for pair in [&*RSA, &Pair::p256(), &Pair::ed25519()] {
        let verified = verify(&with_public(&pair.public), &pair.token(&claims("u7"))).await;
        assert_eq!(
            verified.map(|verified| verified.user.to_string()),
            Ok("u7".to_owned()),
            "{:?}",
            pair.algorithm
        );
    }
}

#[tokio::test]
async fn a_file_of_several_keys_takes_tokens_of_each() {
    let (old, new, other) = (Pair::p256(), Pair::p256(), Pair::ed25519());
    let jwt = with_public(&format!("{}\n{}{}", old.public, new.public.replace('\n', "\\n"), other.public));
    for pair in [&old, &new, &other] {
        assert!(verify(&jwt, &pair.token(&claims("u"))).await.is_ok());
    }
    assert_eq!(verify(&jwt, &Pair::p256().token(&claims("u"))).await, Err(AuthError::Signature));
    assert_eq!(verify(&jwt, &RSA.token(&claims("u"))).await, Err(AuthError::Algorithm));
}

#[tokio::test]
async fn no_token_passes_without_a_signature_of_ours() {
    let pair = Pair::p256();
    let jwt = with_public(&pair.public);
    let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let payload = encode(claims("admin"));
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({ "alg": alg, "typ": "JWT" }));
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(verify(&jwt, &token).await, Err(AuthError::Algorithm), "{alg}");
            assert_eq!(verify(&with_secret(), &token).await, Err(AuthError::Algorithm), "{alg}");
        }
    }
    // The public key as the secret of HS256, in every form in which a library might take it.
    for secret in [pair.public.clone(), pair.public.trim().to_owned(), pair.public.replace('\n', "")] {
        let forged = Pair::shared(&secret).token(&claims("admin"));
        assert_eq!(verify(&jwt, &forged).await, Err(AuthError::Algorithm));
        let both = Jwt { secret: Some(Secret::new(SECRET)), ..jwt.clone() };
        assert_eq!(verify(&both, &forged).await, Err(AuthError::Signature));
    }
    // Signed rightly, but the payload is another's.
    let token = pair.token(&claims("u"));
    let mut parts: Vec<_> = token.split('.').collect();
    parts[1] = &payload;
    assert_eq!(verify(&jwt, &parts.join(".")).await, Err(AuthError::Signature));
    parts.truncate(2);
    assert!(verify(&jwt, &parts.join(".")).await.is_err());
    // What says that there is more to understand is not understood.
    let header = encode(json!({ "alg": "ES256", "crit": ["exp"], "exp": 1 }));
    assert_eq!(verify(&jwt, &format!("{header}.{payload}.AAAA")).await, Err(AuthError::Malformed));
    for garbage in ["", ".", "..", "a.b.c", "€.€.€", &"a".repeat(20_000)] {
        assert_eq!(verify(&jwt, garbage).await, Err(AuthError::Malformed), "{garbage:.20}");
    }
}

#[tokio::test]
async fn algorithms_that_are_not_listed_are_not_taken() {
    let pair = Pair::ed25519();
    let jwt = Jwt { algorithms: vec![JwtAlgorithm::Es256], ..with_public(&pair.public) };
    assert_eq!(verify(&jwt, &pair.token(&claims("u"))).await, Err(AuthError::Algorithm));
    let jwt = Jwt { algorithms: vec![JwtAlgorithm::EdDsa], ..jwt };
    assert!(verify(&jwt, &pair.token(&claims("u"))).await.is_ok());
}

#[tokio::test]
async fn times_are_judged_with_leeway() {
    let jwt = Jwt { leeway: Duration::from_secs(30), ..Jwt::default() };
    let claims = |key: &str, seconds: i64| {
        let mut claims = claims("u");
        claims[key] = in_seconds(seconds).into();
        claims
    };
    assert!(judged(&jwt, &claims("exp", -10)).await.is_ok());
    assert_eq!(judged(&jwt, &claims("exp", -31)).await, Err(AuthError::Expired));
    assert!(judged(&jwt, &claims("nbf", 20)).await.is_ok());
    assert_eq!(judged(&jwt, &claims("nbf", 60)).await, Err(AuthError::NotYetValid));
    assert_eq!(judged(&jwt, &claims("iat", 60)).await, Err(AuthError::NotYetValid));
    for value in [json!("2030-01-01"), json!(-1), json!(1e300), json!([]), Value::Null] {
        let mut claims = claims("iat", 0);
        claims["exp"] = value;
        assert_eq!(judged(&jwt, &claims).await, Err(AuthError::Claim("exp")));
    }
    let endless = json!({ "sub": "u" });
    assert_eq!(judged(&jwt, &endless).await, Err(AuthError::Claim("exp")));
    let verified = judged(&Jwt { require_exp: false, ..jwt }, &endless).await.unwrap();
    assert_eq!(verified.expires_at, None);
}

#[tokio::test]
async fn audience_issuer_and_subject_are_judged() {
    let jwt = Jwt {
        audience: vec!["shop".to_owned(), "chat".to_owned()],
        issuer: vec!["https://id.example".to_owned()],
        ..Jwt::default()
    };
    let with = |changes: Value| {
        let mut claims = claims("u");
        claims["aud"] = "shop".into();
        claims["iss"] = "https://id.example".into();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    for right in [json!({}), json!({ "aud": ["other", "chat"] })] {
        assert!(judged(&jwt, &with(right)).await.is_ok());
    }
    for wrong in [json!({ "aud": "Shop" }), json!({ "aud": [] }), json!({ "aud": null }), json!({ "aud": 1 })]
    {
        assert_eq!(judged(&jwt, &with(wrong)).await, Err(AuthError::Audience));
    }
    for wrong in [
        json!({ "iss": "https://id.example/" }),
        json!({ "iss": null }),
        json!({ "iss": ["https://id.example"] }),
    ] {
        assert_eq!(judged(&jwt, &with(wrong)).await, Err(AuthError::Issuer));
    }
    for wrong in
        [json!({ "sub": "" }), json!({ "sub": null }), json!({ "sub": 7 }), json!({ "sub": "x".repeat(256) })]
    {
        assert_eq!(judged(&jwt, &with(wrong)).await, Err(AuthError::Claim("sub")));
    }
    assert_eq!(judged(&jwt, &with(json!({ "jti": 1 }))).await, Err(AuthError::Claim("jti")));
}

#[tokio::test]
async fn a_claim_grants_rooms() {
    let mut claims = claims("u");
    claims["roomcast"] = json!({ "join": ["order:{id}"], "emit": ["order:*"], "rooms": ["lobby"] });
    let grants = judged(&Jwt::default(), &claims).await.unwrap().grants.unwrap();
    assert!(grants.may_join("order:1") && !grants.may_join("order:1:x") && !grants.may_join("lobby"));
    assert!(grants.may_emit("order:1:x") && !grants.may_emit("lobby"));
    assert_eq!(grants.rooms, ["lobby".into()]);
    let renamed = Jwt { claim: "https://chat.example/rooms".to_owned(), ..Jwt::default() };
    assert_eq!(judged(&renamed, &claims).await.unwrap().grants, None);
    for wrong in
        [json!("order:*"), json!({ "join": "order:*" }), json!({ "emit": [1] }), json!({ "rooms": [""] })]
    {
        claims["roomcast"] = wrong;
        assert!(matches!(judged(&Jwt::default(), &claims).await, Err(AuthError::Claim(_))));
    }
}

#[test]
fn keys_that_are_too_weak_or_of_another_kind_are_refused() {
    let check = |jwt: &Jwt| check_static_keys(jwt).map_err(|(_, error)| error);
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(check(&with_public(&p384.public_key_pem())), Err(KeyError::Kind));
    assert_eq!(check(&with_public(&Pair::rsa(1024).public)), Err(KeyError::WeakRsa));
    for pair in [&*RSA, &Pair::p256(), &Pair::ed25519()] {
        assert_eq!(check(&with_public(&pair.private_pem)), Err(KeyError::Private));
    }
    for text in ["", "abc", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(check(&with_public(text)), Err(KeyError::NotPem), "{text}");
    }
    let short = Jwt { secret: Some(Secret::new("x".repeat(31))), ..Jwt::default() };
    assert_eq!(check(&short), Err(KeyError::ShortSecret));
}

/// Waits for something that another task does.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_keys_of_an_issuer_are_fetched_and_rotate() {
    let (first, second, ed) = (Pair::p256(), Pair::p256(), Pair::ed25519());
    let issuer = Issuer::start(&[first.jwk("1"), ed.jwk("e"), RSA.jwk("r")]).await;
    let verifier = verifier(&with_issuer(&issuer));
    let now = SystemTime::now();
    // The first of them waits for the keys.
    for (pair, id) in [(&first, "1"), (&ed, "e"), (&*RSA, "r")] {
        assert!(verifier.verify(&pair.token_of(id, &claims("u")), now).await.is_ok(), "{id}");
    }
    assert!(verifier.verify(&first.token(&claims("u")), now).await.is_ok(), "a token need not name its key");
    // Keys of other names and algorithms.
    assert_eq!(verifier.verify(&first.token_of("e", &claims("u")), now).await, Err(AuthError::Algorithm));
    assert_eq!(verifier.verify(&second.token_of("1", &claims("u")), now).await, Err(AuthError::Signature));
    let forged = Pair::shared(&first.public).token_of("1", &claims("u"));
    assert_eq!(verifier.verify(&forged, now).await, Err(AuthError::Algorithm));
    // The issuer has a new key: the first token that names it has the gateway ask.
    issuer.publish(&[second.jwk("2")]);
    becomes(&verifier, &second.token_of("2", &claims("u")), Ok(())).await;
    assert_eq!(verifier.verify(&first.token_of("1", &claims("u")), now).await, Err(AuthError::UnknownKey));
}

#[tokio::test]
async fn unknown_keys_do_not_flood_the_issuer() {
    let (known, unknown) = (Pair::p256(), Pair::p256());
    let issuer = Issuer::start(&[known.jwk("1")]).await;
    let jwt = Jwt { jwks_cooldown: Duration::from_secs(3_600), ..with_issuer(&issuer) };
    let verifier = verifier(&jwt);
    assert!(verifier.verify(&known.token_of("1", &claims("u")), SystemTime::now()).await.is_ok());
    for number in 0..50 {
        let token = unknown.token_of(&format!("x{number}"), &claims("u"));
        assert_eq!(verifier.verify(&token, SystemTime::now()).await, Err(AuthError::UnknownKey));
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn many_who_wait_are_served_by_one_request() {
    let pair = Pair::ed25519();
    let issuer = Issuer::start(&[pair.jwk("1")]).await;
    let verifier =
        Arc::new(verifier(&Jwt { jwks_cooldown: Duration::from_secs(3_600), ..with_issuer(&issuer) }));
    let token = pair.token_of("1", &claims("u"));
    let waiting = (0..100).map(|_| {
        let (verifier, token) = (Arc::clone(&verifier), token.clone());
        tokio::spawn(async move { verifier.verify(&token, SystemTime::now()).await.is_ok() })
    });
    let waiting: Vec<_> = waiting.collect();
    for one in waiting {
        assert!(one.await.unwrap());
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_temporary_and_its_keys_are_kept() {
    let (pair, new) = (Pair::p256(), Pair::p256());
    // Nobody listens there yet.
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let jwt = Jwt {
        jwks_url: Some(format!("http://{address}/jwks.json")),
        jwks_cooldown: Duration::from_millis(1),
        jwks_timeout: Duration::from_millis(500),
        ..Jwt::default()
    };
    let metrics = Arc::new(Metrics::new());
    let verifier = Verifier::new(&jwt, None, &metrics).unwrap().unwrap();
    let token = pair.token_of("1", &claims("u"));
    let error = verifier.verify(&token, SystemTime::now()).await.unwrap_err();
    assert_eq!((error, error.code(), error.status()), (AuthError::KeysUnavailable, "keys_unavailable", 503));
    let issuer = Issuer::listen(tokio::net::TcpListener::bind(address).await.unwrap(), &[pair.jwk("1")]);
    becomes(&verifier, &token, Ok(())).await;
    // Whatever becomes of it then, what it said still holds.
    let unknown = new.token_of("2", &claims("u"));
    let broken: [&dyn Fn(); 6] = [
        &|| issuer.answer(302, ""),
        &|| issuer.answer(500, "oops"),
        &|| issuer.answer(200, "<html>"),
        &|| issuer.answer(200, r#"{"keys":[]}"#),
        &|| issuer.answer(200, &format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(600_000))),
        &|| issuer.fall_silent(),
    ];
    for breaks in broken {
        breaks();
        let failures = metrics.jwks_fetches.of(JwksFetch::Failure).get();
        let _ = verifier.verify(&unknown, SystemTime::now()).await;
        until("a failure", || metrics.jwks_fetches.of(JwksFetch::Failure).get() > failures).await;
        becomes(&verifier, &unknown, Err(AuthError::KeysUnavailable)).await;
        assert!(verifier.verify(&token, SystemTime::now()).await.is_ok());
    }
    issuer.publish(&[new.jwk("2")]);
    becomes(&verifier, &unknown, Ok(())).await;
}

/// Verifies until it comes out so: the issuer may have been asked a moment ago, or be asked already.
async fn becomes(verifier: &Verifier, token: &str, expected: Result<(), AuthError>) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let result = verifier.verify(token, SystemTime::now()).await.map(drop);
        if result == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{result:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn keys_are_asked_for_again_after_a_while() {
    let (first, second) = (Pair::p256(), Pair::p256());
    let issuer = Issuer::start(&[first.jwk("1")]).await;
    let jwt = Jwt {
        jwks_refresh: Duration::from_millis(20),
        jwks_cooldown: Duration::from_secs(3_600),
        ..with_issuer(&issuer)
    };
    let verifier = verifier(&jwt);
    assert!(verifier.verify(&first.token_of("1", &claims("u")), SystemTime::now()).await.is_ok());
    issuer.publish(&[second.jwk("2")]);
    // One that began after the change.
    let asked = issuer.asked();
    until("two more requests", || issuer.asked() >= asked + 2).await;
    assert_eq!(
        verifier.verify(&first.token_of("1", &claims("u")), SystemTime::now()).await,
        Err(AuthError::UnknownKey)
    );
}

#[tokio::test]
async fn a_set_may_hold_keys_that_are_not_for_us() {
    let pair = Pair::p256();
    let mut for_encryption = Pair::p256().jwk("enc");
    for_encryption["use"] = "enc".into();
    let shared = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "kid": "s", "alg": "HS256" });
    let strange = json!({ "kty": "XYZ", "kid": "?" });
    let issuer = Issuer::start(&[
        strange,
        json!(1),
        shared,
        for_encryption,
        Pair::rsa(1024).jwk("weak"),
        pair.jwk("1"),
    ])
    .await;
    let jwt = with_issuer(&issuer);
    assert!(verify(&jwt, &pair.token_of("1", &claims("u"))).await.is_ok());
    let published = Pair::shared(SECRET).token_of("s", &claims("u"));
    assert_eq!(verify(&jwt, &published).await, Err(AuthError::Algorithm));
}

#[tokio::test]
async fn another_configuration_keeps_the_keys_of_the_same_issuer() {
    let pair = Pair::p256();
    let issuer = Issuer::start(&[pair.jwk("1")]).await;
    let jwt = Jwt { jwks_cooldown: Duration::from_secs(3_600), ..with_issuer(&issuer) };
    let before = verifier(&jwt);
    let token = pair.token_of("1", &claims("u"));
    assert!(before.verify(&token, SystemTime::now()).await.is_ok());
    issuer.fall_silent();
    let stricter = Jwt { audience: vec!["shop".to_owned()], ..jwt };
    let after = Verifier::new(&stricter, Some(&before), &Arc::new(Metrics::new())).unwrap().unwrap();
    drop(before);
    assert_eq!(after.verify(&token, SystemTime::now()).await, Err(AuthError::Audience));
    let off = Verifier::new(&Jwt::default(), Some(&after), &Arc::new(Metrics::new())).unwrap();
    assert!(off.is_none());
}

#[tokio::test]
async fn an_issuer_behind_tls_is_known_by_its_authority() {
    let pair = Pair::p256();
    let (issuer, pem) = Issuer::start_tls(&[pair.jwk("1")]).await;
    let token = pair.token_of("1", &claims("u"));
    let ca_file = std::env::temp_dir().join(format!("roomcast-jwks-{}.pem", std::process::id()));
    std::fs::write(&ca_file, &pem).unwrap();
    let patience = Duration::from_secs(20);
    let trusting =
        Jwt { jwks_ca_file: Some(ca_file.clone()), jwks_timeout: patience, ..with_issuer(&issuer) };
    let trusted = verify(&trusting, &token).await;
    // Nobody else has signed it.
    let unknown = verify(&Jwt { jwks_ca_file: None, ..trusting.clone() }, &token).await;
    std::fs::write(&ca_file, "garbage").unwrap();
    let garbage = verify(&trusting, &token).await;
    std::fs::remove_file(&ca_file).unwrap();
    assert!(trusted.is_ok(), "{trusted:?}");
    assert_eq!([unknown, garbage], [Err(AuthError::KeysUnavailable), Err(AuthError::KeysUnavailable)]);
}

#[test]
fn neither_keys_nor_tokens_show() {
    let shown = format!("{:?}", with_secret());
    assert!(!shown.contains(SECRET), "{shown}");
}
