//! One connection to one server: its greeting, and then commands in, answers out.
//!
//! Owns which answer belongs to which command. A connection that ends is not repaired: it raises the link's fault, and
//! whoever waits for an answer learns that there will be none. Messages are delivered by the task that reads, before it
//! reads on, so that none is queued here and a node that delivers slowly is felt by the server.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    resp::{self, Frame},
    url::{Endpoint, Login},
};
use crate::{
    broker::{Fault, redact},
    cluster::BusError,
};

/// What a read asks for at least.
const READ: usize = 16 * 1024;
/// A read buffer that has grown beyond this is given back when it is empty.
const READ_KEPT: usize = 256 * 1024;

/// How servers of a link are spoken to.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) tls: Option<TlsConnector>,
    pub(super) login: Login,
    pub(super) database: u32,
    /// For one server, greeting included.
    pub(super) timeout: Duration,
    /// What must not be printed.
    pub(super) secrets: Arc<[String]>,
}

/// What comes on a connection beside answers. Called by the task that reads.
pub(super) trait Pushes: Send + Sync + 'static {
    /// A message. False ends the connection.
    fn message(&self, channel: &str, payload: Bytes) -> bool;
    /// A message on a channel that matches a pattern. It comes once for each pattern. False ends the connection.
    fn matched(&self, _pattern: &str, _channel: &str, _payload: Bytes) -> bool {
        true
    }
    /// A sharded subscription stands.
    fn subscribed(&self, _channel: &str) {}
    /// A sharded subscription ended, by us or because the slot was moved.
    fn unsubscribed(&self, _channel: &str) {}
}

/// A publishing connection has none.
pub(super) struct NoPushes;

impl Pushes for NoPushes {
    fn message(&self, _: &str, _: Bytes) -> bool {
        true
    }
}

/// What a server said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Greeting {
    /// The first number of the version.
    pub(super) major: u32,
    /// `standalone`, `sentinel` or `cluster`.
    pub(super) mode: String,
    pub(super) is_master: bool,
}

