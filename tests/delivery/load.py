"""Callers that ask all the time, each with a connection of its own, and count what they got."""

import threading
from collections import Counter

import requests


class Load:
    """Asks until it is stopped; every answer that is not as expected is kept."""

    def __init__(
        self, url: str, body: dict, expected: dict[str, dict], callers: int = 3, new_connections: bool = False
    ) -> None:
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        arguments = (url, body, expected, new_connections)
        self._threads = [threading.Thread(target=self._ask, args=arguments, daemon=True) for _ in range(callers)]

    def _ask(self, url: str, body: dict, expected: dict[str, dict], new_connections: bool) -> None:
        session = requests.Session()
        session.trust_env = False
        while not self._stop.is_set():
            try:
                headers = {"connection": "close"} if new_connections else {}
                answer = session.post(url, json=body, headers=headers, timeout=60)
                version = answer.headers.get("x-model-version", "")
                is_right = answer.status_code == 200 and answer.json() == expected[version]
                said = None if is_right else f"{answer.status_code} by {version}: {answer.text[:200]}"
            except requests.RequestException as error:
                said = repr(error)
            with self._lock:
                if said is None:
                    self.answers[version] += 1
                else:
                    self.lost.append(said)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()
