use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use proptest::prelude::*;

use super::table::SLOTS;
use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Everything that is due by `now`, a few at a time.
fn advance(table: &mut Table, now: u64) {
    let mut is_done = false;
    while !is_done {
        let mut due = ArrayVec::<Waker, 3>::new();
        is_done = table.advance(now, &mut due);
        due.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Some alarm is set for so many ticks from now.
    Set(usize, u64),
    Remove(usize),
    /// Time goes on by so many ticks.
    Pass(u64),
    /// Time goes on to when the table wants to be looked at.
    PassToNext,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slots = SLOTS as u64;
    let ticks = prop_oneof![1..20_u64, Just(slots - 1), Just(slots), Just(slots + 1), 1..4 * slots];
    let step = prop_oneof![
        4 => (0..8_usize, ticks.clone()).prop_map(|(alarm, ticks)| Step::Set(alarm, ticks)),
        1 => (0..8_usize).prop_map(Step::Remove),
        2 => ticks.prop_map(Step::Pass),
        2 => Just(Step::PassToNext),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Each alarm wakes once, not before it is due, and not later than the table was looked at after that. The table always
    /// says when to look.
    #[test]
    fn each_alarm_wakes_at_its_time(steps in steps()) {
        let bells: Vec<Arc<Bell>> = (0..8).map(|_| Arc::default()).collect();
        let wakers: Vec<Waker> = bells.iter().map(|bell| Arc::clone(bell).into()).collect();
        let mut records = [None; 8];
        let mut set = BTreeMap::<usize, u64>::new();
        let (mut table, mut now) = (Table::default(), 0);
        for step in steps {
            match step {
                Step::Set(alarm, ticks) => {
                    let _ = table.set(&mut records[alarm], now + ticks, &wakers[alarm]);
                    set.insert(alarm, now + ticks);
                }
                Step::Remove(alarm) => {
                    records[alarm].take().map(|record| table.remove(record));
                    set.remove(&alarm);
                }
                Step::Pass(ticks) => now += ticks,
                Step::PassToNext => {
                    let next = table.next();
                    prop_assert_eq!(next.is_none(), set.is_empty());
                    prop_assert!(next.is_none_or(|next| set.values().all(|due| next <= *due)));
                    now = next.unwrap_or(now);
                }
            }
            advance(&mut table, now);
            for (alarm, bell) in bells.iter().enumerate() {
                let is_due = set.get(&alarm).is_some_and(|due| *due <= now);
                prop_assert_eq!(bell.take(), usize::from(is_due), "alarm {} at {}", alarm, now);
                if is_due {
                    set.remove(&alarm);
                }
            }
        }
    }
}

#[test]
fn who_comes_from_another_task_is_woken_in_it() {
    let (first, second) = (Arc::<Bell>::default(), Arc::<Bell>::default());
    let (mut table, mut record) = (Table::default(), None);
    assert!(table.set(&mut record, 5, &Arc::clone(&first).into()).is_none());
    assert!(table.set(&mut record, 5, &Arc::clone(&second).into()).is_some());
    advance(&mut table, 5);
    assert_eq!((first.take(), second.take()), (0, 1));
}

#[test]
fn places_are_used_again() {
    let bell = Arc::<Bell>::default();
    let mut table = Table::default();
    for _ in 0..1_000 {
        let mut record = None;
        let _ = table.set(&mut record, 1, &Arc::clone(&bell).into());
        let _ = record.map(|record| table.remove(record));
    }
    assert_eq!(table.next(), None);
    assert_eq!(Arc::strong_count(&bell), 1, "a removed alarm keeps its waker");
}

#[test]
fn the_wheel_turns_for_longer_than_32_bits_of_ticks() {
    let years = Duration::from_secs(20 * 366 * 24 * 3600) + TICK;
    assert_eq!(time(ticks(years)), years);
    assert_eq!(ticks(years + TICK - Duration::from_nanos(1)), ticks(years));
}

/// Waits for a deadline as a connection does.
async fn reached(wheel: &Arc<Wheel>, deadline: Instant) -> Duration {
    let mut alarm = Alarm::default();
    std::future::poll_fn(|cx| {
        if deadline <= Instant::now() {
            return std::task::Poll::Ready(());
        }
        wheel.set(&mut alarm, deadline, cx.waker());
        std::task::Poll::Pending
    })
    .await;
    wheel.remove(&mut alarm);
    deadline.elapsed()
}

#[tokio::test]
async fn an_earlier_alarm_is_not_kept_waiting_by_a_later_one() {
    let wheel = Wheel::new();
    let now = Instant::now();
    let later = tokio::spawn({
        let wheel = Arc::clone(&wheel);
        async move { reached(&wheel, now + Duration::from_secs(3600)).await }
    });
    tokio::task::yield_now().await;
    for milliseconds in [30, 31] {
        let late = reached(&wheel, now + Duration::from_millis(milliseconds)).await;
        // Nothing else is looked at for 40 seconds.
        assert!(late < Duration::from_secs(20), "{late:?} late");
    }
    assert!(!later.is_finished());
    later.abort();
}

#[tokio::test]
async fn no_task_is_left_when_nothing_is_set() {
    let wheel = Wheel::new();
    for _ in 0..3 {
        reached(&wheel, Instant::now() + Duration::from_millis(1)).await;
        let ended = async {
            while Arc::strong_count(&wheel) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("its task ends");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The task that turns the wheel belongs to the runtime of whoever came first.
#[test]
fn alarms_outlive_the_runtime_that_turned_the_wheel() {
    let (wheel, first, second) = (Wheel::new(), runtime(), runtime());
    let now = Instant::now();
    let far = Arc::clone(&wheel);
    first.spawn(async move { reached(&far, now + Duration::from_secs(3600)).await });
    first.block_on(tokio::task::yield_now());
    let waits = second.spawn({
        let wheel = Arc::clone(&wheel);
        async move { reached(&wheel, now + Duration::from_millis(50)).await }
    });
    second.block_on(tokio::task::yield_now());
    drop(first);
    let waits = async { tokio::time::timeout(Duration::from_secs(30), waits).await };
    second.block_on(waits).expect("in time").expect("it is woken");
}

#[test]
fn a_runtime_that_has_ended_does_not_keep_the_wheel() {
    let (wheel, ended) = (Wheel::new(), runtime());
    let handle = ended.handle().clone();
    drop(ended);
    let deadline = Instant::now() + Duration::from_millis(20);
    {
        let _context = handle.enter();
        wheel.set(&mut Alarm::default(), deadline, Waker::noop());
    }
    let waits = async { tokio::time::timeout(Duration::from_secs(30), reached(&wheel, deadline)).await };
    runtime().block_on(waits).expect("it is woken");
}
