//! How backends reach the gateway, and it them. Owns no protocol of clients.

pub mod http_api;
