"""What every step of the recipe shares: the labels, the bundle's settings, the token shards and the model."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from transformers import BertConfig, BertModel

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
DEFAULT_SHARED = REPOSITORY.parent / "shared"
DEFAULT_WORK = HERE / "work"
DEFAULT_TASNIF = REPOSITORY / "target" / "release" / "tasnif"

POOLINGS = ("mean", "cls")  # over all tokens of a window; its first, whose other tokens the last layer need not compute

PAD, EOS = 1, 2  # ids of <pad> and </s> in the backbone's vocabulary

# The top level of IPTC Media Topics: id, Arabic name, English name, code.
TOPICS = [
    ("arts", "ثقافة وفنون وإعلام", "arts, culture, entertainment and media", "medtop:01000000"),
    ("crime", "جريمة وقانون وقضاء", "crime, law and justice", "medtop:02000000"),
    ("disaster", "كوارث وحوادث", "disaster, accident and emergency incident", "medtop:03000000"),
    ("economy", "اقتصاد وأعمال", "economy, business and finance", "medtop:04000000"),
    ("education", "تعليم", "education", "medtop:05000000"),
    ("environment", "بيئة", "environment", "medtop:06000000"),
    ("health", "صحة", "health", "medtop:07000000"),
    ("human_interest", "منوعات", "human interest", "medtop:08000000"),
    ("labour", "عمل ونقابات", "labour", "medtop:09000000"),
    ("lifestyle", "أسلوب حياة", "lifestyle and leisure", "medtop:10000000"),
    ("politics", "سياسة وحكومة", "politics and government", "medtop:11000000"),
    ("religion", "دين", "religion", "medtop:12000000"),
    ("science_tech", "علوم وتقنية", "science and technology", "medtop:13000000"),
    ("society", "مجتمع", "society", "medtop:14000000"),
    ("sport", "رياضة", "sport", "medtop:15000000"),
    ("conflict", "نزاعات وحروب", "conflict, war and peace", "medtop:16000000"),
    ("weather", "طقس", "weather", "medtop:17000000"),
]
SENTIMENTS = [
    ("negative", "سلبي", "negative", ""),
    ("neutral", "محايد", "neutral", ""),
    ("positive", "إيجابي", "positive", ""),
]
# Publishers' sections as `topic7` of topic/train maps them: the target of the first stage only.
SECTIONS = ["politics", "economy", "sports", "culture", "technology", "health", "religion", "society"]

LABELS = {
    "topic": [label[0] for label in TOPICS],
    "sentiment": [label[0] for label in SENTIMENTS],
    "section": SECTIONS,
}
SHIPPED_TASKS = {"topic": TOPICS, "sentiment": SENTIMENTS}


def tasnif_json(revision="untrained", calibration=None, profile="news", pooling="mean"):
    """The bundle's tasnif.json; `calibration` maps a task to its `temperature` and `abstain_below`."""
    calibration = calibration or {task: {"temperature": 1.0, "abstain_below": 0.0} for task in SHIPPED_TASKS}
    keys = ("id", "name_ar", "name_en", "code")
    return {
        "revision": revision,
        "languages": ["ar"],
        "text": {
            "profile": profile,
            "window": 512,
            "stride": 384,
            "aggregation": "mean",
            "max_title_tokens": 64,
            "title_separator": True,
        },
        "tasks": [
            {
                "name": name,
                "multi_label": False,
                "pooling": pooling,
                "temperature": round(calibration[name]["temperature"], 4),
                "abstain_below": calibration[name]["abstain_below"],
                "labels": [dict(zip(keys, label)) for label in labels],
            }
            for name, labels in SHIPPED_TASKS.items()
        ],
    }


def write_json(path, value):
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # A list of numbers on one line: these files are read by people too.
    text = re.sub(r"\[\s+([-0-9.e,\s]+?)\s+\]", lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text)
    Path(path).write_text(text + "\n", encoding="utf-8")


def write_figures(path, figures, weights):
    """What a script measured of a model, with the digest of its weights, by which export.py knows what belongs together."""
    write_json(path, {"weights": weights, "figures": figures})


def save_weights(tensors, path, pooling="mean"):
    """The tensors, and in the file's metadata how the heads' states are pooled, unless by the mean."""
    metadata = {"format": "pt"} | ({} if pooling == "mean" else {"pooling": pooling})
    # The order of metadata is one of chance, and equal weights are to be equal bytes.
    swapped, ordered = (json.dumps(dict(order), separators=(",", ":")).encode() for order in (reversed(metadata.items()), metadata.items()))
    Path(path).write_bytes(save(tensors, metadata=metadata).replace(swapped, ordered, 1))


