"""Masked-language training of the backbone on the articles, before labels: a token of seven is hidden or replaced, and
guessed by the others (Devlin et al., "BERT", 2019). Leaves `backbone/` in its work folder, which train.py takes.

    python adapt.py --work work-adapted --shards work --stage1-steps 600
    python train.py --shared work-adapted --work ANOTHER
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from common import build_encoder, save_weights
from plans import Crop, plan_articles
from prepare import link_shards
from train import Trainer, arguments_parser, load_start

MASK, SPECIAL = 25_181, 4  # id of <mask>, and how many the special ones before the first piece are
GUESSED, KEPT, REPLACED = 0.15, 0.1, 0.1  # share of tokens to guess; of these, left as they are, and replaced at random
TOKENS = 112


def main():
    parser = arguments_parser(__doc__)
    parser.add_argument("--shards", type=Path, required=True, help="folder that prepare.py filled")
    arguments = parser.parse_args()
    link_shards(arguments.shards, arguments.work)
    Adapter(arguments).run_to_the_end()


class MaskedModel(nn.Module):
    """The encoder, and logits over the vocabulary by its own word embeddings."""

    def __init__(self, config_path):
        super().__init__()
        self.encoder = build_encoder(config_path)
        width = self.encoder.config.hidden_size
        self.heads = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(self.encoder.config.vocab_size))

    def forward(self, ids, mask, guessed):
        """Logits [guessed, vocabulary] of the tokens where `guessed`, [batch, tokens], holds."""
        states = self.encoder(ids, attention_mask=mask).last_hidden_state[guessed]
        return functional.linear(self.heads(states), self.encoder.embeddings.word_embeddings.weight, self.bias)


class Adapter(Trainer):
    METHOD = "masked language"

    def __init__(self, arguments):
        super().__init__(arguments)
        self.record = arguments.work / "backbone/training.json"

    def build_model(self):
        model = MaskedModel(self.arguments.shared / "backbone/config.json")
        load_start(model, load_file(self.start()))
        return model

    def shard_names(self):
        return ("train", "articles")

    def plan_stages(self):
        return {1: plan_articles(self.shards, self.arguments, draw_crop), 2: []}

    def losses(self, batch, ids, mask):
        guessed, shown = hide(ids, mask)
        return {"masked": functional.cross_entropy(self.model(shown, mask, guessed).float(), ids[guessed])}

    def finish(self):
        folder = self.work / "backbone"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(self.arguments.shared / "backbone/config.json", folder / "config.json")
        encoder = {name: value.cpu().contiguous() for name, value in self.model.encoder.state_dict().items()}
        save_weights(encoder, folder / "model.safetensors", self.pooling())
        self.write_record()


def draw_crop(random_state, _titled):
    """Two of three begin with the text, the others 40 to 250 tokens later where it is long enough."""
    return Crop(TOKENS, random_state.choice((0, 0, random_state.randint(40, 250))))


def hide(ids, mask):
    """Which tokens are to be guessed, and the ids with most of these hidden; both [batch, tokens]."""
    guessed = (torch.rand(ids.shape, device=ids.device) < GUESSED) & (mask == 1) & (ids >= SPECIAL)
    fate = torch.rand(ids.shape, device=ids.device)
    shown = torch.where(guessed & (fate >= KEPT), MASK, ids)
    return guessed, torch.where(guessed & (fate >= 1 - REPLACED), torch.randint_like(ids, SPECIAL, MASK), shown)


if __name__ == "__main__":
    main()
