"""Whole runs on a tiny model: what an interruption leaves, and what export.py takes.

python -m unittest
"""

import json
import shutil
import tempfile
import unittest
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import distill
from adapt import Adapter
from card import run_lines
from common import EOS, LABELS, Shard, build_encoder, digest, write_figures, write_json
from export import read_parts
from train import Trainer, arguments_parser

CONFIG = {
    "vocab_size": 25_182,
    "hidden_size": 8,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 128,
}
ROWS = 24


def shard(seed):
    """Documents of random tokens and labels, the title in front of the text."""
    generator = np.random.default_rng(seed)
    windows = [np.array([0, 9, EOS, *generator.integers(4, 500, generator.integers(8, 60)), EOS]) for _ in range(ROWS)]
    names = np.array([f"{seed}-{n}" for n in range(ROWS)])
    labels = {task: generator.integers(0, len(classes), ROWS) for task, classes in LABELS.items()}
    return Shard(
        ids=np.concatenate(windows).astype(np.int32),
        starts=np.cumsum([0, *map(len, windows)]),
        owners=np.arange(ROWS, dtype=np.int32),
        titled=np.ones(ROWS, bool),
        names=names,
        outlets=names,
        labels=labels | {"topic2": np.full(ROWS, -1)},
    )


class Interrupted(Exception):
    pass


class Runs(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.printed = self.enterContext(redirect_stdout(StringIO()))
        backbone = self.folder / "shared/backbone"
        backbone.mkdir(parents=True)
        write_json(backbone / "config.json", CONFIG)
        torch.manual_seed(1)
        save_file(build_encoder(backbone / "config.json").state_dict(), backbone / "model.safetensors")

    def run_in(self, name, trainer, stop_at=None):
        """The weights that a run in folder `name` leaves, if nothing stops it."""
        work = self.folder / name
        if not work.exists():
            work.mkdir()
            for seed, part in enumerate(("train", "train_noisy", "dev", "sections", "tweets", "articles")):
                shard(seed).save(work / f"{part}.npz")
        options = f"--shared {self.folder}/shared --work {work} --batch 4 --stage1-steps 5 --epochs 1.5 --checkpoint-every 2"
        run = trainer(arguments_parser("").parse_args([*options.split(), "--threads", "1", "--precision", "f32"]))
        if stop_at:
            train_batch = run.train_batch

            def interrupted(batch):
                if (run.stage, run.step) == stop_at:
                    raise Interrupted
                return train_batch(batch)

            run.train_batch = interrupted
            with self.assertRaises(Interrupted):
                run.run_to_the_end()
            return None
        run.run_to_the_end()
        return load_file(run.record.with_name("model.safetensors"))

    def assert_same(self, left, right):
        self.assertEqual(left.keys(), right.keys())
        for name, value in left.items():
            self.assertTrue(torch.equal(value, right[name]), name)

    def test_a_run_that_was_interrupted_ends_as_an_unbroken_one(self):
        unbroken = self.run_in("unbroken", Trainer)
        self.run_in("broken", Trainer, stop_at=(1, 3))
        self.run_in("broken", Trainer, stop_at=(2, 5))
        self.assert_same(self.run_in("broken", Trainer), unbroken)
        self.assertIn("goes on from stage 2 step 4", self.printed.getvalue())

    def test_a_run_that_is_done_is_not_run_again(self):
        self.run_in("done", Trainer)
        written = (self.folder / "done/checkpoint.pt").stat().st_mtime_ns
        self.run_in("done", Trainer)
        self.assertIn("done before", self.printed.getvalue())
        self.assertEqual((self.folder / "done/checkpoint.pt").stat().st_mtime_ns, written)

    def test_masked_training_leaves_a_backbone_that_training_takes(self):
        adapted = self.run_in("adapted", Adapter)
        shutil.rmtree(self.folder / "shared/backbone")
        shutil.copytree(self.folder / "adapted/backbone", self.folder / "shared/backbone")
        trained = self.run_in("after", Trainer)
        self.assertEqual(set(trained) - set(adapted), {f"heads.{task}.{of}" for task in ("topic", "sentiment") for of in ("weight", "bias")})
        runs = json.loads((self.folder / "after/training.json").read_text())["runs"]
        self.assertEqual([run["method"] for run in runs], ["masked language", "labels"])

    def distil(self, name, *options):
        """The weights of a student in folder `name`, of teachers that are the backbone with new heads."""
        teacher = self.folder / "teacher/model.safetensors"
        if not teacher.exists():
            self.run_in("teacher", Trainer)
            (self.folder / "teacher/bundle").mkdir()
        work = self.folder / name
        fixed = f"--shared {self.folder}/shared --work {work} --shards {self.folder}/teacher --init {teacher} --batch 4"
        fixed += " --stage1-steps 3 --epochs 0.5 --noisy 0 --threads 1 --precision f32"
        with mock.patch("sys.argv", ["distill.py", *fixed.split(), *map(str, options)]):
            distill.main()
        return load_file(work / "model.safetensors")

    def test_a_student_has_four_layers_or_all(self):
        def layers(tensors):
            return {int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer.")}

        self.assertEqual(layers(self.distil("mini")), {0, 1, 2, 3})
        of_teacher, own = run_lines(json.loads((self.folder / "mini/training.json").read_text())["runs"])
        self.assertIn("Its teacher, by labels", of_teacher)
        self.assertIn("By the answers", own)
        teacher = self.folder / "teacher/model.safetensors"
        others = ("--student", teacher, "--second-teacher", teacher, "--teacher-shards", self.folder / "teacher")
        self.assertEqual(layers(self.distil("whole", *others)), set(range(12)))

    def test_figures_of_other_weights_are_left_out(self):
        save_file({"weight": torch.ones(3)}, self.folder / "model.safetensors")
        weights = digest(self.folder / "model.safetensors")
        write_figures(self.folder / "news.json", {"accuracy": 0.5}, weights)
        write_figures(self.folder / "spelling.json", {"tatweel": 0.1}, weights)
        write_figures(self.folder / "windows.json", {"mean": 0.2}, "another")
        self.assertEqual(read_parts(self.folder), {"accuracy": 0.5, "spelling": {"tatweel": 0.1}})
        write_figures(self.folder / "news.json", {"accuracy": 0.5}, "another")
        with self.assertRaises(SystemExit):
            read_parts(self.folder)


if __name__ == "__main__":
    unittest.main()
