//! What has to come of the emits, and what did: each once, in the order of its publisher. And how long it took.

use std::time::{Duration, Instant};

/// Latencies that are kept; later ones are counted, and take no part in the percentiles.
const MAX_SAMPLES: usize = 4_000_000;

/// The stamp that an emit carries: `<publisher>.<number>.<microseconds>.`, and padding behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) publisher: usize,
    /// Counts up from 0 for each publisher and room.
    pub(super) number: u64,
    /// When it was emitted, since the beginning of the ledger.
    pub(super) micros: u64,
}

impl Stamp {
    pub(super) fn write(self, padding: &str) -> String {
        let Self { publisher, number, micros } = self;
        format!("{publisher}.{number}.{micros}.{padding}")
    }

    /// Reads it from the front of a text.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (publisher, rest) = digits(text)?;
        let (number, rest) = digits(rest)?;
        let (micros, _) = digits(rest)?;
        Some(Self { publisher: usize::try_from(publisher).ok()?, number, micros })
    }
}

/// A number, and what is behind the point that ends it.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            b'.' if at > 0 => return Some((number, &text[at + 1..])),
            _ => return None,
        }
    }
    None
}

/// Deliveries to all receivers of all publishers.
pub(super) struct Ledger {
    /// The number that each receiver waits for, by receiver and publisher.
    next: Vec<u64>,
    publishers: usize,
    epoch: Instant,
    received: u64,
    expected: u64,
    /// Nobody waits for these any more.
    lost: u64,
    /// Deliveries that were not the next of their publisher: something was lost, repeated or overtaken before them.
    disorder: u64,
    /// While it is measured.
    sampling: Option<Sampling>,
}

/// What is kept while it is measured.
#[derive(Debug, Default)]
struct Sampling {
    latencies: Latencies,
    /// Deliveries under way, summed up over microseconds.
    area: f64,
    began: u64,
    until: u64,
}

impl Ledger {
    pub(super) fn new(receivers: usize, publishers: usize) -> Self {
        Self {
            next: vec![0; receivers * publishers],
            publishers,
            epoch: Instant::now(),
            received: 0,
            expected: 0,
            lost: 0,
            disorder: 0,
            sampling: None,
        }
    }

