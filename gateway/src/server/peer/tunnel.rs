//! The bytes of a WebSocket that is passed on, both ways. Knows nothing of what they say.
//!
//! A side that stops reading holds up the other, whose end is then not seen: the listener has set how long a connection may
//! take nothing, and such a write fails after that.

use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf, split};
use tokio::time::timeout;

/// Bytes that are read before they are written, for each direction. What one side does not take, the other has to wait with.
const BUFFER: usize = 8 * 1024;

/// How long one direction may go on when the other has ended, such as for the answer to a close frame.
const LINGER: Duration = Duration::from_secs(5);

/// Passes bytes on between a client and the node that has its session, until either of them ends.
pub(super) async fn run(client: OnUpgrade, owner: OnUpgrade) {
    // Whoever fails takes the other with it.
    let Ok((client, owner)) = futures_util::future::try_join(client, owner).await else { return };
    join(client, owner).await;
}

async fn join(client: Upgraded, owner: Upgraded) {
    let (client_reader, client_writer) = split(TokioIo::new(client));
    let (owner_reader, owner_writer) = split(TokioIo::new(owner));
    let up = pass(BufReader::with_capacity(BUFFER, client_reader), owner_writer);
    let down = pass(BufReader::with_capacity(BUFFER, owner_reader), client_writer);
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let _ = tokio::select! {
        () = &mut up => timeout(LINGER, down).await,
        () = &mut down => timeout(LINGER, up).await,
    };
}

/// Ready when one has nothing more to say, which the other has been told, or when the other does not hear it.
async fn pass(mut from: impl AsyncBufRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    if copy_buf(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