def pooling_of(path):
    """How the weights of `path` pool; by the mean where it does not say, as the backbone."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("pooling", "mean")


def digest(path):
    """Enough of a file's SHA-256 to tell it from others."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


ARRAYS = ("ids", "starts", "owners", "titled", "names", "outlets")


@dataclass
class Shard:
    """Tokenised documents. Window w is `ids[starts[w]:starts[w + 1]]` and belongs to document `owners[w]`;
    `titled`, `names` (id of the row), `outlets` and every array of `labels` (class index, -1 where unlabelled) have one
    entry a document."""

    ids: np.ndarray
    starts: np.ndarray
    owners: np.ndarray
    titled: np.ndarray
    names: np.ndarray
    outlets: np.ndarray
    labels: dict

    def __len__(self):
        return len(self.titled)

    def window(self, w):
        return self.ids[self.starts[w] : self.starts[w + 1]]

    def windows(self):
        return [self.window(w) for w in range(len(self.owners))]

    def tokens(self):
        """Tokens of each document, all its windows together."""
        return np.bincount(self.owners, np.diff(self.starts), minlength=len(self)).astype(int)

    def save(self, path):
        labels = {f"label_{name}": values for name, values in self.labels.items()}
        np.savez(path, **{name: getattr(self, name) for name in ARRAYS}, **labels)

    @classmethod
    def load(cls, path):
        with np.load(path) as arrays:
            labels = {key.removeprefix("label_"): arrays[key] for key in arrays.files if key.startswith("label_")}
            return cls(**{name: arrays[name] for name in ARRAYS}, labels=labels)


def build_encoder(config_path):
    config = BertConfig.from_json_file(config_path)
    # One or two epochs do not overfit the encoder, and drawing dropout masks costs a tenth of a CPU step.
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config._attn_implementation = "sdpa"
    return BertModel(config, add_pooling_layer=False)


class Classifier(nn.Module):
    """The encoder, its last hidden states pooled (the mean over all tokens but padding, or the first token's), and a linear
    head a task."""

    def __init__(self, config_path, tasks, pooling="mean"):
        super().__init__()
        self.pooling = pooling
        self.encoder = build_encoder(config_path)
        self.dropout = nn.Dropout(0.1)
        self.heads = nn.ModuleDict({task: nn.Linear(self.encoder.config.hidden_size, len(LABELS[task])) for task in tasks})

    def pool(self, ids, mask):
        """The pooled state [batch, hidden] of `ids` and 0/1 `mask`, both [batch, tokens]."""
        return self.pool_states(self.states(ids, mask), mask)

    def pool_states(self, states, mask):
        """The same, of the last hidden states."""
        return states[:, 0] if self.pooling == "cls" else mean_of_tokens(states, mask)

    def states(self, ids, mask):
        """The last hidden states [batch, tokens, hidden]."""
        return self.encoder(ids, attention_mask=mask).last_hidden_state

    def layers_states(self, ids, mask):
        """The hidden states after each layer, as many times [batch, tokens, hidden]."""
        return self.encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]

    def forward(self, ids, mask):
        """Logits [batch, labels] a task."""
        return self.logits(self.pool(ids, mask))

    def logits(self, pooled):
        """The same, of pooled states."""
        dropped = self.dropout(pooled)
        return {task: head(dropped) for task, head in self.heads.items()}


def mean_of_tokens(values, mask):
    """[batch, …] of `values`, [batch, tokens, …], over what is not padding."""
    weights = mask.to(values.dtype).view(*mask.shape, *[1] * (values.dim() - 2))
    return (values * weights).sum(1) / weights.sum(1)


def pad(windows, device="cpu"):
    """Token ids and 0/1 mask, both [windows, longest], of a list of id arrays."""
    longest = max(len(window) for window in windows)
    ids = np.full((len(windows), longest), PAD, dtype=np.int64)
    mask = np.zeros((len(windows), longest), dtype=np.int64)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


@torch.inference_mode()
def pooled_windows(model, windows, token_budget=4096):
    """The pooled states [windows, hidden], as f32, in the order given."""
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(windows)), key=lambda w: len(windows[w]))
    rows = torch.zeros(len(windows), model.encoder.config.hidden_size)
    batch = []
    for position, w in enumerate(order):
        batch.append(w)
        last = position + 1 == len(order)
        if last or (len(batch) + 1) * len(windows[order[position + 1]]) > token_budget:
            rows[batch] = model.pool(*pad([windows[b] for b in batch], device)).float().cpu()
            batch = []
    return rows


@torch.inference_mode()
def head_logits(model, pooled):
    """Logits [rows, labels] a task, as arrays, of pooled states."""
    device = next(model.parameters()).device
    return {task: head(pooled.to(device)).float().cpu().numpy() for task, head in model.heads.items()}
