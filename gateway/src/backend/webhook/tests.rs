//! Deliveries to a receiver that answers as it is told, over real connections.

use std::collections::VecDeque;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;

use super::*;
use crate::config::{Secret, SecretUrl};

/// What a receiver got.
#[derive(Debug, Clone)]
struct Got {
    headers: HeaderMap,
    raw: Bytes,
    body: serde_json::Value,
}

type Answer = (u16, Vec<(&'static str, String)>, String);

#[derive(Default)]
struct Script {
    got: Mutex<Vec<Got>>,
    /// What to answer, in order; then 200 and nothing.
    answers: Mutex<VecDeque<Answer>>,
    /// Answers wait until this is rung.
    hold: Mutex<Option<Arc<Notify>>>,
}

async fn receive(
    State(script): State<Arc<Script>>,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let (raw, body) = (body.clone(), serde_json::from_slice(&body).unwrap());
    script.got.lock().push(Got { headers, raw, body });
    let hold = script.hold.lock().clone();
    if let Some(hold) = hold {
        hold.notified().await;
    }
    let (status, headers, body) =
        script.answers.lock().pop_front().unwrap_or((200, Vec::new(), String::new()));
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

struct Rig {
    script: Arc<Script>,
    webhook: Arc<Webhook>,
    letters: Arc<DeadLetters>,
    metrics: Arc<Metrics>,
}

async fn listen(script: &Arc<Script>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/hook", post(receive)).with_state(Arc::clone(script));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn settings(address: SocketAddr) -> config::Backend {
    config::Backend {
        webhook: Some(SecretUrl::new(format!("http://{address}/hook"))),
        secrets: vec![Secret::new("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")],
        batch_delay: Duration::from_millis(5),
        ..config::Backend::default()
    }
}

async fn rig_with(change: impl FnOnce(&mut config::Backend)) -> Rig {
    let script = Arc::<Script>::default();
    let mut settings = settings(listen(&script).await);
    change(&mut settings);
    let metrics = Arc::new(Metrics::new());
    let letters = DeadLetters::new(&metrics);
    let webhook = Webhook::start("orders", &settings, &metrics, &letters).unwrap();
    Rig { script, webhook, letters, metrics }
}

async fn rig() -> Rig {
    rig_with(|_| {}).await
}

fn event(subject: &str, id: &str) -> CloudEvent {
    CloudEvent::for_test(subject, id)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("no {what}"));
}

impl Rig {
    fn answers(&self, answers: impl IntoIterator<Item = (u16, &'static str)>) {
        let answers = answers.into_iter().map(|(status, body)| (status, Vec::new(), body.to_owned()));
        self.script.answers.lock().extend(answers);
    }

    fn got(&self) -> Vec<Got> {
        self.script.got.lock().clone()
    }

    /// The ids of what came, request by request.
    fn ids(&self) -> Vec<Vec<String>> {
        let id = |event: &serde_json::Value| event["id"].as_str().unwrap().to_owned();
        let of = |got: Got| match got.body.as_array() {
            Some(events) => events.iter().map(id).collect(),
            None => vec![id(&got.body)],
        };
        self.got().into_iter().map(of).collect()
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("roomcast_{series} ")));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

#[tokio::test]
async fn a_call_is_signed_and_its_reply_is_read() {
    let rig = rig().await;
    rig.answers([(200, r#"{"ack":[1,"two"]}"#)]);
    let reply = rig.webhook.call(event("socket/a", "a-1")).await.unwrap();
    assert_eq!(reply.ack.unwrap(), [serde_json::json!(1), serde_json::json!("two")]);
    let got = rig.got();
    let header = |name: &str| got[0].headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/cloudevents+json");
    assert_eq!(got[0].body["id"], "a-1");
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp").parse().unwrap());
    let secret = Secret::new("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    assert_eq!(header("webhook-signature"), Signer::new(&[secret]).sign(&id, timestamp, &got[0].raw));
    assert!(rig.metric("backend_requests_total{backend=\"orders\",kind=\"call\",result=\"ok\"}") > 0.0);
}

#[tokio::test]
async fn a_call_fails_as_the_contract_says() {
    let rig = rig_with(|settings| {
        settings.timeout = Duration::from_millis(300);
        settings.max_reply = 64;
    })
    .await;
    let cases: [(u16, &'static str, &str, u16); 8] = [
        (403, r#"{"code":"banned","detail":"no"}"#, "banned", 403),
        (429, "", "rate_limited", 429),
        (500, "", "backend_failed", 502),
        (302, "", "backend_failed", 502),
        (200, "<html>", "backend_invalid_reply", 502),
        (
            200,
            r#"{"ack":["0123456789012345678901234567890123456789012345678901234567890"]}"#,
            "backend_invalid_reply",
            502,
        ),
        (404, "", "not_found", 404),
        (200, r#"{"error":{"status":402,"code":"pay"}}"#, "pay", 402),
    ];
    for (number, (status, body, code, expected)) in cases.into_iter().enumerate() {
        rig.answers([(status, body)]);
        let error = rig.webhook.call(event("socket/a", &number.to_string())).await.unwrap_err();
        assert_eq!((error.code(), error.status()), (code, expected), "{status} {body}");
    }
    *rig.script.hold.lock() = Some(Arc::default());
    let error = rig.webhook.call(event("socket/a", "late")).await.unwrap_err();
    assert_eq!((error.code(), error.status()), ("backend_timeout", 504));
    assert_eq!(rig.got().len(), 9, "nothing was asked twice");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (rig, other) = (rig().await, Arc::<Script>::default());
    let target = format!("http://{}/hook", listen(&other).await);
    rig.script.answers.lock().push_back((307, vec![("location", target)], String::new()));
    assert_eq!(rig.webhook.call(event("socket/a", "1")).await.unwrap_err(), BackendError::Failed(307));
    assert!(other.got.lock().is_empty());
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_tried_once_more() {
    let rig = rig_with(|settings| {
        // Nobody listens on it once it is closed.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        settings.webhook = Some(SecretUrl::new(format!("http://{free}/hook")));
    })
    .await;
    let error = rig.webhook.call(event("socket/a", "1")).await.unwrap_err();
    assert_eq!(error, BackendError::Unavailable);
    assert_eq!(rig.metric("backend_retries_total{backend=\"orders\"}"), 1.0);
}

#[tokio::test]
async fn notices_come_together_and_again_with_the_same_id_until_they_are_taken() {
    let rig = rig().await;
    rig.answers([(500, ""), (429, "")]);
    for number in 1..=3 {
        rig.webhook.notify(event("socket/a", &format!("a-{number}"))).unwrap();
    }
    until("third attempt", || rig.got().len() == 3).await;
    rig.webhook.notify(event("socket/a", "a-4")).unwrap();
    until("next batch", || rig.got().len() == 4).await;
    let first = vec!["a-1".to_owned(), "a-2".to_owned(), "a-3".to_owned()];
    assert_eq!(rig.ids(), [first.clone(), first.clone(), first, vec!["a-4".to_owned()]]);
    let got = rig.got();
    assert_eq!(got[0].headers["content-type"], "application/cloudevents-batch+json");
    assert_eq!(got[0].headers["webhook-id"], got[2].headers["webhook-id"]);
    assert_ne!(got[0].headers["webhook-id"], got[3].headers["webhook-id"]);
    rig.webhook.drain().await;
    assert_eq!(rig.metric("backend_events_total{backend=\"orders\",type=\"roomcast.event\"}"), 4.0);
    assert_eq!(rig.metric("backend_queued{backend=\"orders\"}"), 0.0);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let rig = rig().await;
    rig.script.answers.lock().push_back((429, vec![("retry-after", "2".to_owned())], String::new()));
    let began = Instant::now();
    rig.webhook.notify(event("socket/a", "1")).unwrap();
    until("second attempt", || rig.got().len() == 2).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_that_is_asked_to_wait_for_too_long_becomes_a_dead_letter() {
    let rig = rig().await;
    rig.script.answers.lock().push_back((503, vec![("retry-after", "301".to_owned())], String::new()));
    rig.webhook.notify(event("socket/a", "1")).unwrap();
    until("dead letter", || rig.letters.list(None, 0, 10).1 == 1).await;
    let (letters, _) = rig.letters.list(Some("orders"), 0, 10);
    assert_eq!(
        (&*letters[0].event.id, letters[0].reason.as_str(), letters[0].attempts),
        ("1", "exhausted", 1)
    );
}

#[tokio::test]
async fn gone_ends_deliveries_until_the_next_reload() {
    let rig = rig().await;
    rig.answers([(410, "")]);
    rig.webhook.notify(event("socket/a", "1")).unwrap();
    until("dead letter", || rig.letters.list(None, 0, 10).1 == 1).await;
    assert_eq!(rig.webhook.notify(event("socket/a", "2")), Err(BackendError::Unavailable));
    assert!(rig.webhook.call(event("socket/a", "3")).await.is_ok(), "calls go on");
    let address = listen(&rig.script).await;
    rig.webhook.reload(&settings(address)).unwrap();
    rig.webhook.notify(event("socket/a", "4")).unwrap();
    until("delivery", || rig.got().len() == 3).await;
}

#[tokio::test]
async fn the_breaker_opens_and_closes_again() {
    let rig = rig_with(|settings| {
        settings.breaker_failures = 3;
        settings.breaker_pause = Duration::from_millis(400);
    })
    .await;
    rig.answers([(500, ""), (500, ""), (500, "")]);
    for number in 0..3 {
        let error = rig.webhook.call(event("socket/a", &number.to_string())).await.unwrap_err();
        assert_eq!(error, BackendError::Failed(500));
    }
    let opened = Instant::now();
    // Notices wait, calls do not.
    rig.webhook.notify(event("socket/b", "b-1")).unwrap();
    let error = rig.webhook.call(event("socket/a", "4")).await.unwrap_err();
    assert_eq!(error, BackendError::Unavailable);
    assert_eq!(rig.got().len(), 3);
    assert_eq!(rig.metric("backend_breaker{backend=\"orders\"}"), 2.0);
    assert_eq!(rig.metric("backend_dropped_total{backend=\"orders\",reason=\"breaker\"}"), 1.0);
    until("trial", || rig.got().len() == 4).await;
    assert!(opened.elapsed() >= Duration::from_millis(350), "{:?}", opened.elapsed());
    until("closing", || rig.metric("backend_breaker{backend=\"orders\"}") == 0.0).await;
    assert!(rig.webhook.call(event("socket/a", "5")).await.is_ok());
}

#[tokio::test]
async fn more_than_may_wait_is_refused_and_counted() {
    let rig = rig_with(|settings| {
        settings.queue_items = 2;
        settings.batch_delay = Duration::from_secs(3_600);
    })
    .await;
    rig.webhook.notify(event("socket/a", "1")).unwrap();
    rig.webhook.notify(event("socket/b", "2")).unwrap();
    assert_eq!(rig.webhook.notify(event("socket/c", "3")), Err(BackendError::Overloaded));
    assert_eq!(rig.webhook.call(event("socket/c", "4")).await.unwrap_err(), BackendError::Overloaded);
    assert_eq!(rig.metric("backend_dropped_total{backend=\"orders\",reason=\"queue_items\"}"), 2.0);
    tokio::time::timeout(Duration::from_secs(20), rig.webhook.drain()).await.unwrap();
    assert_eq!(rig.ids(), [["1".to_owned(), "2".to_owned()]]);
}

#[tokio::test]
async fn requests_at_once_are_limited() {
    let rig = rig_with(|settings| settings.concurrency = 2).await;
    let hold = Arc::<Notify>::default();
    *rig.script.hold.lock() = Some(Arc::clone(&hold));
    let calls =
        (0..5).map(|number| rig.webhook.call(event(&format!("socket/{number}"), &number.to_string())));
    let calls = tokio::spawn(futures_util::future::join_all(calls.collect::<Vec<_>>()));
    for served in 1..=5_usize {
        until("requests", || rig.got().len() == (served + 1).min(5)).await;
        assert!(rig.got().len() <= served + 1);
        hold.notify_one();
    }
    assert!(calls.await.unwrap().iter().all(Result::is_ok));
}

/// A server with a certificate of its own, which answers everything with `{}`.
async fn listen_with_tls() -> (SocketAddr, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = vec![0; 64 * 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn https_is_verified_with_the_authorities_that_are_named() {
    let (address, pem) = listen_with_tls().await;
    let file = std::env::temp_dir().join(format!("roomcast-webhook-{}.pem", std::process::id()));
    std::fs::write(&file, pem).unwrap();
    let url = SecretUrl::new(format!("https://{address}/hook"));
    let trusting = rig_with(|settings| {
        (settings.webhook, settings.ca_file) = (Some(url.clone()), Some(file.clone()));
    })
    .await;
    assert!(trusting.webhook.call(event("socket/a", "1")).await.is_ok());
    let other = rig_with(|settings| settings.webhook = Some(url)).await;
    assert_eq!(other.webhook.call(event("socket/a", "1")).await.unwrap_err(), BackendError::Unavailable);
    std::fs::remove_file(&file).unwrap();
    let missing = Settings::new("orders", &config::Backend { ca_file: Some(file), ..settings(address) });
    assert!(matches!(missing, Err(SetupError::Tls { .. })));
}
