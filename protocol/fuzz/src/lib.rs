//! What the fuzz targets judge, one module per target. The targets themselves only hand over bytes.

pub mod websocket_decoder;
