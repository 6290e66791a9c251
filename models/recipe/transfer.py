"""The encoder on newspaper sections: test_khaleej, 7 classes, read by a mapping of the 17 topics and by a further head,
a logistic regression on the frozen encoder's states, trained on sections of topic/train. Writes `work/transfer.json`.

    python transfer.py
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from common import SECTIONS, write_json
from measure import accuracy_and_f1, softmax
from readings import Reader, reader_arguments
from windows import section_scores


def main():
    arguments = reader_arguments(__doc__).parse_args()
    reader = Reader(arguments)
    truth = reader.shard("test_khaleej").labels["section"]
    held = np.unique(truth)
    mapped = section_scores(softmax(reader.logits("test_khaleej")["topic"]))
    result = {
        "mapping": accuracy_and_f1(truth, held[mapped[:, held].argmax(1)], len(SECTIONS)),
        "further_head": accuracy_and_f1(truth, further_head(reader), len(SECTIONS))
        | {"training_rows": len(reader.shard("sections_khaleej"))},
    }
    print(result)
    write_json(arguments.work / "transfer.json", result)


def further_head(reader):
    train, labels = reader.pooled("sections_khaleej").numpy(), reader.shard("sections_khaleej").labels["section"]
    scaler = StandardScaler().fit(train)
    head = LogisticRegression(C=0.05, max_iter=2000).fit(scaler.transform(train), labels)
    return head.predict(scaler.transform(reader.pooled("test_khaleej").numpy()))


if __name__ == "__main__":
    main()
