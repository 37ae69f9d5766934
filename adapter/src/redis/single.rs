//! A link to one server: a publishing and a subscribing connection, and one order for everything.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Channels,
    connection::{Connection, NoPushes, Pending, Pushes, Tally, Wire, refusal},
    health::{self, Health},
    resp::{self, Frame},
};
use crate::{
    broker::{Fault, Inbound, Site},
    cluster::{BusError, Publication, Subject},
};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_CHUNK: usize = 512;

pub(super) struct Single {
    writer: Connection,
    reader: Connection,
    health: Health,
    fault: Fault,
    channels: Channels,
    secrets: Arc<[String]>,
}

type Call = BoxFuture<'static, Result<(), BusError>>;

impl Single {
    pub(super) fn start(
        (writer, reader): (Wire, Wire),
        site: &Site,
        health: Health,
        channels: Channels,
        secrets: Arc<[String]>,
    ) -> Self {
        let pushes = Deliver { channels: channels.clone(), inbound: site.inbound.clone() };
        let writer = writer.start(&site.writer, Arc::new(NoPushes), site.fault.clone());
        let reader = reader.start(&site.reader, Arc::new(pushes), site.fault.clone());
        Self { writer, reader, health, fault: site.fault.clone(), channels, secrets }
    }

    pub(super) fn publish(&self, batch: &[Publication]) -> Call {
        let (tally, done) = Tally::new();
        let mut share = tally.share(batch.len());
        let secrets = Arc::clone(&self.secrets);
        let take = move |frame| {
            share.part(match frame {
                Frame::Error(text) => Err(refusal(&text, &secrets, "")),
                _ => Ok(()),
            });
        };
        self.writer.send(Pending::Answers { left: batch.len(), take: Box::new(take) }, |out| {
            for Publication { subject, payload } in batch {
                let channel = self.channels.channel(subject);
                resp::command(out, &[b"PUBLISH", channel.as_bytes(), payload]);
            }
        });
        drop(tally);
        done.boxed()
    }

    pub(super) fn subscribe(&self, subjects: &[Subject]) -> Call {
        self.on_reader(b"SUBSCRIBE", subjects).boxed()
    }

    /// `subjects` is not empty: UNSUBSCRIBE without a channel lets go of all.
    pub(super) fn unsubscribe(&self, subjects: &[Subject]) -> Call {
        self.on_reader(b"UNSUBSCRIBE", subjects).boxed()
    }

    fn on_reader(
        &self,
        verb: &[u8],
        subjects: &[Subject],
    ) -> impl Future<Output = Result<(), BusError>> + Send + use<> {
        let (tally, done) = Tally::new();
        for chunk in subjects.chunks(SUBSCRIBE_CHUNK) {
            let mut share = tally.share(1);
            let secrets = Arc::clone(&self.secrets);
            let confirmed = move |error: Option<String>| {
                share.part(error.map_or(Ok(()), |text| Err(refusal(&text, &secrets, ""))));
            };
            let pending = Pending::Confirmations { left: chunk.len(), done: Box::new(confirmed) };
            self.reader.send(pending, |out| {
                let channels: Vec<String> =
                    chunk.iter().map(|subject| self.channels.channel(subject)).collect();
                let parts: Vec<&[u8]> =
                    [verb].into_iter().chain(channels.iter().map(String::as_bytes)).collect();
                resp::command(out, &parts);
            });
        }
        done
    }

    /// A server that is no longer what the link needs is left.
    pub(super) fn ping_writer(&self) -> Call {
        health::check(&self.writer, self.health, &self.fault).boxed()
    }

    pub(super) fn ping_reader(&self) -> Call {
        health::check(&self.reader, Health::Answers, &self.fault).boxed()
    }
}

/// Hands the messages over.
struct Deliver {
    channels: Channels,
    inbound: Inbound,
}

impl Pushes for Deliver {
    fn message(&self, channel: &str, payload: Bytes) -> bool {
        self.channels.subject(channel).is_none_or(|subject| self.inbound.message(subject, payload))
    }
}
