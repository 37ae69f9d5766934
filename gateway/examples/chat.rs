//! A chat: a namespace with a token at its door, rooms, typed arguments, and acks as return values.
//!
//! ```text
//! cargo run -p roomcast --example chat
//! ```
//!
//! ```js
//! const chat = io("http://127.0.0.1:3000/chat", { auth: { token: "letmein" } });
//! chat.on("said", ({ room, nick, text }) => console.log(`[${room}] ${nick}: ${text}`));
//! await chat.emitWithAck("nick", "ada");
//! const { members } = await chat.emitWithAck("join", "lobby");
//! await chat.emitWithAck("message", { room: "lobby", text: "hello" });
//! ```

use std::error::Error;

use roomcast::{DisconnectReason, Io, Refusal, Socket};
use serde::{Deserialize, Serialize};

/// A real server would check a signature, or ask a database: a middleware may wait.
const TOKEN: &str = "letmein";

/// What a client passes as `auth`.
#[derive(Deserialize)]
struct Auth {
    token: String,
}

/// What is kept with each socket. Other nodes of a cluster see it too.
#[derive(Serialize, Deserialize)]
struct User {
    nick: String,
}

/// `message` from a client. An event whose arguments do not fit never reaches its listener.
#[derive(Deserialize)]
struct Say {
    room: String,
    text: String,
}

/// `said` to the others in the room.
#[derive(Serialize)]
struct Said {
    room: String,
    nick: String,
    text: String,
}

/// The ack of `join`.
#[derive(Serialize)]
struct Joined {
    room: String,
    members: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let io = Io::new();
    let chat = io.of("/chat");
    chat.use_middleware(authenticate);
    chat.on_connect(|socket: Socket| async move {
        socket.on("nick", nick);
        socket.on("join", join);
        socket.on("leave", leave);
        socket.on("message", message);
        socket.on("typing", typing);
        socket.on_disconnecting(goodbye);
        socket.on_disconnect(|socket: Socket, reason: DisconnectReason| async move {
            println!("{} is gone: {}", nick_of(&socket), reason.as_str());
        });
    });

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    roomcast::serve(io, listener, std::future::pending()).await;
    Ok(())
}

/// Runs before `on_connect`. The error is what the client gets in `connect_error`.
async fn authenticate(socket: Socket) -> Result<(), Refusal> {
    match socket.auth::<Auth>() {
        Ok(auth) if auth.token == TOKEN => Ok(()),
        _ => Err(Refusal::new("not authorized").with_data(serde_json::json!({ "code": "bad_token" }))),
    }
}

/// `Ok` is the ack; an `Err` is an ack of `{ error: { message, data } }`.
async fn nick(socket: Socket, nick: String) -> Result<String, Refusal> {
    if nick.trim().is_empty() || nick.len() > 32 {
        return Err("a nick has 1 to 32 bytes".into());
    }
    socket.set_data(User { nick: nick.clone() }).map_err(|error| error.to_string())?;
    Ok(nick)
}

async fn join(socket: Socket, room: String) -> Result<Joined, Refusal> {
    // Once this is done, whatever any node of the cluster emits to the room arrives here.
    socket.join(&room).await.map_err(|error| error.to_string())?;
    let _ = socket.to(&room).emit("joined", (&room, nick_of(&socket)));

    let members = socket.namespace().to(&room).fetch_sockets().await.value;
    let members = members.iter().map(|member| member.data["nick"].as_str().unwrap_or("anonymous").to_owned());
    Ok(Joined { members: members.collect(), room })
}

async fn leave(socket: Socket, room: String) -> bool {
    socket.leave(&room);
    let _ = socket.to(&room).emit("left", (&room, nick_of(&socket)));
    true
}

async fn message(socket: Socket, say: Say) -> Result<bool, Refusal> {
    require_member(&socket, &say.room)?;
    let said = Said { nick: nick_of(&socket), room: say.room, text: say.text };
    // `to` leaves the sender out. An error says that a part of the cluster was not reached: the sender may try again.
    socket.to(&said.room).emit("said", &said).map_err(|error| error.to_string())?;
    Ok(true)
}

async fn typing(socket: Socket, room: String) {
    if require_member(&socket, &room).is_ok() {
        // Nobody misses one of these: a client that reads slowly gets none.
        let _ = socket.to(&room).volatile().emit("typing", (&room, nick_of(&socket)));
    }
}

/// Called while the socket is still in its rooms.
async fn goodbye(socket: Socket, _: DisconnectReason) {
    for room in socket.rooms().into_iter().filter(|room| **room != *socket.id().as_str()) {
        let _ = socket.to(&*room).emit("left", (&*room, nick_of(&socket)));
    }
}

/// Rooms are open to emits of every socket; this chat wants members only.
fn require_member(socket: &Socket, room: &str) -> Result<(), Refusal> {
    let is_member = socket.rooms().iter().any(|joined| **joined == *room);
    if is_member { Ok(()) } else { Err("join the room first".into()) }
}

fn nick_of(socket: &Socket) -> String {
    socket.data::<User>().map_or_else(|| "anonymous".to_owned(), |user| user.nick)
}
