"""The model card: card.md with the figures of evaluation.json."""

import json
from string import Template

from safetensors import safe_open

from common import HERE, SENTIMENTS, SHIPPED_TASKS, TOPICS
from evaluate import MIN_OUTLET_ROWS
from noise import PERTURBATIONS
from train import AVERAGE_SHARE

SET_NAMES = {
    "test_saudi_lead": "test_saudi, title + lead",
    "test_saudi_full": "test_saudi, whole text",
    "dev": "dev (7 % of news/train), title + lead",
}
TWEET_STARTS = {
    "backbone": "the backbone",
    "shipped": "this model",
    "tweets": "this model after one pass over 33,934 tweets of six sets (1,805 rows of UMSAB's training among them, which is more than the published models had), all read in the profile `news`",
}
TASKS = tuple(SHIPPED_TASKS)


def text(evaluation, bundle):
    sets, calibration = evaluation["sets"], evaluation["calibration"]
    config, manifest = (json.loads((bundle / name).read_text()) for name in ("config.json", "tasnif.json"))
    failures = [case for case in evaluation["hard_cases"] if any(case[t]["due"] != case[t]["said"] for t in TASKS)]
    agreement = evaluation["annotator_agreement"]
    lines = {
        "results": result_rows(evaluation),
        "topics": topic_rows(sets["test_saudi_lead"]["topic"]["classes"]),
        "sentiments": sentiment_rows(sets["test_saudi_lead"]["sentiment"]["classes"]),
        "outlets": outlet_rows(sets),
        "lengths": length_rows(evaluation["lengths"]),
        "calibration": calibration_rows(sets),
        "abstention": abstention_rows(sets),
        "failures": map(failure_row, failures),
    }
    return Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        {key: "\n".join(rows) for key, rows in lines.items()},
        name=bundle.resolve().name,
        revision=manifest["revision"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        parameters=round(parameters(bundle / "model.safetensors") / 1e6),
        agreement_topic=f"{agreement['topic']:.1%}",
        agreement_sentiment=f"{agreement['sentiment']:.1%}",
        either=f"{sets['test_saudi_lead']['topic']['accuracy_either_topic']:.1%}",
        **{f"temperature_{task}": f"{calibration[task]['temperature']:.2f}" for task in TASKS},
        **{f"abstain_{task}": f"{calibration[task]['abstain_below']:.2f}" for task in TASKS},
        min_outlet_rows=MIN_OUTLET_ROWS,
        spelling=spelling_section(evaluation.get("spelling")),
        windows=windows_section(evaluation.get("windows"), manifest["text"]),
        transfer=transfer_section(evaluation.get("transfer"), evaluation.get("tweets")),
        learning_curve=learning_curve_section(evaluation.get("learning_curve")),
        failed=len(failures),
        hard_cases=len(evaluation["hard_cases"]),
        training="\n".join(run_lines(evaluation["training"]["runs"])),
    )


def parameters(weights):
    with safe_open(weights, "pt") as tensors:
        sizes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]
    total = 0
    for shape in sizes:
        count = 1
        for length in shape:
            count *= length
        total += count
    return total


def pair(figures):
    return f"{figures['accuracy']:.3f} / {figures['macro_f1']:.3f}"


def result_rows(evaluation):
    for name, title in SET_NAMES.items():
        topic, sentiment = (evaluation["sets"][name][task] for task in TASKS)
        yield f"| {title} | {topic['rows']} | {pair(topic)} | {pair(sentiment)} |"
    if floors := evaluation.get("floors"):
        for name in ("test_saudi_lead", "dev"):
            topic, sentiment = (floors[task][name] for task in TASKS)
            title = f"floor, TF-IDF + linear SVM: {SET_NAMES[name]}"
            yield f"| {title} | {topic['rows']} | {pair(topic)} | {pair(sentiment)} |"


def figures_of(classes, label):
    figures = classes[label]
    shown = [f"{figures[key]:.2f}" if figures["rows"] else "–" for key in ("precision", "recall", "f1")]
    return f"{figures['rows']} | {' | '.join(shown)}"


