"""A model taught to give another's answers. Needs no labels, so it reads every article first, those of news/train among
them, and news/train after. Leaves a work folder of its own, which evaluate.py and export.py take as any other.

    python distill.py --work work-mini --shards work --init work/model.safetensors --noisy 0
    python distill.py --work work-mini-2 --shards work --init work/model.safetensors --student work-mini/model.safetensors --noisy 0

A new student has some of the teacher's layers; an earlier one is taught on. The teacher may read the documents in another
text profile: then labels teach too. A second teacher reads what the student does:

    python distill.py --work work-3 --shards work-folded --init work/model.safetensors --teacher-shards work \\
        --student work-2/model.safetensors --second-teacher work-2/model.safetensors --noisy 0
"""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from common import SHIPPED_TASKS, Classifier, Shard, mean_of_tokens, pad, write_json
from plans import draw_crop, plan_articles, plan_stage2
from prepare import link_shards
from readings import load_shipped
from train import Trainer, arguments_parser, load_start

LAYERS = (1, 4, 8, 11)  # of the teacher's twelve: evenly spread, the last among them
TEMPERATURE = 2.0  # of both sides' answers
TAUGHT_SHARDS = ("articles", "train")
STATE_WEIGHT = 1.0  # of how far the tokens' last states are from the teacher's, where both read the same tokens


def main(options=None):
    arguments = parse_arguments(options)
    link_shards(arguments.shards, arguments.work)
    shutil.copytree(arguments.shards / "bundle", arguments.work / "bundle", dirs_exist_ok=True)
    config = json.loads((arguments.shared / "backbone/config.json").read_text())
    config["num_hidden_layers"] = depth(load_file(arguments.student)) if arguments.student else len(LAYERS)
    write_json(arguments.work / "bundle/config.json", config)
    Distiller(arguments).run_to_the_end()


def parse_arguments(options=None):
    parser = arguments_parser(__doc__)
    parser.add_argument("--shards", type=Path, required=True, help="folder that prepare.py filled")
    parser.add_argument("--student", type=Path, help="weights of an earlier student, to teach on")
    parser.add_argument(
        "--second-teacher", type=Path, help="weights of another, which reads what the student does; their answers are averaged"
    )
    parser.add_argument(
        "--teacher-shards", type=Path, help="the same documents as the first teacher reads them; labels teach too"
    )
    arguments = parser.parse_args(options)
    if arguments.init is None:
        parser.error("--init names the teacher's weights")
    if arguments.teacher_shards and arguments.student is None:
        parser.error("--teacher-shards needs --student: cut layers learn the teacher's states, which are of its own tokens")
    if arguments.teacher_shards and arguments.noisy:
        parser.error("--teacher-shards needs --noisy 0: careless spellings are not among them")
    return arguments


def depth(tensors):
    return 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))


def cut(tensors):
    """The teacher's tensors without the layers that are not in LAYERS."""
    kept = {}
    for name, value in tensors.items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "layer"]:
            if int(parts[2]) not in LAYERS:
                continue
            parts[2] = str(LAYERS.index(int(parts[2])))
        kept[".".join(parts)] = value
    return kept


class Distiller(Trainer):
    METHOD = "distillation"

    def __init__(self, arguments):
        super().__init__(arguments)
        self.read_by_teacher = teacher_shards(arguments.teacher_shards, self.shards)

    def build_model(self):
        """The student: the teacher's embeddings, heads and LAYERS, or an earlier one."""
        self.teacher, self.second_teacher = self.load_teacher(self.arguments.init), None
        if self.arguments.second_teacher:
            self.second_teacher = self.load_teacher(self.arguments.second_teacher)
        student = Classifier(self.arguments.work / "bundle/config.json", SHIPPED_TASKS)
        tensors = load_file(self.start())
        load_start(student, tensors if self.arguments.student else cut(tensors))
        return student

    def load_teacher(self, weights):
        return load_shipped(weights, self.arguments.shared / "backbone/config.json").requires_grad_(False).to(self.device)

    def shard_names(self):
        return ("train", "train_noisy", "dev", "articles")

    def sources(self):
        yield from super().sources()
        yield self.arguments.init
        if self.arguments.second_teacher:
            yield self.arguments.second_teacher
        if self.arguments.teacher_shards:
            yield from (self.arguments.teacher_shards / f"{name}.npz" for name in TAUGHT_SHARDS)

    def start(self):
        """The student's weights, whose record has the teacher's runs first; else the teacher's."""
        return self.arguments.student or self.arguments.init

    def settings(self):
        layers, whole = (len(model.encoder.encoder.layer) for model in (self.model, self.teacher))
        return super().settings() | ({"layers": layers} if layers < whole else {})

    def plan_stages(self):
        """First every article, in crops like those of news/train, which comes after: what the student will read is last."""
        articles = plan_articles(self.shards, self.arguments, partial(draw_crop, crops=self.arguments.crops))
        return {1: articles, 2: plan_stage2(self.shards, self.arguments)}

    def losses(self, batch, ids, mask):
        with torch.no_grad():
            teacher_ids, teacher_mask = self.teacher_input(batch, ids, mask)
            taught = self.teacher.states(teacher_ids, teacher_mask)
            answers = [softened(self.teacher, mean_of_tokens(taught, teacher_mask))]
            if self.second_teacher:
                answers.append(softened(self.second_teacher, self.second_teacher.pool(ids, mask)))
        states = self.model.states(ids, mask)
        learnt = mean_of_tokens(states, mask)
        if self.read_by_teacher:
            of_labels = self.label_losses(batch, self.model.logits(learnt))
            losses = {f"{task} label": loss for task, loss in of_labels.items()}
        else:
            # As DistilBERT's, https://arxiv.org/abs/1910.01108.
            apart = 1 - functional.cosine_similarity(states, taught, dim=2)
            losses = {"state": STATE_WEIGHT * mean_of_tokens(apart, mask).mean()}
        for task, answer in softened(self.model, learnt).items():
            target = sum(of[task].exp() for of in answers) / len(answers)
            losses[task] = TEMPERATURE**2 * functional.kl_div(answer, target, reduction="batchmean")
        return losses

    def teacher_input(self, batch, ids, mask):
        """The batch as the teacher reads it: the same crops, by number of token, of its own windows."""
        if not self.read_by_teacher:
            return ids, mask
        return pad([crop.of(self.read_by_teacher[name], document) for name, document, crop in batch], self.device)


def softened(model, pooled):
    """Log-probabilities [batch, labels] a task, at TEMPERATURE."""
    return {task: (head(pooled).float() / TEMPERATURE).log_softmax(1) for task, head in model.heads.items()}


def teacher_shards(folder, shards):
    """What the teacher reads in stages 1 and 2, or nothing where it reads what the student does."""
    if folder is None:
        return {}
    found = {name: Shard.load(folder / f"{name}.npz") for name in TAUGHT_SHARDS}
    for name, shard in found.items():
        if not np.array_equal(shard.names, shards[name].names):
            raise SystemExit(f"{folder / name}.npz has other documents than the student's")
    return found


if __name__ == "__main__":
    main()
