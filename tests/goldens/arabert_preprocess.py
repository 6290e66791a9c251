"""Writes arabert_preprocess.json: what AraBERT's own preprocessing makes of some texts.

    pip install arabert==1.0.1 && python tests/goldens/arabert_preprocess.py
"""

import json
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
from arabert.preprocess import ArabertPreprocessor  # noqa: E402

# Written for this test.
TEXTS = [
    "أعلنت الوزارة اليوم خطّةً جديدةً لتطوير المدارس.",
    "قَالَ الوزيــــر: «لن نتراجع»، ثم غادر!",
    "بلغت الأرباح ٣٥٠ مليون ريال بزيادة 12% عن 2023م",
    "للمزيد https://example.com/news?id=7 أو www.example.org",
    "راسلونا على editor@example.com أو @newsroom_ar",
    "<p>نص في فقرة</p><br />وسطر جديد",
    "راااائع جداااا!!!!",
    "السعر بالدولار/اليورو (تقريبا) = 3,75",
    "القمة الـ34 في الرياض والدوري2024",
    "نص مع رموز 😀 و ✈ وحروف français",
    "R&amp;D قسم البحث &quot;الجديد&quot;",
    "  فراغات   كثيرة \t وسطر\nجديد ",
    "[رابط] كتبه المحرر",
]


def main():
    preprocess = ArabertPreprocessor("bert-base-arabertv02").preprocess
    rows = [{"text": text, "expected": preprocess(text)} for text in TEXTS]
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
