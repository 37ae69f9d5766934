"""Judges the reports of an Autobahn run, one index.json per group of cases: judge.py REPORTS non-strict.txt"""

import json
import pathlib
import sys

PASSED = {"OK", "INFORMATIONAL"}

# A run that silently left cases out is no pass.
EXPECTED_CASES = 517


def excused(path):
    """Case ids with a reason, from lines `ID REASON`."""
    cases = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            case, _, reason = line.split("#", 1)[0].strip().partition(" ")
            if case and not reason.strip():
                sys.exit(f"{path}: case {case} has no reason")
            if case:
                cases[case] = reason.strip()
    return cases


def main(reports, non_strict):
    results = {}
    for index in pathlib.Path(reports).glob("*/index.json"):
        (group,) = json.loads(index.read_text(encoding="utf-8")).values()
        results.update(group)
    reasons = excused(non_strict)
    ok, lenient, failed = 0, 0, 0
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        verdict = (result["behavior"], result["behaviorClose"])
        if PASSED.issuperset(verdict):
            ok += 1
            if case in reasons:
                print(f"{case} passes: take it out of non-strict.txt")
                failed += 1
        elif case in reasons:
            lenient += 1
            print(f"{case} {verdict[0]}, close {verdict[1]}: {reasons[case]}")
        else:
            failed += 1
            print(f"{case} {verdict[0]}, close {verdict[1]}")
    if len(results) != EXPECTED_CASES:
        print(f"{EXPECTED_CASES} cases expected")
        failed += 1
    print(f"Autobahn: {len(results)} cases, {ok} OK, {lenient} non-strict, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
