//! The life of a bus: one link after the other, and the calls on the one that stands.
//!
//! Must not know what a link consists of.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{self, BoxFuture, Either},
};
use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    Driver, Fault, Inbound, LinkConfig, LinkStats, Site,
    delivery::{Delivery, Queue},
    inbound::Counters,
    runtime::DriverRuntime,
};
use crate::cluster::{BusError, BusSink, BusState, Publication, Subject};

/// Losses within this time are reported together, because each report makes the cluster subscribe again.
const LOSS_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A link that lived so long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// What a call on a link returns.
type Call = BoxFuture<'static, Result<(), BusError>>;

/// A bus over a driver.
pub(crate) struct Core<D: Driver> {
    driver: D,
    config: LinkConfig,
    link: RwLock<Option<Standing<D>>>,
    in_flight: Arc<Semaphore>,
    counters: Arc<Counters>,
    closing: watch::Sender<bool>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// A link that stands, as the calls see it.
struct Standing<D: Driver> {
    link: Arc<D::Link>,
    fault: Fault,
}

/// A link that stands, as its supervisor sees it.
struct Connected<D: Driver> {
    link: Arc<D::Link>,
    fault: Fault,
    inbound: Inbound,
    delivery: Delivery,
    reader: DriverRuntime,
    writer: DriverRuntime,
}

impl<D: Driver> Connected<D> {
    /// Takes the link apart. Afterwards it delivers nothing and nothing of it is sent.
    async fn end(self) {
        future::join3(self.delivery.end(), self.reader.end(), self.writer.end()).await;
    }
}

impl<D: Driver> Core<D> {
    pub(crate) fn new(driver: D, config: LinkConfig) -> Arc<Self> {
        let permits = config.max_in_flight.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Arc::new(Self {
            driver,
            config,
            link: RwLock::new(None),
            in_flight: Arc::new(Semaphore::new(permits)),
            counters: Arc::default(),
            closing: watch::Sender::new(false),
            supervisor: Mutex::new(None),
        })
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let counters = &*self.counters;
        let received = counters.received.load(Ordering::Relaxed);
        LinkStats {
            received,
            waiting: counters.read.load(Ordering::Relaxed).saturating_sub(received),
            lost: counters.lost.load(Ordering::Relaxed),
            gaps: counters.gaps.load(Ordering::Relaxed),
            outages: counters.outages.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            slow_consumer: counters.slow_consumer.load(Ordering::Relaxed),
            uncovered: counters.uncovered.load(Ordering::Relaxed),
        }
    }

    pub(crate) async fn start(self: Arc<Self>, sink: Arc<dyn BusSink>) -> Result<(), BusError> {
        if *self.closing.borrow() || self.supervisor.lock().is_some() {
            return Err(BusError::Configuration(format!("the {} bus was started before", D::NAME)));
        }
        let home = Handle::current();
        let connected = self.connect(&sink, &home).await?;
        self.stand(&connected);
        sink.state(BusState::Up);
        let supervisor = home.spawn(Arc::clone(&self).supervise(sink, home.clone(), connected));
        *self.supervisor.lock() = Some(supervisor);
        Ok(())
    }

    pub(crate) fn publish(&self, batch: Vec<Publication>) -> Call {
        if batch.is_empty() {
            return future::ok(()).boxed();
        }
        let count = batch.len() as u64;
        let counters = Arc::clone(&self.counters);
        let result = self.queue(batch);
        async move {
            let result = result.await;
            if result.is_err() {
                counters.refused.fetch_add(count, Ordering::Relaxed);
            }
            result
        }
        .boxed()
    }

    /// Queues a batch now; what comes back waits for the confirmation.
    fn queue(&self, batch: Vec<Publication>) -> Call {
        let max = self.driver.max_payload();
        if let Some(longest) = batch.iter().map(|one| one.payload.len()).max().filter(|length| *length > max)
        {
            let text = format!("a payload of {longest} bytes, the longest that {} takes is {max}", D::NAME);
            return future::err(BusError::Refused(text)).boxed();
        }
        let (link, fault) = match self.standing() {
            Ok(standing) => standing,
            Err(error) => return future::err(error).boxed(),
        };
        let cost = |one: &Publication| one.payload.len() + one.subject.len() + D::PUBLICATION_OVERHEAD;
        // A batch that is larger than the bound by itself may go alone.
        let cost = batch.iter().map(cost).sum::<usize>().min(self.config.max_in_flight);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_many_owned(cost) else {
            return future::err(BusError::Unavailable("too much is waiting for confirmation".into())).boxed();
        };
        let limit = self.config.publish_timeout;
        let mut publishing = async move {
            let _permit = permit;
            let result = bounded(D::publish(link, batch), &fault, limit).await;
            if matches!(result, Err(Failure::Timeout)) {
                fault.raise(format!("a batch was not confirmed within {limit:?}"));
            }
            result.map_err(|failure| failure.into_error(limit))
        }
        .boxed();
        match first_poll(&mut publishing) {
            Some(result) => future::ready(result).boxed(),
            None => publishing,
        }
    }

