//! Credentials and TLS of the bus over NATS, against real servers.
#![cfg(feature = "nats")]
#![allow(unreachable_pub, reason = "the support module is shared")]

mod support;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use roomcast_adapter::{
    cluster::{Bus, BusError, BusSink},
    nats::{NatsBus, NatsConfig},
};
use support::{
    DEADLINE, Kind, Recorder, Server, eventually, nats::NatsCluster, publication, subject, unique,
};

/// Files that are gone after the test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("roomcast-nats-{}", unique()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).expect("a temporary file");
        self.path(name)
    }

    /// A certificate authority, and a certificate and key of it for servers and one for clients.
    fn write_certificates(&self) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key"))
            .expect("a certificate");
        self.write("ca.pem", &authority.pem());
        for name in ["server", "client"] {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = CertificateParams::new(names).expect("names");
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
            self.write(&format!("{name}.pem"), &certificate.pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }
    }

    /// What makes a server speak TLS.
    fn tls(&self, verify: bool) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn server(configuration: &Path) -> Server {
    Server::own(Kind::Nats, &["--config", &configuration.to_string_lossy()])
}

async fn start(config: &NatsConfig) -> Result<(NatsBus, Arc<Recorder>), BusError> {
    let (bus, sink) = (NatsBus::new(config)?, Recorder::new());
    bus.start(Arc::clone(&sink) as Arc<dyn BusSink>).await?;
    Ok((bus, sink))
}

async fn refusal(config: &NatsConfig) -> BusError {
    let error = start(config).await.map(drop).expect_err("not let in");
    println!("{error}");
    error
}

