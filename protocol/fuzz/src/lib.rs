//! What the fuzz targets judge, one module per target. The targets themselves only hand over bytes.

pub mod polling_payload;
pub mod session_model;
pub mod socketio_packet;
pub mod websocket_decoder;