/// A connection that nothing is queued on: one command at a time.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    endpoint: Endpoint,
    secrets: Arc<[String]>,
    pub(super) greeting: Greeting,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Wire {
    /// Connects on a runtime, where the connection stays, and says who we are.
    pub(super) async fn open(runtime: &Handle, endpoint: &Endpoint, dial: &Dial) -> Result<Self, BusError> {
        on(runtime, endpoint, dial, |endpoint, dial| async move {
            let mut wire = Self::connect(endpoint, &dial).await?;
            wire.greet(&dial).await?;
            Ok(wire)
        })
        .await
    }

    /// Connects to a Sentinel, which may be too old for a greeting, and asks it something.
    pub(super) async fn ask(
        runtime: &Handle,
        endpoint: &Endpoint,
        dial: &Dial,
        question: Vec<String>,
    ) -> Result<Frame, BusError> {
        on(runtime, endpoint, dial, |endpoint, dial| async move {
            let mut wire = Self::connect(endpoint, &dial).await?;
            if let Some(password) = &dial.login.password {
                let user = dial.login.user.iter().map(String::as_str);
                let auth: Vec<&str> = ["AUTH"].into_iter().chain(user).chain([password.as_str()]).collect();
                wire.call(&auth).await?;
            }
            wire.call(&question.iter().map(String::as_str).collect::<Vec<_>>()).await
        })
        .await
    }

    async fn connect(endpoint: Endpoint, dial: &Dial) -> Result<Self, BusError> {
        let failed = |error: &dyn std::fmt::Display| BusError::Unavailable(format!("{endpoint}: {error}"));
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let stream = stream.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let stream: Box<dyn Stream> = match &dial.tls {
            None => Box::new(stream),
            Some(connector) => {
                let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(&error))?;
                let stream = connector.connect(name, stream).await;
                Box::new(stream.map_err(|error| failed(&format!("TLS: {error}")))?)
            }
        };
        let (secrets, greeting) = (Arc::clone(&dial.secrets), Greeting::default());
        Ok(Self { stream, buffer: BytesMut::new(), endpoint, secrets, greeting })
    }

    async fn greet(&mut self, dial: &Dial) -> Result<(), BusError> {
        let mut hello = vec!["HELLO", "3"];
        if dial.login.user.is_some() || dial.login.password.is_some() {
            let user = dial.login.user.as_deref().unwrap_or("default");
            hello.extend(["AUTH", user, dial.login.password.as_deref().unwrap_or("")]);
        }
        hello.extend(["SETNAME", "roomcast"]);
        let answer = self.call(&hello).await?;
        let said = answer.list().unwrap_or_default();
        let value = |key: &str| said.chunks_exact(2).find(|pair| pair[0].text() == Some(key))?[1].text();
        self.greeting = Greeting {
            major: value("version").and_then(|text| text.split('.').next()?.parse().ok()).unwrap_or(0),
            mode: value("mode").unwrap_or_default().to_owned(),
            is_master: value("role") == Some("master"),
        };
        if dial.database != 0 {
            self.call(&["SELECT", &dial.database.to_string()]).await?;
        }
        Ok(())
    }

    /// Sends a command and waits for its answer. An error is one.
    pub(super) async fn call(&mut self, parts: &[&str]) -> Result<Frame, BusError> {
        let mut out = BytesMut::new();
        resp::command(&mut out, &parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>());
        let failed = |error: String| BusError::Unavailable(format!("{}: {error}", self.endpoint));
        self.stream.write_all(&out).await.map_err(|error| failed(error.to_string()))?;
        self.stream.flush().await.map_err(|error| failed(error.to_string()))?;
        loop {
            match resp::decode(&mut self.buffer).map_err(|error| failed(error.to_string()))? {
                Some(Frame::Error(text)) => {
                    return Err(refusal(&text, &self.secrets, &format!("{}: ", self.endpoint)));
                }
                Some(Frame::Push(_)) => continue,
                Some(frame) => return Ok(frame),
                None => {}
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|error| failed(error.to_string()))? == 0 {
                return Err(failed("the server closed the connection".into()));
            }
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Lets commands be queued from now on.
    pub(super) fn start(self, runtime: &Handle, pushes: Arc<dyn Pushes>, fault: Fault) -> Connection {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Notify::new() });
        let end = EndOfTask { shared: Arc::clone(&shared) };
        let endpoint = self.endpoint.clone();
        let (reading, writing) = io::split(self.stream);
        let reader = Reader { shared: Arc::clone(&shared), current: None, pushes };
        let (buffer, text) = (self.buffer, endpoint.to_string());
        let task = runtime.spawn(async move {
            let _panicked = fault.clone().raised_by_panic();
            let reason = tokio::select! {
                reason = reader.run(reading, buffer) => reason,
                reason = write(writing, &end.shared) => reason,
            };
            fault.raise(format!("{text}: {reason}"));
        });
        Connection { shared, endpoint, secrets: self.secrets, task: task.abort_handle() }
    }
}

/// Runs something on a runtime within the time for one server.
async fn on<T: Send + 'static, F: Future<Output = Result<T, BusError>> + Send + 'static>(
    runtime: &Handle,
    endpoint: &Endpoint,
    dial: &Dial,
    act: impl FnOnce(Endpoint, Dial) -> F,
) -> Result<T, BusError> {
    let acting = act(endpoint.clone(), dial.clone());
    let limit = dial.timeout;
    let acted = runtime.spawn(async move { time::timeout(limit, acting).await }).await;
    match acted {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(BusError::Unavailable(format!("{endpoint}: no answer within {limit:?}"))),
        Err(_) => Err(BusError::Unavailable(format!("{endpoint}: the connection was closed"))),
    }
}

/// What an error of the server means for who asked.
pub(super) fn refusal(text: &str, secrets: &[String], from: &str) -> BusError {
    let told = redact(format!("{from}{text}"), secrets);
    match text.split(' ').next().unwrap_or_default() {
        // It may be otherwise in a moment, with the same command.
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN" | "BUSY" | "READONLY" => {
            BusError::Unavailable(told)
        }
        _ => BusError::Refused(told),
    }
}

