//! Redis as a way in: what emitters of Socket.IO publish, and calls that backends write into a stream.
//!
//! Owns the links that both need, beside those of the adapter. A link that is down concerns neither clients nor the other
//! ways in. Whoever may write to the Redis may emit anything: it is a part of the backend.

mod emitter;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use roomcast_adapter::cluster::BusError;
use roomcast_adapter::redis::{RedisClient, RedisConfig, RedisConnection};
use tokio::sync::watch;

use self::emitter::Emitter;
use self::stream::Reader;
pub(crate) use self::stream::StreamSettings;
use super::Node;
use super::calls::Calls;
use super::ingest::{Lost, keep};

/// How often a connection is asked whether its server is still there, and still the right one.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// How long it may take to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How emitters are listened to.
pub(crate) struct EmitterSettings {
    /// What their channels begin with.
    pub(crate) key: String,
    /// The namespaces that they may mean.
    pub(crate) namespaces: Vec<Arc<str>>,
    /// The most binary in one event.
    pub(crate) max_attachments: usize,
}

/// Listens to emitters until `stop` says so. An error is one of the configuration.
pub(crate) fn listen_to_emitters(
    redis: &RedisConfig,
    node: &Arc<dyn Node>,
    settings: EmitterSettings,
    stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send + use<>, BusError> {
    let client = RedisClient::new(redis)?;
    let EmitterSettings { key, namespaces, max_attachments } = settings;
    let emitter = Arc::new(Emitter::new(node, &key, namespaces, max_attachments));
    Ok(async move {
        let link = || {
            let mut stop = stop.clone();
            let (client, emitter) = (&client, &emitter);
            async move {
                let listening = async {
                    let connection = client.listen(Arc::clone(emitter) as _).await?;
                    connection.psubscribe(&emitter.patterns()).await?;
                    Ok(connection)
                };
                match listening.await {
                    Ok(connection) => {
                        emitter.tally().up(true);
                        tokio::select! {
                            lost = until_lost(&connection) => lost,
                            _ = stop.wait_for(|stop| *stop) => Lost::stopped(),
                        }
                    }
                    Err(error) => lost(&error),
                }
            }
        };
        keep(emitter.tally(), stop.clone(), link).await;
    })
}

/// Reads calls from a stream until `stop` says so; what was begun then is finished. An error is one of the configuration.
pub(crate) fn read_stream(
    redis: &RedisConfig,
    node: &Arc<dyn Node>,
    calls: &Arc<Calls>,
    settings: StreamSettings,
    stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send + use<>, BusError> {
    let reader = Reader::new(RedisClient::new(redis)?, calls, node, settings, stop.clone());
    Ok(async move { keep(reader.tally(), stop, || reader.link()).await })
}

fn lost(error: &BusError) -> Lost {
    let refused = !matches!(error, BusError::Unavailable(_));
    Lost { reason: error.to_string(), refused }
}

/// Waits until a connection is lost, which an answer that does not come shows too.
async fn until_lost(connection: &RedisConnection) -> Lost {
    let silent = async {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            match tokio::time::timeout(CHECK_TIMEOUT, connection.check()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no answer within {CHECK_TIMEOUT:?}"),
            }
        }
    };
    let reason = tokio::select! {
        reason = connection.lost() => reason,
        reason = silent => reason,
    };
    Lost { reason, refused: false }
}
