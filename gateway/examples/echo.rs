//! The smallest server: every `message` comes back, with all its arguments, binary ones too.
//!
//! ```text
//! cargo run -p roomcast --example echo
//! ```
//!
//! ```js
//! const socket = io("http://127.0.0.1:3000");
//! socket.on("message", (...args) => console.log("back:", args));
//! socket.emit("message", "hello", { n: 1 }, (...args) => console.log("ack:", args));
//! ```

use std::error::Error;

use roomcast::{Args, Io, Socket};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let io = Io::new();
    io.on_connect(|socket: Socket| async move {
        // `Args` takes the arguments as they came; typed parameters are in the chat example.
        socket.on("message", |socket: Socket, args: Args| async move {
            // Fails only if the client has just left.
            let _ = socket.emit("message", &args);
            // What is returned is the ack, for a client that asked for one.
            args
        });
    });

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    roomcast::serve(io.clone(), listener, interrupted).await;
    // Clients are told, and connect again when the server is back.
    io.close().await;
    Ok(())
}