/// A connection that takes commands. Dropping it does not end it; its runtime does.
pub(super) struct Connection {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    secrets: Arc<[String]>,
    task: AbortHandle,
}

impl Connection {
    /// Queues commands and who waits for what comes of them, at once and in the order of the calls. When the connection
    /// has ended, or ends before the answer, `pending` is dropped.
    pub(super) fn send(&self, pending: Pending, commands: impl FnOnce(&mut BytesMut)) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            drop(queue);
            return drop(pending);
        }
        commands(&mut queue.out);
        queue.pending.push_back(pending);
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Sends one command. Its answer comes as an error when it is one.
    pub(super) fn call<P: AsRef<[u8]>>(
        &self,
        parts: &[P],
    ) -> impl Future<Output = Result<Frame, BusError>> + Send + use<P> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let answer = move |frame| {
            // Whoever waited may have given up.
            sender.take().map(|sender| sender.send(frame));
        };
        self.send(Pending::Answers { left: 1, take: Box::new(answer) }, |out| {
            resp::command(out, &parts.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        });
        let secrets = Arc::clone(&self.secrets);
        async move {
            match receiver.await {
                Ok(Frame::Error(text)) => Err(refusal(&text, &secrets, "")),
                Ok(frame) => Ok(frame),
                Err(_) => Err(closed()),
            }
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Ends the connection, where its runtime goes on. Those who wait learn it.
    pub(super) fn end(&self) {
        self.task.abort();
    }
}

/// What is said to those whose answers will not come.
pub(super) fn closed() -> BusError {
    BusError::Unavailable("the connection was closed".into())
}

/// Waits for what the server makes of commands, in their order. Dropped when there will be no answer.
pub(super) enum Pending {
    /// One answer for each of so many commands.
    Answers { left: usize, take: Box<dyn FnMut(Frame) + Send> },
    /// One command that subscribes or unsubscribes: a push for each of so many channels, or an error.
    Confirmations { left: usize, done: Done },
    /// Commands whose pushes cannot be told from unasked ones, and an ECHO of the token. Errors before that are theirs.
    Fence { token: String, error: Option<String>, done: Done },
}

/// Takes the error, if there was one.
type Done = Box<dyn FnOnce(Option<String>) + Send>;

struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    out: BytesMut,
    pending: VecDeque<Pending>,
    closed: bool,
}

/// Lets go of those who wait, also when the runtime ends and drops the task.
struct EndOfTask {
    shared: Arc<Shared>,
}

impl Drop for EndOfTask {
    fn drop(&mut self) {
        let abandoned = {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            queue.out = BytesMut::new();
            std::mem::take(&mut queue.pending)
        };
        // Outside of the lock: those who wait may send again.
        drop(abandoned);
    }
}

