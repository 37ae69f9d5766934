//! Subscriptions in virtual time.

use super::*;

const LINGER: Duration = Duration::from_secs(5);

fn up() -> (Interest, Instant) {
    let mut interest = Interest::new(LINGER, 1);
    interest.up();
    (interest, Instant::now())
}

fn subject(name: &str) -> Subject {
    name.into()
}

fn is_done(wait: &mut Wait) -> bool {
    match wait {
        Wait::Standing => true,
        Wait::Pending(receiver) => receiver.try_recv().is_ok(),
        Wait::Down => false,
    }
}

fn run(interest: &mut Interest, now: Instant) -> Option<(bool, usize)> {
    let operation = interest.next_operation(now)?;
    let what = (operation.subscribe, operation.subjects.len());
    interest.done(operation, true, now);
    Some(what)
}

#[test]
fn a_join_waits_until_all_its_subscriptions_stand() {
    let (mut interest, now) = up();
    assert!(interest.want(&subject("a")));
    let operation = interest.next_operation(now).unwrap();
    // What comes while an operation is in flight is in the next one.
    interest.want(&subject("b"));
    let mut wait = interest.wait(&[subject("a"), subject("b"), subject("nobody")]);
    interest.done(operation, true, now);
    assert!(!is_done(&mut wait));
    assert_eq!(run(&mut interest, now + SUBSCRIBE_EVERY), Some((true, 1)));
    assert!(is_done(&mut wait));
    assert!(matches!(interest.wait(&[subject("a")]), Wait::Standing));
    assert!(interest.waiters.is_empty() && interest.waiting.is_empty());
}

#[test]
fn what_failed_and_is_wanted_no_more_is_let_go() {
    let (mut interest, now) = up();
    interest.want(&subject("a"));
    let operation = interest.next_operation(now).unwrap();
    interest.done(operation, false, now);
    interest.release("a", now);
    let mut now = now + SUBSCRIBE_EVERY;
    assert_eq!(interest.next_operation(now), None);
    // Wanted again it has to stand first, since nobody knows whether it does.
    interest.want(&subject("a"));
    let mut wait = interest.wait(&[subject("a")]);
    assert!(!is_done(&mut wait));
    now += SUBSCRIBE_EVERY;
    let operation = interest.next_operation(now).unwrap();
    assert!(operation.subscribe);
    interest.done(operation, false, now);
    interest.release("a", now);
    assert_eq!(interest.next_operation(now + SUBSCRIBE_EVERY), None);
    assert_eq!(run(&mut interest, now + LINGER + SUBSCRIBE_EVERY), Some((false, 1)));
    assert_eq!((interest.len(), interest.next_timeout()), (0, None));
}

#[test]
fn a_subscription_outlives_its_last_member_for_the_linger() {
    let (mut interest, now) = up();
    interest.want(&subject("a"));
    run(&mut interest, now);
    interest.release("a", now);
    interest.want(&subject("a"));
    interest.release("a", now + Duration::from_secs(1));
    assert_eq!(run(&mut interest, now + LINGER), None);
    let end = now + LINGER + Duration::from_secs(1);
    assert_eq!(interest.next_timeout(), Some(end));
    assert_eq!(run(&mut interest, end), Some((false, 1)));
    assert_eq!(interest.len(), 0);
    assert_eq!(interest.next_timeout(), None);
}

#[test]
fn a_join_during_the_unsubscribe_subscribes_again_afterwards() {
    let (mut interest, now) = up();
    interest.want(&subject("a"));
    run(&mut interest, now);
    interest.release("a", now);
    let unsubscribe = interest.next_operation(now + LINGER).unwrap();
    interest.want(&subject("a"));
    let mut wait = interest.wait(&[subject("a")]);
    interest.done(unsubscribe, true, now + LINGER);
    assert!(!is_done(&mut wait));
    assert_eq!(run(&mut interest, now + LINGER), Some((true, 1)));
    assert!(is_done(&mut wait));
}

#[test]
fn a_member_that_leaves_before_the_subscription_stands() {
    let (mut interest, now) = up();
    interest.want(&subject("queued"));
    let mut wait = interest.wait(&[subject("queued")]);
    interest.release("queued", now);
    assert_eq!(run(&mut interest, now), None);
    assert!(is_done(&mut wait));
    interest.want(&subject("in flight"));
    let operation = interest.next_operation(now).unwrap();
    interest.release("in flight", now);
    interest.done(operation, true, now);
    assert_eq!(run(&mut interest, now + LINGER), Some((false, 1)));
    assert_eq!(interest.len(), 0);
}

