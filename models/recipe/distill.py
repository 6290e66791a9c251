"""A model taught to give another's answers. Needs no labels, so it reads every article first, those of news/train among
them, and news/train after. Leaves a work folder of its own, which evaluate.py and export.py take as any other.

    python distill.py --work work-mini --shards work --init work/model.safetensors --noisy 0
    python distill.py --work work-mini-2 --shards work --init work/model.safetensors --student work-mini/model.safetensors --noisy 0

A new student has some of the teacher's layers, perhaps narrower ones; an earlier one is taught on. The teacher may read the documents in another
text profile: then labels teach too. A second teacher reads what the student does:

    python distill.py --work work-3 --shards work-folded --init work/model.safetensors --teacher-shards work \\
        --student work-2/model.safetensors --second-teacher work-2/model.safetensors --noisy 0
"""

import json
import math
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
SAMPLED, SAMPLED_TOKENS = 256, 128  # articles by which values of feed-forward parts are chosen, and tokens of each
RIDGE = 1e-3  # of their mean variance, so that the fit of what they take over has one answer
TEMPERATURE = 2.0  # of both sides' answers
TAUGHT_SHARDS = ("articles", "train")
STATE_WEIGHT = 1.0  # of how far the tokens' last states are from the teacher's, where both read the same tokens
INNER_WEIGHT = 1.0  # of how far those between layers are, on average


def main(options=None):
    arguments = parse_arguments(options)
    make_work(arguments)
    Distiller(arguments).run_to_the_end()


def make_work(arguments):
    """The work folder: the shards, and a bundle with the student's config.json."""
    config = json.loads((arguments.shared / "backbone/config.json").read_text())
    new = (len(arguments.layers), arguments.intermediate or config["intermediate_size"])
    config["num_hidden_layers"], config["intermediate_size"] = shape(load_file(arguments.student)) if arguments.student else new
    made = arguments.work / "bundle/config.json"
    if made.exists() and json.loads(made.read_text()) != config:
        raise SystemExit(f"{arguments.work} is of a student of another shape: name another --work")
    link_shards(arguments.shards, arguments.work)
    shutil.copytree(arguments.shards / "bundle", arguments.work / "bundle", dirs_exist_ok=True, ignore=shutil.ignore_patterns(made.name))
    write_json(made, config)


def parse_arguments(options=None):
    parser = arguments_parser(__doc__)
    parser.add_argument("--shards", type=Path, required=True, help="folder that prepare.py filled")
    parser.add_argument("--student", type=Path, help="weights of an earlier student, to teach on")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=LAYERS, help="of the teacher, from 0, that a new student gets, or an earlier one got"
    )
    parser.add_argument(
        "--intermediate", type=int, help="values inside a feed-forward part of a new student; as many as its teacher has by default"
    )
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
    if arguments.student and arguments.intermediate:
        parser.error("--intermediate is of a new student: --student has its own")
    if arguments.teacher_shards and arguments.noisy:
        parser.error("--teacher-shards needs --noisy 0: careless spellings are not among them")
    return arguments


def shape(tensors):
    """How many layers there are, and how wide their feed-forward parts."""
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    return layers, len(tensors["encoder.layer.0.intermediate.dense.bias"])


def cut(tensors, layers):
    """The teacher's tensors without the layers that are not in `layers`."""
    kept = {}
    for name, value in tensors.items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "layer"]:
            if int(parts[2]) not in layers:
                continue
            parts[2] = str(layers.index(int(parts[2])))
        kept[".".join(parts)] = value
    return kept


def narrowed(tensors, width, moments):
    """The tensors with `width` of the values inside each feed-forward part: those that vary most in what comes of them, which
    take over what they say of the others, by least squares. `moments`: mean and covariance of these values, a layer."""
    kept = dict(tensors)
    for layer, (mean, covariance) in enumerate(moments):
        inner, outer = (f"encoder.layer.{layer}.{part}.dense" for part in ("intermediate", "output"))
        weights = tensors[f"{outer}.weight"].float()
        chosen = (covariance.diagonal() * weights.square().sum(0)).topk(width).indices.sort().values
        for part in ("weight", "bias"):
            kept[f"{inner}.{part}"] = tensors[f"{inner}.{part}"][chosen].contiguous()
        within = covariance[chosen][:, chosen]
        within += RIDGE * within.diagonal().mean() * torch.eye(width)
        fitted = torch.linalg.solve(within, covariance[chosen] @ weights.T).T.contiguous()
        kept[f"{outer}.weight"] = fitted
        kept[f"{outer}.bias"] = tensors[f"{outer}.bias"].float() + weights @ mean - fitted @ mean[chosen]
    return kept


