//! The queue in virtual time, which here is an argument.

use super::*;

const BASE: Limits = Limits {
    items: 1_000,
    bytes: 1 << 20,
    batch_items: 3,
    batch_delay: Duration::from_millis(50),
    concurrency: 8,
};
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    queue: Queue,
    now: Instant,
}

fn rig(limits: Limits) -> Rig {
    Rig { queue: Queue::new(limits), now: Instant::now() }
}

fn event(subject: &str, id: &str) -> CloudEvent {
    CloudEvent::for_test(subject, id)
}

fn ids(batch: &Batch) -> Vec<&str> {
    batch.events.iter().map(|event| &*event.id).collect()
}

impl Rig {
    fn notice(&mut self, subject: &str, id: &str) {
        self.queue.notice(event(subject, id), self.now).unwrap();
    }

    fn call(&mut self, subject: &str, id: &str) -> oneshot::Receiver<Result<Reply, BackendError>> {
        let (answer, reply) = oneshot::channel();
        let call = Call { event: event(subject, id), answer, deadline: self.now + SECOND };
        assert!(self.queue.call(call, self.now).is_ok());
        reply
    }

    fn next(&mut self) -> Option<Sending> {
        self.queue.next(self.now, || "msg".to_owned())
    }

    fn batch(&mut self) -> Batch {
        match self.next() {
            Some(Sending::Batch(batch)) => batch,
            Some(Sending::Call(call)) => panic!("a call: {}", call.event.id),
            None => panic!("nothing to send"),
        }
    }

    fn sent_call(&mut self) -> Call {
        match self.next() {
            Some(Sending::Call(call)) => call,
            Some(Sending::Batch(batch)) => panic!("a batch: {:?}", ids(&batch)),
            None => panic!("nothing to send"),
        }
    }

