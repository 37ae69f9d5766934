//! The load's contract (tests/README.md) on socketioxide, as its documentation shows it: the defaults, axum, and with
//! `REDIS_URL` its Redis adapter.

use std::env;
use std::error::Error;

use axum::Router;
use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide_redis::{RedisAdapter, RedisAdapterCtr};

/// A value that is passed on as it came.
type Value = String;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if env::args().any(|argument| argument == "--version") {
        println!("{}", ["socketioxide", "socketioxide-redis", "axum"].map(version).join(", "));
        return Ok(());
    }
    let port: u16 = env::var("PORT")?.parse()?;
    let app = match env::var("REDIS_URL") {
        Ok(url) => {
            let client = redis::Client::open(url)?;
            let adapter = RedisAdapterCtr::new_with_redis(&client).await?;
            let (layer, io) = SocketIo::builder().with_adapter::<RedisAdapter<_>>(adapter).build_layer();
            io.ns("/", serve::<RedisAdapter<_>>).await?;
            Router::new().layer(layer)
        }
        Err(_) => {
            let (layer, io) = SocketIo::new_layer();
            io.ns("/", serve);
            Router::new().layer(layer)
        }
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, app).await?)
}

async fn serve<A: Adapter>(socket: SocketRef<A>) {
    socket.on("echo", async |Data::<Value>(argument), ack: AckSender<A>| {
        let _ = ack.send(&argument);
    });
    socket.on("join", async |socket: SocketRef<A>, Data::<Value>(room), ack: AckSender<A>| {
        socket.join(room);
        let _ = ack.send(&());
    });
    socket.on("broadcast", async |socket: SocketRef<A>, Data::<(Value, Value, Value)>((room, event, argument))| {
        let _ = socket.to(room).emit(event, &argument).await;
    });
}

/// The version of a crate in the lock file.
fn version(name: &str) -> String {
    let (lock, wanted) = (include_str!("../Cargo.lock"), format!("name = \"{name}\""));
    let mut lines = lock.lines().skip_while(|line| *line != wanted).skip(1);
    let version = lines.next().unwrap_or_default().trim_start_matches("version = ").trim_matches('"');
    format!("{name} {version}")
}
