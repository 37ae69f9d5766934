//! Which master of a cluster serves which slot, as one of its nodes tells it.

use std::{collections::HashMap, ops::RangeInclusive};

use super::{resp::Frame, url::Endpoint};

pub(super) const SLOTS: u16 = 16_384;

/// The slot of a channel: CRC16 of its bytes, or of what is between its first `{` and the next `}`.
pub(super) fn slot(channel: &str) -> u16 {
    let bytes = channel.as_bytes();
    let tag = bytes.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = bytes.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(bytes)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = (index as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The masters and what they serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topology {
    pub(super) masters: Vec<Endpoint>,
    /// Slots, and the index of their master.
    pub(super) ranges: Vec<(RangeInclusive<u16>, usize)>,
}

impl Topology {
    /// From the answer to CLUSTER SLOTS of the node at `told_by`. None when it is not such an answer.
    pub(super) fn parse(answer: &Frame, told_by: &Endpoint) -> Option<Self> {
        let (mut masters, mut ranges): (Vec<Endpoint>, _) = (Vec::new(), Vec::new());
        let mut indices = HashMap::new();
        for range in answer.list()? {
            let [first, last, master, ..] = range.list()? else { return None };
            let [host, port, ..] = master.list()? else { return None };
            let slot = |frame: &Frame| u16::try_from(frame.integer()?).ok().filter(|slot| *slot < SLOTS);
            let port = u16::try_from(port.integer()?).ok()?;
            let endpoint = announced(host.text().unwrap_or_default(), port, told_by);
            let index = *indices.entry(endpoint.clone()).or_insert_with(|| {
                masters.push(endpoint);
                masters.len() - 1
            });
            ranges.push((slot(first)?..=slot(last)?, index));
        }
        Some(Self { masters, ranges })
    }

    /// The index of the master of every slot, or a slot that nobody serves.
    pub(super) fn table(&self) -> Result<Box<[u16]>, u16> {
        let mut table = vec![u16::MAX; usize::from(SLOTS)].into_boxed_slice();
        for (slots, master) in &self.ranges {
            let master = u16::try_from(*master).unwrap_or(u16::MAX);
            if let Some(slots) = table.get_mut(usize::from(*slots.start())..=usize::from(*slots.end())) {
                slots.fill(master);
            }
        }
        match table.iter().position(|master| *master == u16::MAX) {
            Some(slot) => Err(u16::try_from(slot).unwrap_or(u16::MAX)),
            None => Ok(table),
        }
    }

    /// Who serves a slot.
    pub(super) fn master_of(&self, slot: u16) -> Option<&Endpoint> {
        let (_, master) = self.ranges.iter().find(|(slots, _)| slots.contains(&slot))?;
        self.masters.get(*master)
    }
}

/// A node whose address the cluster does not know is where the one that told of it is.
fn announced(host: &str, port: u16, told_by: &Endpoint) -> Endpoint {
    let host = if host.is_empty() || host == "?" { &told_by.host } else { host };
    Endpoint { host: host.to_owned(), port }
}

/// What to do with a command that a node did not execute because of the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// That node serves it.
    Moved(Endpoint),
    /// It is being moved.
    Later,
}

impl Redirect {
    /// From an error of the node at `told_by`. None when it is another error.
    pub(super) fn parse(error: &str, told_by: &Endpoint) -> Option<Self> {
        let mut words = error.split(' ');
        match words.next()? {
            "MOVED" => {
                let (host, port) = words.nth(1)?.rsplit_once(':')?;
                Some(Self::Moved(announced(host, port.parse().ok()?, told_by)))
            }
            "ASK" | "TRYAGAIN" => Some(Self::Later),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.into(), port }
    }

    /// The slots that `CLUSTER KEYSLOT` gives.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (channel, expected) in [
            ("", 0),
            ("foo", 12_182),
            ("a{foo}b", 12_182),
            ("{foo}{bar}", 12_182),
            ("{}foo", slot("{}foo")),
            ("foo{bar", slot("foo{bar")),
        ] {
            assert_eq!(slot(channel), expected, "{channel}");
        }
        assert_ne!(slot("{}foo"), slot("foo"));
        assert_ne!(slot("{}foo"), slot("{}bar"), "an empty tag is none");
    }

    fn parsed(answer: &'static [u8]) -> Option<Topology> {
        let frame = super::super::resp::decode(&mut answer.into()).expect("RESP").expect("whole");
        Topology::parse(&frame, &endpoint("seed", 1))
    }

    #[test]
    fn the_answer_to_cluster_slots() {
        let topology = parsed(
            b"*3\r\n*3\r\n:0\r\n:9\r\n*3\r\n$1\r\na\r\n:7\r\n$2\r\nid\r\n*4\r\n:10\r\n:16382\r\n*2\r\n$-1\r\n:8\r\n*2\r\n$1\r\nr\r\n:9\r\n\
              *3\r\n:16383\r\n:16383\r\n*2\r\n$1\r\na\r\n:7\r\n",
        );
        let topology = topology.expect("an answer");
        assert_eq!(topology.masters, [endpoint("a", 7), endpoint("seed", 8)]);
        let table = topology.table().expect("whole");
        assert_eq!([table[0], table[9], table[10], table[16_383]], [0, 0, 1, 0]);
        assert_eq!(topology.master_of(10), Some(&endpoint("seed", 8)));
    }

    #[test]
    fn slots_that_nobody_serves_and_answers_that_are_none() {
        assert_eq!(parsed(b"*0\r\n").expect("an answer").table(), Err(0));
        assert_eq!(
            parsed(b"*1\r\n*3\r\n:5\r\n:2\r\n*2\r\n$1\r\na\r\n:7\r\n").expect("an answer").table(),
            Err(0)
        );
        assert_eq!(parsed(b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:7\r\n"), None);
        assert_eq!(parsed(b"*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n"), None);
        assert_eq!(parsed(b"+OK\r\n"), None);
    }

    #[test]
    fn redirects() {
        let seed = endpoint("seed", 1);
        assert_eq!(Redirect::parse("MOVED 12 a:7", &seed), Some(Redirect::Moved(endpoint("a", 7))));
        assert_eq!(Redirect::parse("MOVED 12 :7", &seed), Some(Redirect::Moved(endpoint("seed", 7))));
        assert_eq!(Redirect::parse("MOVED 12 ::1:7", &seed), Some(Redirect::Moved(endpoint("::1", 7))));
        assert_eq!(Redirect::parse("TRYAGAIN later", &seed), Some(Redirect::Later));
        for other in ["", "MOVED", "MOVED 12", "MOVED 12 a:x", "ERR no"] {
            assert_eq!(Redirect::parse(other, &seed), None);
        }
    }
}
