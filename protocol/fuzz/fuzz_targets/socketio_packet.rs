#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roomcast_protocol_fuzz::socketio_packet::run(data));
