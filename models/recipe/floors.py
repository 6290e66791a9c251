"""The floor beside the model: TF-IDF and a linear SVM, trained on the same rows. Writes `work/floors.json`.

python floors.py
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from common import DEFAULT_SHARED, DEFAULT_WORK, LABELS, write_json
from measure import accuracy_and_f1
from prepare import is_dev, lead, read

PENALTIES = (0.1, 0.3, 1.0)  # C of the SVM, chosen on the dev split


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=DEFAULT_SHARED, help="folder with data/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    arguments = parser.parse_args()
    news = list(read(arguments.shared / "data/news/train.jsonl.gz"))
    sets = {
        "train": [row for row in news if not is_dev(row["id"])],
        "dev": [row for row in news if is_dev(row["id"])],
        "test_saudi_lead": list(read(arguments.shared / "data/news/test_saudi.jsonl.gz")),
    }
    features = vectorise(sets)
    result = {"method": "TF-IDF (words 1-2, characters 2-5 of title and lead) and a linear SVM, trained on news/train"}
    for task in ("topic", "sentiment"):
        labels = {name: np.array([LABELS[task].index(row[task]) for row in rows]) for name, rows in sets.items()}
        result[task] = floor(task, features, labels)
        print(task, result[task], flush=True)
    write_json(arguments.work / "floors.json", result)


def vectorise(sets):
    texts = {name: [f"{row.get('title', '')}\n{lead(row)['text']}" for row in rows] for name, rows in sets.items()}
    settings = {"sublinear_tf": True, "min_df": 2, "dtype": np.float32}
    vectorisers = [
        TfidfVectorizer(ngram_range=(1, 2), **settings),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), max_features=300_000, **settings),
    ]
    for vectoriser in vectorisers:
        vectoriser.fit(texts["train"])
    return {name: hstack([v.transform(rows) for v in vectorisers], format="csr") for name, rows in texts.items()}


def floor(task, features, labels):
    def measure(model, name):
        return accuracy_and_f1(labels[name], model.predict(features[name]), len(LABELS[task]))

    models = {c: LinearSVC(C=c, dual=True).fit(features["train"], labels["train"]) for c in PENALTIES}
    dev = {c: measure(model, "dev") for c, model in models.items()}
    chosen = max(dev, key=lambda c: dev[c]["macro_f1"])
    return {"C": chosen, "dev": dev[chosen], "test_saudi_lead": measure(models[chosen], "test_saudi_lead")}


if __name__ == "__main__":
    main()
