//! Backend services: how the gateway reaches them.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::units;
use super::{Secret, SecretUrl};

section! {
    /// A backend service that is told and asked what clients do. Namespaces and routes name it.
    pub struct Backend {
        /// Where it takes webhooks. A backend has this or `nats`. "env:NAME" and "file:PATH" work too.
        webhook: Option<SecretUrl> = None; example "\"https://orders.example/hooks\"",
        /// It listens on NATS instead of taking webhooks.
        nats: bool = false,
        /// The secrets that sign webhooks, as the Standard Webhooks specification writes them: "whsec_" and base64 of 24 to
        /// 64 bytes; "env:NAME" and "file:PATH" work too. Each request carries a signature of each, so that a secret can be
        /// replaced without a gap.
        secrets: Vec<Secret> = Vec::new(); example "[\"env:ORDERS_HOOK_SECRET\"]",
        /// Authorities to trust instead of the system's, for a webhook with https: a PEM file.
        ca_file: Option<PathBuf> = None; example "\"/etc/roomcast/ca.pem\"",
        /// How long a client waits for the answer of the backend; also how long one delivery may take.
        #[serde(with = "units::duration")]
        timeout: Duration = Duration::from_secs(5),
        /// Requests at once. Deliveries in the background take at most half of them.
        concurrency: usize = 64,
        /// Events in one delivery, at most.
        batch_items: usize = 100,
        /// How long an event waits for others to be delivered with.
        #[serde(with = "units::duration")]
        batch_delay: Duration = Duration::from_millis(50),
        /// Events that may wait for the backend, those that are being delivered again among them.
        queue_items: usize = 10_000,
        /// Their bytes.
        #[serde(with = "units::bytes")]
        queue_bytes: usize = 16 << 20,
        /// Events that are kept when they could not be delivered, up to queue_bytes. The oldest are let go first.
        dead_letters: usize = 1_000,
        /// The longest reply.
        #[serde(with = "units::bytes")]
        max_reply: usize = 1 << 20,
        /// Failures in a row after which nothing is sent for a while.
        breaker_failures: u32 = 10,
        /// How long nothing is sent then, before one request is tried.
        #[serde(with = "units::duration")]
        breaker_pause: Duration = Duration::from_secs(5),
        /// Headers of a client's handshake that are sent with roomcast.connect, in lower case.
        headers: Vec<String> = Vec::new(); example "[\"user-agent\", \"accept-language\"]",
        /// For how long the answer to roomcast.connect holds for clients that ask the same: same namespace, auth payload,
        /// query, claims, peer and headers. 0 is never. At most 10s. Leave it at 0 if the backend counts connections or takes a
        /// token once only.
        #[serde(with = "units::duration")]
        share_connects: Duration = Duration::ZERO,
    }
}
