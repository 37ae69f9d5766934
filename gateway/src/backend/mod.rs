//! How backends reach the gateway, and what serves clients where there is none. Owns no protocol of clients.

pub mod http_api;
pub(crate) mod rooms;
