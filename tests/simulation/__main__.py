"""The command line of the simulation: many seeds on all cores, one seed told in full, or the planted bugs.

python -m tests.simulation --seeds 5000      # green or not; the last line is JSON
python -m tests.simulation --seed 17 --tell  # the same run again, every event of it in words
python -m tests.simulation --planted         # how many seeds each planted bug needed to be found
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import structlog

from tests.simulation.planted import PLANTS
from tests.simulation.run import Verdict, simulate

CHUNK = 20
FOUND_BY_MAX = 400
FAILURES_SHOWN = 5
_ERRORS_ONLY = 50


def main() -> int:
    """Run what the arguments ask for; 1 when a seed is red or a planted bug was missed."""
    parser = argparse.ArgumentParser(prog="tests.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5_000, help="how many, from --from on")
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--tell", action="store_true", help="with --seed: print every event")
    parser.add_argument("--plant", default="", choices=["", *PLANTS], help="with this bug")
    parser.add_argument("--planted", action="store_true", help="find each planted bug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    _be_quiet()
    if args.seed is not None:
        return _one(args.seed, args.plant, tell=args.tell)
    return _planted(args) if args.planted else _many(args)


def _be_quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_ERRORS_ONLY))


def replay_line(verdict: Verdict) -> str:
    """The command that runs a seed again, exactly."""
    plant = f" --plant {verdict.plant}" if verdict.plant else ""
    return f"seed {verdict.seed} is red; again: python -m tests.simulation --seed {verdict.seed}{plant} --tell"


def _one(seed: int, plant: str, *, tell: bool) -> int:
    verdict = simulate(seed, plant, print if tell else None)
    for line in verdict.broken:
        print("BROKEN", line)
    print(json.dumps({"seed": seed, "digest": verdict.digest, "broken": len(verdict.broken), **verdict.facts}))
    return bool(verdict.broken)


def _chunk(seeds: list[int], plant: str) -> list[Verdict]:
    return [simulate(seed, plant) for seed in seeds]


def _runs(args: argparse.Namespace) -> Iterable[Verdict]:
    seeds = range(args.first, args.first + args.seeds)
    chunks = [list(seeds[at : at + CHUNK]) for at in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(args.jobs, initializer=_be_quiet) as pool:
        for verdicts in pool.map(_chunk, chunks, [args.plant] * len(chunks)):
            yield from verdicts


def _many(args: argparse.Namespace) -> int:
    began, red, total = time.monotonic(), [], dict[str, int]()
    for number, verdict in enumerate(_runs(args), 1):
        for name, count in verdict.facts.items():
            total[name] = total.get(name, 0) + count
        if verdict.broken:
            red.append(verdict.seed)
            if len(red) <= FAILURES_SHOWN:
                print(replay_line(verdict), verdict.broken[0], sep="\n  ", file=sys.stderr)
        if number % (CHUNK * 10) == 0:
            seconds = time.monotonic() - began
            print(f"{number:,} seeds, {len(red)} red, {number / seconds:.1f}/s", file=sys.stderr)
    seconds = round(time.monotonic() - began, 1)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = {"seconds": seconds, "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}
    print(json.dumps({"seeds": args.seeds, "from": args.first, "red": red, **times, **total}))
    return bool(red)


def seeds_needed(plant: str, first: int, most: int) -> tuple[int, str]:
    """How many seeds it took to find a planted bug, and by what; 0 if none found it."""
    for number in range(most):
        verdict = simulate(first + number, plant)
        if verdict.broken:
            return number + 1, verdict.broken[0]
    return 0, ""


def _planted(args: argparse.Namespace) -> int:
    found: dict[str, int] = {}
    with ProcessPoolExecutor(args.jobs, initializer=_be_quiet) as pool:
        jobs = [pool.submit(seeds_needed, name, args.first, FOUND_BY_MAX) for name in PLANTS]
        for name, job in zip(PLANTS, jobs, strict=True):
            found[name], why = job.result()
            print(f"{name}: {found[name] or 'not found'} seeds; {why[:120]}", file=sys.stderr)
    print(json.dumps({"planted": len(PLANTS), "missed": [name for name in found if not found[name]], "seeds": found}))
    return any(not count for count in found.values())


if __name__ == "__main__":
    sys.exit(main())
