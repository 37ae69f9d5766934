//! The server that the protocol tests talk to (tests/README.md, "Contract: the test server"), built on the library.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use roomcast::config::Transport;
use roomcast::{Args, EngineHandler, EngineSocket, Io, IoBuilder, Message, Refusal, Socket};
use roomcast_tests::serve_rooms;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = env::var("PORT")?.parse()?;
    let io = configured(Io::builder()).build();
    io.on_connect(serve);
    io.of("/custom").on_connect(serve);
    io.of_pattern(r"^/dynamic-\d+$")?.on_connect(serve);
    io.of("/forbidden").use_middleware(|_| async {
        Err(Refusal::new("not allowed").with_data(serde_json::json!({ "code": "E1" })))
    });
    let engine = configured(Io::builder()).path("/engine.io/").engine_handler(Arc::new(Echo)).build();
    let app = axum::Router::new().merge(io.router()).merge(engine.router());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, app).await?)
}

fn configured(mut builder: IoBuilder) -> IoBuilder {
    let millis = |name| env::var(name).ok().and_then(|text| text.parse().ok()).map(Duration::from_millis);
    if let Some(interval) = millis("PING_INTERVAL") {
        builder = builder.ping_interval(interval);
    }
    if let Some(timeout) = millis("PING_TIMEOUT") {
        builder = builder.ping_timeout(timeout);
    }
    if let Some(timeout) = millis("UPGRADE_TIMEOUT") {
        builder = builder.upgrade_timeout(timeout);
    }
    if let Some(timeout) = millis("CONNECT_TIMEOUT") {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(bytes) = env::var("MAX_PAYLOAD").ok().and_then(|text| text.parse().ok()) {
        builder = builder.max_payload(bytes);
    }
    if let Ok(names) = env::var("TRANSPORTS") {
        let transport = |name: &str| match name {
            "polling" => Transport::Polling,
            _ => Transport::Websocket,
        };
        builder = builder.transports(names.split(',').map(transport));
    }
    if let Ok(origins) = env::var("CORS_ORIGIN") {
        builder = builder.cors_origins(origins.split(',')).configure(|config| config.cors.credentials = true);
    }
    builder.configure(|config| {
        config.engine.per_message_deflate.enabled = env::var("PERMESSAGE_DEFLATE").is_ok_and(|on| on == "1");
    })
}

async fn serve(socket: Socket) {
    let auth: serde_json::Value = socket.auth().unwrap_or_default();
    let _ = socket.emit("auth", auth);
    socket.on("message", |socket: Socket, args: Args| async move {
        let _ = socket.emit("message-back", args);
    });
    socket.on("message-with-ack", |args: Args| async move { args });
    serve_rooms(&socket);
    socket.on("ack-me", |socket: Socket| async move {
        if let Ok(answer) = socket.emit_with_ack("ask", ()).await {
            let _ = socket.emit("answered", answer);
        }
    });
    socket.on("bye", |socket: Socket, close: Option<bool>| async move {
        socket.disconnect(close.unwrap_or(false));
    });
    socket.on("who", |socket: Socket| async move {
        serde_json::json!({
            "id": socket.id(),
            "rooms": socket.rooms(),
            "transport": socket.transport().name(),
        })
    });
}

/// Engine.IO alone: each message comes back.
struct Echo;

impl EngineHandler for Echo {
    fn message(&self, socket: &EngineSocket, message: Message<'_>) {
        let _ = match message {
            Message::Text(text) => socket.send_text(text),
            Message::Binary(data) => socket.send_binary(&data),
        };
    }
}