class Distiller(Trainer):
    METHOD = "distillation"

    def __init__(self, arguments):
        super().__init__(arguments)
        self.read_by_teacher = teacher_shards(arguments.teacher_shards, self.shards)

    def build_model(self):
        """The student: the teacher's embeddings, heads and some layers, or an earlier one."""
        self.teacher, self.second_teacher = self.load_teacher(self.arguments.init), None
        if self.arguments.second_teacher:
            self.second_teacher = self.load_teacher(self.arguments.second_teacher)
        student = Classifier(self.arguments.work / "bundle/config.json", SHIPPED_TASKS, self.pooling())
        tensors = load_file(self.start())
        depth, whole = (len(model.encoder.encoder.layer) for model in (student, self.teacher))
        self.layers = list(self.arguments.layers) if depth < whole else list(range(whole))
        if depth != len(self.layers):
            raise SystemExit(f"--layers has {len(self.layers)} numbers, and the student {depth} layers")
        if self.arguments.student is None:
            tensors = cut(tensors, self.arguments.layers)
            if (self.arguments.intermediate or math.inf) < self.teacher.encoder.config.intermediate_size:
                tensors = narrowed(tensors, self.arguments.intermediate, self.inner_moments())
        load_start(student, tensors)
        return student

    @torch.no_grad()
    def inner_moments(self):
        """Mean and covariance of the values inside the feed-forward part of each layer that the student will have, over some
        articles."""
        articles = Shard.load(self.work / "articles.npz")
        parts = [self.teacher.encoder.encoder.layer[layer].intermediate for layer in self.arguments.layers]
        sums = {part: [0, 0.0, 0.0] for part in parts}

        def add(part, _input, output):
            values = output[0].double().cpu()
            sums[part] = [a + b for a, b in zip(sums[part], (len(values), values.sum(0), values.T @ values), strict=True)]

        hooks = [part.register_forward_hook(add) for part in parts]
        for document in range(0, len(articles), max(len(articles) // SAMPLED, 1)):
            self.teacher.states(*pad([articles.window(document)[:SAMPLED_TOKENS]], self.device))
        for hook in hooks:
            hook.remove()
        means = {part: total / count for part, (count, total, _) in sums.items()}
        return [
            (means[part].float(), (squares / count - torch.outer(means[part], means[part])).float())
            for part, (count, _, squares) in sums.items()
        ]

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
        config, whole = self.model.encoder.config, self.teacher.encoder.config
        student = {"layers": self.layers, "intermediate": config.intermediate_size}
        smaller = (config.num_hidden_layers, config.intermediate_size) != (whole.num_hidden_layers, whole.intermediate_size)
        return super().settings() | (student if smaller else {})

    def plan_stages(self):
        """First every article, in crops like those of news/train, which comes after: what the student will read is last."""
        articles = plan_articles(self.shards, self.arguments, partial(draw_crop, crops=self.arguments.crops))
        return {1: articles, 2: plan_stage2(self.shards, self.arguments)}

    def losses(self, batch, ids, mask):
        with torch.no_grad():
            teacher_ids, teacher_mask = self.teacher_input(batch, ids, mask)
            taught = self.teacher.layers_states(teacher_ids, teacher_mask)
            answers = [softened(self.teacher, self.teacher.pool_states(taught[-1], teacher_mask))]
            if self.second_teacher:
                answers.append(softened(self.second_teacher, self.second_teacher.pool(ids, mask)))
        states = self.model.layers_states(ids, mask)
        learnt = self.model.pool_states(states[-1], mask)
        if self.read_by_teacher:
            of_labels = self.label_losses(batch, self.model.logits(learnt))
            losses = {f"{task} label": loss for task, loss in of_labels.items()}
        else:
            # The last as DistilBERT's, https://arxiv.org/abs/1910.01108; those between as TinyBERT's, https://arxiv.org/abs/1909.10351.
            pairs = zip(states, self.layers, strict=True)
            apart = [1 - functional.cosine_similarity(own, taught[of], dim=2) for own, of in pairs]
            *inner, last = [mean_of_tokens(of, mask).mean() for of in apart]
            # Where both read all of them: else the last states are each model's own.
            alike = self.model.pooling == self.teacher.pooling == "mean"
            losses = {"state": STATE_WEIGHT * last} if alike else {}
            if inner:
                losses["inner"] = INNER_WEIGHT * torch.stack(inner).mean()
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
