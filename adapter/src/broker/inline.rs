//! A future that runs inside the call that wakes it.
//!
//! A client crate hands messages over through queues: async-nats through one for each subscription, which loses the order
//! between subjects and drops what does not fit; others through one that forgets the oldest. What is common to all
//! queues of tokio is that sending wakes the receiver's waker before the send returns. So here the waker itself is
//! the receiver: it polls the future that receives and delivers. Each message is delivered while the client's connection
//! task still handles it. The queues never hold more than that one, the order is that of the wire, and a delivery that
//! has to wait stops the connection task from reading, which the broker feels through TCP.
//!
//! Must only carry futures whose wakers are woken outside of locks that the future takes. tokio's queues release theirs first.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future and its waker in one.
pub(crate) struct Inline {
    /// Empty while it runs, and after its end.
    task: Mutex<Option<Task>>,
    /// It was woken, perhaps while it ran.
    woken: AtomicBool,
    stopped: AtomicBool,
}

impl Inline {
    /// Runs a future here until it waits, and from then on wherever it is woken.
    pub(crate) fn run(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let inline = Arc::new(Self {
            task: Mutex::new(Some(Box::pin(task))),
            woken: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        inline.wake_by_ref();
        inline
    }

    /// Drops the future, at the latest when it waits again.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let task = self.task.lock().take();
        drop(task);
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        loop {
            // Taken out, so that a future that panicked is gone, and a waker that is woken meanwhile finds nothing.
            let Some(mut task) = self.task.lock().take() else { return };
            while self.woken.swap(false, Ordering::SeqCst) {
                let waker = Waker::from(Arc::clone(self));
                // Without tokio's budget, which is that of the task that woke us.
                let mut task = tokio::task::unconstrained(task.as_mut());
                if let Poll::Ready(()) = Pin::new(&mut task).poll(&mut Context::from_waker(&waker)) {
                    return;
                }
            }
            *self.task.lock() = Some(task);
            if self.stopped.load(Ordering::Acquire) {
                return self.stop();
            }
            // Somebody may have woken us between the last look and the putting back.
            if !self.woken.load(Ordering::SeqCst) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::{broadcast, mpsc};

    use super::*;

    #[test]
    fn a_message_is_delivered_before_send_returns() {
        let (sender, mut receiver) = broadcast::channel(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        let inline = Inline::run(async move {
            while let Ok(number) = receiver.recv().await {
                sees.lock().push(number);
            }
        });
        for number in 0..1_000 {
            sender.send(number).expect("received");
            assert_eq!(seen.lock().len(), number + 1);
        }
        inline.stop();
        assert!(sender.send(0).is_err());
    }

    #[test]
    fn the_order_of_several_queues_is_that_of_sending() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let senders: Vec<mpsc::Sender<usize>> = (0..10)
            .map(|_| {
                let (sender, mut receiver) = mpsc::channel(1);
                let sees = Arc::clone(&seen);
                Inline::run(async move {
                    while let Some(number) = receiver.recv().await {
                        sees.lock().push(number);
                    }
                });
                sender
            })
            .collect();
        (0..1_000).for_each(|number| senders[number * 7 / 3 % 10].try_send(number).expect("room for one"));
        assert_eq!(*seen.lock(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn the_end_of_the_sender_ends_it_and_nothing_is_leaked() {
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        drop(Inline::run(async move {
            let _held = held;
            while receiver.recv().await.is_some() {}
        }));
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(sender);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn wakes_from_many_threads_are_not_lost() {
        let (sender, mut receiver) = mpsc::channel(10_000);
        let seen = Arc::new(AtomicUsize::new(0));
        let sees = Arc::clone(&seen);
        let _inline = Inline::run(async move {
            while receiver.recv().await.is_some() {
                sees.fetch_add(1, Ordering::SeqCst);
            }
        });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2_500).for_each(|_| sender.try_send(()).expect("room")));
            }
        });
        assert_eq!(seen.load(Ordering::SeqCst), 10_000);
    }
}
