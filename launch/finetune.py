"""``distgrad finetune CONFIG``: the recipe that every rank runs, from top to bottom.

All ranks do the same; what differs is which photos a rank sees. A step costs one all-reduce of the gradients of those
parameters that are trained. Every rank then takes the same step, so the models stay equal without being sent again.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import distgrad
from distgrad import distributed, optim, tensor, tracing, uint8
from distgrad.checkpoint import CheckpointManager
from distgrad.checkpoint import load as load_checkpoint
from distgrad.checkpoint.format import MANIFEST
from distgrad.data import GlobalBatchSampler, ImageFolder
from distgrad.distributed import Communicator, DistributedDataParallel, SyncBatchNorm, ZeroRedundancyOptimizer
from distgrad.distributed.desync import DesyncCheck
from distgrad.distributed.monitored import MonitoredCommunicator
from distgrad.distributed.same_numerics import pin_threads
from distgrad.errors import CheckpointError, ConfigError, TrainingError
from distgrad.metrics import MeanMetric
from distgrad.nn import CrossEntropyLoss
from distgrad.observe import MetricsLog, Progress, Timeline, epoch_line, summary
from distgrad.ops.random import default_generator

from . import recipe, run_folder
from .background import Background
from .evaluate import Evaluation, evaluate
from .inputs import Features, Head, Inputs, Photos
from .settings import Settings, load_settings

WARM_UP_STEPS = 3  # that a timeline leaves out: plans are made, memory is new


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of ``distgrad finetune``, but for the overrides, which may be any setting."""
    parser.add_argument("config", type=Path, help="TOML file, such as configs/resnet18_frozen.toml")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    existing.add_argument("--overwrite", action="store_true", help="replace a run of the same name")


