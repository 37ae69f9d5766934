//! The wire, the outbox, and nodes over a broker in memory in virtual time.
