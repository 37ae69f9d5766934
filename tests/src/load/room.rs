//! Rooms full of clients that check what they get, and clients outside that emit to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Error;
use super::crowd::{Crowd, PATIENCE, Packet};
use super::ledger::{Latencies, Ledger, Stamp};
use super::target::EventNames;

/// The event that members get.
const EVENT: &str = "tick";

/// A text that carries an attachment: the packet announces it, and a binary message follows.
const PLACEHOLDER: &str = r#"{"_placeholder":true,"num":0}"#;

/// So many join at once.
const JOINING: usize = 200;

/// When a client asks again that got no answer.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How rooms are filled and what is emitted to them.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) rooms: usize,
    /// Of each room.
    pub(super) members: usize,
    /// Further rooms of each member, which nobody emits to.
    pub(super) silent: usize,
    /// Publisher `n` emits to the rooms `n`, `n + publishers`, and so on, in turn.
    pub(super) publishers: usize,
    /// Bytes of an event beside its stamp.
    pub(super) payload: usize,
    /// As an attachment.
    pub(super) binary: bool,
}

/// All rooms of a measurement.
pub(super) struct Rooms {
    crowd: Crowd,
    plan: Plan,
    names: EventNames,
    /// Clients of `crowd`; the first ones are members, room by room.
    publishers: Range<usize>,
    ledger: Ledger,
    padding: String,
    /// Emits so far, by room.
    sent: Vec<u64>,
    /// The room of the next emit.
    turn: usize,
}

/// What was seen while emits went on.
pub(super) struct Seen {
    pub(super) emits: u64,
    pub(super) deliveries: u64,
    pub(super) took: Duration,
    pub(super) latencies: Latencies,
    /// How near to 1 Little's law comes out.
    pub(super) littles_ratio: f64,
}

impl Rooms {
    /// Fills the rooms. Members of a room are spread over the servers; publishers are on the first one.
    pub(super) fn open(addresses: &[SocketAddr], names: &EventNames, plan: Plan) -> Result<Self, Error> {
        let members = plan.rooms * plan.members;
        let mut crowd = Crowd::new()?;
        crowd.open(addresses, members, |_, _, _| {})?;
        join_all(&mut crowd, &names.join, (0..members).map(|member| (member, member / plan.members)))?;
        for nth in 0..plan.silent {
            let first = plan.rooms + nth * members;
            join_all(&mut crowd, &names.join, (0..members).map(|member| (member, first + member)))?;
        }
        crowd.open(&addresses[..1], plan.publishers, |_, _, _| {})?;
        Ok(Self {
            publishers: members..members + plan.publishers,
            ledger: Ledger::new(members, plan.publishers),
            padding: "x".repeat(plan.payload),
            sent: vec![0; plan.rooms],
            turn: 0,
            names: names.clone(),
            crowd,
            plan,
        })
    }

