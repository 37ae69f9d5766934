//! What an event with an ack costs: each connection has some under way, and sends another one for each answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Outbox, PATIENCE, Packet};
use super::ledger::Latencies;
use super::process::Process;
use super::server::{Servers, Setup};
use super::{Error, Report};

/// How long it runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// How far from 1 Little's law may come out before the generator is not believed.
const LITTLE: f64 = 0.1;

/// What one connection waits for.
#[derive(Default)]
struct Asking {
    next: u64,
    /// What was sent and not answered, in order, with the time.
    under_way: VecDeque<(u64, Instant)>,
}

/// All connections together.
struct Echoes {
    asking: Vec<Asking>,
    event: String,
    padding: String,
    answered: u64,
    disorder: u64,
    unasked: u64,
    latencies: Latencies,
    /// Since when latencies are kept, and all time since then that events were under way.
    since: Instant,
    under_way: Duration,
    /// The time of the turn that is being read.
    now: Option<Instant>,
    /// Another one is sent for each answer.
    going: bool,
}

pub(super) fn echo(
    setup: &Setup,
    connections: usize,
    window: usize,
    payload: usize,
    time: Duration,
) -> Result<Report, Error> {
    let event = setup.target.events.echo.clone().ok_or("no event is echoed")?;
    let servers = Servers::start(setup, 1)?;
    let mut crowd = Crowd::new()?;
    crowd.open(&servers.addresses(), connections, |_, _, _| {})?;
    let mut echoes = Echoes {
        asking: (0..connections).map(|_| Asking::default()).collect(),
        event,
        padding: "x".repeat(payload),
        answered: 0,
        disorder: 0,
        unasked: 0,
        latencies: Latencies::default(),
        since: Instant::now(),
        under_way: Duration::ZERO,
        now: None,
        going: true,
    };
    for client in 0..connections {
        crowd.send(client, |outbox| (0..window).for_each(|_| echoes.ask(client, Instant::now(), outbox)))?;
    }
    echoes.run(&mut crowd, WARM_UP)?;
    echoes.begin();
    let look = || Ok::<_, Error>((servers.cpu()?, Process::own().cpu()?, Instant::now()));
    let (before, answered) = (look()?, echoes.answered);
    echoes.run(&mut crowd, time)?;
    let (after, answered) = (look()?, (echoes.answered - answered) as f64);
    let off = (echoes.littles_ratio() - 1.0).abs();
    let mut latencies = std::mem::take(&mut echoes.latencies);
    echoes.going = false;
    let unanswered = echoes.drain(&mut crowd)?;

    let took = (after.2 - before.2).as_secs_f64();
    let per = |cpu: Duration| cpu.as_secs_f64() * 1e6 / answered.max(1.0);
    let mut report = Report::default();
    report.figure("connections", connections as f64, "");
    report.figure("under_way_each", window as f64, "");
    report.figure("payload", payload as f64, "bytes");
    report.figure("cpu_per_echo", per(after.0 - before.0), "µs");
    report.figure("generator_cpu_per_echo", per(after.1 - before.1), "µs");
    report.figure("server_busy", (after.0 - before.0).as_secs_f64() / took, "cores");
    report.figure("echoes_per_second", answered / took, "1/s");
    report.figure("latency_p50", latencies.percentile(50), "ms");
    report.figure("latency_p99", latencies.percentile(99), "ms");
    report.bounded("littles_ratio_off", off, "", LITTLE);
    report.bounded("acks_lost", unanswered as f64, "", 0.0);
    report.bounded("acks_repeated", echoes.unasked as f64, "", 0.0);
    report.bounded("acks_out_of_order", echoes.disorder as f64, "", 0.0);
    report.bounded("connections_lost", crowd.gone() as f64, "", 0.0);
    Ok(report)
}

impl Echoes {
    fn begin(&mut self) {
        self.latencies = Latencies::default();
        (self.since, self.under_way) = (Instant::now(), Duration::ZERO);
    }

    /// The time that answers were waited for, those that have not come yet among them, by what it has to be: as many events
    /// are under way all the time as the windows allow.
    fn littles_ratio(&self) -> f64 {
        let now = Instant::now();
        let still = self.asking.iter().flat_map(|asking| &asking.under_way);
        let (mut waited, mut count) = (self.under_way, 0);
        for (_, asked) in still {
            waited += now.saturating_duration_since((*asked).max(self.since));
            count += 1;
        }
        waited.as_secs_f64() / (f64::from(count) * now.duration_since(self.since).as_secs_f64())
    }

    fn ask(&mut self, client: usize, now: Instant, outbox: &mut Outbox) {
        let asking = &mut self.asking[client];
        let id = asking.next;
        asking.next += 1;
        asking.under_way.push_back((id, now));
        outbox.text(&format!(r#"42{id}["{}","{}"]"#, self.event, self.padding));
    }

    fn answer(&mut self, client: usize, packet: &Packet<'_>, outbox: &mut Outbox) {
        let Packet::Text(text) = packet else { return };
        let Some(id) = text.strip_prefix("43").and_then(|rest| rest.split('[').next()?.parse::<u64>().ok())
        else {
            return;
        };
        let now = *self.now.get_or_insert_with(Instant::now);
        let under_way = &mut self.asking[client].under_way;
        let Some(at) = under_way.iter().position(|(asked, _)| *asked == id) else {
            self.unasked += 1;
            return;
        };
        self.disorder += u64::from(at > 0);
        if let Some((_, asked)) = under_way.remove(at) {
            self.latencies.add(now.saturating_duration_since(asked).as_micros() as u64);
            self.under_way += now.saturating_duration_since(asked.max(self.since));
        }
        self.answered += 1;
        if self.going {
            self.ask(client, now, outbox);
        }
    }

    fn turn(&mut self, crowd: &mut Crowd) -> Result<(), Error> {
        self.now = None;
        crowd.turn(Duration::from_millis(20), |client, packet, outbox| self.answer(client, &packet, outbox))
    }

    fn run(&mut self, crowd: &mut Crowd, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(crowd)?;
        }
        Ok(())
    }

    /// Waits for what is under way; what never comes is counted.
    fn drain(&mut self, crowd: &mut Crowd) -> Result<usize, Error> {
        let mut patience = Instant::now() + PATIENCE;
        loop {
            let waiting: usize = self.asking.iter().map(|asking| asking.under_way.len()).sum();
            if waiting == 0 || Instant::now() > patience {
                return Ok(waiting);
            }
            let before = self.answered;
            self.turn(crowd)?;
            if self.answered > before {
                patience = Instant::now() + PATIENCE;
            }
        }
    }
}
