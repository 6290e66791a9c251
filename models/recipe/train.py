"""Fine-tunes the backbone in two stages and leaves `model.safetensors` (f32) in the work folder.

Stage 1: newspaper sections and tweets, to settle the encoder and the sentiment head (its section head is dropped).
Stage 2: news/train, both heads, in crops of many shapes, because serving reads headlines and whole articles alike.

    python train.py                    starts, or goes on from the last checkpoint
    python train.py --init WEIGHTS     stage 2 alone, from the weights of an earlier run
"""

import argparse
import datetime
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from common import (
    DEFAULT_SHARED,
    DEFAULT_WORK,
    LABELS,
    POOLINGS,
    Classifier,
    Shard,
    digest,
    head_logits,
    pad,
    pooled_windows,
    pooling_of,
    save_weights,
    write_json,
)
from grid import on_int8_grid
from measure import macro_f1
from plans import plan_stage1, plan_stage2, schedule

SHARDS = ("train", "train_noisy", "dev", "sections", "tweets")
SECOND_TOPIC_SHARE = 0.25  # of the target's mass, where the annotator named a second topic
LABEL_SMOOTHING = 0.05
AVERAGE_EVERY, AVERAGE_DECAY = 4, 0.98  # steps between updates of the averaged weights, and its decay an update
BEFORE = {"pooling": "mean"}  # settings that earlier records have not
AVERAGE_SHARE = 0.75  # of the average, where it is mixed with the last weights


def main():
    Trainer(arguments_parser(__doc__).parse_args()).run_to_the_end()


def arguments_parser(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with backbone/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that prepare.py filled")
    parser.add_argument(
        "--init", type=Path, help="model.safetensors of an earlier run, to train on in place of the backbone"
    )
    parser.add_argument("--stage1-steps", type=int, default=200)
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over news/train in stage 2")
    parser.add_argument("--batch", type=int, default=32, help="documents a step")
    parser.add_argument("--lr", type=float, default=8e-5)
    parser.add_argument("--head-lr", type=float, default=8e-4)
    parser.add_argument("--hold", type=float, default=0.0, help="share of the steps at the peak rate, before its decay")
    parser.add_argument("--noisy", type=float, default=0.25, help="share of the documents read in careless spelling")
    parser.add_argument(
        "--class-weights",
        type=float,
        default=0.25,
        metavar="POWER",
        help="a topic weighs (1 / its share) ** POWER, scaled to mean 1 over the rows",
    )
    parser.add_argument("--crops", choices=["mixed", "lead", "title"], default="mixed", help="parts of a document that are read")
    parser.add_argument(
        "--self-taught", type=float, default=0.0, help="rows that self_train.py labelled, as a share of those of news/train"
    )
    parser.add_argument("--train-share", type=float, default=1.0, help="of news/train, for a learning curve")
    parser.add_argument("--pooling", choices=POOLINGS, help="of the last states; as the weights to start from have it by default")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=["auto", "f32", "bf16"], default="auto", help="of the matrix products")
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps")
    parser.add_argument("--dev-checks", type=int, default=4, help="looks at part of the dev split during stage 2")
    parser.add_argument("--dev-rows", type=int, default=500, help="rows of such a look")
    return parser


def load_start(model, tensors):
    """The backbone's encoder, or encoder and heads of an earlier run; a head that is not there keeps its first draw."""
    named = {name if name.startswith("heads.") else f"encoder.{name}": value.float() for name, value in tensors.items()}
    result = model.load_state_dict(named, strict=False)
    missing = [name for name in result.missing_keys if name.startswith("encoder.") and "position_ids" not in name]
    if missing:
        raise SystemExit(f"the weights to start from lack {missing[:3]}")
    more = [name for name in result.unexpected_keys if name.startswith("encoder.encoder.layer.")]
    if more:
        raise SystemExit(f"the weights to start from have layers that the model lacks: {more[:3]}")