    /// The time of an emit that is made now.
    pub(super) fn micros(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// An emit is made now that has to reach so many.
    pub(super) fn emitted(&mut self, receivers: usize, now: u64) {
        self.pass(now);
        self.expected += receivers as u64;
    }

    /// Time goes by with as many under way as there are.
    fn pass(&mut self, now: u64) {
        let missing = self.missing();
        if let Some(sampling) = &mut self.sampling {
            sampling.area += missing as f64 * now.saturating_sub(sampling.until) as f64;
            sampling.until = sampling.until.max(now);
        }
    }

    /// It came to a receiver, at a time of [`Self::micros`].
    pub(super) fn arrived(&mut self, receiver: usize, stamp: Stamp, now: u64) {
        let Some(next) = self.next.get_mut(receiver * self.publishers + stamp.publisher) else { return };
        self.disorder += u64::from(stamp.number != *next);
        *next = stamp.number + 1;
        self.pass(now);
        self.received += 1;
        if let Some(sampling) = &mut self.sampling {
            sampling.latencies.add(now.saturating_sub(stamp.micros));
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Deliveries that are under way, or lost.
    pub(super) fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    /// What is missing now is lost.
    pub(super) fn write_off(&mut self) {
        let missing = self.missing();
        self.lost += missing;
        self.expected -= missing;
    }

    /// Deliveries that are lost for good, or came too often; to be asked once nothing is under way.
    pub(super) fn miscounted(&self) -> u64 {
        self.lost + self.expected.abs_diff(self.received)
    }

    pub(super) fn disorder(&self) -> u64 {
        self.disorder
    }

    /// From now on latencies are kept, and how much is under way.
    pub(super) fn begin(&mut self) {
        let now = self.micros();
        self.sampling = Some(Sampling { began: now, until: now, ..Sampling::default() });
    }

    /// The latencies since [`Self::begin`], and how near to 1 Little's law comes out with them.
    pub(super) fn end(&mut self) -> (Latencies, f64) {
        self.pass(self.micros());
        let Sampling { latencies, area, began, until } = self.sampling.take().unwrap_or_default();
        let seconds = (until - began) as f64 / 1e6;
        let ratio = littles_ratio(area / 1e6 / seconds, latencies.count() as f64 / seconds, latencies.mean());
        (latencies, ratio)
    }
}

/// Times from an emit to its arrivals, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    samples: Vec<u32>,
    sum: u64,
    count: u64,
    sorted: bool,
}

impl Latencies {
    pub(super) fn add(&mut self, micros: u64) {
        self.sum += micros;
        self.count += 1;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(u32::try_from(micros).unwrap_or(u32::MAX));
            self.sorted = false;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn mean(&self) -> Duration {
        Duration::from_micros(self.sum / self.count.max(1))
    }

    /// In milliseconds, as tables have it.
    pub(super) fn percentile(&mut self, per_cent: usize) -> f64 {
        if !self.sorted {
            self.samples.sort_unstable();
            self.sorted = true;
        }
        let at = (self.samples.len() * per_cent / 100).min(self.samples.len().saturating_sub(1));
        self.samples.get(at).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}

/// By Little's law what is under way is what comes in a second times how long each takes. The ratio of the two: a generator
/// that loses count, or takes a time where it should not, is not near 1.
pub(super) fn littles_ratio(under_way: f64, per_second: f64, latency: Duration) -> f64 {
    per_second * latency.as_secs_f64() / under_way
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { publisher: 3, number: 1_234_567, micros: 42 };
        assert_eq!(Stamp::read(stamp.write("xxx").as_bytes()), Some(stamp));
        for text in ["", "3", "3.4", "3.4.", "3.4.5", ".4.5.", "a.4.5.", "3.99999999999999999999.5."] {
            assert_eq!(Stamp::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_lost_repeated_or_overtaken_shows() {
        let judge = |numbers: &[u64]| {
            let mut ledger = Ledger::new(1, 1);
            (0..3).for_each(|_| ledger.emitted(1, 0));
            for number in numbers {
                ledger.arrived(0, Stamp { publisher: 0, number: *number, micros: 0 }, 0);
            }
            (ledger.miscounted(), ledger.disorder())
        };
        assert_eq!(judge(&[0, 1, 2]), (0, 0));
        assert_eq!(judge(&[0, 2]), (1, 1));
        assert_eq!(judge(&[0, 1, 1, 2]), (1, 1));
        assert_eq!(judge(&[1, 0, 2]), (0, 3));
        assert_eq!(judge(&[0, 1]), (1, 0));
    }

    #[test]
    fn what_is_written_off_is_lost_and_no_longer_waited_for() {
        let mut ledger = Ledger::new(1, 1);
        ledger.emitted(10, 0);
        ledger.arrived(0, Stamp { publisher: 0, number: 0, micros: 0 }, 0);
        ledger.write_off();
        assert_eq!((ledger.missing(), ledger.miscounted()), (0, 9));
    }

    #[test]
    fn what_is_under_way_agrees_with_how_long_it_takes() {
        let mut ledger = Ledger::new(1, 1);
        ledger.sampling = Some(Sampling::default());
        for number in 0..1000 {
            // Each is on its way for 3 ms, and every millisecond there is another one.
            let at = number * 1000;
            ledger.emitted(1, at);
            if let Some(number) = number.checked_sub(3) {
                ledger.arrived(0, Stamp { publisher: 0, number, micros: number * 1000 }, at);
            }
        }
        let sampling = ledger.sampling.take().unwrap();
        let seconds = sampling.until as f64 / 1e6;
        let latencies = sampling.latencies;
        let rate = latencies.count() as f64 / seconds;
        let ratio = littles_ratio(sampling.area / 1e6 / seconds, rate, latencies.mean());
        assert!((ratio - 1.0).abs() < 0.01, "{ratio}");
    }

    #[test]
    fn percentiles_are_of_what_was_added() {
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|ms| latencies.add(ms * 1000));
        assert_eq!(
            (latencies.percentile(50), latencies.percentile(99), latencies.percentile(100)),
            (51.0, 100.0, 100.0)
        );
        assert_eq!(latencies.mean(), Duration::from_micros(50_500));
        assert_eq!(Latencies::default().percentile(50), 0.0);
    }

    #[test]
    fn little_is_right_about_a_thousand_under_way() {
        let ratio = littles_ratio(1000.0, 50_000.0, Duration::from_millis(20));
        assert!((ratio - 1.0).abs() < 1e-9);
    }
}
