"""A training with its files: one update, what is logged of it, judged and kept."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wsiseg.errors import MethodError
from wsiseg.nets.devices import choose_dtype, in_best_layout
from wsiseg.training.log import TRAINING, VALIDATION, Table, draw_curves, of_classes_last
from wsiseg.training.optimiser import make_optimiser, set_rates
from wsiseg.training.state import Remedy, TrainingState

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

    from wsiseg.methods.base import Batch, Clock, Learner
    from wsiseg.stopping import Stop
    from wsiseg.training.batches import Awaited
    from wsiseg.training.probe import Judge
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.settings import FitSettings
    from wsiseg.training.state_file import State
    from wsiseg.training.validation import Validator

STATE: Final = "last.pt"
BEST: Final = "best"
LAST: Final = "last"
# Ranks on GPUs ask each other this seldom whether to stop: agreeing holds a GPU up.
AGREE_EVERY: Final = 10


class TrainingRun:
    """A training with its files."""

    def __init__(
        self,
        learner: Learner,
        settings: FitSettings,
        folder: Path,
        *,
        validation: Validator | None,
        probe: Judge | None,
        is_best_kept: bool,
        plan: State,
        remedy: Remedy,
        ranks: Ranks,
        stop: Stop,
    ) -> None:
        self.learner, self.settings, self.folder = learner, settings, folder
        self.validation, self.plan, self.ranks, self.stop = validation, plan, ranks, stop
        self.probe, self.is_best_kept, self.remedy = probe, is_best_kept, remedy
        self.module = in_best_layout(learner.module.to(device=ranks.device))
        self.precision, scaler = _precision(settings, ranks.device)
        self.state = TrainingState(self.module, make_optimiser(learner, settings), scaler, settings.ema, ranks)
        if (folder / STATE).exists():
            self.state.load(folder / STATE, plan, remedy)
        step = _Step(learner)
        self.step_module: nn.Module = step if ranks.world == 1 else DistributedDataParallel(step)
        self.losses = Table(folder / TRAINING, step=self.state.step)
        self.metrics = Table(folder / VALIDATION, step=self.state.step)
        self.saved_at = time.monotonic()
        self.status = ""

    def is_time(self, every: int) -> bool:
        """Tell whether something that is done `every` so many updates, and after the last, is due."""
        return self.state.step % every == 0 or self.state.step == self.settings.steps

    def update(self, stream: Awaited, clock: Clock) -> None:
        """Make one update of the weights."""
        settings, state, device = self.settings, self.state, self.ranks.device
        self.module.train()
        set_rates(state.optimiser, settings, clock)
        for micro in range(settings.accumulate):
            batch = next(stream).dressed(device)
            with self._exchange(is_complete=micro == settings.accumulate - 1):
                with torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None):
                    losses = self.step_module(batch, clock)
                torch.autograd.backward(state.scaler.scale(losses["loss"] * settings.share_of_batch))
            state.note(losses)
        state.scaler.unscale_(state.optimiser)
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), settings.clip_norm)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        state.optimiser.zero_grad(set_to_none=True)

    def _exchange(self, *, is_complete: bool) -> AbstractContextManager[None]:
        # Ranks exchange gradients once for each update, with the last of its batches.
        if isinstance(self.step_module, DistributedDataParallel) and not is_complete:
            return self.step_module.no_sync()
        return nullcontext()

    def log_losses(self, epoch: float, wait: float) -> None:
        """Write the mean losses and the share of waiting since the last time; stop where losses are no numbers."""
        means = self.ranks.gather({**self.state.mean_losses(), "wait": wait})
        losses = {name: sum(part[name] for part in means) / len(means) for name in means[0]}
        if not math.isfinite(losses["loss"]):
            raise MethodError(
                f"the loss is no longer finite at step {self.state.step}",
                where=self.folder,
                mend=f"Pass {self.remedy.anew} with {self.remedy.slower}, or with --amp off",
            )
        if self.ranks.is_first:
            rate = self.state.optimiser.param_groups[0]["lr"]
            self.losses.append({"step": self.state.step, "epoch": epoch, "lr": rate, **losses})
        self.status = f"loss {losses['loss']:.4f}{self._best}"

    @property
    def _best(self) -> str:
        if self.validation is None or self.state.best_step == 0:
            return ""
        return f", best {self.validation.metric} {self.state.best:.4f} at step {self.state.best_step}"

    def judge(self, clock: Clock) -> None:
        """Validate, and keep the model if it is the best so far."""
        if self.validation is None:
            return
        self.ranks.share_buffers(self.state.judged)
        predictor = self.learner.predictor(self.state.judged)
        metrics = self.validation.measure(predictor, self.ranks)
        # The first process alone writes down how good labels are, and keeps what they are made of.
        if self.probe is not None:
            if self.ranks.is_first:
                metrics |= self.probe.measure(clock, self.ranks.device)
            self.ranks.wait()
        metrics = of_classes_last(metrics)
        if self.ranks.is_first:
            self.metrics.append({"step": self.state.step, **metrics})
        if metrics[self.validation.metric] > self.state.best:
            self.state.best, self.state.best_step = metrics[self.validation.metric], self.state.step
            if self.ranks.is_first and self.is_best_kept:
                predictor.save(self.folder / BEST, metrics=metrics)

    def keep(self) -> None:
        """Save the state where it is time to; end the training where that is asked for."""
        is_stopping, is_saving = False, self.is_time(self.settings.validate_every)
        is_free = self.ranks.world == 1 or self.ranks.device.type != "cuda"
        if is_free or self.is_time(AGREE_EVERY):
            is_stopping = self.ranks.agree(is_wanted=self.stop.is_requested)
            age_s = time.monotonic() - self.saved_at
            is_saving |= is_stopping or self.ranks.agree(is_wanted=age_s >= self.settings.save_interval_s)
        if is_saving:
            self.state.save(self.folder / STATE, self.plan)
            self.saved_at = time.monotonic()
        if self.ranks.is_first and (is_stopping or self.is_time(self.settings.validate_every)):
            metric, labels = "", None
            if self.validation is not None:
                metric, labels = self.validation.metric, self.learner.predictor(self.state.judged).spec.labels
            draw_curves(self.folder, metric=metric, labels=labels)
        if is_stopping and self.state.step < self.settings.steps:
            raise self.stop.error()

    def finish(self) -> None:
        """Keep the last model."""
        if self.ranks.is_first:
            metrics = dict(self.metrics.rows[-1]) if self.metrics.rows else {}
            metrics.pop("step", None)
            self.learner.predictor(self.state.judged).save(self.folder / LAST, metrics=metrics)
        self.ranks.wait()


class _Step(nn.Module):
    """A learner's training step as the forward pass of a module, which is what DDP wraps."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.module = learner.module
        self._step = learner.training_step

    def forward(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return self._step(batch, clock)


def _precision(settings: FitSettings, device: torch.device) -> tuple[torch.dtype | None, torch.amp.GradScaler]:
    """Return the type to compute in, None for full precision, and the scaler of losses it needs."""
    dtype = choose_dtype(settings.amp, device)
    return dtype, torch.amp.GradScaler(device.type, enabled=dtype is torch.float16 and device.type == "cuda")
