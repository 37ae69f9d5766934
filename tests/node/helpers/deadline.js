// Waiting without sleeping: every wait is for a condition, ends the moment it holds, and fails with a message that
// names what was missing. The limit is generous because it only costs time when something is broken.

export const DEADLINE_MS = Number(process.env.TEST_DEADLINE_MS ?? 20_000);

/** Rejects with `what` when `promise` has not settled in time. */
export async function within(promise, what, ms = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Calls `condition` until it returns something truthy, and returns that. A throw counts as "not yet". */
export async function until(condition, what, ms = DEADLINE_MS) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= end) {
      throw new Error(`no ${what} within ${ms} ms${last ? `: ${last.message}` : ""}`, { cause: last });
    }
    await pause(20);
  }
}

/** For the few negative checks that have no fence message: a bounded time in which nothing may happen. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The next `event` of an EventEmitter-like object, as an array of its arguments. */
export function next(emitter, event, ms = DEADLINE_MS) {
  const arrived = new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
  return within(arrived, `"${event}" event`, ms);
}
