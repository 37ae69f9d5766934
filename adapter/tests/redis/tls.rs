//! TLS, with certificates of our own, and users with few rights.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use roomcast_adapter::{
    cluster::{Bus, BusError},
    redis::RedisBus,
};

use super::{
    config,
    support::{self, DEADLINE, Kind, Recorder, Server, publication, subject},
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// A directory of certificates: an authority, and what it signed.
struct Certificates {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", support::unique()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority = authority.expect("an authority");
        let directory = std::env::temp_dir().join(format!("roomcast-test-tls-{}", support::unique()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        std::fs::write(directory.join("ca.pem"), authority.pem()).expect("written");
        let certificates = Self { directory, authority };
        certificates.sign("server");
        certificates.sign("client");
        certificates
    }

    fn sign(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &self.authority).expect("signed");
        std::fs::write(self.file(&format!("{name}.pem")), signed.pem()).expect("written");
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A server that asks for client certificates, and its URL.
fn server(certificates: &Certificates) -> (Server, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let tls = port.local_addr().expect("bound").port().to_string();
    drop(port);
    let file = |name: &str| certificates.file(name).to_string_lossy().into_owned();
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
    let arguments = [
        ["--tls-port", &tls],
        ["--tls-ca-cert-file", &ca],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-auth-clients", "yes"],
    ];
    let server = Server::own(Kind::Redis, arguments.as_flattened());
    // The rights that the manual names.
    server.redis_command(
        "ACL SETUSER node on >s3cret resetchannels &good:* resetkeys -@all +hello +ping +echo +publish +subscribe +unsubscribe",
    );
    (server, format!("rediss://node:s3cret@127.0.0.1:{tls}"))
}

fn bus(url: &str, certificates: &Certificates, ca: &Path, client: bool) -> Result<RedisBus, BusError> {
    let mut config = config(url, "good", TIMEOUT);
    config.tls.ca_file = Some(ca.to_owned());
    config.tls.cert_file = client.then(|| certificates.file("client.pem"));
    config.tls.key_file = client.then(|| certificates.file("client.key"));
    RedisBus::new(&config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_and_a_user_with_few_rights() {
    let certificates = Certificates::new();
    let (_server, url) = server(&certificates);
    let bus = bus(&url, &certificates, &certificates.file("ca.pem"), true).expect("a good configuration");
    let sink = Recorder::new();
    bus.start(sink.clone()).await.expect("the server is there");
    bus.subscribe(vec![subject("room/a")]).await.expect("subscribed");
    let large = vec![b'x'; 1024 * 1024];
    bus.publish(vec![publication("room/a", large.clone()), publication("room/a", "x")]).await.expect("sent");
    support::eventually(DEADLINE, "messages", || sink.count() == 2).await;
    assert!(sink.on("room/a")[0] == large);
    bus.unsubscribe(vec![subject("room/a")]).await.expect("unsubscribed");
    bus.ping().await.expect("a round trip");
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_trusted_is_told_so() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let (_server, url) = server(&certificates);
    for (what, ca, client, url, told) in [
        ("another authority", others.file("ca.pem"), true, url.clone(), "UnknownIssuer"),
        ("no client certificate", certificates.file("ca.pem"), false, url.clone(), "127.0.0.1"),
        (
            "a wrong password",
            certificates.file("ca.pem"),
            true,
            url.replace("s3cret", "hunter2"),
            "WRONGPASS",
        ),
    ] {
        let bus = bus(&url, &certificates, &ca, client).expect("a good configuration");
        let error = bus.start(Recorder::new()).await.expect_err(what);
        println!("{what}: {error}");
        assert!(
            error.to_string().contains(told) && !error.to_string().contains("hunter2"),
            "{what}: {error}"
        );
    }
    let error = bus(&url, &certificates, &certificates.file("server.key"), true).expect_err("a key");
    assert!(matches!(&error, BusError::Configuration(text) if text.contains("server.key")), "{error}");
}

/// The files are read for each link: a certificate that is put in place later is taken up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_taken_up_by_the_next_link() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let (server, url) = server(&certificates);
    let ca = certificates.file("rotated.pem");
    std::fs::copy(certificates.file("ca.pem"), &ca).expect("copied");
    let (bus, sink) = (bus(&url, &certificates, &ca, true).expect("a good configuration"), Recorder::new());
    bus.start(sink.clone()).await.expect("trusted");
    std::fs::copy(others.file("ca.pem"), &ca).expect("copied");
    server.redis_command("CLIENT KILL TYPE pubsub");
    server.redis_command("CLIENT KILL TYPE normal");
    sink.state(1, roomcast_adapter::cluster::BusState::Down, DEADLINE).await;
    assert!(bus.ping().await.is_err());
    std::fs::copy(certificates.file("ca.pem"), &ca).expect("copied");
    sink.state(2, roomcast_adapter::cluster::BusState::Up, DEADLINE).await;
    bus.ping().await.expect("a round trip");
}