#[test]
fn after_an_outage_everything_stands_before_the_node_is_ready() {
    let (mut interest, now) = up();
    for name in ["a", "b", "gone"] {
        interest.want(&subject(name));
    }
    run(&mut interest, now);
    interest.want(&subject("c"));
    let stale = interest.next_operation(now + SUBSCRIBE_EVERY).unwrap();
    let mut wait = interest.wait(&[subject("c")]);
    interest.release("gone", now);
    interest.down();
    assert!(!interest.is_ready());
    assert!(!is_done(&mut wait));
    assert!(matches!(interest.wait(&[]), Wait::Down));
    interest.want(&subject("joined during the outage"));
    assert_eq!(interest.next_operation(now), None);
    interest.up();
    interest.done(stale, true, now);
    assert!(!interest.is_ready());
    // What is joined from now on does not delay the node.
    interest.want(&subject("joined afterwards"));
    assert_eq!(run(&mut interest, now), Some((true, 5)));
    assert!(interest.is_ready());
}

#[test]
fn a_subscription_that_failed_is_tried_again() {
    let (mut interest, now) = up();
    interest.want(&subject("a"));
    let operation = interest.next_operation(now).unwrap();
    interest.done(operation, false, now);
    assert_eq!(run(&mut interest, now + SUBSCRIBE_EVERY), Some((true, 1)));
}

#[test]
fn operations_are_batches_of_bounded_size() {
    let (mut interest, now) = up();
    for number in 0..=BATCH {
        interest.want(&subject(&number.to_string()));
    }
    assert_eq!(run(&mut interest, now), Some((true, BATCH)));
    assert_eq!(run(&mut interest, now + SUBSCRIBE_EVERY), Some((true, 1)));
}

#[test]
fn under_load_operations_keep_their_distance_and_full_ones_do_not() {
    let (mut interest, mut now) = up();
    for number in 0..10 {
        assert!(interest.want(&subject(&number.to_string())) || number % 5 != 0);
        if number % 5 == 0 {
            // The first one after a pause is not held back.
            assert_eq!(run(&mut interest, now), Some((true, 1)));
        } else {
            assert_eq!(run(&mut interest, now), None);
            assert_eq!(interest.next_timeout(), Some(now + SUBSCRIBE_EVERY));
        }
        if number % 5 == 4 {
            now += SUBSCRIBE_EVERY;
            assert_eq!(run(&mut interest, now), Some((true, 4)));
            now += SUBSCRIBE_EVERY;
        }
    }
    run(&mut interest, now);
    (0..2 * BATCH).for_each(|number| _ = interest.want(&subject(&format!("many {number}"))));
    assert_eq!(run(&mut interest, now), Some((true, BATCH)));
    assert_eq!(run(&mut interest, now), Some((true, BATCH)));
    // Nobody waits for what is let go: it is gathered for longer, unless there is a full batch of it.
    for number in 0..10 {
        interest.release(&number.to_string(), now + Duration::from_millis(number));
    }
    assert_eq!(run(&mut interest, now + LINGER), Some((false, 1)));
    assert_eq!(run(&mut interest, now + LINGER + UNSUBSCRIBE_EVERY / 2), None);
    assert_eq!(interest.next_timeout(), Some(now + LINGER + UNSUBSCRIBE_EVERY));
    now += LINGER + UNSUBSCRIBE_EVERY;
    assert_eq!(run(&mut interest, now), Some((false, 9)));
    (0..2 * BATCH).for_each(|number| _ = interest.release(&format!("many {number}"), now));
    now += LINGER;
    assert_eq!(run(&mut interest, now), Some((false, BATCH)));
    assert_eq!(run(&mut interest, now), Some((false, BATCH)));
    assert_eq!((interest.len(), interest.next_timeout()), (0, None));
}

#[test]
fn a_room_that_is_left_and_joined_again_costs_the_broker_nothing() {
    let (mut interest, mut now) = up();
    interest.want(&subject("a"));
    run(&mut interest, now);
    for _ in 0..1_000 {
        now += LINGER / 2;
        interest.release("a", now);
        assert_eq!(run(&mut interest, now), None);
        assert!(!interest.want(&subject("a")));
        assert!(matches!(interest.wait(&[subject("a")]), Wait::Standing));
        assert_eq!(run(&mut interest, now + LINGER / 4), None);
    }
    assert!(interest.lingering.len() <= 1);
}