    pub(crate) fn subscribe(&self, subjects: Vec<Subject>) -> Call {
        self.on_reader(subjects, D::subscribe)
    }

    pub(crate) fn unsubscribe(&self, subjects: Vec<Subject>) -> Call {
        self.on_reader(subjects, D::unsubscribe)
    }

    fn on_reader(&self, subjects: Vec<Subject>, act: fn(Arc<D::Link>, Vec<Subject>) -> Call) -> Call {
        if subjects.is_empty() {
            return future::ok(()).boxed();
        }
        let (link, fault) = match self.standing() {
            Ok(standing) => standing,
            Err(error) => return future::err(error).boxed(),
        };
        let limit = self.config.subscribe_timeout;
        let mut acting = async move {
            // Slow is not lost here: the answer comes behind the messages. The keepalive tells one from the other.
            bounded(act(link, subjects), &fault, limit).await.map_err(|failure| failure.into_error(limit))
        }
        .boxed();
        match first_poll(&mut acting) {
            Some(result) => future::ready(result).boxed(),
            None => acting,
        }
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.driver.max_payload()
    }

    pub(crate) async fn ping(&self) -> Result<(), BusError> {
        let (link, fault) = self.standing()?;
        let limit = self.config.publish_timeout;
        let both = future::try_join(D::ping_writer(Arc::clone(&link)), D::ping_reader(link));
        let pinged = bounded(both.map(|result| result.map(drop)).boxed(), &fault, limit).await;
        pinged.map_err(|failure| failure.into_error(limit))
    }

    /// Asks the supervisor to end, without waiting.
    pub(crate) fn begin_close(&self) {
        self.closing.send_replace(true);
    }

    pub(crate) async fn close(&self) {
        self.begin_close();
        let supervisor = self.supervisor.lock().take();
        if let Some(supervisor) = supervisor {
            // It can only fail by a panic, which was reported by then.
            let _ = supervisor.await;
        }
    }

    /// The link, unless it is known to be lost.
    fn standing(&self) -> Result<(Arc<D::Link>, Fault), BusError> {
        let link = self.link.read();
        let Some(standing) = &*link else {
            return Err(BusError::Unavailable(format!(
                "not connected to {} at {}",
                D::NAME,
                self.driver.endpoint()
            )));
        };
        match standing.fault.raised() {
            Some(reason) => Err(BusError::Unavailable(reason)),
            None => Ok((Arc::clone(&standing.link), standing.fault.clone())),
        }
    }

    fn stand(&self, connected: &Connected<D>) {
        let (link, fault) = (Arc::clone(&connected.link), connected.fault.clone());
        *self.link.write() = Some(Standing { link, fault });
    }

    /// Makes a link, within the time for it.
    async fn connect(&self, sink: &Arc<dyn BusSink>, home: &Handle) -> Result<Connected<D>, BusError> {
        let thread = |role| DriverRuntime::start(format!("{}-{role}", D::NAME));
        let threads = future::try_join(thread("read"), thread("write")).await;
        let (reader, writer) =
            threads.map_err(|error| BusError::Unavailable(format!("no thread: {error}")))?;
        let (fault, queue) = (Fault::new(), Arc::new(Queue::new(self.config.max_inbound)));
        let inbound = Inbound::new(Arc::clone(&queue), Arc::clone(&self.counters));
        let delivery = Delivery::start(
            format!("{}-deliver", D::NAME),
            &queue,
            Arc::clone(sink),
            home.clone(),
            Arc::clone(&self.counters),
            fault.clone(),
        );
        let delivery = delivery.map_err(|error| BusError::Unavailable(format!("no thread: {error}")))?;
        let site = Site {
            reader: reader.handle(),
            writer: writer.handle(),
            inbound: inbound.clone(),
            fault: fault.clone(),
        };
        let limit = self.config.connect_timeout;
        let link = match time::timeout(limit, self.driver.connect(site)).await {
            Ok(link) => link?,
            Err(_) => {
                let text =
                    format!("no answer from {} at {} within {limit:?}", D::NAME, self.driver.endpoint());
                return Err(BusError::Unavailable(text));
            }
        };
        Ok(Connected { link: Arc::new(link), fault, inbound, delivery, reader, writer })
    }

