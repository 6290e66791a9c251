"""What the figures and the training rest on.

python -m unittest
"""

import random
import unittest

import numpy as np
import torch

import measure
import noise
from adapt import GUESSED, MASK, SPECIAL, hide
from common import EOS, LABELS, PAD, SECTIONS, Shard
from grid import on_int8_grid, rounded
from plans import Crop, draw_crop, schedule
from readings import by_document
from self_train import believed
from windows import head, head_twice, highest, surest

START = 0  # id of <s>


class Calibration(unittest.TestCase):
    def test_error_is_the_gap_weighted_by_rows(self):
        confidence = np.array([0.95, 0.95, 0.55, 0.55])
        correct = np.array([True, True, True, False])
        # (0.05 + 0.05) in one bin, (0.45 - 0.55) in the other: 0.1 and 0.1 over four rows.
        self.assertAlmostEqual(measure.calibration_error(confidence, correct), 0.05)

    def test_both_fits_find_the_temperature_of_overconfident_scores(self):
        generator = np.random.default_rng(1)
        logits = generator.normal(size=(20_000, 3)) * 2
        chances = measure.softmax(logits)
        truth = (generator.random((len(chances), 1)) > chances.cumsum(1)).sum(1)
        for fit in measure.TEMPERATURE_FITS.values():
            self.assertAlmostEqual(fit(logits * 1.7, truth), 1.7, delta=0.06)

    def test_chance_alone_leaves_an_error_on_few_rows(self):
        few = measure.calibration_noise(np.full(100, 0.8))
        many = measure.calibration_noise(np.full(10_000, 0.8))
        self.assertGreater(few["mean"], 5 * many["mean"])


class Grid(unittest.TestCase):
    def test_a_loader_finds_the_same_steps_and_little_moves(self):
        weights = {"encoder.layer.0.output.dense.weight": torch.randn(8, 300), "encoder.layer.0.output.dense.bias": torch.randn(8)}
        shipped = {name: value.to(torch.float16).to(torch.float32) for name, value in on_int8_grid(weights).items()}
        before, after = (tensors["encoder.layer.0.output.dense.weight"] for tensors in (weights, shipped))
        scale = after.abs().amax(dim=1, keepdim=True) / 63
        self.assertLess(((after / scale) - (after / scale).round()).abs().max(), 0.04)
        self.assertLessEqual(((after - before) / scale).abs().max(), 0.54)
        self.assertTrue(torch.equal(on_int8_grid(weights)["encoder.layer.0.output.dense.bias"], weights["encoder.layer.0.output.dense.bias"]))

    def test_an_output_of_zeros_stays_one(self):
        self.assertEqual(rounded(torch.zeros(1, 4)).abs().sum(), 0)


class Abstention(unittest.TestCase):
    def test_threshold_keeps_the_share(self):
        confidence = np.random.default_rng(2).random(5_000)
        threshold = measure.abstention_threshold(confidence, 0.85)
        kept = (confidence >= threshold).mean()
        self.assertGreaterEqual(kept, 0.85)
        self.assertLess(kept, 0.87)

    def test_risk_counts_the_surest_first(self):
        confidence = np.linspace(1, 0, 100)
        curve = measure.risk_coverage(confidence, confidence > 0.5)
        self.assertEqual(curve["risk"][0], 0)
        self.assertEqual((curve["coverage"][-1], curve["risk"][-1]), (1.0, 0.5))


class Scores(unittest.TestCase):
    def test_macro_f1_leaves_out_classes_with_few_rows(self):
        truth = np.array([0] * 5 + [1] * 5 + [2] * 4)
        predicted = np.array([0] * 5 + [1] * 5 + [0] * 4)
        self.assertAlmostEqual(measure.macro_f1(truth, predicted, 3), (2 * 5 / (5 + 9) + 1) / 2)


class Windows(unittest.TestCase):
    def setUp(self):
        # Two documents: windows of 4 and 2 tokens, and one of 3.
        starts, owners = np.array([0, 4, 6, 9]), np.array([0, 0, 1])
        self.shard = Shard(np.arange(9), starts, owners, *[np.array(["", ""])] * 3, labels={})
        self.rows = np.array([[3.0, 0.0], [0.0, 6.0], [1.0, 1.0]])

    def test_mean_is_weighted_by_tokens(self):
        np.testing.assert_allclose(by_document(self.shard, self.rows), [[2, 2], [1, 1]])

    def test_ways_to_join(self):
        np.testing.assert_allclose(head(self.shard, self.rows), [[3, 0], [1, 1]])
        np.testing.assert_allclose(head_twice(self.shard, self.rows), [[2.4, 1.2], [1, 1]])
        np.testing.assert_allclose(surest(self.shard, self.rows), [[0, 6], [1, 1]])
        np.testing.assert_allclose(highest(self.shard, self.rows), [[3, 6], [1, 1]])


