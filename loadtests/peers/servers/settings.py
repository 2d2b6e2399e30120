"""What the driver tells a peer: how many cores there are, the largest batch, and how many seconds to wait for one."""

import os

CORES = int(os.environ["PEERS_CORES"])
BATCH = int(os.environ.get("PEERS_BATCH", "8"))
MAX_DELAY = float(os.environ.get("PEERS_MAX_DELAY", "0.003"))