class Trainer:
    """One run: model, optimiser, averaged weights and the position in the plan of batches."""

    METHOD = "labels"

    def __init__(self, arguments):
        self.arguments, self.work = arguments, arguments.work
        self.record = arguments.work / "training.json"
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(arguments.seed)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bf16 = arguments.precision == "bf16" or (arguments.precision == "auto" and has_bf16(self.device))
        self.model = self.build_model().to(self.device)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameter_groups(), weight_decay=0.01, fused=True)
        self.average = None  # starts with stage 2
        self.shards = {name: Shard.load(self.work / f"{name}.npz") for name in self.shard_names()}
        self.plans = self.plan_stages()
        self.digests = [digest(path) for path in self.sources()]
        topics = self.shards["train"].labels["topic"]
        self.topic_weights = class_weights(topics, len(LABELS["topic"]), arguments.class_weights).to(self.device)
        self.stage, self.step = 1, 0

    def run_to_the_end(self):
        if self.is_done():
            return log(f"done before: {self.record}")
        self.resume()
        self.run()
        self.finish()

    def is_done(self):
        """Whether this very run has left its record."""
        last = runs_of(self.record)[-1:]
        run = self.settings() | {"epochs": self.arguments.epochs}
        made = self.record.with_name("model.safetensors").exists()
        return made and bool(last) and all((BEFORE | last[0]).get(name) == value for name, value in run.items())

    def build_model(self):
        model = Classifier(self.arguments.shared / "backbone/config.json", LABELS, self.pooling())
        load_start(model, load_file(self.start()))
        return model

    def pooling(self):
        return self.arguments.pooling or pooling_of(self.start())

    def shard_names(self):
        return [*SHARDS, "self_taught"] if self.arguments.self_taught else SHARDS

    def sources(self):
        """The files that decide the result beside the settings."""
        yield from (self.start(), *(self.work / f"{name}.npz" for name in self.shards))

    def plan_stages(self):
        stage1 = [] if self.arguments.init else plan_stage1(self.shards, self.arguments)
        return {1: stage1, 2: plan_stage2(self.shards, self.arguments)}

    def parameter_groups(self):
        """Biases and layer norms do not decay; the heads, which start from nothing, learn faster."""
        groups = {}
        for name, parameter in self.model.named_parameters():
            groups.setdefault((name.startswith("heads."), parameter.ndim > 1), []).append(parameter)
        for (head, decays), parameters in groups.items():
            peak = self.arguments.head_lr if head else self.arguments.lr
            yield {"params": parameters, "peak": peak} | ({} if decays else {"weight_decay": 0.0})

    def run(self):
        for stage in (1, 2):
            plan = self.plans[stage]
            if self.stage > stage or not plan:
                continue
            if self.stage < stage:
                self.stage, self.step = stage, 0
                self.optimizer.state.clear()
            checks = dev_steps(len(plan), self.arguments.dev_checks) if stage == 2 else set()
            started, first = time.monotonic(), self.step
            while self.step < len(plan):
                batch = plan[self.step]
                losses = self.train_batch(batch)
                self.step += 1
                if self.step % 10 == 0 or self.step == len(plan):
                    self.report(plan, losses, time.monotonic() - started, first)
                if self.step in checks:
                    score = dev_score(self.model, self.shards["dev"], self.arguments.dev_rows)
                    log(f"stage {stage} step {self.step}: dev ({self.arguments.dev_rows} rows) {text(score)}")
                if self.step % self.arguments.checkpoint_every == 0 or self.step == len(plan):
                    self.save()

    def train_batch(self, batch):
        self.model.train()
        # Seeded by position, so that a run that goes on from a checkpoint draws the dropout of an unbroken one.
        torch.manual_seed(self.arguments.seed * 1_000_003 + self.stage * 100_003 + self.step)
        self.set_learning_rate(schedule(self.step, len(self.plans[self.stage]), self.arguments.hold))
        ids, mask = pad([self.window(item) for item in batch], self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            losses = self.losses(batch, ids, mask)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.stage == 2:
            self.update_average()
        return {task: loss.item() for task, loss in losses.items()}

    def window(self, item):
        source, document, crop = item
        return crop.of(self.shards[source], document)

    def losses(self, batch, ids, mask):
        return self.label_losses(batch, self.model(ids, mask))

    def label_losses(self, batch, logits):
        """A loss for each task that has a label in the batch, over the rows that have it."""
        losses = {}
        for task, rows in logits.items():
            classes = self.labels(batch, task)
            known = classes >= 0
            if not known.any():
                continue
            targets = functional.one_hot(classes[known], rows.shape[1]).float()
            row_loss_weight = torch.ones(len(targets), device=self.device)
            if task == "topic":
                second = self.labels(batch, "topic2")[known]
                mixed = ((second >= 0) & (second != classes[known])).float().unsqueeze(1) * SECOND_TOPIC_SHARE
                targets = (1 - mixed) * targets + mixed * functional.one_hot(second.clamp(min=0), rows.shape[1])
                row_loss_weight = self.topic_weights[classes[known]]
            targets = (1 - LABEL_SMOOTHING) * targets + LABEL_SMOOTHING / rows.shape[1]
            row_losses = -(targets * rows[known].float().log_softmax(1)).sum(1)
            losses[task] = (row_losses * row_loss_weight).mean()
        return losses

    def labels(self, batch, field):
        return torch.tensor(
            [int(self.shards[s].labels[field][document]) for s, document, _ in batch], device=self.device
        )

    def set_learning_rate(self, factor):
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    @torch.no_grad()
    def update_average(self):
        if self.average is None:
            self.average = [parameter.detach().clone() for parameter in self.parameters]
        elif self.step % AVERAGE_EVERY == 0:
            torch._foreach_lerp_(self.average, self.parameters, 1 - AVERAGE_DECAY)

    def report(self, plan, losses, seconds, first):
        """A line of progress; the time left goes by the pace since this stage began or went on."""
        pace = seconds / (self.step - first)
        left = pace * (len(plan) - self.step)
        end = (datetime.datetime.now() + datetime.timedelta(seconds=left)).strftime("%H:%M")
        shown = " ".join(f"{task} {loss:.3f}" for task, loss in losses.items())
        log(
            f"stage {self.stage} step {self.step}/{len(plan)}: loss {shown} | {pace:.2f} s a step, "
            f"{left / 60:.0f} min left in this stage, until {end}"
        )

    def settings(self):
        """What makes two runs the same. Not the length: a run may be cut short or drawn out while its rate is held."""
        names = ("batch", "lr", "head_lr", "hold", "noisy", "class_weights", "crops", "self_taught", "train_share", "seed")
        settings = {name: getattr(self.arguments, name) for name in names}
        settings |= {"method": self.METHOD, "precision": "bf16" if self.bf16 else "f32"}
        settings |= {"pooling": self.pooling()}
        return settings | {"stage1_steps": len(self.plans[1]), "sources": self.digests}

    def save(self):
        """Replaces the checkpoint in one rename, so that an interruption at any moment leaves a whole one."""
        state = {
            "settings": self.settings(),
            "stage": self.stage,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        path = self.work / "checkpoint.pt"
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def resume(self):
        path = self.work / "checkpoint.pt"
        if not path.exists():
            precision = "bf16 autocast" if self.bf16 else "f32"
            steps = {stage: len(plan) for stage, plan in self.plans.items()}
            log(f"start on {self.device}, {precision}, {self.arguments.threads} threads, steps by stage {steps}")
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if BEFORE | state["settings"] != self.settings():
            raise SystemExit(f"{path} is of another run ({state['settings']}, now {self.settings()}): move it away")
        self.stage, self.step = state["stage"], state["step"]
        if self.step > len(self.plans[self.stage]):
            raise SystemExit(f"{path} is at step {self.step}, past the {len(self.plans[self.stage])} asked for: move it away")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        log(f"goes on from stage {self.stage} step {self.step}")

    def finish(self):
        """Ships the last weights, their running average or what is between, whichever is best on the whole dev split."""
        candidates = {"last": [parameter.detach().clone() for parameter in self.parameters]}
        if self.average is not None:
            candidates["average"] = self.average
            candidates["mixed"] = torch._foreach_lerp(candidates["last"], self.average, AVERAGE_SHARE)
        scores = {}
        for name, weights in candidates.items():
            self.load_weights(weights)
            self.model.load_state_dict(on_int8_grid(self.model.state_dict()))
            scores[name] = dev_score(self.model, self.shards["dev"])
            log(f"{name} weights: dev {text(scores[name])}")
        chosen = max(scores, key=lambda name: scores[name]["mean"])
        self.load_weights(candidates[chosen])
        weights = on_int8_grid(self.model.state_dict())
        tensors = {
            name.removeprefix("encoder.") if name.startswith("encoder.") else name: value.cpu().contiguous()
            for name, value in weights.items()
            if not name.startswith("heads.section.")
        }
        save_weights(tensors, self.work / "model.safetensors", self.pooling())
        self.write_record(chosen=chosen, dev=scores)
        log(f"done: {chosen} weights in {self.work / 'model.safetensors'}")

    def write_record(self, **found):
        """The runs that made the weights beside it, this one last."""
        run = {**self.settings(), "epochs": self.arguments.epochs, **found}
        write_json(self.record, {"runs": [*runs_before(self.start()), run]})

    def start(self):
        """The weights that this run trains on."""
        return self.arguments.init or self.arguments.shared / "backbone/model.safetensors"

    @torch.no_grad()
    def load_weights(self, weights):
        for parameter, value in zip(self.parameters, weights, strict=True):
            parameter.copy_(value)


def runs_of(record):
    """The runs that a `training.json` lists; none where there is no such file, as beside the backbone."""
    return json.loads(record.read_text())["runs"] if record.exists() else []


def runs_before(weights):
    """The runs that made `weights`, by the record beside them: that of a bundle, or of a run's folder."""
    of_bundle = weights.with_name("evaluation.json")
    if of_bundle.exists():
        return json.loads(of_bundle.read_text())["training"]["runs"]
    return runs_of(weights.with_name("training.json"))


def class_weights(classes, count, power):
    sizes = np.maximum(np.bincount(classes[classes >= 0], minlength=count), 1)
    weights = (sizes.sum() / sizes) ** power
    return torch.tensor(weights / np.average(weights, weights=sizes), dtype=torch.float32)


def dev_steps(steps, checks):
    """Evenly spread, the end left out: finish() reads the whole dev split there."""
    return {round(steps * n / (checks + 1)) for n in range(1, checks + 1)}


def dev_score(model, shard, rows=None):
    """Accuracy and macro-F1 of both tasks, and the mean of the figures that a choice goes by. `dev` has one window a
    document."""
    rows = rows or len(shard)
    logits = head_logits(model, pooled_windows(model, shard.windows()[:rows]))
    score = {}
    for task in ("topic", "sentiment"):
        truth, predicted = shard.labels[task][:rows], logits[task].argmax(1)
        score[f"{task}_accuracy"] = float((truth == predicted).mean())
        score[f"{task}_macro_f1"] = macro_f1(truth, predicted, len(LABELS[task]))
    score["mean"] = (score["topic_accuracy"] + score["topic_macro_f1"] + 2 * score["sentiment_macro_f1"]) / 4
    return score


def has_bf16(device):
    """Whether bf16 products are native: on CPUs without the instructions they are several times slower than f32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "avx512_bf16" in flags.read_text()


def text(score):
    return json.dumps({name: round(value, 4) for name, value in score.items()})


def log(message):
    print(f"{datetime.datetime.now():%H:%M:%S} {message}", flush=True)


if __name__ == "__main__":
    main()