    fn is_quiet(&mut self) -> bool {
        self.next().is_none()
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn a_notice_waits_for_company_and_no_longer() {
    let mut rig = rig(BASE);
    rig.notice("a", "a1");
    assert!(rig.is_quiet());
    assert_eq!(rig.queue.deadline(), Some(rig.now + 50 * MS));
    rig.after(49 * MS);
    rig.notice("b", "b1");
    assert!(rig.is_quiet());
    rig.after(MS);
    let batch = rig.batch();
    assert_eq!(ids(&batch), ["a1", "b1"]);
    assert!(rig.is_quiet());
    rig.queue.batch_done(&batch, rig.now);
    assert!(rig.queue.is_empty() && rig.queue.load() == (0, 0) && rig.queue.subjects.is_empty());
}

#[test]
fn enough_notices_go_at_once_in_batches_of_the_right_size() {
    let mut rig = rig(BASE);
    for number in 0..3 {
        assert!(rig.is_quiet());
        rig.notice(&format!("s{number}"), &number.to_string());
    }
    rig.notice("more", "3");
    assert_eq!(ids(&rig.batch()), ["0", "1", "2"]);
    assert!(rig.is_quiet(), "one alone waits");
    rig.after(50 * MS);
    assert_eq!(ids(&rig.batch()), ["3"]);
}

#[test]
fn of_one_subject_one_thing_is_on_its_way() {
    let mut rig = rig(BASE);
    for number in 1..=5 {
        rig.notice("a", &format!("a{number}"));
    }
    let first = rig.batch();
    assert_eq!(ids(&first), ["a1", "a2", "a3"]);
    rig.after(SECOND);
    assert!(rig.is_quiet(), "the rest waits for the first batch");
    rig.notice("b", "b1");
    rig.after(50 * MS);
    let other = rig.batch();
    assert_eq!(ids(&other), ["b1"], "others do not wait");
    rig.queue.batch_done(&first, rig.now);
    rig.after(50 * MS);
    assert_eq!(ids(&rig.batch()), ["a4", "a5"]);
}

#[test]
fn a_call_goes_behind_what_its_subject_said_before() {
    let mut rig = rig(BASE);
    rig.notice("a", "a1");
    let _reply = rig.call("a", "a2");
    rig.notice("a", "a3");
    let batch = rig.batch();
    assert_eq!(ids(&batch), ["a1"], "at once, and not what comes behind the call");
    assert!(rig.is_quiet());
    rig.queue.batch_done(&batch, rig.now);
    let call = rig.sent_call();
    assert_eq!(&*call.event.id, "a2");
    rig.after(SECOND);
    assert!(rig.is_quiet(), "what comes behind waits for the answer");
    rig.queue.call_done(&call.event, rig.now);
    rig.after(50 * MS);
    assert_eq!(ids(&rig.batch()), ["a3"]);
}

#[test]
fn calls_of_one_subject_go_one_after_the_other_and_of_several_together() {
    let mut rig = rig(BASE);
    let _replies = [rig.call("a", "a1"), rig.call("a", "a2"), rig.call("b", "b1")];
    let (a1, b1) = (rig.sent_call(), rig.sent_call());
    assert_eq!((&*a1.event.id, &*b1.event.id), ("a1", "b1"));
    assert!(rig.is_quiet());
    rig.queue.call_done(&a1.event, rig.now);
    assert_eq!(&*rig.sent_call().event.id, "a2");
}

#[test]
fn a_call_that_nobody_waits_for_is_not_sent() {
    let mut rig = rig(BASE);
    drop(rig.call("a", "a1"));
    let _reply = rig.call("a", "a2");
    assert_eq!(&*rig.sent_call().event.id, "a2");
    assert_eq!(rig.queue.load().0, 1);
}

#[test]
fn a_failed_delivery_comes_again_before_what_its_subject_said_later() {
    let mut rig = rig(BASE);
    rig.notice("a", "a1");
    rig.after(50 * MS);
    let batch = rig.batch();
    rig.notice("a", "a2");
    rig.queue.retry(batch, rig.now + SECOND, rig.now);
    rig.notice("b", "b1");
    rig.after(50 * MS);
    assert_eq!(ids(&rig.batch()), ["b1"], "others do not wait");
    assert_eq!(rig.queue.deadline(), Some(rig.now + SECOND - 50 * MS));
    assert!(rig.is_quiet());
    let _reply = rig.call("a", "a3");
    let call = rig.sent_call();
    assert_eq!(&*call.event.id, "a3", "nor does a client that waits for an answer");
    rig.after(SECOND);
    let again = rig.batch();
    assert_eq!((ids(&again), again.attempts, &*again.message), (vec!["a1"], 1, "msg"));
    rig.queue.batch_done(&again, rig.now);
    rig.after(SECOND);
    assert!(rig.is_quiet(), "the call is on its way");
    rig.queue.call_done(&call.event, rig.now);
    rig.after(50 * MS);
    assert_eq!(ids(&rig.batch()), ["a2"]);
}

#[test]
fn what_waits_is_bounded() {
    let mut rig = rig(Limits { items: 2, ..BASE });
    rig.notice("a", "1");
    rig.notice("b", "2");
    assert_eq!(rig.queue.notice(event("c", "3"), rig.now), Err(Full::Items));
    let (answer, _reply) = oneshot::channel();
    let call = Call { event: event("c", "4"), answer, deadline: rig.now };
    assert_eq!(rig.queue.call(call, rig.now), Err(Full::Items));

    let mut rig = self::rig(Limits { bytes: 1, ..BASE });
    rig.notice("a", "1");
    assert_eq!(rig.queue.notice(event("b", "2"), rig.now), Err(Full::Bytes));
}

#[test]
fn deliveries_leave_room_for_calls() {
    let mut rig = rig(Limits { concurrency: 2, batch_items: 1, ..BASE });
    rig.notice("a", "1");
    rig.notice("b", "2");
    let batch = rig.batch();
    assert!(rig.is_quiet(), "half of two");
    let _replies = [rig.call("c", "3"), rig.call("d", "4")];
    let call = rig.sent_call();
    assert!(rig.is_quiet());
    rig.queue.call_done(&call.event, rig.now);
    assert_eq!(&*rig.sent_call().event.id, "4");
    rig.queue.batch_done(&batch, rig.now);
    assert_eq!(ids(&rig.batch()), ["2"]);
}

#[test]
fn a_pause_holds_deliveries_back_and_no_calls() {
    let mut rig = rig(BASE);
    rig.queue.pause(rig.now + SECOND);
    rig.notice("a", "a1");
    let _replies = [rig.call("b", "b1"), rig.call("a", "a2")];
    assert_eq!(&*rig.sent_call().event.id, "b1");
    assert!(rig.is_quiet());
    assert_eq!(rig.queue.deadline(), Some(rig.now + SECOND));
    rig.after(SECOND);
    assert_eq!(ids(&rig.batch()), ["a1"]);
}

#[test]
fn all_that_nobody_waits_for_can_be_taken_out() {
    let mut rig = rig(BASE);
    for number in 1..=4 {
        rig.notice("a", &format!("a{number}"));
    }
    let batch = rig.batch();
    rig.queue.retry(batch, rig.now + SECOND, rig.now);
    let _reply = rig.call("b", "b1");
    rig.notice("b", "b2");
    let mut taken: Vec<_> =
        rig.queue.take_notices().into_iter().map(|(event, tried)| (event.id.to_string(), tried)).collect();
    taken.sort();
    let expected = [("a1", 1), ("a2", 1), ("a3", 1), ("a4", 0), ("b2", 0)];
    assert_eq!(taken, expected.map(|(id, tried)| (id.to_owned(), tried)));
    let call = rig.sent_call();
    rig.queue.call_done(&call.event, rig.now);
    assert!(rig.queue.is_empty() && rig.is_quiet() && rig.queue.subjects.is_empty());
}

#[test]
fn calls_fail_together_when_nothing_is_sent() {
    let mut rig = rig(BASE);
    let _replies = [rig.call("a", "a1"), rig.call("a", "a2"), rig.call("b", "b1")];
    rig.notice("b", "b2");
    let failed: Vec<_> = rig.queue.fail_calls(rig.now).into_iter().map(|call| call.event.id).collect();
    assert_eq!(failed.len(), 3);
    assert_eq!(rig.queue.load().0, 1, "the notice waits");
    rig.after(50 * MS);
    assert_eq!(ids(&rig.batch()), ["b2"]);
}

#[test]
fn draining_waits_for_no_company() {
    let mut rig = rig(BASE);
    rig.notice("a", "1");
    rig.queue.drain(rig.now);
    assert_eq!(ids(&rig.batch()), ["1"]);
}

/// Subjects, calls, notices and failures at random: order holds, nothing is lost, and nothing is left behind.
#[test]
fn whatever_happens_each_subject_is_served_in_order() {
    use rand::{Rng as _, SeedableRng as _};
    for seed in 0..200 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut rig = rig(Limits { concurrency: 4, ..BASE });
        let mut said = [0_u32; 5];
        // By subject: the last notice that was taken, and the last call.
        let (mut notices, mut calls) = ([0_u32; 5], [0_u32; 5]);
        let (mut out, mut open, mut waiting) = (Vec::new(), Vec::new(), 0);
        let place = |event: &CloudEvent| -> (usize, u32) {
            let (subject, number) = event.id.split_once('-').unwrap();
            (subject.parse().unwrap(), number.parse().unwrap())
        };
        for step in 0..600 {
            let is_ending = step >= 300;
            if !is_ending {
                let subject = random.random_range(0..5);
                said[subject] += 1;
                let (name, id) = (subject.to_string(), format!("{subject}-{}", said[subject]));
                waiting += 1;
                match random.random_bool(0.3) {
                    true => open.push(rig.call(&name, &id)),
                    false => rig.notice(&name, &id),
                }
            }
            rig.after(MS * random.random_range(0..40));
            if random.random_bool(0.7) {
                out.extend(rig.next());
            }
            if !out.is_empty() && random.random_bool(0.6) {
                match out.swap_remove(random.random_range(0..out.len())) {
                    Sending::Call(call) => {
                        let (subject, number) = place(&call.event);
                        assert!(calls[subject] < number, "calls of one subject in order");
                        calls[subject] = number;
                        waiting -= 1;
                        rig.queue.call_done(&call.event, rig.now);
                    }
                    Sending::Batch(batch) if !is_ending && random.random_bool(0.3) => {
                        let at = rig.now + MS * random.random_range(0..200);
                        rig.queue.retry(batch, at, rig.now);
                    }
                    Sending::Batch(batch) => {
                        for event in &batch.events {
                            let (subject, number) = place(event);
                            assert!(notices[subject] < number, "notices of one subject in order");
                            notices[subject] = number;
                            waiting -= 1;
                        }
                        rig.queue.batch_done(&batch, rig.now);
                    }
                }
            }
        }
        rig.queue.drain(rig.now);
        for _ in 0..1_000 {
            rig.after(MS * 40);
            out.extend(rig.next());
            match out.pop() {
                Some(Sending::Call(call)) => {
                    waiting -= 1;
                    rig.queue.call_done(&call.event, rig.now);
                }
                Some(Sending::Batch(batch)) => {
                    waiting -= batch.events.len();
                    rig.queue.batch_done(&batch, rig.now);
                }
                None => {}
            }
        }
        assert_eq!(waiting, 0, "seed {seed}: nothing is lost");
        assert!(
            rig.queue.is_empty() && rig.queue.subjects.is_empty() && rig.queue.gathered == 0,
            "seed {seed}"
        );
    }
}
