"""The miniature benchmarks: to add one, write its module, name it here and test it."""

from __future__ import annotations

from mars.data.minibench.code_problems import CodeProblems
from mars.data.minibench.instructions_if import Instructions
from mars.data.minibench.knowledge import FourOptions, TenOptions
from mars.data.minibench.logic_tasks import LogicTasks
from mars.data.minibench.miniature import Miniature
from mars.data.minibench.word_problems import WordProblems
from mars.data.minibench.world import World


def miniatures(seed: int) -> dict[str, Miniature]:
    """All of them, by repository; their order is part of what a seed generates."""
    world = World.of(seed)
    found = (
        WordProblems(),
        CodeProblems(),
        Instructions(world),
        LogicTasks(seed),
        TenOptions(world),
        FourOptions(world),
    )
    return {miniature.repository: miniature for miniature in found}