    async fn supervise(self: Arc<Self>, sink: Arc<dyn BusSink>, home: Handle, mut connected: Connected<D>) {
        let mut closing = self.closing.subscribe();
        let mut wait = self.config.reconnect_min;
        loop {
            let since = Instant::now();
            let reason = {
                let lost = std::pin::pin!(self.watch(&connected, &*sink));
                let closed = std::pin::pin!(closing.wait_for(|closing| *closing));
                match future::select(lost, closed).await {
                    Either::Left((reason, _)) => Some(reason),
                    Either::Right(_) => None,
                }
            };
            *self.link.write() = None;
            connected.end().await;
            let Some(reason) = reason else { return };
            self.counters.outages.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(broker = D::NAME, endpoint = self.driver.endpoint(), %reason, "lost the broker");
            sink.state(BusState::Down);
            // A link that dies young is no reason to begin with short waits again.
            if since.elapsed() > STEADY {
                wait = self.config.reconnect_min;
            }
            let again = {
                let connecting = std::pin::pin!(self.connect_again(&sink, &home, &mut wait));
                let closed = std::pin::pin!(closing.wait_for(|closing| *closing));
                match future::select(connecting, closed).await {
                    Either::Left((connected, _)) => Some(connected),
                    Either::Right(_) => None,
                }
            };
            let Some(again) = again else { return };
            connected = again;
            self.stand(&connected);
            tracing::info!(
                broker = D::NAME,
                endpoint = self.driver.endpoint(),
                "connected to the broker again"
            );
            sink.state(BusState::Up);
        }
    }

    /// Connects, without end.
    async fn connect_again(
        &self,
        sink: &Arc<dyn BusSink>,
        home: &Handle,
        wait: &mut Duration,
    ) -> Connected<D> {
        loop {
            time::sleep(*wait).await;
            *wait = (*wait * 2).min(self.config.reconnect_max);
            match self.connect(sink, home).await {
                Ok(connected) => return connected,
                Err(error) => {
                    tracing::debug!(broker = D::NAME, endpoint = self.driver.endpoint(), %error, "not connected");
                }
            }
        }
    }

