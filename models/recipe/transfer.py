"""The encoder on newspaper sections: test_khaleej, 7 classes, read three ways: by a mapping of the 17 topics; by a
further head on the encoder as it is, a logistic regression; and by a further head with the encoder fine-tuned for it.
Writes `work/transfer.json`.

    python transfer.py
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from common import SECTIONS, head_logits, pooled_windows, write_figures
from measure import accuracy_and_f1, softmax
from readings import Reader, reader_arguments
from tweets import fine_tune, fine_tuning_arguments
from windows import section_scores

FROZEN_ROWS = 2_000  # that the encoder reads for the head alone


def main():
    parser = reader_arguments(__doc__)
    fine_tuning_arguments(parser, epochs=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    reader = Reader(arguments)
    train, test = reader.shard("sections_khaleej"), reader.shard("test_khaleej")
    truth = test.labels["section"]
    held = np.unique(truth)
    mapped = section_scores(softmax(reader.logits("test_khaleej")["topic"]))
    predicted = {
        "mapping": held[mapped[:, held].argmax(1)],
        "further_head": further_head(reader, train),
        "fine_tuned": fine_tuned(reader.model, train, test, arguments),
    }
    rows = {"mapping": 0, "further_head": FROZEN_ROWS, "fine_tuned": len(train)}
    result = {
        way: accuracy_and_f1(truth, labels, len(SECTIONS)) | {"training_rows": rows[way]}
        for way, labels in predicted.items()
    }
    result["fine_tuned"]["epochs"] = arguments.epochs
    print(result)
    write_figures(arguments.work / "transfer.json", result, reader.weights)


def further_head(reader, train):
    windows = train.windows()[:FROZEN_ROWS]
    states, labels = pooled_windows(reader.model, windows).numpy(), train.labels["section"][:FROZEN_ROWS]
    scaler = StandardScaler().fit(states)
    head = LogisticRegression(C=0.05, max_iter=2000).fit(scaler.transform(states), labels)
    return head.predict(scaler.transform(reader.pooled("test_khaleej").numpy()))


def fine_tuned(model, train, test, arguments):
    """Leaves the reader's model changed."""
    model.heads = nn.ModuleDict({"section": nn.Linear(model.encoder.config.hidden_size, len(SECTIONS))})
    fine_tune(model, train, range(len(train)), "section", arguments)
    return head_logits(model, pooled_windows(model, test.windows()))["section"].argmax(1)


if __name__ == "__main__":
    main()
