//! stub
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Violation {
    #[error("unknown packet type")]
    UnknownPacketType,
    #[error("illegal attachments")]
    IllegalAttachments,
    #[error("too many attachments")]
    TooManyAttachments,
    #[error("invalid ack id")]
    InvalidAckId,
    #[error("invalid payload")]
    InvalidPayload,
    #[error("reserved event")]
    ReservedEvent,
}