    /// Ends when the link is lost, with the reason. Reports losses of messages meanwhile.
    async fn watch(&self, connected: &Connected<D>, sink: &dyn BusSink) -> String {
        let report = async {
            loop {
                connected.inbound.loss().await;
                let lost = self.counters.lost.load(Ordering::Relaxed);
                let gaps = self.counters.gaps.load(Ordering::Relaxed);
                tracing::warn!(broker = D::NAME, lost, gaps, "messages may have passed this node by");
                // The only honest thing to say about a gap.
                sink.state(BusState::Down);
                sink.state(BusState::Up);
                time::sleep(LOSS_REPORT_INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            reason = connected.fault.wait() => reason,
            reason = self.keep_alive(connected) => reason,
            () = report => String::new(),
        }
    }

    /// Pings both connections. Ends with a reason when one does not answer.
    async fn keep_alive(&self, connected: &Connected<D>) -> String {
        let limit = self.config.publish_timeout;
        let mut interval = time::interval(self.config.keepalive_interval.max(Duration::from_millis(1)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let before = connected.inbound.read();
            let writer = bounded(D::ping_writer(Arc::clone(&connected.link)), &connected.fault, limit);
            let reader = bounded(D::ping_reader(Arc::clone(&connected.link)), &connected.fault, limit);
            let (writer, reader) = future::join(writer, reader).await;
            // A refusal is an answer, and may belong to another request.
            if let Some(failure) = writer.err().filter(Failure::is_silence) {
                return format!("the publishing connection does not answer: {}", failure.into_error(limit));
            }
            if let Some(failure) = reader.err().filter(Failure::is_silence) {
                // Behind a burst of messages an answer may be late; messages are an answer too.
                if connected.inbound.read() == before {
                    return format!(
                        "the subscribing connection does not answer: {}",
                        failure.into_error(limit)
                    );
                }
            }
        }
    }
}

/// Why a call on a link did not end well.
enum Failure {
    Broker(BusError),
    Lost(String),
    Timeout,
}

impl Failure {
    fn is_silence(&self) -> bool {
        !matches!(self, Self::Broker(BusError::Refused(_)))
    }

    fn into_error(self, limit: Duration) -> BusError {
        match self {
            Self::Broker(error) => error,
            Self::Lost(reason) => BusError::Unavailable(reason),
            Self::Timeout => BusError::Unavailable(format!("no answer within {limit:?}")),
        }
    }
}

/// Polls a call once, which queues what it has to send. Without tokio's budget: a task that has used its own up would
/// otherwise queue nothing, and later calls would overtake.
fn first_poll(call: &mut Call) -> Option<Result<(), BusError>> {
    tokio::task::unconstrained(call.as_mut()).now_or_never()
}

/// Waits for a call until the link is lost or the time is up. The call is polled first.
async fn bounded(call: Call, fault: &Fault, limit: Duration) -> Result<(), Failure> {
    tokio::select! {
        biased;
        result = call => result.map_err(Failure::Broker),
        reason = fault.wait() => Err(Failure::Lost(reason)),
        () = time::sleep(limit) => Err(Failure::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Backlog;

    /// Connects at once, and loses messages, one of them because the node is slow.
    struct Lossy;

    impl Driver for Lossy {
        const NAME: &'static str = "lossy";
        const PUBLICATION_OVERHEAD: usize = 0;
        type Link = ();

        fn endpoint(&self) -> &str {
            "nowhere"
        }

        fn connect(&self, site: Site) -> BoxFuture<'_, Result<(), BusError>> {
            site.inbound.lost(2);
            site.inbound.slow_consumer();
            future::ok(()).boxed()
        }

        fn publish(_: Arc<()>, _: Vec<Publication>) -> Call {
            future::pending().boxed()
        }

        fn subscribe(_: Arc<()>, _: Vec<Subject>) -> Call {
            future::ok(()).boxed()
        }

        fn unsubscribe(_: Arc<()>, _: Vec<Subject>) -> Call {
            future::ok(()).boxed()
        }

        fn ping_writer(_: Arc<()>) -> Call {
            future::ok(()).boxed()
        }

        fn ping_reader(_: Arc<()>) -> Call {
            future::ok(()).boxed()
        }

        fn max_payload(&self) -> usize {
            10
        }
    }

    #[derive(Default)]
    struct States(Mutex<Vec<BusState>>);

    impl BusSink for States {
        fn message(&self, _: &str, _: bytes::Bytes, _: Backlog) {}

        fn state(&self, state: BusState) {
            self.0.lock().push(state);
        }
    }

    fn publication(length: usize) -> Publication {
        Publication { subject: "".into(), payload: vec![0; length].into() }
    }

    #[tokio::test]
    async fn what_the_client_lost_is_counted_and_reported_as_a_gap() {
        let (core, sink) = (Core::new(Lossy, LinkConfig::default()), Arc::new(States::default()));
        Arc::clone(&core).start(Arc::clone(&sink) as Arc<dyn BusSink>).await.expect("connects");
        while sink.0.lock().len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*sink.0.lock(), [BusState::Up, BusState::Down, BusState::Up]);
        let stats = core.stats();
        assert_eq!((stats.lost, stats.slow_consumer, stats.outages), (3, 1, 0));
        core.close().await;
    }

    #[tokio::test]
    async fn what_is_in_flight_is_bounded() {
        let config = LinkConfig { max_in_flight: 15, ..LinkConfig::default() };
        let core = Core::new(Lossy, config);
        Arc::clone(&core).start(Arc::new(States::default())).await.expect("connects");
        let first = core.publish(vec![publication(10)]);
        let second = core.publish(vec![publication(10)]);
        assert!(matches!(second.now_or_never(), Some(Err(BusError::Unavailable(_)))));
        assert!(matches!(core.publish(vec![publication(11)]).await, Err(BusError::Refused(_))));
        drop(first);
        // Larger than the bound, and alone.
        let alone = core.publish(vec![publication(10), publication(10)]);
        assert!(alone.now_or_never().is_none());
        assert_eq!(core.stats().refused, 2);
        core.close().await;
    }
}
