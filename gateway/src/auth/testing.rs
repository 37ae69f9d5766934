//! Keys and tokens for tests: keys of every algorithm, made anew for each run, and a little issuer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

/// A secret that is long enough.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A pair of keys for one algorithm.
pub(crate) struct Pair {
    pub(crate) algorithm: Algorithm,
    private: EncodingKey,
    /// In PEM; none for a secret.
    pub(crate) public: String,
    pub(crate) private_pem: String,
}

impl Pair {
    pub(crate) fn shared(secret: &str) -> Self {
        let private = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, private, public: String::new(), private_pem: String::new() }
    }

    pub(crate) fn rsa(bits: usize) -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap();
        let public = key.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let private_pem = key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
        let private = EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::RS256, private, public, private_pem }
    }

    pub(crate) fn p256() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let private_pem = key.serialize_pem();
        let private = EncodingKey::from_ec_pem(private_pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::ES256, private, public: key.public_key_pem(), private_pem }
    }

    pub(crate) fn ed25519() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let private_pem = key.serialize_pem();
        let private = EncodingKey::from_ed_pem(private_pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::EdDSA, private, public: key.public_key_pem(), private_pem }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.private).unwrap()
    }

    /// A token that names its key.
    pub(crate) fn token_of(&self, key_id: &str, claims: &Value) -> String {
        let header = Header { kid: Some(key_id.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.private).unwrap()
    }

    /// The public key for a JWK set.
    pub(crate) fn jwk(&self, key_id: &str) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            // The last 32 bytes of the key's DER are the key itself (RFC 8410, section 4).
            let der = pem_content(&self.public);
            let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
            return json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": key_id, "use": "sig" });
        }
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        jwk.common.key_id = Some(key_id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

fn pem_content(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).unwrap()
}

/// Seconds since 1970, some from now.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// Claims of a user that hold for an hour.
pub(crate) fn claims(user: &str) -> Value {
    json!({ "sub": user, "iat": in_seconds(0), "exp": in_seconds(3_600) })
}

/// An issuer: a little HTTP server with an answer that can be changed.
pub(crate) struct Issuer {
    pub(crate) url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
enum Answer {
    Body(u16, String),
    /// Takes the request and says nothing.
    Silence,
}

impl Issuer {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), keys)
    }

    /// On a port that was free a moment ago.
    pub(crate) fn listen(listener: TcpListener, keys: &[Value]) -> Self {
        Self::serve(listener, keys, None)
    }

    /// Behind TLS, and its certificate in PEM.
    pub(crate) async fn start_tls(keys: &[Value]) -> (Self, String) {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self::serve(listener, keys, Some(TlsAcceptor::from(Arc::new(config)))), signed.cert.pem())
    }

    fn serve(listener: TcpListener, keys: &[Value], tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/jwks.json", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(Answer::Body(200, json!({ "keys": keys }).to_string())));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, count, tls) = (Arc::clone(&answers), Arc::clone(&count), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => speak(stream, &answers, &count).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                speak(stream, &answers, &count).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, answer, asked, task }
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.answer(200, &json!({ "keys": keys }).to_string());
    }

    pub(crate) fn answer(&self, status: u16, body: &str) {
        *self.answer.lock() = Answer::Body(status, body.to_owned());
    }

    pub(crate) fn fall_silent(&self) {
        *self.answer.lock() = Answer::Silence;
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one request.
async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: &Mutex<Answer>,
    count: &AtomicUsize,
) {
    let mut request = vec![0; 4096];
    let _ = stream.read(&mut request).await;
    count.fetch_add(1, Ordering::SeqCst);
    let answer = answers.lock().clone();
    match answer {
        Answer::Silence => std::future::pending().await,
        Answer::Body(status, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nlocation: /other.json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}
