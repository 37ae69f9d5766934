//! A broker in a container, for those who have Docker and not the broker. Compiled only with `--cfg testcontainers`.

use std::{
    future::Future,
    sync::{OnceLock, mpsc},
};

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt, TestcontainersError,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};
use tokio::runtime::{Builder, Runtime};

use super::Kind;

/// Lives as long as this value.
pub struct Container {
    /// Taken by `drop` only.
    container: Option<ContainerAsync<GenericImage>>,
    pub host: String,
    pub port: u16,
}

impl Container {
    /// Starts one and waits until the server in it says that it is ready.
    pub fn start(kind: Kind) -> Result<Self, TestcontainersError> {
        let (image, tag, port, ready, arguments): (_, _, u16, _, &[&str]) = match kind {
            // Without the image's own configuration, which makes the server a cluster of one.
            Kind::Nats => {
                ("nats", "2", 4222, WaitFor::message_on_stderr("Server is ready"), &["--addr", "0.0.0.0"])
            }
            _ => {
                let arguments = &["redis-server", "--save", "", "--appendonly", "no"];
                ("redis", "7", 6379, WaitFor::message_on_stdout("Ready to accept connections"), arguments)
            }
        };
        let image = GenericImage::new(image, tag).with_exposed_port(port.tcp()).with_wait_for(ready);
        let request = image.with_cmd(arguments.iter().copied());
        run(async move {
            let container = request.start().await?;
            let host = match container.get_host().await?.to_string() {
                // The port of the other address family may be another one.
                name if name == "localhost" => "127.0.0.1".to_owned(),
                host => host,
            };
            let port = container.get_host_port_ipv4(port.tcp()).await?;
            Ok(Self { container: Some(container), host, port })
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its own `drop` removes the container, and wants to be in the runtime.
        let container = self.container.take();
        run(async move { drop(container) });
    }
}

/// Waits for a future on a runtime of its own: tests call from inside theirs, which may neither block on a future nor
/// outlive the client of Docker, of which there is one in a process.
fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread to spare")
    });
    let (send, done) = mpsc::channel();
    runtime.spawn(async move {
        let _ = send.send(future.await);
    });
    done.recv().expect("a task that did not panic")
}