def command(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs ``distgrad finetune``, alone or under mpirun."""
    ranks = distributed.communicator()
    settings = load_settings(arguments.config, overrides)
    finetune(settings, ranks, resume=arguments.resume, overwrite=arguments.overwrite)


@dataclass
class Position:
    """How far a run is; with the sampler's cursor, the optimizer and the schedule it says how to go on."""

    step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    last_accuracy: float = 0.0
    epoch_loss: dict[str, Any] = field(default_factory=dict)  # of the steps done in the current epoch, over all ranks
    evaluated_at: int = 0  # the step of the last evaluation


def finetune(settings: Settings, ranks: Communicator, *, resume: bool = False, overwrite: bool = False) -> Evaluation:
    """Trains as ``settings`` say and leaves a run folder.

    Args:
        settings: the recipe.
        ranks: who takes part.
        resume: go on from the run's last checkpoint; without one, start from the beginning.
        overwrite: replace a run of the same name.

    Returns:
        The evaluation of the last epoch; of a run that was finished before, its accuracy alone.

    Raises:
        DistgradError: settings, data, weights or checkpoints that cannot be used; a loss that is not finite.
    """
    with contextlib.ExitStack() as resources:
        return _finetune(settings, ranks, resume, overwrite, resources)


def _finetune(
    settings: Settings, ranks: Communicator, resume: bool, overwrite: bool, resources: contextlib.ExitStack
) -> Evaluation:
    started = time.monotonic()
    lead = ranks.rank == 0
    directory = settings.directory
    checkpoints = CheckpointManager(directory, keep=settings.checkpoint.keep)
    resume_from = checkpoints.last if resume else None
    if resume_from is not None:
        run_folder.check_resumes(directory, settings)
    elif not overwrite:
        run_folder.check_unused(directory)
    _check_same_start(resume_from, directory, ranks)  # every rank has looked before rank 0 writes

    recipe.check_ranks(settings, ranks)
    if isinstance(ranks, MonitoredCommunicator):
        ranks.configure(settings.distributed.timeout, settings.distributed.check or None)
    if settings.virtual_ranks is not None:
        pin_threads(settings.distributed.blas_threads)  # before anything is computed
    train, val = recipe.photos(settings, ranks)
    skipped = len(train.dropped) + len(val.dropped)
    network = recipe.model(settings, len(train.classes))
    synchronized = settings.distributed.sync_batch_norm and not settings.model.freeze  # what is frozen asks nobody
    if synchronized:
        SyncBatchNorm.convert_sync_batchnorm(network, ranks)
    sampler = GlobalBatchSampler(
        train,
        settings.data.batch_size,
        num_replicas=ranks.world_size,
        rank=ranks.rank,
        seed=settings.run.seed,
        virtual_ranks=settings.virtual_ranks,
    )
    sgd = recipe.optimizer(settings, network, ranks)
    schedule = recipe.schedule(settings, sgd, len(sampler))
    criterion = CrossEntropyLoss(label_smoothing=settings.train.label_smoothing)
    steps_in_all = settings.train.epochs * len(sampler)
    if settings.train.max_steps is not None:
        steps_in_all = min(steps_in_all, settings.train.max_steps)
    at = Position()
    hook_state: dict[str, Any] | None = None  # what a communication hook with a memory had left out
    ways = settings.distributed
    exchange: dict[str, Any] = {
        "comm_hook": ways.comm_hook,
        "bucket_cap_mb": ways.bucket_cap_mb or "auto",
        "progress": ways.progress,
    }
    if resume_from is not None:
        model_state, training_state = load_checkpoint(resume_from)
        _check_same_photos(training_state, train, resume_from)
        recipe.load_into(network, model_state, resume_from)
        at = _restore(training_state, sgd, schedule, sampler)
        hook_state = training_state.get("comm_hook")
        exchange = training_state.get("exchange", exchange)  # what the run has chosen, to go on with the same bits
        if at.step >= steps_in_all and at.step != at.evaluated_at:
            raise ConfigError(
                f"{resume_from} is in the middle of an epoch, after step {at.step}, but the run would end with step "
                f"{steps_in_all}: raise --train.max_steps or --train.epochs."
            )
    head = Head(network) if settings.model.freeze else None
    fast = distgrad.compile(network) if settings.train.compile and not synchronized else network
    model = DistributedDataParallel(
        fast if head is None else head,
        ranks,
        reproducible=settings.distributed.reproducible,
        virtual_ranks=settings.distributed.virtual_ranks,
        blas_threads=settings.distributed.blas_threads,
        **exchange,
    )
    if hook_state:
        model.comm_hook_state.load_state_dict(hook_state)
    desync = DesyncCheck(
        network,
        sgd,
        every=settings.distributed.desync_every,
        heal=settings.distributed.heal,
        frozen=not settings.model.freeze,
        communicator=ranks,
    )
    desync.steps = at.step
    inputs: Inputs
    if head is None:
        inputs = Photos(settings, train, val, ranks, sampler)
    else:
        head.split = recipe.split(settings, network)  # of the values that all ranks have by now
        inputs = Features(settings, head.split, train, val, ranks, sampler, resources)

    if lead:
        # A best one without a last: what a run left that was killed between the links of its first checkpoint.
        if resume_from is None and (overwrite or checkpoints.best is not None):
            run_folder.remove(directory)
        run_folder.write(directory, settings, train.classes)
        print(_opening(settings, ranks, len(train), len(val), len(train.classes), skipped, at), flush=True)
        if not settings.model.freeze and ranks.world_size > 1:
            print(f"gradients travel by {model.progress}", flush=True)
    log = MetricsLog(
        directory / run_folder.METRICS, rank=ranks.rank, resume_step=None if resume_from is None else at.step
    )

    saving = resources.enter_context(Background())

    def save(best: bool = False) -> None:
        if isinstance(sgd, ZeroRedundancyOptimizer):
            sgd.consolidate_state_dict()
        if model.comm_hook_state is not None:
            model.comm_hook_state.consolidate_state_dict()
        if not lead:
            return
        saving.wait()
        model_state = {name: value.numpy() for name, value in network.state_dict().items()}
        broken = [name for name, array in model_state.items() if not np.isfinite(array).all()]
        if broken:
            raise TrainingError(
                f"after step {at.step} {broken[0]} is not finite any more, so no checkpoint is written: the learning "
                f"rate ({settings.optim.lr}) is too high. The previous checkpoint, if any, is whole."
            )
        training_state = {
            "position": vars(at),
            "optimizer": _arrays(sgd.state_dict()),
            "schedule": schedule.state_dict(),
            "sampler": sampler.state_dict(),
            "generator": default_generator.get_state().tolist(),
            "comm_hook": model.comm_hook_state.state_dict() if model.comm_hook_state is not None else None,
            "exchange": exchange | {"progress": model.progress.name} | ((model.autotune and model.autotune.pin) or {}),
            "photos": len(train),
            "classes": train.classes,
        }
        # What training changes is copied, so that it may go on while the disk is written.
        trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        if head is None:
            trained |= {name for name, _ in network.named_buffers()}
        model_state |= {name: model_state[name].copy() for name in trained & model_state.keys()}
        saving.start(checkpoints.save, at.step, model_state, copy.deepcopy(training_state), best=best)

    timeline = None
    if settings.observe.timeline:
        timeline = resources.enter_context(
            Timeline(directory / run_folder.TIMELINE, ranks, steps=settings.observe.timeline_steps, skip=WARM_UP_STEPS)
        )

    result = Evaluation(math.nan, at.last_accuracy, 0)
    while at.step < steps_in_all:
        epoch, epoch_started = at.step // len(sampler), time.monotonic()
        done = at.step % len(sampler)
        batches = inputs.training(epoch, range(done, min(len(sampler), done + steps_in_all - at.step)))
        model.train()
        seen = seen_before = min(done * settings.data.batch_size, len(train))
        lr = settings.optim.lr
        here = MeanMetric()  # this rank's part of epoch_loss, since it was last reduced
        with Progress(
            len(train), f"epoch {epoch + 1}/{settings.train.epochs}", rank=ranks.rank, initial=seen
        ) as progress:
            for slices in batches:
                sgd.zero_grad()
                losses = []
                for photos, labels in slices:
                    loss = criterion(model(photos), labels)
                    loss.backward()
                    losses.append((loss.item(), len(labels)))
                lr = sgd.param_groups[0]["lr"]  # of this step; the schedule is about to set the next one's
                with tracing.span("optimizer"):
                    sgd.step()
                schedule.step()
                at.step += 1
                if timeline is not None:
                    timeline.step()
                desync.step()

                for value, count in losses:
                    if count:
                        if not math.isfinite(value):
                            saving.wait()
                        _check_finite(value, at.step, settings, checkpoints)
                        here.update(value, weight=count)
                whole = min(settings.data.batch_size, len(train) - seen)
                seen += whole
                progress.update(whole, loss=losses[0][0])
                end_of_epoch = at.step % len(sampler) == 0
                every = settings.checkpoint.every_steps
                if every and at.step % every == 0 and not end_of_epoch and at.step < steps_in_all:
                    _mean_loss(at, here, ranks)
                    save()
                if at.step == steps_in_all:
                    break
        rate = (seen - seen_before) / (time.monotonic() - epoch_started)
        train_loss = _mean_loss(at, here, ranks)
        model.broadcast_buffers()  # running statistics, where there are any in training: rank 0's count
        result = evaluate(
            model.module,
            inputs.validation(epoch),
            ranks,
            photos=len(val),
            description=f"validate {epoch + 1}/{settings.train.epochs}",
        )
        best = result.accuracy > at.best_accuracy
        at.last_accuracy, at.evaluated_at = result.accuracy, at.step
        if best:
            at.best_accuracy, at.best_epoch = result.accuracy, epoch + 1
        if at.step % len(sampler) == 0:
            at.epoch_loss = {}
        report: dict[str, Any] = {
            "train_loss": train_loss,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy,
            "lr": lr,
            "images_per_second": rate,
            "seconds": time.monotonic() - epoch_started,
        }
        top5 = {} if result.top5 is None else {"val_top5_accuracy": result.top5}
        log.write({"step": at.step, "epoch": epoch + 1, **report, **top5, **inputs.metrics(), "skipped": skipped})
        if lead:
            line = epoch_line(epoch + 1, settings.train.epochs, **report, skipped=skipped, best=best)
            print(line, flush=True)
        save(best)
    saving.wait()
    log.close()
    if timeline is not None:
        timeline.finish()
    if lead:
        print(
            summary(
                directory,
                val_accuracy=at.last_accuracy,
                best_accuracy=at.best_accuracy,
                best_epoch=at.best_epoch,
                epochs=math.ceil(at.step / len(sampler)),
                steps=at.step,
                world_size=ranks.world_size,
                seconds=time.monotonic() - started,
            ),
            flush=True,
        )
        about_inputs = inputs.summary()
        if about_inputs:
            print(about_inputs, flush=True)
        if timeline is not None:
            print(_about_timeline(timeline), flush=True)
    ranks.barrier()  # nobody leaves while rank 0 may still fail to save
    return result


def _opening(
    settings: Settings, ranks: Communicator, train: int, val: int, classes: int, skipped: int, at: Position
) -> str:
    """What the run is about, in a line or two."""
    trained = "the classifier is trained, the backbone frozen" if settings.model.freeze else "every layer is trained"
    lines = [
        f"{settings.directory}: {settings.model.name}, {trained}; {train} photos of {classes} classes, {val} to "
        f"validate; {ranks.world_size} rank{'s' * (ranks.world_size > 1)}, batches of {settings.data.batch_size}"
    ]
    if settings.virtual_ranks is not None:
        lines.append(f"reproducible: {settings.virtual_ranks} slices a batch, the same bits on up to as many ranks")
    if skipped:
        lines.append(f"{skipped} broken photo{'s' * (skipped > 1)} skipped")
    if at.step:
        lines.append(f"resumed after step {at.step}")
    return "\n".join(lines)


def _about_timeline(timeline: Timeline) -> str:
    if timeline.summary is None:
        return f"timeline: the run was over within the {WARM_UP_STEPS} steps of warming up, so there is none"
    return f"{timeline.summary}\n  {timeline.path}: open it in https://ui.perfetto.dev"


def _check_finite(loss: float, step: int, settings: Settings, checkpoints: CheckpointManager) -> None:
    if math.isfinite(loss):
        return
    saved = f" {checkpoints.last}, from before, is whole." if checkpoints.last is not None else ""
    raise TrainingError(
        f"the loss of step {step} is {loss}. The learning rate ({settings.optim.lr}) is probably too high: start again "
        "with a lower --optim.lr or a warm-up (--schedule.warmup_epochs), and with --overwrite or another --run.name."
        f"{saved}"
    )


def _mean_loss(at: Position, here: MeanMetric, ranks: Communicator) -> float:
    """The mean loss of the epoch so far, with what every rank has ``here``, which starts anew. A collective."""
    total = here.reduce(ranks)
    here.reset()
    if at.epoch_loss:
        before = MeanMetric()
        before.load_state_dict(at.epoch_loss)
        total.merge(before)
    at.epoch_loss = total.state_dict()
    return total.compute()


def _arrays(state: Any) -> Any:
    """An optimizer's state with arrays in place of tensors."""
    if isinstance(state, dict):
        return {key: _arrays(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_arrays(value) for value in state]
    return state.detach().numpy() if hasattr(state, "detach") else state


def _check_same_start(resume_from: Path | None, directory: Path, ranks: Communicator) -> None:
    """Raises on every rank unless all go on from the same checkpoint, or all from none. A collective."""
    manifests = ranks.all_gather_bytes(b"" if resume_from is None else (resume_from / MANIFEST).read_bytes())
    other = next((rank for rank, manifest in enumerate(manifests) if manifest != manifests[0]), None)
    if other is not None:
        raise CheckpointError(
            f"rank {other} does not find the same last checkpoint in {directory} as rank 0. --resume needs the run's "
            "folder on every host: put it on a file system that they share (--run.output), or copy it to each."
        )


def _check_same_photos(state: dict[str, Any], train: ImageFolder, source: Path) -> None:
    """Raises unless the training folder still has the classes and the number of photos that the checkpoint saw."""
    cure = "the folder has changed. Put it back, or start another run with --run.name NAME."
    if state["classes"] != train.classes:
        raise CheckpointError(
            f"{source} was trained on the classes {', '.join(state['classes'])}, now they are "
            f"{', '.join(train.classes)}: {cure}"
        )
    if state["photos"] != len(train):
        raise CheckpointError(
            f"{source} was written in the middle of {state['photos']} training photos, now there are {len(train)}: "
            f"{cure}"
        )


def _restore(
    state: dict[str, Any],
    sgd: optim.Optimizer,
    schedule: optim.lr_scheduler.LRScheduler,
    sampler: GlobalBatchSampler,
) -> Position:
    """Puts everything where the checkpoint left it."""
    sgd.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    sampler.load_state_dict(state["sampler"])
    default_generator.set_state(tensor(state["generator"], dtype=uint8))
    return Position(**state["position"])