class Training(unittest.TestCase):
    window = np.array([START, 10, 11, EOS, *range(100, 150), EOS])

    def test_crop_keeps_title_and_ends(self):
        crop = Crop(20).apply(self.window, titled=True)
        np.testing.assert_array_equal(crop, [START, 10, 11, EOS, *range(100, 115), EOS])

    def test_crop_of_the_body_without_title(self):
        crop = Crop(12, start=5, title=False).apply(self.window, titled=True)
        np.testing.assert_array_equal(crop, [START, *range(105, 115), EOS])

    def test_dropped_tokens_are_of_the_text_alone(self):
        crop = Crop(60, dropped=0.5, seed=3).apply(self.window, titled=True)
        np.testing.assert_array_equal(crop[:4], self.window[:4])
        self.assertEqual(crop[-1], EOS)
        self.assertTrue(10 < len(crop) < 50)

    def test_lead_crops_start_with_the_title_and_drop_nothing(self):
        window = np.array([START, 10, EOS, *range(100, 400), EOS])
        for seed in range(50):
            crop = draw_crop(random.Random(seed), True, "lead").apply(window, titled=True)
            np.testing.assert_array_equal(crop[:-1], window[: len(crop) - 1])

    def test_a_title_alone_is_read_as_a_text(self):
        def crop(titled):
            return draw_crop(random.Random(1), titled, "title").apply(self.window, titled)

        np.testing.assert_array_equal(crop(titled=True), self.window[:4])
        self.assertGreater(len(crop(titled=False)), 40)

    def test_length_is_that_of_what_is_read(self):
        untitled = np.array([START, *range(100, 150), EOS])
        for crop in (Crop(20), Crop(500), Crop(30, start=10), Crop(20, start=300)):
            self.assertAlmostEqual(crop.length(len(untitled)), len(crop.apply(untitled, titled=False)), delta=2)

    def test_rate_rises_holds_and_falls(self):
        rates = [schedule(step, 100, hold=0.5) for step in range(100)]
        self.assertLess(rates[0], 0.2)
        self.assertTrue(all(rate == 1 for rate in rates[6:56]))
        self.assertTrue(all(a > b for a, b in zip(rates[57:], rates[58:], strict=False)))
        self.assertLess(rates[-1], 0.03)


class Masked(unittest.TestCase):
    def test_only_pieces_are_guessed_and_the_rest_is_as_it_was(self):
        torch.manual_seed(5)
        ids = torch.randint(SPECIAL, MASK, (40, 100))
        ids[:, 0], ids[:, 60], ids[:, 61:] = START, EOS, PAD
        mask = (ids != PAD).long()
        guessed, shown = hide(ids, mask)
        self.assertFalse(guessed[:, [0, *range(60, 100)]].any())
        self.assertTrue(torch.equal(shown[~guessed], ids[~guessed]))
        self.assertAlmostEqual(guessed[:, 1:60].float().mean().item(), GUESSED, delta=0.03)
        hidden = (shown[guessed] == MASK).float().mean().item()
        kept = (shown[guessed] == ids[guessed]).float().mean().item()
        self.assertAlmostEqual(hidden, 0.8, delta=0.08)
        self.assertAlmostEqual(kept, 0.1, delta=0.06)


class SelfTraining(unittest.TestCase):
    def test_labels_that_are_unsure_or_against_the_section_are_not_believed(self):
        def topics(topic, score):
            row = np.full(len(LABELS["topic"]), (1 - score) / (len(LABELS["topic"]) - 1))
            row[LABELS["topic"].index(topic)] = score
            return row

        sure, unsure, least = [0.9, 0.05, 0.05], [0.4, 0.3, 0.3], [0.35, 0.33, 0.32]
        cases = [
            ("sports", topics("sport", 0.9), sure),
            ("sports", topics("economy", 0.9), sure),  # against the section
            ("politics", topics("weather", 0.3), least),  # a section of everything; the surest of its class
            ("sports", topics("sport", 0.5), unsure),
            ("sports", topics("sport", 0.99), sure),  # labelled already
        ]
        sections = np.array([SECTIONS.index(section) for section, _, _ in cases], np.int8)
        starts = np.array([0, 2, 5, 9, 10, 11])
        names = np.array(["a", "b", "c", "d", "e"])
        shard = Shard(np.arange(11), starts, np.arange(5), names, names, names, {"section": sections})
        scores = {"topic": np.array([row for _, row, _ in cases]), "sentiment": np.array([row for _, _, row in cases])}
        taught = believed(shard, scores, {"e"})
        self.assertEqual(list(taught.names), ["a", "c", "d"])
        np.testing.assert_array_equal(taught.window(1), [5, 6, 7, 8])
        self.assertEqual(list(taught.labels["topic"]), [LABELS["topic"].index("sport"), LABELS["topic"].index("weather"), -1])
        self.assertEqual(list(taught.labels["sentiment"]), [0, -1, 0])
        self.assertEqual(list(taught.labels["section"]), [-1, -1, -1])


class Spelling(unittest.TestCase):
    def test_each_change_changes_what_it_names_and_no_more(self):
        changed = {
            "bare_alef": ("أكل الإمام الآن", "اكل الامام الان"),
            "egyptian_ya": ("القاضي في بيتي", "القاضى فى بيتى"),
            "dotted_alef_maqsura": ("مستشفى كبرى", "مستشفي كبري"),
            "ha_for_ta_marbuta": ("مدينة جديدة", "مدينه جديده"),
            "no_punctuation": ("نعم، هذا «خبر»: 3.5%", "نعم هذا خبر 3 5"),
        }
        for name, (before, after) in changed.items():
            row = noise.perturb({"text": before}, [name], random.Random(0))
            self.assertEqual(row["text"], after, name)

    def test_marks_can_be_taken_off_again(self):
        text = "أعلنت الوزارة نتائج المسابقة الوطنية. " * 5
        for name in ("diacritics", "tatweel"):
            marked = noise.perturb({"text": text}, [name], random.Random(0))["text"]
            self.assertNotEqual(marked, text)
            self.assertEqual("".join(c for c in marked if c not in noise.HARAKAT + "ـ"), text)


if __name__ == "__main__":
    unittest.main()
