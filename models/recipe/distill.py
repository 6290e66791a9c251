"""A model taught to give another's answers. Needs no labels, so it also reads all other articles. Leaves a work folder
of its own, which evaluate.py and export.py take as any other.

    python distill.py --work work-mini --shards work --init work/model.safetensors
    python distill.py --work work-mini-2 --shards work --init work/model.safetensors --student work-mini/model.safetensors

These have some of the teacher's layers. A student of all layers reads its own text profile, and is taught by labels too:

    python distill.py --work work-3 --shards work-folded --init work/model.safetensors --student work-2/model.safetensors \\
        --teacher-shards work
"""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from common import SHIPPED_TASKS, Classifier, Shard, pad, write_json
from plans import bucketed, draw_crop, plan_stage2
from prepare import link_shards
from readings import load_shipped
from train import Trainer, arguments_parser, load_start

LAYERS = (1, 4, 8, 11)  # of the teacher's twelve: evenly spread, the last among them
SOFTNESS = 2.0  # temperature of both sides' answers
TAUGHT_SHARDS = ("articles", "train")
STATE_WEIGHT = 1.0  # of the distance between the mean states, beside the answers


def main():
    parser = arguments_parser(__doc__)
    parser.add_argument("--shards", type=Path, required=True, help="folder that prepare.py filled")
    parser.add_argument("--student", type=Path, help="weights of an earlier student, to teach on")
    parser.add_argument(
        "--second-teacher", type=Path, help="weights of another, which reads what the student does; their answers are averaged"
    )
    parser.add_argument(
        "--teacher-shards", type=Path, help="the same documents as the teacher reads them; the student has all layers"
    )
    arguments = parser.parse_args()
    if arguments.init is None:
        parser.error("--init names the teacher's weights")
    if arguments.teacher_shards and arguments.student is None:
        parser.error("--teacher-shards needs --student")
    link_shards(arguments.shards, arguments.work)
    shutil.copytree(arguments.shards / "bundle", arguments.work / "bundle", dirs_exist_ok=True)
    config = json.loads((arguments.shared / "backbone/config.json").read_text())
    if not arguments.teacher_shards:
        config["num_hidden_layers"] = len(LAYERS)
    write_json(arguments.work / "bundle/config.json", config)
    Distiller(arguments).run_to_the_end()


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


def plan_articles(shards, arguments):
    """Batches of articles of like length, each read once at most, in the crops of stage 2."""
    articles, random_state = shards["articles"], random.Random(f"{arguments.seed}:articles")
    lengths = np.diff(articles.starts)
    count = min(arguments.stage1_steps * arguments.batch, len(articles))
    chosen = random_state.sample(range(len(articles)), count)
    items = [("articles", n, draw_crop(random_state, bool(articles.titled[n]), arguments.crops)) for n in chosen]
    return bucketed(items, lambda item: item[2].length(lengths[item[1]]), arguments.batch, random_state)


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
        if self.arguments.student:
            yield self.arguments.init
        if self.arguments.second_teacher:
            yield self.arguments.second_teacher
        if self.arguments.teacher_shards:
            yield from (self.arguments.teacher_shards / f"{name}.npz" for name in TAUGHT_SHARDS)

    def start(self):
        """The student's weights, whose record has the teacher's runs first; else the teacher's."""
        return self.arguments.student or self.arguments.init

    def settings(self):
        return super().settings() | ({} if self.read_by_teacher else {"layers": len(LAYERS)})

    def plan_stages(self):
        """First articles without labels, then news/train: what the student will read comes last."""
        return {1: plan_articles(self.shards, self.arguments), 2: plan_stage2(self.shards, self.arguments)}

    def losses(self, batch, ids, mask):
        with torch.no_grad():
            taught = self.teacher.pool(*self.teacher_input(batch, ids, mask))
            answers = [softened(self.teacher, taught)]
            if self.second_teacher:
                answers.append(softened(self.second_teacher, self.second_teacher.pool(ids, mask)))
        learnt = self.model.pool(ids, mask)
        if self.read_by_teacher:
            of_labels = self.label_losses(batch, self.model.logits(learnt))
            losses = {f"{task} label": loss for task, loss in of_labels.items()}
        else:
            losses = {"state": STATE_WEIGHT * (1 - functional.cosine_similarity(learnt, taught, dim=1)).mean()}
        for task, answer in softened(self.model, learnt).items():
            target = sum(of[task].exp() for of in answers) / len(answers)
            losses[task] = SOFTNESS**2 * functional.kl_div(answer, target, reduction="batchmean")
        return losses

    def teacher_input(self, batch, ids, mask):
        """The batch as the teacher reads it: the same crops, by number of token, of its own windows."""
        if not self.read_by_teacher:
            return ids, mask
        shards = self.read_by_teacher | {"train_noisy": self.read_by_teacher["train"]}
        return pad([crop.of(shards[name], document) for name, document, crop in batch], self.device)


def softened(model, pooled):
    """The logarithms of a model's scores [batch, labels] a task, nearer to each other than they are."""
    return {task: (head(pooled).float() / SOFTNESS).log_softmax(1) for task, head in model.heads.items()}


def teacher_shards(folder, shards):
    """What the teacher reads of articles and news/train, or nothing where it reads what the student does."""
    if folder is None:
        return {}
    found = {name: Shard.load(folder / f"{name}.npz") for name in TAUGHT_SHARDS}
    for name, shard in found.items():
        if not np.array_equal(shard.names, shards[name].names):
            raise SystemExit(f"{folder / name}.npz has other documents than the student's")
    return found


if __name__ == "__main__":
    main()
