//! The state machine alone, and where to publish for whom.

use super::*;

const SETTLE: Duration = Duration::from_secs(5);
const ASK: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn routing(limit: usize) -> (Routing, Instant) {
    (Routing::new(limit, 16, SETTLE, ASK), Instant::now())
}

fn listening(exact: bool, hashed: bool, buckets: u32) -> Understands {
    Understands::Hashing(Listening { exact, hashed, buckets })
}

fn peer(tag: &str, understands: Understands) -> Peer {
    Peer { identity: Identity { tag: tag.parse().unwrap(), generation: 1 }, understands }
}

fn peers() -> [Peer; 2] {
    ["aaaa", "bbbb"].map(|tag| peer(tag, listening(true, false, 16)))
}

/// Takes a node all the way over; the time then.
fn go_over(routing: &mut Routing, mut now: Instant, rooms: usize, peers: &[Peer]) -> Instant {
    assert_eq!(routing.step(now, rooms, true, peers), Some(Step::Prepare));
    let Some(Step::Ask(number)) = routing.step(now, rooms, true, peers) else { panic!("{routing:?}") };
    peers.iter().for_each(|peer| assert!(routing.heard(peer.identity, number)));
    assert_eq!(routing.step(now, rooms, true, peers), None);
    now = routing.next_timeout().unwrap();
    assert_eq!(routing.step(now, rooms, true, peers), Some(Step::Finish));
    now
}

#[test]
fn a_node_goes_over_step_by_step_and_back_below_half() {
    let ((mut routing, mut now), peers) = (routing(10), peers());
    assert_eq!(routing.step(now, 10, true, &peers), None);
    assert_eq!(routing.step(now, 11, true, &peers), Some(Step::Prepare));
    assert_eq!((routing.subscribes(), routing.listening().hashed), ((true, true), false));
    assert_eq!(routing.step(now, 11, false, &peers), None);
    assert_eq!(routing.step(now, 11, true, &peers), Some(Step::Ask(1)));
    assert!(routing.listening().exact && routing.listening().hashed);
    // One answers; an answer to another question, or from an earlier life, is none.
    assert!(routing.heard(peers[0].identity, 1) && !routing.heard(peers[1].identity, 0));
    routing.heard(Identity { generation: 0, ..peers[1].identity }, 1);
    assert_eq!(routing.step(now, 11, true, &peers), None);
    now += ASK;
    assert_eq!(routing.step(now, 11, true, &peers), Some(Step::Ask(1)));
    assert!(routing.heard(peers[1].identity, 1));
    assert_eq!(routing.step(now, 11, true, &peers), None);
    assert_eq!(routing.step(now + SETTLE - MS, 11, true, &peers), None);
    now += SETTLE;
    assert_eq!(routing.subscribes(), (true, true));
    assert_eq!(routing.step(now, 11, true, &peers), Some(Step::Finish));
    assert_eq!((routing.subscribes(), routing.listening().exact), ((false, true), false));
    // Not below half, and not before it has dwelt there.
    assert_eq!(routing.step(now + DWELL, 5, true, &peers), None);
    assert_eq!(routing.step(now + DWELL - MS, 4, true, &peers), None);
    now = go_over(&mut routing, now + DWELL, 4, &peers);
    assert_eq!(routing.subscribes(), (true, false));
    assert_eq!(routing.step(now + DWELL - MS, 11, true, &peers), None);
    go_over(&mut routing, now + DWELL, 11, &peers);
}

#[test]
fn who_crosses_the_limit_back_and_forth_goes_over_at_most_once_a_dwell() {
    let ((mut routing, start), peers) = (routing(10), peers());
    let (mut now, mut finished) = (start, 0);
    for turn in 0..10_000 {
        now += Duration::from_millis(100);
        match routing.step(now, if turn % 2 == 0 { 100 } else { 0 }, true, &peers) {
            Some(Step::Ask(number)) => peers.iter().for_each(|peer| _ = routing.heard(peer.identity, number)),
            Some(Step::Finish) => finished += 1,
            _ => {}
        }
    }
    let most = (now - start).as_secs() / (DWELL + SETTLE).as_secs() + 1;
    assert!((2..=most).contains(&finished), "{finished} of {most}");
}

#[test]
fn who_is_gone_is_not_waited_for_and_who_came_is() {
    let ((mut routing, now), [a, b]) = (routing(0), peers());
    assert_eq!(routing.step(now, 0, true, &[a, b]), Some(Step::Prepare));
    assert_eq!(routing.step(now, 0, true, &[a, b]), Some(Step::Ask(1)));
    routing.heard(a.identity, 1);
    let c = peer("cccc", listening(true, false, 16));
    assert_eq!(routing.step(now, 0, true, &[a, c]), None);
    assert_eq!(routing.next_timeout(), Some(now + ASK));
    routing.heard(c.identity, 1);
    assert_eq!(routing.step(now, 0, true, &[a, c]), None);
    assert_eq!(routing.next_timeout(), Some(now + SETTLE));
}

