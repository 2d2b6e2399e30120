"""What the gateway is held to, and what a run measured: stated whether it is reached or not."""

from dataclasses import dataclass

from figure import Figure
from workloads import CALL, EMPTY, IN_PROCESS, LITSERVE, MANY_WORKERS, MLSERVERS, ONE_WORKER, TUNED, US

# How much one request may cost over an empty handler and the bare engine call, in microseconds.
ALLOWED = 25


@dataclass(frozen=True)
class Claim:
    figure: str
    wanted: str
    measured: str
    reached: bool | None  # None: not measured

    def cells(self) -> list[str]:
        verdict = {True: "reached", False: "not reached", None: "not measured"}[self.reached]
        return [self.figure, self.wanted, self.measured, verdict]


def claims(tables: dict[str, dict]) -> list[Claim]:
    """`tables`: the results of each workload that was run, by their names."""

    def rate(workload: str, row: str) -> Figure:
        result = tables.get(workload, {}).get(row)
        return result.rate if result else Figure()

    def times(figure: str, workload: str, mine: str, theirs: str, wanted: float) -> Claim:
        ratio = rate(workload, mine).per(rate(workload, theirs))
        reached = ratio.median() >= wanted if ratio else None
        return Claim(figure, f"at least {wanted:g} x", f"{ratio.show(1)} x" if ratio else "", reached)

    def share(figure: str, workload: str, mine: str, theirs: str, wanted: int) -> Claim:
        ratio = Figure([100 * each for each in rate(workload, mine).per(rate(workload, theirs)).values])
        reached = ratio.median() >= wanted if ratio else None
        return Claim(figure, f"at least {wanted} %", f"{ratio.show(0)} %" if ratio else "", reached)

    many = "tabular-16"
    mlserver = max(MLSERVERS, key=lambda name: rate(many, name).median())
    return [
        times("16 connections, answers a second, over FastAPI with one worker", many, US, ONE_WORKER, 14),
        times("the same over FastAPI with a worker a core", many, US, MANY_WORKERS, 8),
        times(f"the same over {mlserver}, the best of its settings", many, US, mlserver, 25),
        times("the same over LitServe", many, US, LITSERVE, 40),
        share("the same, of the empty handler", many, US, EMPTY, 60),
        one_connection(tables.get("tabular-1", {})),
        share("V2 binary, of typed JSON", "tabular-binary-16", "V2, binary tensors", "typed JSON", 100),
        share("V2 binary, of V2 JSON", "tabular-binary-16", "V2, binary tensors", "V2, JSON", 100),
        share("images, of ONNX Runtime in process, tuned", "image", TUNED, IN_PROCESS, 95),
        share("the same on defaults", "image", US, IN_PROCESS, 95),
        share("transformer, of ONNX Runtime in process, tuned", "transformer", TUNED, IN_PROCESS, 95),
        share("the same on defaults", "transformer", US, IN_PROCESS, 95),
    ]


def one_connection(table: dict) -> Claim:
    what = "1 connection, p50"
    parts = [table[name].p50 for name in (US, EMPTY, CALL) if name in table]
    if len(parts) < 3 or not all(parts):
        return Claim(what, f"at most empty handler + engine call + {ALLOWED} µs", "", None)
    mine, empty, call = (part.median() for part in parts)
    bound = empty + call + ALLOWED
    wanted = f"at most {empty:.0f} + {call:.0f} + {ALLOWED} = {bound:.0f} µs (empty handler, engine call, allowance)"
    return Claim(what, wanted, f"{mine:.0f} µs: {mine - empty - call:.0f} over the two", mine <= bound)
