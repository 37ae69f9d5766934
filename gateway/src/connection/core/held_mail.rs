//! Mail of sockets whose client does not know yet that they are connected: clients may lose what comes before the CONNECT
//! reply. Owns the packets and which socket each is for; when it may go is told by those who hold it.

use std::sync::Arc;

use roomcast_adapter::Outgoing;

/// By slot, in order.
#[derive(Default)]
struct Packets(Vec<(usize, Arc<Outgoing>)>);

/// What is held; nothing for most of a connection's life, and then it owns no memory.
#[derive(Default)]
pub(super) struct HeldMail(Option<Box<Packets>>);

impl HeldMail {
    /// Keeps a packet. How many there are now.
    pub(super) fn hold(&mut self, slot: usize, outgoing: Arc<Outgoing>) -> usize {
        let Packets(held) = &mut **self.0.get_or_insert_default();
        held.push((slot, outgoing));
        held.len()
    }

    /// Sends what was held for a slot.
    pub(super) fn release(&mut self, slot: usize, send: impl FnMut(Arc<Outgoing>)) {
        let Some(Packets(held)) = self.0.as_deref_mut() else { return };
        held.extract_if(.., |(of, _)| *of == slot).map(|(_, outgoing)| outgoing).for_each(send);
        self.0.take_if(|packets| packets.0.is_empty());
    }

    /// The socket of a slot has gone.
    pub(super) fn forget(&mut self, slot: usize) {
        self.release(slot, drop);
    }
}

/// The namespace of a packet of this server.
pub(super) fn namespace_of(outgoing: &Outgoing) -> Option<&str> {
    let (_, text) = outgoing.packet.messages().next().filter(|(is_binary, _)| !is_binary)?;
    let text = std::str::from_utf8(text).ok()?;
    // `4`, the type, and for binary the number of attachments with a hyphen.
    let rest = text.get(2..)?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('-').unwrap_or(rest);
    if rest.starts_with('/') { rest.split(',').next() } else { Some("/") }
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::socketio::EncodedPacket;

    use super::*;

    fn packet(name: &str) -> Arc<Outgoing> {
        Outgoing::new(EncodedPacket::engine_text(name))
    }

    #[test]
    fn mail_goes_to_its_slot_in_order_and_the_rest_stays() {
        let mut held = HeldMail::default();
        let mail = ["a", "b", "c", "d"].map(packet);
        for (slot, outgoing) in [0, 1, 0, 2].into_iter().zip(&mail) {
            held.hold(slot, Arc::clone(outgoing));
        }
        held.forget(2);
        let mut release = |slot| {
            let mut sent = Vec::new();
            held.release(slot, |outgoing| sent.push(outgoing));
            sent
        };
        let is = |sent: &[Arc<Outgoing>], expected: &[usize]| {
            sent.len() == expected.len()
                && sent.iter().zip(expected).all(|(sent, i)| Arc::ptr_eq(sent, &mail[*i]))
        };
        assert!(is(&release(0), &[0, 2]));
        assert!(is(&release(0), &[]));
        assert!(is(&release(1), &[1]));
        assert!(is(&release(2), &[]));
        assert_eq!(held.hold(0, packet("e")), 1);
    }

    #[test]
    fn a_packet_tells_its_namespace() {
        let event = |text: &str| namespace_of(&packet(text)).map(str::to_owned);
        let cases = [
            (r#"2["a"]"#, "/"),
            (r#"212["a"]"#, "/"),
            (r#"2/chat,["a"]"#, "/chat"),
            (r#"2/chat,12["a"]"#, "/chat"),
            (r#"51-/chat,["a",{"_placeholder":true,"num":0}]"#, "/chat"),
            (r#"512-["/a,b",{"_placeholder":true,"num":0}]"#, "/"),
        ];
        for (text, namespace) in cases {
            assert_eq!(event(text).as_deref(), Some(namespace), "{text}");
        }
    }
}
