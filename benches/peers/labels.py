"""Do the engines agree on labels with PyTorch f32, or, where it did not run, with Tasnif's reference?"""

import sys

import numpy as np

import work

MAX_DIFFERING = 0.007  # as `tasnif verify` has it
REFERENCES = ["PyTorch f32", "reference f32"]


def compare(logits, bundle):
    """(the engine compared with, if one ran; of each engine the largest difference of a logit from that one's, and the
    share of documents with the same top label)."""
    beside = next((name for name in REFERENCES if name in logits), None)
    if beside is None:
        return None, {}
    expected = np.array(logits[beside])
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
    return beside, compared


def require(compared, prefix):
    """Ends with an error if an engine whose name starts so gives another label to too many documents: one may be."""
    for key, found in compared.items():
        if not key.startswith(prefix):
            continue
        if "failed" in found:
            sys.exit(f"{key}: {found['failed']}")
        documents = found["documents"]
        for task, share in found["agreement"].items():
            differing = round((1 - share) * documents)
            if differing > max(1, MAX_DIFFERING * documents):
                sys.exit(f"{key}: another {task} in {differing} of {documents} documents, more than {MAX_DIFFERING:.1%}")
