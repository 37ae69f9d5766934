//! A thread with a single-threaded runtime for one connection of one link.
//!
//! The end of the runtime is the end of every task that the client crate spawned on it, which no crate offers otherwise.
//! And a burst of messages that is delivered on the reading thread holds up neither the publishing connection nor the
//! application.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// A running thread. Dropping it tells the thread to stop; [`end`](Self::end) also waits.
pub(crate) struct DriverRuntime {
    handle: Handle,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl DriverRuntime {
    /// Starts a thread of this name.
    pub(crate) async fn start(name: String) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let (started, start) = oneshot::channel();
        // The runtime is made on its thread, because it must not be dropped inside another runtime.
        thread::Builder::new().name(name).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    if started.send(Ok(runtime.handle().clone())).is_ok() {
                        // An error means that the handle is gone, which is the same wish.
                        let _ = runtime.block_on(stopped);
                    }
                    // In the background, because a DNS query on a blocking thread may take its time.
                    runtime.shutdown_background();
                }
                Err(error) => drop(started.send(Err(error))),
            }
            drop(end);
        })?;
        let handle = start.await.map_err(|_| io::Error::other("the thread ended at once"))??;
        Ok(Self { handle, stop, ended })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the thread and waits until no task of it runs any more.
    pub(crate) async fn end(self) {
        drop(self.stop);
        // The sender is dropped, never used.
        let _ = self.ended.await;
    }
}