def topic_rows(classes):
    for label, name_ar, name_en, code in TOPICS:
        yield f"| `{label}` | {name_ar} | {name_en} | {code} | {figures_of(classes, label)} |"


def sentiment_rows(classes):
    for label, name_ar, *_ in SENTIMENTS:
        yield f"| `{label}` | {name_ar} | {figures_of(classes, label)} |"


def outlet_rows(sets):
    for name, title in (("test_saudi_lead", "test_saudi"), ("dev", "dev")):
        topic, sentiment = (sets[name][task]["outlets"] for task in TASKS)
        for outlet in sorted(topic, key=lambda outlet: -topic[outlet]["rows"]):
            rows = topic[outlet]["rows"]
            yield f"| {outlet} | {title} | {rows} | {pair(topic[outlet])} | {pair(sentiment[outlet])} |"


def length_rows(lengths):
    for topic, sentiment in zip(lengths["topic"], lengths["sentiment"]):
        if not topic["rows"]:
            continue
        shown = [
            f"{figures['accuracy'][name]:.3f}"
            for figures in (topic, sentiment)
            for name in ("test_saudi_lead", "test_saudi_full")
        ]
        high = f"to {topic['tokens_below'] - 1}" if topic["tokens_below"] < 10_000 else "or more"
        yield f"| {topic['tokens_from']} {high} | {topic['rows']} | {' | '.join(shown)} |"


def calibration_rows(sets):
    for name, title in SET_NAMES.items():
        for task in TASKS:
            figures, chance = sets[name][task], sets[name][task]["ece_by_chance"]
            yield (
                f"| {title} | {task} | {figures['ece']:.3f} | {chance['mean']:.3f}, {chance['p95']:.3f} "
                f"| {figures['ece_uncalibrated']:.3f} |"
            )


def abstention_rows(sets):
    for name, title in SET_NAMES.items():
        for task in TASKS:
            figures = sets[name][task]["abstention"]
            rest = "–" if figures["dropped_accuracy"] is None else f"{figures['dropped_accuracy']:.3f}"
            yield f"| {title} | {task} | {figures['kept_share']:.1%} | {figures['kept_accuracy']:.3f} | {rest} |"


def spelling_section(spelling):
    if spelling is None:
        return ""
    intro = "Share of test_saudi (title + lead) whose label changes when the same text is spelt another way."
    rows = (
        [PERTURBATIONS[name][1], *(f"{figures[task]['flipped']:.1%}" for task in TASKS)]
        for name, figures in spelling.items()
    )
    return table_section("Spelling", intro, ["change", *TASKS], rows)


def windows_section(windows, text):
    if windows is None:
        return ""
    names = list(windows["table"][0]["sets"])
    documents = sum(figures["rows"] for figures in windows["table"][0]["sets"].values())
    right = [sum(round(f["rows"] * f["accuracy"]) for f in row["sets"].values()) for row in windows["table"]]
    joins = {row["join"] for row in windows["table"]}
    last, highest = "or ", ""
    if "highest" in joins:
        last, highest = "", ", or of each topic the highest score of all (`highest`)"
    intro = (
        "Macro-F1 of newspaper sections (topics mapped to sections), 100 articles of each set, by the cut into windows and the way\n"
        "to join them: the first window alone (`head`), their mean by tokens, the same with the first counted twice (`head_twice`),\n"
        f"{last}the one with the highest score (`surest`){highest}. This bundle reads windows of\n"
        f"{text['window']} tokens, one every {text['stride']}, the cut that reads the fewest in all, and takes their mean; of {documents} articles the rows\n"
        f"have {min(right)} to {max(right)} right, which is within chance."
    )
    rows = (
        [
            *(str(row[key]) for key in ("window", "stride", "join")),
            *(f"{row['sets'][name]['macro_f1']:.3f}" for name in names),
            f"{row['mean_macro_f1']:.3f}",
        ]
        for row in windows["table"]
    )
    return table_section("Whole articles", intro, ["window", "stride", "joined by", *names, "mean"], rows)


