"""The worker in a process of its own, so that clients take nothing of the engine's time.

A process and not a thread: between two kernels the engine runs Python, and so does every answer on
its way to a client; in one process they would wait for each other.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from mars.decoding.acceptance import cutoff
from mars.errors import UserError
from mars.serving.messages import Facts, Finish, News, Order

if TYPE_CHECKING:
    from mars.serving.worker import Worker

TAU = 0.95  # the threshold of the paper's Table 4


@dataclass(frozen=True)
class Settings:
    """What a worker is made of.

    Args:
        checkpoint: folder of any checkpoint; one without a mask token decodes token by token.
        tau: of requests that bring none; None is one-token mode.
        low_tau: if given, tau is adapted to the load, see :func:`mars.decoding.policy.adaptive`.
        slots: sequences decoded side by side.
        max_length: most tokens of a prompt and its answer; default the model's context.
        block_size: B; default what the checkpoint was trained for.
        precision: float32 or bfloat16.
        threads: of PyTorch; default its own choice.
    """

    checkpoint: str
    tau: float | None = TAU
    low_tau: float | None = None
    slots: int = 16
    max_length: int | None = None
    block_size: int | None = None
    precision: str = "float32"
    threads: int | None = None

    def check(self) -> None:
        """Raise a UserError for what no checkpoint can be served with."""
        for threshold in (self.tau, self.low_tau):
            cutoff(threshold, "probability")
        if self.low_tau is not None and (self.tau is None or self.low_tau > self.tau):
            raise UserError(
                f"--low-tau is {self.low_tau}; it must not be above --tau, which is "
                f"{'none' if self.tau is None else self.tau}."
            )


def build_worker(settings: Settings, tell: Callable[[News], None]) -> Worker:
    """Load the checkpoint.

    Raises:
        UserError: no checkpoint there, or a setting that cannot be served.
    """
    import torch

    from mars.checkpoints.load import block_size_of, eos_token_ids, load_model
    from mars.data.tokenizer import load_tokenizer
    from mars.decoding.cursor import Engine
    from mars.decoding.policy import adaptive, fixed
    from mars.serving.text import text_with
    from mars.serving.worker import Worker

    settings.check()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    tokenizer = load_tokenizer(settings.checkpoint)
    model = load_model(settings.checkpoint, getattr(torch, settings.precision))
    block_size = settings.block_size or block_size_of(model)
    context = model.config.max_position_embeddings
    max_length = settings.max_length or context
    if max_length > context:
        raise UserError(
            f"--max-length is {max_length}, but the model's context has {context} tokens."
        )
    if settings.tau is not None and settings.low_tau is not None and block_size > 1:
        policy = adaptive(high=settings.tau, low=settings.low_tau, slots=settings.slots)
    elif settings.low_tau is not None:
        raise UserError("The checkpoint has one token per forward: leave out --low-tau.")
    else:
        policy = fixed(settings.tau if block_size > 1 else None)
    engine = Engine(
        model,
        mask_token_id=tokenizer.mask_token_id,
        eos=frozenset(eos_token_ids(model, tokenizer)),
        slots=settings.slots,
        max_length=max_length,
        block_size=block_size,
    )
    return Worker(engine, policy, text_with(tokenizer), tell)


class ProcessLink:
    """Starts the process and waits until it is ready.

    Raises:
        UserError: no checkpoint there, or a setting that cannot be served.
    """

    def __init__(self, settings: Settings):
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self.connection.send(settings)
        try:
            ready: Facts | UserError = self.connection.recv()
        except EOFError as error:
            raise UserError("The engine's process has failed: see what it printed.") from error
        if isinstance(ready, UserError):
            raise ready
        self.facts = ready

    def begin(self, receive: Callable[[News | None], None]) -> None:
        """From now on, ``receive`` gets the news in the running event loop; None: it has ended."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                while self.connection.poll():
                    receive(self.connection.recv())
            except (EOFError, ConnectionError):
                loop.remove_reader(self.connection.fileno())
                receive(None)

        loop.add_reader(self.connection.fileno(), read)

    def send(self, order: Order) -> None:
        """Pass on an order; a thread of the process is there to take it."""
        with suppress(ConnectionError):  # its end is about to be received
            self.connection.send(order)

    def close(self) -> None:
        """End the process, if it has not ended."""
        self.connection.close()
        self.process.wait()


def work(connection: Connection) -> None:
    """The process: make a worker, feed it what comes, and end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the server, which says when to end
    try:
        worker = build_worker(connection.recv(), connection.send)
    except UserError as error:
        connection.send(error)
        return

    def feed() -> None:
        try:
            while True:
                worker.orders.put(connection.recv())
        except (EOFError, ConnectionError):
            worker.orders.put(Finish(at_once=True))

    threading.Thread(target=feed, name="orders", daemon=True).start()
    gc.freeze()  # what is loaded is never garbage
    with suppress(ConnectionError):  # nobody is there to be told any more
        connection.send(worker.facts)
        worker.run()


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
