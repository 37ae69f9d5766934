// The judge of the fault tests, judged: each kind of wrong is found in a ledger that was written by hand.

import assert from "node:assert/strict";
import { test } from "node:test";
import { judge } from "../helpers/traffic.js";

const FAULT_AT = 5_000;
const RECOVERED_AT = 6_000;

/** Two nodes with a member each. Node 0 emits by socket at the given times; all is accepted and arrives everywhere. */
function ledger(times = [1_000, 5_500, 7_000]) {
  const emits = times.map((sentAt, seq) => ({
    key: `0/socket/${seq}`, from: 0, source: "socket", seq, sentAt, answeredAt: sentAt + 5, outcome: "accepted",
  }));
  const member = (node) => ({ node, arrivals: emits.map(({ key, sentAt }) => ({ key, at: sentAt + 2 })) });
  return { emits, members: [member(0), member(1)], dead: new Set() };
}

const verdict = (traffic) => judge(traffic, { faultAt: FAULT_AT, recoveredAt: RECOVERED_AT });
const forget = (traffic, member, seq) => traffic.members[member].arrivals.splice(seq, 1);

test("a clean ledger is clean", () => {
  const { duplicates, disorder, not_local, lost_before, lost_in_fault, lost_after_recovery, accepted } = verdict(ledger());
  assert.deepEqual([duplicates, disorder, not_local, lost_before, lost_in_fault, lost_after_recovery], [0, [], [], [], [], []]);
  assert.equal(accepted, 3);
});

test("what another node missed is lost, by the time at which it was sent", () => {
  for (const [seq, name] of ["lost_before", "lost_in_fault", "lost_after_recovery"].entries()) {
    const traffic = ledger();
    forget(traffic, 1, seq);
    const found = verdict(traffic);
    for (const other of ["lost_before", "lost_in_fault", "lost_after_recovery"]) {
      assert.equal(found[other].length, other === name ? 1 : 0, `${seq}: ${other}`);
    }
    assert.equal(found.not_local.length, 0);
  }
});

test("what was refused has to be local, and nothing more", () => {
  const traffic = ledger();
  traffic.emits[1].outcome = "refused";
  forget(traffic, 1, 1);
  assert.deepEqual([verdict(traffic).refused, verdict(traffic).lost_in_fault, verdict(traffic).not_local], [1, [], []]);
  forget(traffic, 0, 1);
  assert.equal(verdict(traffic).not_local.length, 1);
});

test("a second copy is one too many", () => {
  const traffic = ledger();
  traffic.members[1].arrivals.push({ ...traffic.members[1].arrivals[0] });
  assert.equal(verdict(traffic).duplicates, 1);
});

test("the order is that of the emits of one socket", () => {
  const traffic = ledger();
  traffic.members[1].arrivals.reverse();
  assert.ok(verdict(traffic).disorder.length > 0);
});

test("what was refused and comes late is told apart", () => {
  const traffic = ledger();
  traffic.emits[0].outcome = "refused";
  traffic.members[1].arrivals.push(traffic.members[1].arrivals.shift());
  assert.deepEqual([verdict(traffic).disorder, verdict(traffic).stale.length], [[], 1]);
});

test("two HTTP calls have an order only if the first was answered before the second was sent", () => {
  for (const [apart, wrong] of [[true, 1], [false, 0]]) {
    const traffic = ledger([1_000, apart ? 1_100 : 1_001]);
    for (const emit of traffic.emits) emit.source = "http";
    traffic.members[1].arrivals.reverse();
    assert.equal(verdict(traffic).disorder.length, wrong);
  }
});

test("a node that is dead is owed nothing, and owes nothing", () => {
  const traffic = ledger();
  forget(traffic, 1, 2);
  traffic.dead.add(1);
  assert.deepEqual(verdict(traffic).lost_after_recovery, []);
});

test("local delivery that waits for the broker is seen by its pace", () => {
  const traffic = ledger();
  Object.assign(traffic.emits[1], { outcome: "refused", answeredAt: 7_500 });
  assert.deepEqual(verdict(traffic).waits, { count: 1, answer: 2_000, local: 2 });
  traffic.members[0].arrivals[1].at = 7_499;
  assert.equal(verdict(traffic).waits.local, 1_999);
  assert.ok(verdict(traffic).longest_local_gap_ms > 6_000);
});
