//! Subscriptions in virtual time.

use super::*;

const LINGER: Duration = Duration::from_secs(5);

fn up() -> (Interest, Instant) {
    let mut interest = Interest::new(LINGER);
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
    assert_eq!(run(&mut interest, now), Some((true, 1)));
    assert!(is_done(&mut wait));
    assert!(matches!(interest.wait(&[subject("a")]), Wait::Standing));
    assert!(interest.waiters.is_empty());
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
    let stale = interest.next_operation(now).unwrap();
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
    assert_eq!(run(&mut interest, now), Some((true, 1)));
}

#[test]
fn operations_are_batches_of_bounded_size() {
    let (mut interest, now) = up();
    for number in 0..=BATCH {
        interest.want(&subject(&number.to_string()));
    }
    assert_eq!(run(&mut interest, now), Some((true, BATCH)));
    assert_eq!(run(&mut interest, now), Some((true, 1)));
}
