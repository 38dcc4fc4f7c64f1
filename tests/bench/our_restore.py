"""`python -m tests.bench.our_restore PLAN`: our restore of one partition into an empty folder, as a worker's."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from agents.engine.interpreter import set_up_interpreter
from agents.engine.kafka.restore import restore
from config.clock import SystemClock
from config.settings import PREFIX, load_settings
from tables.partition import UsersView
from tables.store import Store
from tests.bench.restoring import Plan


async def measure(plan: Plan) -> dict[str, Any]:
    """Connecting included; every record must be a row afterwards."""
    own = {"APP": plan.app, "BROKER": plan.broker, "DATA": plan.data, "PARTITIONS": "1"}
    settings = load_settings({PREFIX + name: value for name, value in own.items()})
    store = Store(Path(plan.data) / "db")
    began, cpu_began = time.perf_counter(), time.process_time()
    count = await restore(settings, store, 0, SystemClock().now_ms())
    result = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}
    rows = sum(1 for _ in UsersView(store).raw(0))
    store.close()
    if (count, rows) != (plan.records, plan.records):
        raise AssertionError(f"{count} records and {rows} rows of {plan.records}")
    return result


def main() -> None:
    """Run the plan given as the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    set_up_interpreter()
    print(json.dumps(uvloop.run(measure(plan))), flush=True)


if __name__ == "__main__":
    main()
