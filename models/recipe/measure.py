"""Figures of logits against labels: F1, calibration, abstention. Pure functions of arrays."""

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

MIN_ROWS = 5  # macro-F1 leaves out the classes with fewer rows in the test
CALIBRATION_BINS = 15
TEMPERATURES = np.exp(np.arange(np.log(0.25), np.log(4.0), 0.01))
KEPT_SHARE = 0.9  # of the dev split, at least, that `abstain_below` lets through: 85 % and a margin for other outlets


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def nll(logits, truth):
    return float(-log_softmax(logits)[np.arange(len(truth)), truth].mean())


def macro_f1(truth, predicted, classes):
    """Over the classes with at least MIN_ROWS rows."""
    rows = np.bincount(truth, minlength=classes)
    counted = [n for n in range(classes) if rows[n] >= MIN_ROWS]
    return float(f1_score(truth, predicted, labels=counted, average="macro", zero_division=0))


def accuracy_and_f1(truth, predicted, classes):
    return {
        "rows": len(truth),
        "accuracy": float((truth == predicted).mean()),
        "macro_f1": macro_f1(truth, predicted, classes),
    }


def class_table(truth, predicted, labels):
    precision, recall, f1, rows = precision_recall_fscore_support(
        truth, predicted, labels=range(len(labels)), zero_division=0
    )
    return {
        label: {"rows": int(rows[n]), "precision": float(precision[n]), "recall": float(recall[n]), "f1": float(f1[n])}
        for n, label in enumerate(labels)
    }


def confusion(truth, predicted, classes):
    return confusion_matrix(truth, predicted, labels=range(classes)).tolist()


# --- calibration -----------------------------------------------------------------------------------------------------


def bin_sums(confidence, correct):
    """Rows, confidence and hits of each of the equal-width bins of confidence."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, confidence, correct)]


def calibration_error(confidence, correct):
    """Expected calibration error: mean gap between confidence and accuracy over the bins, weighted by rows."""
    _, confident, right = bin_sums(confidence, correct.astype(float))
    return float(np.abs(confident - right).sum() / len(confidence))


def calibration_noise(confidence, draws=500):
    """The error that a perfectly calibrated model would show on so few rows: the mean and 95th percentile of draws."""
    generator = np.random.default_rng(0)
    errors = [calibration_error(confidence, generator.random(len(confidence)) < confidence) for _ in range(draws)]
    return {"mean": float(np.mean(errors)), "p95": float(np.percentile(errors, 95))}


def reliability(confidence, correct):
    """Rows, mean confidence and accuracy of each bin that holds any, as columns."""
    rows, confident, right = bin_sums(confidence, correct.astype(float))
    held = rows > 0
    return {
        "rows": rows[held].astype(int).tolist(),
        "confidence": (confident[held] / rows[held]).tolist(),
        "accuracy": (right[held] / rows[held]).tolist(),
    }


def temperature_by_nll(logits, truth):
    return float(min(TEMPERATURES, key=lambda temperature: nll(logits / temperature, truth)))


def temperature_by_calibration(logits, truth):
    """The temperature at which mean confidence equals accuracy."""
    accuracy = (logits.argmax(1) == truth).mean()
    gaps = [abs(softmax(logits / temperature).max(1).mean() - accuracy) for temperature in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(gaps))])


TEMPERATURE_FITS = {"nll": temperature_by_nll, "calibration": temperature_by_calibration}


def fit_temperature(logits, truth, groups):
    """The temperature of the better of TEMPERATURE_FITS: the one whose error is lower where each group (outlet) in turn
    is measured with the temperature of the others."""
    errors = {}
    for name, fit in TEMPERATURE_FITS.items():
        confidence = np.zeros(len(truth))
        for group in np.unique(groups):
            inside = groups == group
            confidence[inside] = softmax(logits[inside] / fit(logits[~inside], truth[~inside])).max(1)
        errors[name] = calibration_error(confidence, logits.argmax(1) == truth)
    chosen = min(errors, key=errors.get)
    return TEMPERATURE_FITS[chosen](logits, truth), {"chosen": chosen, "held_out_ece": errors}


# --- abstention ------------------------------------------------------------------------------------------------------


def abstention_threshold(confidence, kept_share=KEPT_SHARE):
    """The highest threshold (to 1 %) that keeps at least `kept_share` of the documents."""
    return float(np.floor(np.quantile(confidence, 1 - kept_share) * 100) / 100)


def abstention(confidence, correct, threshold):
    kept = confidence >= threshold
    return {
        "threshold": threshold,
        "kept_share": float(kept.mean()),
        "kept_accuracy": float(correct[kept].mean()),
        "dropped_accuracy": float(correct[~kept].mean()) if (~kept).any() else None,
    }


def risk_coverage(confidence, correct, points=50):
    """Share of documents kept, and share of those that are wrong, the least confident left out first, as columns."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~correct[order])
    kept = np.unique(np.linspace(1, len(order), points).round().astype(int))
    kept = kept[kept >= min(20, len(order))]
    return {"coverage": (kept / len(order)).tolist(), "risk": (wrong[kept - 1] / kept).tolist()}
