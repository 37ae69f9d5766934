//! Roomcast as a library behind the load's contract (tests/README.md): the events `join`, `broadcast` and `echo` as handlers
//! of embedded code, as every other server under comparison has them. With `REDIS_URL` it is a node of a cluster.

use std::env;
use std::sync::Arc;

use roomcast::adapter::cluster::{ClusterConfig, ClusterFactory};
use roomcast::adapter::redis::{RedisBus, RedisConfig};
use roomcast::{Args, Io, Socket};
use roomcast_tests::serve_rooms;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if env::args().any(|argument| argument == "--version") {
        println!("roomcast {} as a library", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let port: u16 = env::var("PORT")?.parse()?;
    let io = match env::var("REDIS_URL") {
        Ok(url) => {
            let bus = RedisBus::new(&RedisConfig::new(&url))?;
            let factory = ClusterFactory::start(Arc::new(bus), ClusterConfig::default()).await?;
            Io::builder().adapter(factory).build()
        }
        Err(_) => Io::new(),
    };
    io.on_connect(serve);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let tasks = tokio::spawn(tell_tasks(env::var("TASKS_PORT").ok().and_then(|port| port.parse().ok())));
    roomcast::serve(io, listener, std::future::pending()).await;
    tasks.abort();
    Ok(())
}

async fn serve(socket: Socket) {
    socket.on("echo", |args: Args| async move { args });
    serve_rooms(&socket);
}

/// `GET /tasks` at the port answers with the number of tasks in the runtime.
async fn tell_tasks(port: Option<u16>) -> std::io::Result<()> {
    let Some(port) = port else { return Ok(()) };
    let tasks = || async { tokio::runtime::Handle::current().metrics().num_alive_tasks().to_string() };
    let app = axum::Router::new().route("/tasks", axum::routing::get(tasks));
    axum::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await?, app).await
}
