"""Which parts of which documents a training reads, in which order, and at what rate it learns."""

import random

import numpy as np

from common import EOS

DROPPED_TOKENS = 0.1  # of a text's, in half of the crops


class Crop:
    """Which part of a document one step reads: with or without its title, text tokens from `start`, `tokens` in all, or none of the text;
    `dropped` of the text's tokens left out at random, which costs nothing and keeps single words from deciding."""

    def __init__(self, tokens, start=0, title=True, dropped=0.0, seed=0):
        self.tokens, self.start, self.title, self.dropped, self.seed = tokens, start, title, dropped, seed

    def apply(self, window, titled):
        """`window` is `<s> title </s> text </s>`, or `<s> text </s>` where not `titled`."""
        text_at = int(np.flatnonzero(window == EOS)[0]) + 1 if titled else 1
        prefix = window[:text_at] if self.title else window[:1]
        if not self.tokens:
            return prefix
        body = window[text_at:-1]
        start = self.start_in(len(body))
        body = body[start : start + max(self.tokens - len(prefix) - 1, 1)]
        if self.dropped:
            body = body[np.random.default_rng(self.seed).random(len(body)) >= self.dropped]
        return np.concatenate([prefix, body, window[-1:]])

    def of(self, shard, document):
        """This part of a document that has one window."""
        return self.apply(shard.window(document), bool(shard.titled[document]))

    def start_in(self, tokens):
        """Where to begin in a text of so many tokens: at its first, if there would be little left."""
        return self.start if self.start + 32 < tokens else 0

    def length(self, window_length):
        """Tokens of the crop, nearly, by which batches are formed: the title and what is dropped do not count."""
        return min(self.tokens, window_length - self.start_in(window_length))


def draw_crop(random_state, titled, crops):
    """Mostly what the annotator read (title and lead), or only that, or of it the title; else longer, without a title, or from
    the body."""
    if crops == "title" and titled:
        return Crop(0)
    if crops in ("lead", "title"):
        return Crop(random_state.randint(64, 120))
    kind, seed = random_state.random(), random_state.getrandbits(32)
    dropped = DROPPED_TOKENS if random_state.random() < 0.5 else 0.0
    if kind < 0.82:
        return Crop(random_state.randint(64, 120), dropped=dropped, seed=seed)
    if kind < 0.88:
        return Crop(random_state.randint(120, 300), dropped=dropped, seed=seed)
    if kind < 0.95 or not titled:
        return Crop(random_state.randint(64, 110), title=False, dropped=dropped, seed=seed)
    return Crop(random_state.randint(80, 140), start=random_state.randint(40, 200), dropped=dropped, seed=seed)


def plan_stage2(shards, arguments):
    """Batches of (source, document, crop): a new order, new crops and other spellings each epoch, the last one cut."""
    rows = round(len(shards["train"]) * arguments.train_share)
    chosen = random.Random(f"{arguments.seed}:share").sample(range(len(shards["train"])), rows)
    taught = round(arguments.self_taught * rows)
    batches, steps = [], round(arguments.epochs * (rows + taught) / arguments.batch)
    lengths = {name: np.diff(shard.starts) for name, shard in shards.items()}

    def draw(source, n, random_state):
        return source, n, draw_crop(random_state, bool(shards[source].titled[n]), arguments.crops)

    epoch = 0
    while len(batches) < steps:
        random_state = random.Random(f"{arguments.seed}:stage2:{epoch}")
        items = []
        for n in chosen:
            items.append(draw("train_noisy" if random_state.random() < arguments.noisy else "train", n, random_state))
        for _ in range(taught):
            items.append(draw("self_taught", random_state.randrange(len(shards["self_taught"])), random_state))
        random_state.shuffle(items)
        batches += bucketed(items, lambda item: item[2].length(lengths[item[0]][item[1]]), arguments.batch, random_state)
        epoch += 1
    return batches[:steps]


def plan_articles(shards, arguments, draw):
    """Batches of articles without labels, each read once at most, in the crops that `draw(random_state, titled)` gives."""
    articles, random_state = shards["articles"], random.Random(f"{arguments.seed}:articles")
    lengths = np.diff(articles.starts)
    count = min(arguments.stage1_steps * arguments.batch, len(articles))
    chosen = random_state.sample(range(len(articles)), count)
    items = [("articles", n, draw(random_state, bool(articles.titled[n]))) for n in chosen]
    return bucketed(items, lambda item: item[2].length(lengths[item[1]]), arguments.batch, random_state)


def plan_stage1(shards, arguments):
    """Batches of half sections, half tweets, cut short: this stage settles the encoder, it need not be subtle."""
    half = arguments.batch // 2
    random_state = random.Random(f"{arguments.seed}:stage1")
    orders = {name: random_state.sample(range(len(shards[name])), len(shards[name])) for name in ("sections", "tweets")}
    steps = min([arguments.stage1_steps] + [len(order) // half for order in orders.values()])
    batches = []
    for at in range(0, steps * half, half):
        batches.append([(name, n, Crop(64)) for name, order in orders.items() for n in order[at : at + half]])
    return batches


def bucketed(items, length, batch, random_state, chunk=64):
    """Whole batches of items of like length: each chunk of `chunk` batches is sorted, then its batches shuffled."""
    batches = []
    for at in range(0, len(items), batch * chunk):
        part = sorted(items[at : at + batch * chunk], key=length)
        cut = [part[n : n + batch] for n in range(0, len(part) - batch + 1, batch)]
        random_state.shuffle(cut)
        batches += cut
    return batches


def schedule(step, steps, hold):
    """Linear warm-up over 6 % of the steps, the peak for the `hold` share of all steps, then linear decay to zero."""
    warm_up = max(round(0.06 * steps), 1)
    decay = max(steps - warm_up - round(hold * steps), 1)
    return min((step + 1) / warm_up, (steps - step) / decay, 1.0)
