//! The outbound queue of one connection.

use roomcast_adapter::MailboxLimits;

use super::section::section;
use super::units;

section! {
    /// What may wait to be written to one connection. A connection that is slower is closed as a slow consumer.
    pub struct Mailbox {
        /// Packets.
        max_items: usize = MailboxLimits::default().max_items,
        /// Bytes.
        #[serde(with = "units::bytes")]
        max_bytes: usize = MailboxLimits::default().max_bytes,
    }
}

impl From<&Mailbox> for MailboxLimits {
    fn from(mailbox: &Mailbox) -> Self {
        Self { max_items: mailbox.max_items, max_bytes: mailbox.max_bytes }
    }
}