def transfer_section(transfer, tweets):
    lines = ["", "## Other tasks", ""] if transfer or tweets else []
    if transfer:
        head, mapping, tuned = (transfer[way] for way in ("further_head", "mapping", "fine_tuned"))
        lines += [
            "- Sections of test_khaleej, 7 classes, first 128 tokens, macro-F1; none of the heads is in this bundle:",
            f"  {mapping['macro_f1']:.3f} by mapping the topics; {head['macro_f1']:.3f} by a further head on the encoder as it is (logistic",
            f"  regression, {head['training_rows']} rows); {tuned['macro_f1']:.3f} by a further head and the encoder fine-tuned for it",
            f"  ({tuned['training_rows']} rows, epochs: {tuned['epochs']}). Naive Bayes on all of topic/train: 0.948.",
        ]
    for name, figures in sorted((tweets or {}).items()):
        tweet_set, start = name.split(", from ")
        lines += [
            f"- Tweets of {tweet_set}, {TWEET_STARTS[start]}, fine-tuned on its {figures['training_rows']} rows: macro-F1",
            f"  {figures['macro_f1']:.3f}, F1 of positive and negative {figures['f1_pn']:.3f}. Published: {figures['published']}.",
        ]
    return "\n".join(lines) + "\n" if lines else ""


def learning_curve_section(curve):
    if curve is None:
        return ""
    intro = "Training of one kind on shares of news/train, by the dev split; accuracy / macro-F1. The whole had other crops (see the recipe)."
    rows = (
        [
            f"{float(share):.0%}",
            *(f"{figures[f'{task}_accuracy']:.3f} / {figures[f'{task}_macro_f1']:.3f}" for task in TASKS),
        ]
        for share, figures in curve.items()
    )
    return table_section("What more labels would bring", intro, ["share of the labels", *TASKS], rows)


def table_section(title, intro, columns, rows):
    """A section that is one table; every row has a text for each column."""
    head = ["", f"## {title}", "", intro, "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def failure_row(case):
    answers = []
    for task in TASKS:
        due, said, score = (case[task][key] for key in ("due", "said", "score"))
        answers.append("right" if due == said else f"{due}, {said} ({score:.2f})")
    return f"| {case['text']} | {case['why']} | {' | '.join(answers)} |"


HOW = {
    "labels": "labels",
    "distillation": "the answers of trained models (distillation)",
    "masked language": "hidden words (masked-language training of the backbone)",
}


CHOSEN = {
    "last": "the last weights",
    "average": "their running average",
    "mixed": f"{AVERAGE_SHARE:.0%} of their running average and the rest of the last weights",
}


def run_lines(runs):
    """A student of fewer layers is cut from its teacher, so the teacher's runs come first."""
    cut = next((n for n, run in enumerate(runs) if "layers" in run), 0)
    for n, run in enumerate(runs):
        whose = "Its teacher, by" if n < cut else "By"
        steps = f"{run['stage1_steps']} steps on"
        labelled = f"{run['epochs']} passes over news/train"
        passes = {
            "labels": f"{steps} texts of the first stage, then {labelled}" if run["stage1_steps"] else labelled,
            "distillation": f"{steps} texts without labels, then {labelled}",
            "masked language": f"{steps} texts",
        }
        chosen = f"; {CHOSEN[run['chosen']]}, chosen on dev" if "chosen" in run else ""
        layers = ", ".join(map(str, run.get("layers", [])))
        student = f" of a student of its layers {layers} (counted from 0)" if layers else ""
        student += f" with {run['intermediate']:,} values inside each feed-forward part" if "intermediate" in run else ""
        yield (
            f"- {whose} {HOW[run['method']]}{student}: {passes[run['method']]}, batch {run['batch']}, peak learning\n"
            f"  rate {run['lr']} (heads {run['head_lr']}), seed {run['seed']}{chosen}."
        )
