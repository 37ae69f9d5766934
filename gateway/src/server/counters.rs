//! The counters of the adapter, and of its connections to the broker, as metrics.

use std::sync::Arc;

use roomcast_adapter::{Counter, Counters, Gauge, LinkStats};

use crate::metrics::{Metrics, Source, SourceKind};

/// A figure: its name, its help, its labels, and where it is kept.
type Figure =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], fn(&Counters) -> &Counter);

const DROPPED: &str = "What was not delivered.";
const SUBSCRIPTIONS: &str = "Subscriptions for rooms at the broker.";
const MALFORMED: &str = "Messages of the broker that could not be read.";
const REFUSED: &str = "Messages that the broker did not take.";

static FIGURES: &[Figure] = &[
    ("deliveries_total", "Packets that were put into a mailbox of this node.", &[], |c| &c.deliveries),
    ("dropped_total", DROPPED, &[("reason", "volatile")], |c| &c.volatile_dropped),
    ("dropped_total", DROPPED, &[("reason", "slow_consumer")], |c| &c.overflowed),
    ("dropped_total", DROPPED, &[("reason", "connection_closed")], |c| &c.closed),
    ("dropped_total", DROPPED, &[("reason", "room_overload")], |c| &c.room_overload),
    ("dropped_total", DROPPED, &[("reason", "node_overload")], |c| &c.node_overload),
    ("bus_shed_total", "Messages with packets that were shed, as this node was behind.", &[], |c| &c.shed),
    ("bus_overloads_total", "Times this node was behind so that it began to shed.", &[], |c| &c.overloads),
    ("acks_not_awaited_total", "Emits that asked nobody: too many acks were awaited.", &[], |c| {
        &c.acks_refused
    }),
    ("bus_published_total", "Messages that the broker took.", &[], |c| &c.published),
    ("bus_published_bytes_total", "Bytes of the messages that the broker took.", &[], |c| &c.published_bytes),
    ("bus_publish_refused_total", REFUSED, &[("reason", "unavailable")], |c| &c.publish_refused),
    ("bus_publish_refused_total", REFUSED, &[("reason", "too_large")], |c| &c.publish_too_large),
    ("bus_publish_refused_total", REFUSED, &[("reason", "failed")], |c| &c.publish_failed),
    ("bus_received_total", "Messages from other nodes.", &[], |c| &c.received),
    ("bus_received_bytes_total", "Bytes of the messages from other nodes.", &[], |c| &c.received_bytes),
    ("bus_duplicates_total", "Further copies of a message that had come.", &[], |c| &c.duplicate),
    ("bus_malformed_total", MALFORMED, &[("reason", "foreign")], |c| &c.malformed_foreign),
    ("bus_malformed_total", MALFORMED, &[("reason", "version")], |c| &c.malformed_version),
    ("bus_malformed_total", MALFORMED, &[("reason", "truncated")], |c| &c.malformed_truncated),
    ("bus_malformed_total", MALFORMED, &[("reason", "invalid")], |c| &c.malformed_invalid),
    ("cluster_requests_total", "Requests to the other nodes.", &[], |c| &c.requests),
    ("cluster_requests_incomplete_total", "Requests that some node did not answer.", &[], |c| {
        &c.requests_incomplete
    }),
    ("cluster_requests_overflowed_total", "Requests that were not sent: too many waited.", &[], |c| {
        &c.requests_overflowed
    }),
    ("cluster_requests_refused_total", "Requests of other nodes that were not taken.", &[], |c| {
        &c.requests_refused
    }),
    ("bus_down_total", "Times the broker went away.", &[], |c| &c.broker_down),
    ("bus_subscribe_failed_total", "Subscription attempts that failed.", &[], |c| &c.subscribe_failed),
    ("bus_subscribed_total", "Subscriptions that were made.", &[], |c| &c.subscribed),
    ("bus_unsubscribed_total", "Subscriptions that were let go.", &[], |c| &c.unsubscribed),
    ("cluster_routing_switches_total", "Times this node went over to buckets of rooms, or back.", &[], |c| {
        &c.routing_switches
    }),
    (
        "cluster_routing_refused_total",
        "Times this node should have gone over to buckets of rooms, and another node did not know them.",
        &[],
        |c| &c.routing_refused,
    ),
    (
        "cluster_routing_crowded_total",
        "Times the nodes had too many settings of hashed_subjects, so that room emits went to all of them.",
        &[],
        |c| &c.routing_crowded,
    ),
    ("cluster_answers_refused_total", "Answers of nodes that said more than is taken.", &[], |c| {
        &c.answers_refused
    }),
    ("cluster_members_joined_total", "Other nodes that were found.", &[], |c| &c.members_joined),
    ("cluster_members_refused_total", "Signs of life beyond the number of nodes that are kept.", &[], |c| {
        &c.members_refused
    }),
    ("cluster_members_left_total", "Other nodes that left or fell silent.", &[], |c| &c.members_left),
    ("cluster_members_gone_total", "Other nodes that are gone for good.", &[], |c| &c.members_gone),
    (
        "cluster_fenced_total",
        "Times this node disconnected its sockets, taken for dead by the others.",
        &[],
        |c| &c.fenced,
    ),
    ("cluster_hung_total", "Times this node did not run for longer than the expiry.", &[], |c| &c.hung),
    ("directory_sent_total", "Updates of the directory to other nodes.", &[], |c| &c.directory_sent),
    ("directory_received_total", "Updates of the directory from other nodes.", &[], |c| {
        &c.directory_received
    }),
    ("directory_gaps_total", "Updates behind some that were lost.", &[], |c| &c.directory_gaps),
    ("sockets_reaped_total", "Sockets of dead nodes that this node told of.", &[], |c| &c.sockets_reaped),
    ("presence_events_total", "What this node had to tell of rooms and sockets.", &[], |c| {
        &c.presence_events
    }),
    ("presence_dropped_total", "Of that, what nobody took in time.", &[], |c| &c.presence_dropped),
    ("calls_repeated_total", "Calls that were carried out before, and were not again.", &[], |c| {
        &c.once_repeated
    }),
    (
        "calls_forgotten_total",
        "Calls that were forgotten before their time: there were too many.",
        &[],
        |c| &c.once_evicted,
    ),
    ("calls_not_kept_total", "Messages about calls that were not sent to those who keep them.", &[], |c| {
        &c.once_lost
    }),
    ("cluster_tag_conflicts_total", "Messages of another node with this node's tag.", &[], |c| {
        &c.tag_conflicts
    }),
];

