"""Prints the figures that the tests in src/metrics and src/calibration.rs hold, by scikit-learn 1.9.1 and SciPy 1.17.1.

pip install scikit-learn scipy && python make.py
"""
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logsumexp, softmax
from sklearn import metrics

EXAMPLES, CLASSES = 60, 7
i, c = np.meshgrid(np.arange(EXAMPLES), np.arange(CLASSES), indexing="ij")
target = (np.arange(EXAMPLES) ** 2 + np.arange(EXAMPLES) // 3) % 6  # class 6 never
labels = ((i * i + 2 * c + i * c * c) % 5 < 2) & (c < 6)  # nor does any have it
noise = ((7 * i + 13 * c + 5 * i * c) % 17) / 4 - 2
logits = noise + 1 * (c == target[:, None])
label_logits = noise + 2 * labels


def calibration_error(confidence, right):
    """The loop of Guo's reference code, gpleiss/temperature_scaling."""
    edges = np.linspace(0, 1, 16)
    error = 0
    for low, high in zip(edges, edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return error


def show(name, value):
    print(f"{name:28} {np.array2string(np.asarray(value), floatmode='unique', separator=', ', max_line_width=200)}")


def areas(there, score):
    has = np.flatnonzero(there.any(0))
    show("  auroc", [metrics.roc_auc_score(there[:, k], score[:, k]) for k in has])
    show("  mean auroc", np.mean([metrics.roc_auc_score(there[:, k], score[:, k]) for k in has]))
    show("  average precision", [metrics.average_precision_score(there[:, k], score[:, k]) for k in has])
    show("  mean average precision", np.mean([metrics.average_precision_score(there[:, k], score[:, k]) for k in has]))


def temperature(nll):
    found = minimize_scalar(lambda log_t: nll(np.exp(log_t)), bounds=(-4, 4), method="bounded", options={"xatol": 1e-12})
    return np.exp(found.x)


print("one class each")
p, answer = softmax(logits, 1), logits.argmax(1)
one_hot = np.eye(CLASSES)[target]
# Of equal logits the first is the largest; scikit-learn takes the last.
show("  top 5", (np.argsort(-logits, axis=1, kind="stable")[:, :5] == target[:, None]).any(1).mean())
show("  balanced accuracy", metrics.balanced_accuracy_score(target, answer))
show("  macro F1", metrics.f1_score(target, answer, average="macro"))
for name, score in ("precision", metrics.precision_score), ("recall", metrics.recall_score), ("f1", metrics.f1_score):
    show(f"  {name}", score(target, answer, average=None, labels=range(CLASSES), zero_division=0))
areas(one_hot, p)
for t in 1.0, 2.0:
    p = softmax(logits / t, 1)
    show(f"  T={t} calibration error", calibration_error(p.max(1), answer == target))
    show(f"  T={t} nll", metrics.log_loss(target, p, labels=range(CLASSES)))
    show(f"  T={t} brier", metrics.brier_score_loss(target, p, labels=range(CLASSES), scale_by_half=False))
spread = 1 / (EXAMPLES + 1)
smooth = one_hot * (1 - spread) + spread / CLASSES
show("  temperature", temperature(lambda t: -(smooth * log_softmax(logits / t, 1)).sum()))
show("  energies", np.sort(logsumexp(logits, 1))[:7])

print("several classes each")
p = expit(label_logits)
answer = p >= 0.6
show("  micro F1", metrics.f1_score(labels, answer, average="micro"))
show("  macro F1", metrics.f1_score(labels, answer, average="macro", zero_division=0))
show("  precision", metrics.precision_score(labels, answer, average=None, zero_division=0))
show("  recall", metrics.recall_score(labels, answer, average=None, zero_division=0))
areas(labels, p)
for t in 1.0, 2.0:
    p = expit(label_logits / t)
    show(f"  T={t} calibration error", calibration_error(p.ravel(), labels.ravel()))
    show(f"  T={t} nll", metrics.log_loss(labels.ravel(), p.ravel()))
    show(f"  T={t} brier", metrics.brier_score_loss(labels.ravel(), p.ravel()))
smooth = labels * (1 - spread) + spread / 2
bce = lambda t: (np.logaddexp(0, label_logits / t) - smooth * label_logits / t).sum()
show("  temperature", temperature(bce))