#[test]
fn a_new_life_asks_again() {
    let ((mut routing, now), peers) = (routing(0), peers());
    routing.step(now, 0, true, &peers);
    routing.step(now, 0, true, &peers);
    peers.iter().for_each(|peer| _ = routing.heard(peer.identity, 1));
    routing.reborn(now);
    assert_eq!(routing.step(now, 0, true, &peers), Some(Step::Ask(2)));
    assert!(!routing.heard(peers[0].identity, 1));
}

#[test]
fn nobody_hashes_beside_a_node_that_does_not_know_buckets_or_counts_others() {
    for strange in [Understands::Nothing, listening(true, false, 17)] {
        let ((mut routing, now), [a, _]) = (routing(10), peers());
        let strange = peer("cccc", strange);
        assert_eq!(routing.step(now, 11, true, &[a, strange]), Some(Step::Refuse));
        assert_eq!(routing.step(now, 11, true, &[a, strange]), None);
        assert_eq!(routing.step(now, 9, true, &[a, strange]), None);
        assert_eq!(routing.step(now, 11, true, &[a, strange]), Some(Step::Refuse));
        assert_eq!(routing.step(now, 11, true, &[a]), Some(Step::Prepare));
    }
    // Who has not said anything yet is waited for without a word.
    let ((mut routing, now), [a, _]) = (routing(10), peers());
    assert_eq!(routing.step(now, 11, true, &[a, peer("cccc", Understands::Unknown)]), None);
    assert_eq!(routing.step(now, 11, true, &[a]), Some(Step::Prepare));
}

#[test]
fn a_node_that_does_not_know_buckets_sends_everybody_back() {
    let old = peer("cccc", Understands::Nothing);
    // In the middle: everything still stands, and is published to.
    for steps in 1..4 {
        let ((mut routing, now), [a, _]) = (routing(10), peers());
        for _ in 0..steps {
            routing.step(now, 11, true, &[a]);
            routing.heard(a.identity, 1);
        }
        assert_eq!(routing.step(now, 11, true, &[a, old]), Some(Step::Finish));
        assert_eq!((routing.subscribes(), routing.listening().hashed), ((true, false), false));
    }
    // Afterwards: at once, without regard for the dwell, and it does not answer.
    let ((mut routing, now), [a, _]) = (routing(10), peers());
    let now = go_over(&mut routing, now, 11, &[a]);
    assert_eq!(routing.step(now, 11, true, &[a, old]), Some(Step::Prepare));
    assert_eq!(routing.step(now, 11, true, &[a, old]), Some(Step::Ask(2)));
    assert_eq!(routing.step(now, 11, true, &[a, old]), None);
    routing.heard(a.identity, 2);
    assert_eq!(routing.step(now, 11, true, &[a, old]), None);
    assert_eq!(routing.step(now + SETTLE, 11, true, &[a, old]), Some(Step::Finish));
    assert_eq!(routing.subscribes(), (true, false));
    assert_eq!(routing.step(now + SETTLE + DWELL, 11, true, &[a, old]), Some(Step::Refuse));
}

#[test]
fn publications_go_where_somebody_listens() {
    let of = |others: &[Understands], certain| {
        let Audience { exact, buckets, everywhere, .. } = Audience::of(others.iter().copied(), 16, certain);
        assert!(!everywhere);
        (exact, buckets)
    };
    let (exact, both, hashed) =
        (listening(true, false, 16), listening(true, true, 16), listening(false, true, 16));
    assert_eq!(of(&[], true), (true, vec![]));
    assert_eq!(of(&[exact, exact], true), (true, vec![]));
    assert_eq!(of(&[exact, hashed], true), (true, vec![16]));
    assert_eq!(of(&[hashed, hashed], true), (false, vec![16]));
    assert_eq!(of(&[both], true), (true, vec![16]));
    assert_eq!(of(&[hashed, listening(false, true, 8)], true), (false, vec![16, 8]));
    assert_eq!(of(&[hashed, Understands::Nothing], true), (true, vec![16]));
    assert_eq!(of(&[Understands::Nothing], true), (true, vec![]));
    // Whoever has not said it may listen anywhere, and so may those who were not heard.
    assert_eq!(of(&[Understands::Unknown], true), (true, vec![16]));
    assert_eq!(of(&[hashed], false), (true, vec![16]));
    assert_eq!(of(&[], false), (true, vec![16]));
}

#[test]
fn copies_of_an_emit_are_bounded() {
    let of = |settings: u32| Audience::of((1..=settings).map(|n| listening(false, true, n)), 16, true);
    assert!(!of(4).everywhere);
    assert_eq!(of(4).buckets, [1, 2, 3, 4]);
    assert!(of(5).everywhere);
    assert_eq!(of(1_000).buckets.len(), 4);
}
