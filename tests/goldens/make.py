"""Makes the golden files that tests/goldens.rs compares with.

    python make.py tiny      tiny random checkpoints, their token ids and logits
    python make.py shipped   token ids and logits of models/tasnif-base and tasnif-mini

Needs torch, transformers and tokenizers. Everything is computed by Hugging Face
transformers in f32, one sequence at a time, without padding. The sentences were
written for this file.
"""

import json
import re
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

HERE = Path(__file__).parent
MODELS = HERE.parent.parent / "models"
POSITIONS = 64
LABELS = ["negative", "neutral", "positive"]

SENTENCES = [
    "أعلنت وزارة الصحة افتتاح مستشفى جديد في شرق المدينة يوم الأحد.",
    "فاز الفريق المحلي بالمباراة النهائية بعد وقت إضافي مثير.",
    "ارتفعت أسعار القمح بنسبة 3.5% مع تراجع المخزون العالمي.",
    "قال المتحدث إن المفاوضات ستستأنف الأسبوع المقبل في جنيف.",
    "توقعت هيئة الأرصاد هطول أمطار غزيرة على السواحل الشمالية.",
    "وقّعت الجامعتان اتفاقية لتبادل الطلاب والباحثين في علوم البحار.",
    "انخفض سعر صرف العملة أمام الدولار إلى أدنى مستوى منذ عام 2019.",
    "عرض المهرجان أربعين فيلماً قصيراً من عشر دول عربية.",
    "طالب العمال بزيادة الأجور وتحسين شروط السلامة في المصنع.",
    "كشفت الشركة عن هاتف جديد يعمل ببطارية تدوم ثلاثة أيام.",
]
CASES = SENTENCES[:4] + [
    "",
    " ",
    ".",
    "خبر",
    "عاجل 🔴 انفجار قرب الميناء 😢😢",
    "بلغت الحصيلة ١٢٣ جريحاً و45 قتيلاً، أي 3,7٪ من السكان",
    "OPEC قالت: oil prices ترتفع في Q3 إلى 91.5$",
    "مُحَمَّدٌ ـــ العربيـــة ﷺ ﻻ",
    "كلمة\nأخرى\tثالثة  ورابعة",
    "中文 та ელ",
    " ".join(SENTENCES),
]


def randomize(model, seed):
    """Weights large enough that the logits differ by ones, not thousandths."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = "LayerNorm.weight" in name
            parameter.copy_(1 + 0.1 * noise if is_scale else 0.25 * noise)
    return model.eval()


def template(tokenizer, first, last):
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    return processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}", special_tokens=ids
    )


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = template(tokenizer, "[CLS]", "[SEP]")
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=POSITIONS)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = template(tokenizer, "<s>", "</s>")
    tokenizer.decoder = decoders.Metaspace()
    # A maximum length that means "not known", as many checkpoints have it.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>",
        sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(SENTENCES, trainer)
    ends = (("</s>", 2), ("<s>", 0))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>",
        sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        model_max_length=POSITIONS)


def shape(tokenizer, positions, **more):
    return dict(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=positions,
        id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)},
        pad_token_id=tokenizer.pad_token_id, **more)


def tiny():
    bert = word_piece()
    roberta = byte_level()
    xlm = unigram()
    # RoBERTa has a position for the padding and one below it.
    offset = POSITIONS + 2
    made = {
        "tiny-bert": (bert, BertForSequenceClassification(BertConfig(**shape(bert, POSITIONS)))),
        "tiny-roberta": (roberta, RobertaForSequenceClassification(RobertaConfig(
            **shape(roberta, offset, type_vocab_size=1, layer_norm_eps=1e-5,
                    problem_type="multi_label_classification")))),
        "tiny-xlm-roberta": (xlm, XLMRobertaForSequenceClassification(XLMRobertaConfig(
            **shape(xlm, offset, type_vocab_size=1, layer_norm_eps=1e-5)))),
        "tiny-electra": (bert, ElectraForSequenceClassification(ElectraConfig(
            **shape(bert, POSITIONS, embedding_size=32)))),
    }
    for seed, (name, (tokenizer, model)) in enumerate(made.items()):
        randomize(model, seed)
        directory = HERE / name
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        cases = []
        for text in CASES:
            ids = tokenizer(text, truncation=True, max_length=POSITIONS)["input_ids"]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0].tolist()
            cases.append({"text": text, "ids": ids, "logits": logits})
        golden = {"transformers": transformers.__version__, "cases": cases}
        if name == "tiny-bert":
            golden["lower_case_ids"] = lower_case_ids(tokenizer)
        write(directory / "golden.json", golden)


def lower_case_ids(tokenizer):
    """Ids by the same vocabulary as `vocab.txt` alone, lower-cased and without accents."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    plain = transformers.BertTokenizer(vocab=dict(vocabulary), do_lower_case=True)
    return [plain(text, truncation=True, max_length=POSITIONS)["input_ids"] for text in CASES]


def shipped():
    for name in ("tasnif-base", "tasnif-mini"):
        write(HERE / f"{name}.json", golden_of(MODELS / name))


def golden_of(bundle):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(bundle / "tokenizer.json"))
    tasks = json.loads((bundle / "tasnif.json").read_text())["tasks"]
    tensors = {k: v.float() for k, v in load_file(bundle / "model.safetensors").items()}
    config = BertConfig.from_pretrained(bundle)
    model = BertModel(config, add_pooling_layer=False).float().eval()
    missing, unexpected = model.load_state_dict(
        {k.removeprefix("bert."): v for k, v in tensors.items() if not k.startswith("heads.")},
        strict=False)
    # Old checkpoints lack the position_ids buffer, or carry it; nothing else may differ.
    wrong = [name for name in missing + unexpected if "position_ids" not in name]
    assert not wrong, wrong
    # The way of a window: <s> title </s> text </s>.
    pairs = [("", text) for text in CASES]
    pairs += [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], " ".join(SENTENCES * 6))]
    first, last = tokenizer("")["input_ids"]
    cases = []
    for title, text in pairs:
        ids = [first]
        if title:
            ids += tokenizer(title, add_special_tokens=False)["input_ids"] + [last]
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = ids[: config.max_position_embeddings - 1] + [last]
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        pooled = {"mean": hidden.mean(dim=0), "cls": hidden[0]}
        logits = torch.cat([
            tensors[f"heads.{task['name']}.weight"] @ pooled[task["pooling"]]
            + tensors[f"heads.{task['name']}.bias"] for task in tasks])
        cases.append({"title": title, "text": text, "ids": ids, "logits": logits.tolist()})
    return {"transformers": transformers.__version__, "cases": cases}


def write(path, value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    # One line for each list of numbers keeps the files readable.
    text = re.sub(r"\[\s+([-0-9.e,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    path.write_text(text + "\n")


if __name__ == "__main__":
    {"tiny": tiny, "shipped": shipped}[sys.argv[1]]()
