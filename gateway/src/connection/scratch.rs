//! Buffers that a thread lends to the connection that it is running: idle connections own none.

use std::cell::Cell;
use std::collections::VecDeque;

use roomcast_adapter::Item;
use roomcast_protocol::websocket::{Deflater, Inflater};

/// Bytes that one read may bring.
const READ_BUFFER: usize = 64 * 1024;

/// Items of mail that a buffer may have room for which a thread keeps.
const MAIL: usize = 1024;

/// What a connection borrows while bytes are in flight.
pub(crate) struct Scratch {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) inflater: Inflater,
    deflaters: Vec<Deflater>,
}

impl Scratch {
    /// The compressor of these parameters.
    pub(crate) fn deflater(&mut self, level: u32, window_bits: u8) -> &mut Deflater {
        let known = self.deflaters.iter().position(|deflater| deflater.window_bits() == window_bits);
        let index = known.unwrap_or_else(|| {
            self.deflaters.push(Deflater::new(level, window_bits));
            self.deflaters.len() - 1
        });
        &mut self.deflaters[index]
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static MAILBAG: Cell<VecDeque<Item>> = const { Cell::new(VecDeque::new()) };
}

/// Lends the thread's scratch. A nested call, which a handler could bring about by running another connection in place,
/// gets a scratch of its own.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take().unwrap_or_else(|| {
        Box::new(Scratch {
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            inflater: Inflater::new(),
            deflaters: Vec::new(),
        })
    });
    let result = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

/// Lends an empty queue for what is taken from a mailbox; what is left in it is dropped.
pub(crate) fn with_mailbag<R>(work: impl FnOnce(&mut VecDeque<Item>) -> R) -> R {
    let mut mail = MAILBAG.take();
    let result = work(&mut mail);
    mail.clear();
    if mail.capacity() <= MAIL {
        MAILBAG.set(mail);
    }
    result
}
