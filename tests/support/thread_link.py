"""A worker in a thread of the test's process, in the place of the server's process for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from mars.serving.messages import News, Order
from mars.serving.worker import Worker


class ThreadLink:
    """A way to a worker that a function makes; if that fails, so has its thread."""

    def __init__(self, make: Callable[[Callable[[News], None]], Worker]):
        self.worker = make(self._tell)
        self.facts = self.worker.facts

    def begin(self, receive: Callable[[News | None], None]) -> None:
        self.loop, self.receive = asyncio.get_running_loop(), receive
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, order: Order) -> None:
        self.worker.orders.put(order)

    def _run(self) -> None:
        try:
            self.worker.run()
        except ZeroDivisionError:
            pass  # the failure that a test asks for
        finally:
            self.loop.call_soon_threadsafe(self.receive, None)

    def _tell(self, news: News) -> None:
        self.loop.call_soon_threadsafe(self.receive, news)
