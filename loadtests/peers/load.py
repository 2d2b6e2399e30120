"""wrk as the load generator: one request, or some in turn, again and again over so many connections, and what came of it."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Read from a file, so that a binary body needs no escapes. wrk's own percentiles, in microseconds.
SCRIPT = """\
local function read(number)
  local file = io.open('{body}' .. number, 'rb')
  local body = file:read('*a')
  file:close()
  return body
end
wrk.method = 'POST'
wrk.body = read(0)
{headers}
if {count} > 1 then
  local requests, at = {{}}, 0
  function init()
    for number = 0, {count} - 1 do requests[number] = wrk.format(nil, nil, nil, read(number)) end
  end
  function request()
    at = (at + 1) % {count}
    return requests[at]
  end
end
done = function(summary, latency, requests)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('figures %d %d %.1f %.1f %.1f %d %d\\n', summary.requests, summary.duration,
    latency.mean, latency:percentile(50), latency:percentile(99), errors.status, broken))
end
"""

# Longer than a whole run: slow is not broken.
TIMEOUT = "60s"


@dataclass(frozen=True)
class Request:
    """One POST; with `more` bodies, each in its turn."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    more: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers a second, microseconds, answers other than 2xx, connections that broke.

    `rate` is the answers within the time. What is in flight at its end is not in it, which matters where that is a good part of
    all: `closed_rate` has no such edge. It is connections / mean latency, which in a closed loop without pauses is the rate.
    """

    rate: float
    closed_rate: float
    p50: float
    p99: float
    refused: int
    broken: int


def wrk(address: str, request: Request, connections: int, seconds: float, scratch: Path, threads: int = 0) -> Load:
    body, script = scratch / "body", scratch / "post.lua"
    bodies = [request.body, *request.more]
    for number, content in enumerate(bodies):
        (scratch / f"body{number}").write_bytes(content)
    headers = "\n".join(f"wrk.headers['{name}'] = '{value}'" for name, value in request.headers.items())
    script.write_text(SCRIPT.format(body=body, count=len(bodies), headers=headers))
    threads = min(threads, connections) or (1 if connections <= 16 else 2)
    options = [f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", TIMEOUT]
    out = subprocess.run(["wrk", *options, "-s", script, f"http://{address}{request.path}"], capture_output=True, text=True)
    for line in out.stdout.splitlines():
        if line.startswith("figures "):
            answers, micros, mean, p50, p99, refused, broken = map(float, line.split()[1:])
            closed = connections * 1e6 / mean if mean else 0.0
            return Load(answers * 1e6 / micros, closed, p50, p99, int(refused), int(broken))
    # It could not connect, and stopped at once.
    return Load(0.0, 0.0, 0.0, 0.0, 0, connections)