/// One node speaks to another, each on another server, and every server is asked about subscriptions.
async fn works_on(cluster: &NatsCluster, configure: impl Fn(&str) -> NatsConfig) {
    let prefix = unique();
    let on = |n: usize| {
        let mut config = configure(&cluster.url(n));
        config.prefix.clone_from(&prefix);
        config
    };
    let (subscriber, sink) = start(&on(0)).await.expect("let in");
    let (publisher, _) = start(&on(1)).await.expect("let in");
    for round in 0..20 {
        let name = format!("room/{round}");
        subscriber.subscribe(vec![subject(&name)]).await.expect("subscribed");
        publisher.publish(vec![publication(&name, "x")]).await.expect("published");
    }
    eventually(DEADLINE, "messages", || sink.count() == 20).await;
    assert_eq!((subscriber.stats().uncovered, publisher.stats().uncovered), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_password_on_a_cluster() {
    let cluster = NatsCluster::own(&["--user", "roomcast", "--pass", "se/cret"]);
    works_on(&cluster, |url| NatsConfig::new(url.replace("://", "://roomcast:se%2Fcret@"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_on_a_cluster() {
    let cluster = NatsCluster::own(&["--auth", "to,ken"]);
    works_on(&cluster, |url| NatsConfig::new(url.replace("://", "://to%2Cken@"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nkey_of_a_user() {
    let (files, pair) = (Files::new(), KeyPair::new_user());
    let text = format!("authorization {{ users = [ {{ nkey: {} }} ] }}", pair.public_key());
    let server = server(&files.write("nats.conf", &text));
    let with = |seed: &str| {
        let mut config = NatsConfig::new(server.url());
        config.nkey_seed = Some(seed.to_owned());
        config
    };
    let seed = pair.seed().expect("a seed");
    let (bus, _) = start(&with(&seed)).await.expect("let in");
    bus.ping().await.expect("a round trip");

    let other = KeyPair::new_user().seed().expect("a seed");
    let error = refusal(&with(&other)).await;
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    assert!(!error.to_string().contains(&other) && !format!("{:?}", with(&other)).contains(&other));
    let error = refusal(&NatsConfig::new(server.url())).await;
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    let account = KeyPair::new_account().seed().expect("a seed");
    for wrong in ["", "hunter2", &account] {
        let error = refusal(&with(wrong)).await;
        assert!(matches!(error, BusError::Configuration(_)), "{error}");
        assert!(wrong.is_empty() || !error.to_string().contains(wrong), "{error}");
    }
}

#[test]
fn one_kind_of_credentials_may_be_given() {
    let seed = KeyPair::new_user().seed().expect("a seed");
    let make = |url: &str, nkey: bool, file: bool| {
        let mut config = NatsConfig::new(url);
        config.nkey_seed = nkey.then(|| seed.clone());
        config.credentials_file = file.then(|| "node.creds".into());
        NatsBus::new(&config).map(drop)
    };
    let (plain, user) = ("nats://localhost", "nats://user:secret@localhost");
    for (url, nkey, file) in
        [(plain, true, true), (user, true, false), (user, false, true), (user, true, true)]
    {
        let error = make(url, nkey, file).expect_err("too many");
        assert!(matches!(error, BusError::Configuration(_)), "{error}");
        assert!(!error.to_string().contains("secret") && !error.to_string().contains(&seed), "{error}");
    }
    for (url, nkey, file) in
        [(plain, false, false), (plain, true, false), (plain, false, true), (user, false, false)]
    {
        make(url, nkey, file).expect("one kind");
    }
}

/// A JWT of NATS.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &serde_json::Value) -> String {
    let header = serde_json::json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = serde_json::json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": name, "nats": nats,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).expect("a seed"));
    format!("{signed}.{signature}")
}

/// A user of an account as a credentials file, and the configuration of servers that know the account.
fn operator_and_user() -> (String, String) {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let of_operator =
        jwt(&operator, &operator, "operator", &serde_json::json!({ "type": "operator", "version": 2 }));
    let limits = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let claims = serde_json::json!({ "type": "account", "version": 2, "limits": limits });
    let of_account = jwt(&operator, &account, "account", &claims);
    let claims = serde_json::json!({
        "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
    });
    let of_user = jwt(&account, &user, "user", &claims);
    let configuration = format!(
        "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {of_account} }}\n",
        account.public_key()
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("a seed")
    );
    (credentials, configuration)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_file_on_a_cluster() {
    let files = Files::new();
    let (credentials, configuration) = operator_and_user();
    let configuration = files.write("nats.conf", &configuration);
    let cluster = NatsCluster::own(&["--config", &configuration.to_string_lossy()]);
    let file = files.write("node.creds", &credentials);
    let with = |url: &str| {
        let mut config = NatsConfig::new(url);
        config.credentials_file = Some(file.clone());
        config
    };
    works_on(&cluster, with).await;

    // Of somebody else; then it is replaced, and read again.
    files.write("node.creds", &operator_and_user().0);
    let bus = NatsBus::new(&with(&cluster.url(0))).expect("a good configuration");
    let error = bus.start(Recorder::new()).await.expect_err("not let in");
    assert!(matches!(error, BusError::Refused(_)), "{error}");
    files.write("node.creds", &credentials);
    bus.start(Recorder::new()).await.expect("let in");
    bus.ping().await.expect("a round trip");

    files.write("node.creds", "hunter2");
    let error = refusal(&with(&cluster.url(0))).await;
    assert!(matches!(error, BusError::Configuration(_)), "{error}");
    assert!(error.to_string().contains("node.creds") && !error.to_string().contains("hunter2"), "{error}");
    std::fs::remove_file(&file).expect("it is there");
    let error = refusal(&with(&cluster.url(0))).await;
    assert!(
        matches!(error, BusError::Configuration(_)) && error.to_string().contains("node.creds"),
        "{error}"
    );
}

/// Servers and nodes that show each other certificates, on a cluster whose servers announce what is in theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_on_a_cluster() {
    let files = Files::new();
    files.write_certificates();
    let configuration = files.write("nats.conf", &files.tls(true));
    let log = |n: usize| files.path(&format!("{n}.log")).display().to_string();
    let cluster = NatsCluster::own_each(|n| {
        let arguments = ["--config", &configuration.to_string_lossy(), "--log", &log(n)];
        arguments.map(str::to_owned).to_vec()
    });
    let with = |url: &str, files: &Files| {
        let mut config = NatsConfig::new(url);
        config.link.connect_timeout = Duration::from_secs(2);
        config.tls.ca_file = Some(files.path("ca.pem"));
        config.tls.cert_file = Some(files.path("client.pem"));
        config.tls.key_file = Some(files.path("client.key"));
        config
    };
    let url = cluster.url(0).replace("nats://", "tls://");
    works_on(&cluster, |url| with(&url.replace("nats://", "tls://"), &files)).await;
    // The test itself has looked who is there, and left before the handshake. The bus must not.
    let complaints = || {
        let logs = (0..3).map(|n| std::fs::read_to_string(log(n)).expect("the log of a server"));
        let logs: String = logs.collect();
        assert_eq!(logs.matches("Server is ready").count(), 3, "{logs}");
        logs.lines().filter(|line| line.contains("[ERR]")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = complaints();
    works_on(&cluster, |url| with(url, &files)).await;
    assert_eq!(complaints(), before);

    let mut config = with(&url, &files);
    (config.tls.cert_file, config.tls.key_file) = (None, None);
    let error = refusal(&config).await;
    assert!(matches!(error, BusError::Unavailable(_)), "without a certificate: {error}");
    let others = Files::new();
    others.write_certificates();
    let mut config = with(&url, &files);
    config.tls.ca_file = Some(others.path("ca.pem"));
    let error = refusal(&config).await;
    assert!(error.to_string().contains("certificate"), "an authority that is not trusted: {error}");
    // A key of another certificate.
    let mut config = with(&url, &files);
    config.tls.key_file = Some(others.path("client.key"));
    let error = refusal(&config).await;
    assert!(
        matches!(error, BusError::Configuration(_)) && error.to_string().contains("client.key"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_files_that_are_missing_or_garbage() {
    let files = Files::new();
    files.write_certificates();
    files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n");
    files.write("empty.pem", "");
    let server = server(&files.write("nats.conf", &files.tls(false)));
    for name in ["garbage.pem", "empty.pem", "missing.pem"] {
        for place in 0..3 {
            let mut config = NatsConfig::new(server.url());
            let path = |of: usize, good: &str| Some(files.path(if of == place { name } else { good }));
            config.tls.ca_file = path(0, "ca.pem");
            config.tls.cert_file = path(1, "client.pem");
            config.tls.key_file = path(2, "client.key");
            let error = refusal(&config).await;
            assert!(matches!(error, BusError::Configuration(_)), "{name} at {place}: {error}");
            assert!(error.to_string().contains(name), "{name} at {place}: {error}");
        }
    }
    let mut config = NatsConfig::new(server.url());
    config.tls.cert_file = Some(files.path("client.pem"));
    assert!(matches!(NatsBus::new(&config), Err(BusError::Configuration(_))), "a certificate without a key");
    // No client certificate is asked for here.
    let mut config = NatsConfig::new(server.url());
    config.tls.ca_file = Some(files.path("ca.pem"));
    let (bus, _) = start(&config).await.expect("let in");
    bus.ping().await.expect("a round trip");
}

/// What asks for TLS does not speak to a server without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_is_required() {
    let files = Files::new();
    files.write_certificates();
    let server = Server::shared(Kind::Nats);
    let mut config = NatsConfig::new(server.url().replace("nats://", "tls://"));
    config.tls.ca_file = Some(files.path("ca.pem"));
    config.link.connect_timeout = Duration::from_secs(2);
    refusal(&config).await;
    config.url = server.url();
    refusal(&config).await;
}