    /// Emits to the next room.
    fn emit(&mut self) -> Result<(), Error> {
        let room = self.turn;
        self.turn = (room + 1) % self.plan.rooms;
        let publisher = room % self.plan.publishers;
        let stamp = Stamp { publisher, number: self.sent[room], micros: self.ledger.micros() };
        self.sent[room] += 1;
        self.ledger.emitted(self.plan.members, stamp.micros);
        let (text, broadcast) = (stamp.write(&self.padding), &self.names.broadcast);
        let binary = self.plan.binary;
        self.crowd.send(self.publishers.start + publisher, |outbox| {
            if binary {
                outbox.text(&format!(r#"451-["{broadcast}","room-{room}","{EVENT}",{PLACEHOLDER}]"#));
                outbox.binary(text.as_bytes());
            } else {
                outbox.text(&format!(r#"42["{broadcast}","room-{room}","{EVENT}","{text}"]"#));
            }
        })
    }

    /// Reads what has come, at most so long.
    fn turn(&mut self, timeout: Duration) -> Result<(), Error> {
        let (ledger, members) = (&mut self.ledger, self.publishers.start);
        // One look at the clock for all that a turn brings.
        let mut now = None;
        self.crowd.turn(timeout, |client, packet, _| {
            if client >= members {
                return;
            }
            if let Some(stamp) = delivery(&packet) {
                let now = *now.get_or_insert_with(|| ledger.micros());
                ledger.arrived(client, stamp, now);
            }
        })
    }

    /// Emits for so long, with at most `window` emits on their way: with 1, each after the last has arrived.
    pub(super) fn saturate(&mut self, window: usize, time: Duration) -> Result<Seen, Error> {
        self.measured(|rooms, began| {
            let allowed = (window * rooms.plan.members) as u64;
            let mut emits = 0;
            let mut patience = Instant::now() + PATIENCE;
            while began.elapsed() < time {
                while rooms.ledger.missing() + rooms.plan.members as u64 <= allowed {
                    rooms.emit()?;
                    emits += 1;
                    patience = Instant::now() + PATIENCE;
                }
                rooms.turn(Duration::from_millis(50))?;
                if Instant::now() > patience {
                    rooms.ledger.write_off();
                }
            }
            Ok(emits)
        })
    }

    /// Emits `count` times, one every `interval`.
    pub(super) fn pace(&mut self, count: u64, interval: Duration) -> Result<Seen, Error> {
        self.measured(|rooms, began| {
            for number in 0..count {
                let due = interval * u32::try_from(number)?;
                loop {
                    let early = due.saturating_sub(began.elapsed());
                    if early.is_zero() {
                        break;
                    }
                    rooms.turn(early)?;
                }
                rooms.emit()?;
            }
            Ok(count)
        })
    }

    /// Emits `count` times, each after the last has arrived.
    pub(super) fn one_by_one(&mut self, count: u64) -> Result<(), Error> {
        for _ in 0..count {
            self.emit()?;
            self.all_arrived()?;
        }
        Ok(())
    }

    fn measured(
        &mut self,
        emit: impl FnOnce(&mut Self, Instant) -> Result<u64, Error>,
    ) -> Result<Seen, Error> {
        self.ledger.begin();
        let (before, began) = (self.ledger.received(), Instant::now());
        let emits = emit(self, began)?;
        self.all_arrived()?;
        let (took, (latencies, littles_ratio)) = (began.elapsed(), self.ledger.end());
        Ok(Seen { emits, deliveries: self.ledger.received() - before, took, latencies, littles_ratio })
    }

    /// Waits until what was emitted has come. When nothing comes for long, what is missing is lost.
    pub(super) fn all_arrived(&mut self) -> Result<(), Error> {
        let mut patience = Instant::now() + PATIENCE;
        while self.ledger.missing() > 0 {
            let before = self.ledger.received();
            self.turn(Duration::from_millis(50))?;
            if self.ledger.received() > before {
                patience = Instant::now() + PATIENCE;
            } else if Instant::now() > patience {
                self.ledger.write_off();
            }
        }
        Ok(())
    }

    /// Members that will read nothing from now on are in room 0 beside its own, and nobody waits for what they get.
    pub(super) fn add_sleepers(
        &mut self,
        addresses: &[SocketAddr],
        count: usize,
    ) -> Result<Range<usize>, Error> {
        let first = self.crowd.len();
        self.crowd.open(addresses, count, |_, _, _| {})?;
        join_all(&mut self.crowd, &self.names.join, (first..first + count).map(|client| (client, 0)))?;
        (first..first + count).for_each(|client| self.crowd.put_to_sleep(client));
        Ok(first..first + count)
    }

    /// Wakes the sleepers and counts those whose connection the server has ended, as far as it shows before `deadline`.
    pub(super) fn ended(&mut self, sleepers: Range<usize>, deadline: Duration) -> Result<usize, Error> {
        let before = self.crowd.gone();
        for client in sleepers.clone() {
            self.crowd.wake(client)?;
        }
        let until = Instant::now() + deadline;
        while self.crowd.gone() - before < sleepers.len() && Instant::now() < until {
            self.turn(Duration::from_millis(50))?;
        }
        Ok(self.crowd.gone() - before)
    }

    /// Deliveries beyond or below what was emitted, those out of order, and connections that ended.
    pub(super) fn faults(&self) -> (u64, u64, usize) {
        (self.ledger.miscounted(), self.ledger.disorder(), self.crowd.gone())
    }

    /// Deliveries so far.
    pub(super) fn received(&self) -> u64 {
        self.ledger.received()
    }

    /// Emits another payload from now on.
    pub(super) fn set_payload(&mut self, bytes: usize) {
        self.padding = "x".repeat(bytes);
    }
}

/// What a packet says that is a delivery.
pub(super) fn delivery(packet: &Packet<'_>) -> Option<Stamp> {
    match packet {
        Packet::Text(text) => Stamp::read(text.strip_prefix(r#"42["tick",""#)?.as_bytes()),
        Packet::Binary(data) => Stamp::read(data),
    }
}

/// Joins many clients to rooms, and waits until all are in them. Who has no answer asks again: a server may lose what comes
/// right after it let a client in, and that is told by the scenario `connect`, not by all others.
pub(super) fn join_all(
    crowd: &mut Crowd,
    join: &str,
    places: impl Iterator<Item = (usize, usize)>,
) -> Result<(), Error> {
    let mut missing: BTreeMap<usize, usize> = places.collect();
    let patience = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let asked: Vec<_> = missing.iter().take(JOINING).map(|(client, room)| (*client, *room)).collect();
        for (client, room) in &asked {
            crowd.send(*client, |outbox| outbox.text(&format!(r#"420["{join}","room-{room}"]"#)))?;
        }
        let again = Instant::now() + ASK_AGAIN;
        let wanted = missing.len() - asked.len();
        while missing.len() > wanted && Instant::now() < again {
            let mut refusal = None;
            crowd.turn(Duration::from_millis(50), |client, packet, _| {
                if let Packet::Text(text) = packet
                    && let Some(answer) = text.strip_prefix("430")
                {
                    missing.remove(&client);
                    refusal = answer.contains("\"error\"").then(|| answer.to_owned()).or(refusal.take());
                }
            })?;
            if let Some(refusal) = refusal {
                return Err(format!("the server lets nobody into a room: {refusal}").into());
            }
        }
        if Instant::now() > patience {
            return Err(format!("{} clients get no answer when they join", missing.len()).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_told_from_everything_else() {
        let stamp = Stamp { publisher: 0, number: 7, micros: 9 };
        assert_eq!(delivery(&Packet::Text(r#"42["tick","0.7.9.xx"]"#)), Some(stamp));
        assert_eq!(delivery(&Packet::Binary(b"0.7.9.xx")), Some(stamp));
        for text in [r#"42["tock","0.7.9.xx"]"#, r#"451-["tick",{}]"#, "3", r#"430[]"#] {
            assert_eq!(delivery(&Packet::Text(text)), None);
        }
    }
}
