"""The loop: a batch, its gradients, a step of AdamW, and every so often a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from onnxsmith.errors import CheckFailed
from onnxsmith.models.training.order import load_batches
from onnxsmith.models.training.problem import Problem
from onnxsmith.models.training.recipe import Optimizer, Run
from onnxsmith.models.training.state import FILE, State

Watch = Callable[[int, int, str], None]  # steps done, steps in all, what to say


def fit(problem: Problem, run: Run, folder: Path, watch: Watch) -> State:
    """Train the problem's model for the steps of the run, from the checkpoint in ``folder`` where there is one.

    The random state of torch goes on from wherever it is, or from the checkpoint's.

    Raises:
        CheckFailed: a loss or a gradient is not finite; the last checkpoint stays.
        BadInput: the checkpoint is damaged or of another run, or there are too few examples for one batch.
    """
    state, path = State(problem.module, _adam_w(problem.module, run.optimizer)), folder / FILE
    if path.exists():
        state.load(path, run.digest)
    first = len(state.losses)
    schedule = LambdaLR(state.optimizer, lambda done: run.schedule.factor(done + 1, run.steps), first - 1)
    problem.module.train()
    for batch in load_batches(problem, run, first):
        began = time.perf_counter()
        state.losses.append(_step(problem, run, batch, state))
        schedule.step()
        state.seconds += time.perf_counter() - began
        done = len(state.losses)
        if _is_due(run.validate_every, done, run):
            state.validate(_validated(problem))
        if done == run.steps:
            state.take_best()
        if _is_due(run.checkpoint_every, done, run):
            state.save(path, run.digest)
        watch(done, run.steps, f"{run.name}, loss {state.losses[-1]:.3f}")
    problem.module.eval()
    return state


def _is_due(every: int, done: int, run: Run) -> bool:
    """Whether something is done behind this step: every so many, and at the end; never with 0."""
    return every > 0 and (done % every == 0 or done == run.steps)


def _validated(problem: Problem) -> float:
    problem.module.eval()
    found = problem.validation()
    problem.module.train()
    return found


def _step(problem: Problem, run: Run, batch: Any, state: State) -> float:
    """One step on a batch; returns the loss before it. Nothing changes where that or a gradient is not finite."""
    state.optimizer.zero_grad()
    loss = problem.loss(batch, torch.default_generator)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(problem.module.parameters(), run.optimizer.clip or math.inf)
    if not (loss.isfinite() and norm.isfinite()):
        raise CheckFailed(_diverged(run, len(state.losses) + 1, loss.item()))
    state.optimizer.step()
    return loss.item()


def _diverged(run: Run, step: int, loss: float) -> str:
    found = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    now = f"lr = {run.optimizer.lr:g}, warmup = {run.schedule.warmup}, clip = {run.optimizer.clip:g}"
    kept = step - 1 - (step - 1) % run.checkpoint_every
    stays = f"; the checkpoint of step {kept} stays" if kept else ""
    return f"run {run.name}, step {step}: {found}; try a lower lr, a longer warmup or clipping ({now}){stays}"


def _adam_w(module: nn.Module, settings: Optimizer) -> AdamW:
    """Weights decay, but not biases and norms, which have one dimension."""
    kinds = [[p for p in module.parameters() if (p.dim() > 1) is decays] for decays in (True, False)]
    groups = [
        # LambdaLR takes its first rate from "initial_lr" when it does not start at the first step.
        {"params": some, "weight_decay": decay, "initial_lr": settings.lr}
        for some, decay in zip(kinds, (settings.weight_decay, 0.0), strict=True)
    ]
    betas = (settings.beta1, settings.beta2)
    return AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps)
