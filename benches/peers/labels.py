"""Do the engines agree on labels with PyTorch f32?"""

import numpy as np

import work

REFERENCE = "PyTorch f32"


def compare(logits, bundle):
    """For each engine: the largest difference of a logit, and the share of documents with the same top label."""
    if REFERENCE not in logits:
        return {"missing": f"{REFERENCE} did not run"}
    expected = np.array(logits[REFERENCE])
    tasks = work.tasks(bundle)
    compared = {}
    for key, rows in logits.items():
        found = np.array(rows)
        if found.shape != expected.shape:
            compared[key] = {"failed": f"logits of shape {found.shape}, not {expected.shape}"}
            continue
        agreement, start = {}, 0
        for name, count in tasks:
            columns = slice(start, start + count)
            same = found[:, columns].argmax(1) == expected[:, columns].argmax(1)
            agreement[name] = float(same.mean())
            start += count
        compared[key] = {
            "documents": len(found),
            "max_logit_difference": float(np.abs(found - expected).max()),
            "agreement": agreement,
        }
    return compared
