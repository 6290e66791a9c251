"""Ways in which the same Arabic text is written by other hands: training draws from them, evaluation counts the labels
that they flip. Each takes a text and a `random.Random`, and changes the spelling, never the words.
"""

import re
import unicodedata

HARAKAT = "\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652"
DIACRITIC_SHARE, TATWEEL_SHARE = 0.3, 0.05  # of the letters that get one
LETTER = re.compile("[\u0621-\u063a\u0641-\u064a]")
JOINING = re.compile("([بتثجحخسشصضطظعغفقكلمنهي])(?=[\u0621-\u064a])")


def diacritics(text, random_state):
    return insert(LETTER, DIACRITIC_SHARE, lambda: random_state.choice(HARAKAT), text, random_state)


def tatweel(text, random_state):
    return insert(JOINING, TATWEEL_SHARE, lambda: "ـ" * random_state.randint(1, 3), text, random_state)


def insert(pattern, share, draw_addition, text, random_state):
    """Adds something after a share of the matches."""
    return pattern.sub(lambda match: match[0] + (draw_addition() if random_state.random() < share else ""), text)


def bare_alef(text, _):
    """Hamza and madda left off the alef, as most hands write it."""
    return re.sub("[أإآٱ]", "ا", text)


def egyptian_ya(text, _):
    """A final ya without its dots."""
    return re.sub(r"ي\b", "ى", text)


def dotted_alef_maqsura(text, _):
    return re.sub(r"ى\b", "ي", text)


def ha_for_ta_marbuta(text, _):
    return text.replace("ة", "ه")


def no_punctuation(text, _):
    return re.sub(r"\s+", " ", "".join(" " if unicodedata.category(c).startswith("P") else c for c in text)).strip()


# Name -> (function, what the card calls it)
PERTURBATIONS = {
    "diacritics": (diacritics, "diacritics on 30 % of the letters"),
    "tatweel": (tatweel, "tatweel"),
    "bare_alef": (bare_alef, "alef without hamza or madda"),
    "egyptian_ya": (egyptian_ya, "final ya without dots"),
    "dotted_alef_maqsura": (dotted_alef_maqsura, "alef maqsura with dots"),
    "ha_for_ta_marbuta": (ha_for_ta_marbuta, "ha for ta marbuta"),
    "no_punctuation": (no_punctuation, "no punctuation"),
}
# Diacritics and tatweel are taken out before the model reads, so training need not see them.
IN_TRAINING = ["bare_alef", "egyptian_ya", "dotted_alef_maqsura", "ha_for_ta_marbuta", "no_punctuation"]


def perturb(row, names, random_state):
    """The row with its title and text rewritten."""
    changed = dict(row)
    for field in ("title", "text"):
        for name in names:
            if row.get(field):
                changed[field] = PERTURBATIONS[name][0](changed[field], random_state)
    return changed if changed["text"].strip() else row


def draw(random_state):
    """A careless hand: every habit with even odds, at least one."""
    return [name for name in IN_TRAINING if random_state.random() < 0.5] or [random_state.choice(IN_TRAINING)]