async fn write(mut stream: WriteHalf<Box<dyn Stream>>, shared: &Shared) -> String {
    loop {
        let out = shared.queue.lock().out.split();
        if out.is_empty() {
            shared.wake.notified().await;
            continue;
        }
        let written = async {
            stream.write_all(&out).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return error.to_string();
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    /// The first of those who wait, while it does.
    current: Option<Pending>,
    pushes: Arc<dyn Pushes>,
}

impl Reader {
    /// Reads until the connection ends, and says why.
    async fn run(mut self, mut stream: ReadHalf<Box<dyn Stream>>, mut buffer: BytesMut) -> String {
        loop {
            loop {
                match resp::decode(&mut buffer) {
                    Ok(Some(Frame::Push(items))) => {
                        if !self.push(items) {
                            return "the link is over".into();
                        }
                    }
                    Ok(Some(frame)) => {
                        if let Err(reason) = self.answer(frame) {
                            return reason.into();
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            if buffer.is_empty() && buffer.capacity() > READ_KEPT {
                buffer = BytesMut::new();
            }
            buffer.reserve(READ);
            match stream.read_buf(&mut buffer).await {
                Ok(0) => return "the server closed the connection".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    fn first(&mut self) -> Option<Pending> {
        self.current.take().or_else(|| self.shared.queue.lock().pending.pop_front())
    }

    fn answer(&mut self, frame: Frame) -> Result<(), &'static str> {
        match (self.first(), frame) {
            (None, _) => return Err("an answer that nobody waits for"),
            (Some(Pending::Answers { left, mut take }), frame) => {
                take(frame);
                if left > 1 {
                    self.current = Some(Pending::Answers { left: left - 1, take });
                }
            }
            (Some(Pending::Confirmations { done, .. }), Frame::Error(text)) => done(Some(text)),
            (Some(Pending::Confirmations { .. }), _) => return Err("answers came out of order"),
            (Some(Pending::Fence { token, error, done }), Frame::Error(text)) => {
                self.current = Some(Pending::Fence { token, error: error.or(Some(text)), done });
            }
            (Some(Pending::Fence { token, error, done }), frame) => {
                if frame.text() != Some(&token) {
                    return Err("answers came out of order");
                }
                done(error);
            }
        }
        Ok(())
    }

    /// False ends the connection.
    fn push(&mut self, items: Vec<Frame>) -> bool {
        let mut items = items.into_iter();
        let (Some(Frame::Bytes(kind)), Some(Frame::Bytes(channel))) = (items.next(), items.next()) else {
            // Of a kind that we do not ask for.
            return true;
        };
        // A channel that is not text is not ours.
        let channel = std::str::from_utf8(&channel).unwrap_or_default();
        match &*kind {
            b"message" | b"smessage" => match items.next() {
                Some(Frame::Bytes(payload)) => return self.pushes.message(channel, payload),
                _ => return true,
            },
            b"pmessage" => match (items.next(), items.next()) {
                (Some(Frame::Bytes(matched)), Some(Frame::Bytes(payload))) => {
                    let matched = std::str::from_utf8(&matched).unwrap_or_default();
                    return self.pushes.matched(channel, matched, payload);
                }
                _ => return true,
            },
            b"ssubscribe" => {
                self.pushes.subscribed(channel);
                self.confirm();
            }
            b"subscribe" | b"unsubscribe" | b"psubscribe" => self.confirm(),
            b"sunsubscribe" => self.pushes.unsubscribed(channel),
            _ => {}
        }
        true
    }

    fn confirm(&mut self) {
        match self.first() {
            Some(Pending::Confirmations { left, done }) if left > 1 => {
                self.current = Some(Pending::Confirmations { left: left - 1, done });
            }
            Some(Pending::Confirmations { done, .. }) => done(None),
            other => self.current = other,
        }
    }
}

/// Waits for the parts of one call. The first error counts. When the last owner lets go, the caller is told.
pub(super) struct Tally {
    error: Mutex<Option<BusError>>,
    done: Option<oneshot::Sender<Result<(), BusError>>>,
}

impl Tally {
    pub(super) fn new() -> (Arc<Self>, impl Future<Output = Result<(), BusError>> + Send) {
        let (done, receiver) = oneshot::channel();
        let tally = Arc::new(Self { error: Mutex::new(None), done: Some(done) });
        (tally, async move { receiver.await.unwrap_or_else(|_| Err(closed())) })
    }

    pub(super) fn fail(&self, error: BusError) {
        self.error.lock().get_or_insert(error);
    }

    /// Some parts of it.
    pub(super) fn share(self: &Arc<Self>, parts: usize) -> Share {
        Share { tally: Arc::clone(self), open: parts }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let result = self.error.get_mut().take().map_or(Ok(()), Err);
        if let Some(done) = self.done.take() {
            // Whoever waited may have given up.
            let _ = done.send(result);
        }
    }
}

/// Parts of a call that somebody has to see to. Parts that are dropped have failed.
pub(super) struct Share {
    tally: Arc<Tally>,
    open: usize,
}

impl Share {
    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    pub(super) fn part(&mut self, result: Result<(), BusError>) {
        self.open = self.open.saturating_sub(1);
        if let Err(error) = result {
            self.tally.fail(error);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.open > 0 {
            self.tally.fail(closed());
        }
    }
}
