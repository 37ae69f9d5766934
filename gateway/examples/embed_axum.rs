//! Socket.IO in an axum application of one's own: other routes emit to the sockets.
//!
//! ```text
//! cargo run -p roomcast --example embed_axum
//! ```
//!
//! Open `http://127.0.0.1:3000/#kitchen` in a browser, then `curl http://127.0.0.1:3000/hello/kitchen`.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use roomcast::{Io, Socket};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let io = Io::new();
    io.on_connect(|socket: Socket| async move {
        socket.on("join", |socket: Socket, room: String| async move { socket.join(room).await.is_ok() });
    });

    let app = Router::new()
        .route("/", get(index))
        .route("/hello/{room}", get(hello))
        // Under /socket.io/, with the client's script.
        .merge(io.router())
        // Cloning an `Io` is cheap: every route may have it.
        .with_state(io);

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // With the peers' addresses, so that `socket.handshake().address()` knows them.
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}

/// Emits to a room from outside of any socket.
async fn hello(State(io): State<Io>, Path(room): Path<String>) -> (StatusCode, String) {
    match io.to(&room).emit("hello", format!("Hello, {room}!")) {
        Ok(()) => (StatusCode::OK, format!("said hello to {room}\n")),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error}\n")),
    }
}

async fn index() -> Html<&'static str> {
    Html(
        r#"<!doctype html>
<title>Roomcast in axum</title>
<p>Room <b id="room"></b>: <span id="state">connecting</span>
<ul id="log"></ul>
<script src="/socket.io/socket.io.js"></script>
<script>
  const show = (id, text) => (document.getElementById(id).textContent = text);
  const room = decodeURIComponent(location.hash.slice(1)) || "lobby";
  show("room", room);
  const socket = io();
  // A client that comes back after a loss of its connection is a new socket: it joins again.
  socket.on("connect", async () => {
    show("state", (await socket.emitWithAck("join", room)) ? "joined" : "refused");
  });
  socket.on("disconnect", (reason) => show("state", reason));
  socket.on("hello", (text) => {
    document.getElementById("log").appendChild(document.createElement("li")).textContent = text;
  });
</script>
"#,
    )
}