/// Reads what the connections to the broker have counted.
pub(super) type ReadLink = Arc<dyn Fn() -> LinkStats + Send + Sync>;

/// A figure of the connections: its name, its help, and where it is kept.
type LinkFigure = (&'static str, &'static str, fn(&LinkStats) -> u64);

static LINK_FIGURES: &[LinkFigure] = &[
    ("bus_link_received_total", "Messages that came from the broker, this node's own among them.", |s| {
        s.received
    }),
    ("bus_link_lost_total", "Messages that were dropped before they were read, at least.", |s| s.lost),
    ("bus_link_gaps_total", "Times messages may have been missed as a subscription moved.", |s| s.gaps),
    ("bus_link_outages_total", "Times the connections to the broker were lost.", |s| s.outages),
    ("bus_link_refused_total", "Messages that were refused or not confirmed.", |s| s.refused),
    ("bus_link_slow_consumer_total", "Times messages were dropped as this node was slow.", |s| {
        s.slow_consumer
    }),
    ("bus_link_uncovered_total", "Servers of the broker's cluster that joins did not wait for.", |s| {
        s.uncovered
    }),
];

/// Has the figures of the connections read when metrics are asked for.
pub(super) fn export_link(metrics: &Metrics, link: &ReadLink) {
    for (name, help, figure) in LINK_FIGURES {
        let link = Arc::clone(link);
        let read = Box::new(move || figure(&link()) as f64);
        let source = Source { kind: SourceKind::Counter, name, help, labels: &[], read };
        if let Err(error) = metrics.register_source(source) {
            tracing::warn!(name, %error, "a figure of the broker is not exported");
        }
    }
    export_waiting(metrics, link);
}

/// Has it read how much was read from the broker and waits to be delivered.
fn export_waiting(metrics: &Metrics, link: &ReadLink) {
    let link = Arc::clone(link);
    let (name, help) =
        ("bus_link_waiting", "Messages that were read from the broker and wait to be delivered.");
    let read = Box::new(move || link().waiting as f64);
    export(metrics, Source { kind: SourceKind::Gauge, name, help, labels: &[], read });
}

type GaugeFigure =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], fn(&Counters) -> &Gauge);

/// What comes and goes.
static GAUGES: &[GaugeFigure] = &[
    ("bus_subscriptions", SUBSCRIPTIONS, &[("kind", "room")], |c| &c.subscribed_rooms),
    ("bus_subscriptions", SUBSCRIPTIONS, &[("kind", "bucket")], |c| &c.subscribed_buckets),
    ("directory_records", "Rooms and sockets that this node keeps for the cluster.", &[], |c| {
        &c.directory_records
    }),
    ("bus_outbox_messages", "Messages to the broker that wait or are in flight.", &[], |c| &c.outbox_items),
    ("bus_outbox_bytes", "Their bytes.", &[], |c| &c.outbox_bytes),
    ("acks_awaited", "Acks that clients of this node owe.", &[], |c| &c.acks_awaited),
    ("calls_remembered", "Calls with an idempotency key that this node remembers.", &[], |c| &c.once_kept),
    ("cluster_rooms_hashed", "1 while this node listens to buckets of rooms.", &[], |c| &c.hashed),
];

/// Has every counter of the adapter read when metrics are asked for.
pub(super) fn export_counters(metrics: &Metrics, counters: &Arc<Counters>) {
    for (name, help, labels, counter) in FIGURES {
        let counters = Arc::clone(counters);
        let read = Box::new(move || counter(&counters).get() as f64);
        export(metrics, Source { kind: SourceKind::Counter, name, help, labels, read });
    }
    for (name, help, labels, gauge) in GAUGES {
        let counters = Arc::clone(counters);
        let read = Box::new(move || gauge(&counters).get() as f64);
        export(metrics, Source { kind: SourceKind::Gauge, name, help, labels, read });
    }
}

fn export(metrics: &Metrics, source: Source) {
    let name = source.name;
    if let Err(error) = metrics.register_source(source) {
        tracing::warn!(name, %error, "a figure of the adapter is not exported");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_exported() {
        let (metrics, counters) = (Metrics::new(), Arc::new(Counters::default()));
        export_counters(&metrics, &counters);
        export_link(&metrics, &(Arc::new(LinkStats::default) as ReadLink));
        counters.deliveries.add(3);
        let text = metrics.render();
        assert!(text.contains("roomcast_deliveries_total 3"), "{text}");
        let counters = FIGURES.iter().map(|(name, _, labels, _)| (name, labels));
        for (name, labels) in counters.chain(GAUGES.iter().map(|(name, _, labels, _)| (name, labels))) {
            let label = labels.first().map_or(String::new(), |(key, value)| format!("{{{key}=\"{value}\"}}"));
            assert!(text.contains(&format!("roomcast_{name}{label} ")), "{name}{label}");
        }
        for (name, ..) in LINK_FIGURES {
            assert!(text.contains(&format!("roomcast_{name} 0")), "{name}");
        }
    }
}
