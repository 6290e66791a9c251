"""Whole runs on a tiny model: what an interruption leaves, and what export.py takes.

python -m unittest
"""

import json
import shutil
import tempfile
import unittest
from argparse import Namespace
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import distill
from adapt import Adapter
from card import run_lines
from common import EOS, LABELS, PAD, Shard, build_encoder, digest, pad, pooling_of, tasnif_json, write_figures, write_json
from export import manifest, read_parts
from prepare import link_shards, write_bundle
from readings import load_shipped
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
        averages = [torch.load(self.folder / name / "checkpoint.pt")["average"] for name in ("unbroken", "broken")]
        self.assertTrue(all(map(torch.equal, *averages)))
        self.assertIn("goes on from stage 2 step 4", self.printed.getvalue())

    def test_a_run_that_is_done_is_not_run_again(self):
        self.run_in("done", Trainer)
        written = (self.folder / "done/checkpoint.pt").stat().st_mtime_ns
        self.run_in("done", Trainer)
        self.assertIn("done before", self.printed.getvalue())
        self.assertEqual((self.folder / "done/checkpoint.pt").stat().st_mtime_ns, written)

    def test_masked_training_leaves_a_backbone_that_training_takes(self):
        before = load_file(self.folder / "shared/backbone/model.safetensors")
        adapted = self.run_in("adapted", Adapter)
        self.assertFalse(torch.equal(adapted["encoder.layer.0.output.dense.weight"], before["encoder.layer.0.output.dense.weight"]))
        shutil.rmtree(self.folder / "shared/backbone")
        shutil.copytree(self.folder / "adapted/backbone", self.folder / "shared/backbone")
        trained = self.run_in("after", Trainer)
        self.assertEqual(set(trained) - set(adapted), {f"heads.{task}.{of}" for task in ("topic", "sentiment") for of in ("weight", "bias")})
        runs = json.loads((self.folder / "after/training.json").read_text())["runs"]
        self.assertEqual([run["method"] for run in runs], ["masked language", "labels"])

    def assert_refused(self, why, call, *given):
        with self.assertRaisesRegex(SystemExit, why):
            call(*given)

    def test_a_work_folder_is_of_one_profile_and_of_one_folder_of_shards(self):
        backbone, work = self.folder / "shared/backbone", self.folder / "work"
        write_json(backbone / "tokenizer.json", {})
        write_bundle(backbone, work, "folded")
        write_bundle(backbone, work, "folded")
        self.assert_refused("of the profile folded", write_bundle, backbone, work, "news")
        for name in ("one", "other"):
            (self.folder / name).mkdir()
            shard(1).save(self.folder / name / "train.npz")
        link_shards(self.folder / "one", work)
        link_shards(self.folder / "one", work)
        self.assert_refused("of other shards", link_shards, self.folder / "other", work)

    def make_teacher(self):
        """Weights of all layers, in a folder with shards and a bundle."""
        self.run_in("teacher", Trainer)
        (self.folder / "teacher/bundle").mkdir()
        return self.folder / "teacher/model.safetensors"

    def options(self, name, teacher, *others):
        """What distill.py is told, to teach a student in folder `name`."""
        fixed = f"--shared {self.folder}/shared --work {self.folder / name} --shards {teacher.parent} --init {teacher} --batch 4"
        fixed += " --stage1-steps 3 --epochs 0.5 --noisy 0 --threads 1 --precision f32"
        return [*fixed.split(), *map(str, others)]

    def test_a_student_has_some_layers_and_is_taught_on(self):
        teacher = self.make_teacher()
        distill.main(self.options("mini", teacher, "--intermediate", 9))
        of_teacher, own = run_lines(json.loads((self.folder / "mini/training.json").read_text())["runs"])
        self.assertIn("Its teacher, by labels", of_teacher)
        self.assertIn("By the answers", own)
        mini = self.folder / "mini/model.safetensors"
        distill.main(self.options("mini-2", teacher, "--student", mini))
        self.assertEqual(distill.shape(load_file(self.folder / "mini-2/model.safetensors")), (4, 9))
        with self.assertRaises(SystemExit):
            distill.main(self.options("mini-3", teacher, "--student", mini, "--layers", 1, 4))
        self.assert_refused("another shape", distill.main, self.options("mini", teacher, "--layers", 1, 4))
        self.assertEqual(json.loads((self.folder / "mini/bundle/config.json").read_text())["num_hidden_layers"], 4)
        tensors = load_file(teacher)
        last = "encoder.layer.{}.output.dense.weight"
        self.assertTrue(torch.equal(distill.cut(tensors, (1, 4, 11))[last.format(2)], tensors[last.format(11)]))

    def test_what_starts_at_a_bundle_has_its_runs_before_its_own(self):
        teacher = self.make_teacher()
        teacher.with_name("training.json").unlink()
        write_json(teacher.with_name("evaluation.json"), {"training": {"runs": [{"method": "of the bundle"}]}})
        distill.main(self.options("on", teacher, "--student", teacher))
        runs = json.loads((self.folder / "on/training.json").read_text())["runs"]
        self.assertEqual([run["method"] for run in runs], ["of the bundle", "distillation"])

    def test_a_student_may_read_the_first_token_where_its_teacher_reads_all(self):
        teacher = self.make_teacher()
        distill.main(self.options("first", teacher, "--pooling", "cls"))
        first = self.folder / "first/model.safetensors"
        distill.main(self.options("second", teacher, "--student", first))
        poolings = [pooling_of(weights) for weights in (teacher, first, self.folder / "second/model.safetensors")]
        self.assertEqual(poolings, ["mean", "cls", "cls"])
        model = load_shipped(first, self.folder / "first/bundle/config.json")
        ids, mask = pad([Shard.load(self.folder / "first/dev.npz").window(row) for row in range(2)])
        self.assertTrue(torch.equal(model.pool(ids, mask), model.states(ids, mask)[:, 0]))
        write_json(self.folder / "first/bundle/tasnif.json", tasnif_json())
        options = Namespace(work=first.parent, out=self.folder, revision="1", keep_weights=False)
        made = manifest(options, first.parent / "bundle", {"calibration": None})
        self.assertEqual({task["pooling"] for task in made["tasks"]}, {"cls"})

    def test_what_is_left_of_a_feed_forward_part_does_what_the_whole_did(self):
        generator = torch.Generator().manual_seed(3)
        values = torch.randn(400, 6, generator=generator)
        # The last two vary least, and say what others do; one has a mean of its own.
        values = torch.cat([values, 0.1 * values[:, :1], 5 - 0.1 * values[:, 1:2]], dim=1)
        inner, outer = (f"encoder.layer.0.{part}.dense" for part in ("intermediate", "output"))
        tensors = {
            f"{inner}.weight": torch.arange(8.0)[:, None].repeat(1, 3),
            f"{inner}.bias": torch.arange(8.0),
            f"{outer}.weight": torch.randn(3, 8, generator=generator),
            f"{outer}.bias": torch.randn(3, generator=generator),
        }
        left = distill.narrowed(tensors, 6, [(values.mean(0), values.T.cov())])
        self.assertTrue(torch.equal(left[f"{inner}.bias"], torch.arange(6.0)))
        self.assertTrue(torch.equal(left[f"{inner}.weight"], tensors[f"{inner}.weight"][:6]))
        whole = functional.linear(values, tensors[f"{outer}.weight"], tensors[f"{outer}.bias"])
        part = functional.linear(values[:, :6], left[f"{outer}.weight"], left[f"{outer}.bias"])
        self.assertTrue(torch.allclose(whole, part, atol=0.02))

    def test_a_student_of_two_teachers_learns_their_mean_and_each_reads_its_own_tokens(self):
        teacher, others = self.make_teacher(), self.folder / "others"
        shutil.copytree(teacher.parent, others)
        for name in distill.TAUGHT_SHARDS:
            read = Shard.load(others / f"{name}.npz")
            read.ids[read.ids > EOS] += 500
            read.save(others / f"{name}.npz")
        torch.manual_seed(2)
        second = {name: torch.randn_like(value) if name.startswith("heads.") else value for name, value in load_file(teacher).items()}
        save_file(second, others / "model.safetensors")
        others = ("--second-teacher", others / "model.safetensors", "--teacher-shards", others)
        options = self.options("whole", teacher, "--student", teacher, *others)
        distill.main(options)
        self.assertEqual(distill.shape(load_file(self.folder / "whole/model.safetensors")), (12, 16))

        run = distill.Distiller(distill.parse_arguments(options))
        batch = run.plans[1][0]
        ids, mask = pad([run.window(item) for item in batch])
        read, _ = run.teacher_input(batch, ids, mask)
        self.assertTrue(torch.equal(read, torch.where(ids > EOS, ids + 500, ids)))
        answers = [distill.softened(of, of.pool(what, mask)) for of, what in ((run.teacher, read), (run.second_teacher, ids))]
        found, learnt = run.losses(batch, ids, mask), distill.softened(run.model, run.model.pool(ids, mask))
        for task, answer in learnt.items():
            mean = (answers[0][task].exp() + answers[1][task].exp()) / 2
            due = (mean * (mean.log() - answer)).sum(1).mean() * distill.TEMPERATURE**2
            self.assertAlmostEqual(found[task].item(), due.item(), places=5)

    def test_states_are_compared_token_by_token_and_padding_is_not(self):
        teacher = self.make_teacher()
        options = self.options("same", teacher, "--student", teacher)
        distill.main(options)
        run = distill.Distiller(distill.parse_arguments(options))
        run.model.eval()
        ids, mask = pad([run.window(item) for item in run.plans[1][0]])
        losses = run.losses([], ids, mask)
        self.assertAlmostEqual(losses["state"].item() + losses["inner"].item(), 0, places=4)
        with torch.no_grad():
            for layer in run.model.encoder.encoder.layer:
                layer.output.LayerNorm.bias.add_(torch.randn_like(layer.output.LayerNorm.bias))
        *inner, last = self.apart(run, ids, mask, range(12))
        for more in (0, 5):
            losses = run.losses([], functional.pad(ids, (0, more), value=PAD), functional.pad(mask, (0, more)))
            self.assertAlmostEqual(losses["state"].item(), last, places=4)
            self.assertAlmostEqual(losses["inner"].item(), sum(inner) / len(inner), places=4)
        self.assertGreater(min(last, *inner), 0.01)

    def apart(self, run, ids, mask, layers):
        """How far the student's states after each of its layers are from the teacher's after `layers`."""
        pairs = [(run.model.layers_states(ids, mask)[n], run.teacher.layers_states(ids, mask)[of]) for n, of in enumerate(layers)]
        far = [1 - functional.cosine_similarity(*pair, dim=2) for pair in pairs]
        return [torch.stack([row[:count].mean() for row, count in zip(of, mask.sum(1))]).mean().item() for of in far]

    def test_the_layers_of_a_student_are_compared_with_those_that_they_were(self):
        teacher = self.make_teacher()
        for layers, same in (((0, 1, 2), True), ((0, 2, 11), False)):
            options = self.options(f"of-{layers[-1]}", teacher, "--layers", *layers)
            arguments = distill.parse_arguments(options)
            distill.make_work(arguments)
            run = distill.Distiller(arguments)
            run.model.eval()
            ids, mask = pad([run.window(item) for item in run.plans[1][0]])
            losses, (first, second, last) = run.losses([], ids, mask), self.apart(run, ids, mask, layers)
            self.assertAlmostEqual(losses["inner"].item(), (first + second) / 2, places=4)
            self.assertAlmostEqual(losses["state"].item(), last, places=4)
            self.assertEqual(max(second, last) < 1e-4, same)

    def test_moments_are_those_of_all_values(self):
        teacher = self.make_teacher()
        arguments = distill.parse_arguments(self.options("whole", teacher, "--student", teacher, "--layers", 3, 11))
        distill.make_work(arguments)
        run = distill.Distiller(arguments)
        values, articles = [], run.shards["articles"]
        part = run.teacher.encoder.encoder.layer[11].intermediate
        hook = part.register_forward_hook(lambda _part, _input, output: values.append(output[0]))
        for document in range(ROWS):
            run.teacher.states(*pad([articles.window(document)]))
        hook.remove()
        mean, covariance = run.inner_moments()[1]
        self.assertTrue(torch.allclose(mean, torch.cat(values).mean(0), atol=1e-5))
        self.assertTrue(torch.allclose(covariance, torch.cat(values).T.cov(correction=0), atol=1e-5))

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
