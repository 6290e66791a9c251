//! Archives, runs and results.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::tiny_bundle;

/// A tiny model that all tests share.
pub(crate) static MODEL: LazyLock<(TempDir, String)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny");
    tiny_bundle(&path);
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
});

const WORDS: [&str; 24] = [
    "أعلنت",
    "الوزارة",
    "خطة",
    "جديدة",
    "لتطوير",
    "المدارس",
    "في",
    "المدن",
    "والقرى",
    "ارتفعت",
    "أسعار",
    "النفط",
    "سجل",
    "الفريق",
    "هدفين",
    "حذر",
    "الأطباء",
    "من",
    "المرض",
    "هطلت",
    "أمطار",
    "على",
    "العاصمة",
    "اليوم",
];

/// Document `index` of an endless archive: from 3 to 90 words, every seventh one equal
/// to one before.
pub(crate) fn document(index: usize) -> Value {
    let same_as = if index % 7 == 6 { index / 2 } else { index };
    let word = |place: usize| WORDS[(same_as * 31 + place * place * 7 + place) % WORDS.len()];
    let words = |count: usize, from: usize| -> String {
        (from..from + count).map(word).collect::<Vec<_>>().join(" ")
    };
    let section = ["سياسة", "رياضة", "a, \"b\""][index % 3];
    json!({
        "id": format!("doc-{index}"),
        "title": words(3, 100),
        "text": words(3 + same_as * 13 % 88, 0),
        "date": format!("20{:02}-{:02}-15", 10 + index % 3, 1 + index % 12),
        "section": section,
    })
}

pub(crate) fn documents(count: usize) -> Vec<Value> {
    (0..count).map(document).collect()
}

/// A directory of a test with files in it.
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.name(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The lines of a JSON Lines file.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Every file under `name` or beside it, with its content.
    pub(crate) fn state(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.0.path().to_owned()];
        while let Some(path) = open.pop() {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                let shown = path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    open.push(path);
                } else if shown.starts_with(name) {
                    files.insert(shown, fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

pub(crate) fn jsonl(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

pub(crate) fn csv(rows: &[Value], delimiter: u8) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    let names: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    writer.write_record(&names).unwrap();
    for row in rows {
        writer.write_record(names.iter().map(|name| row[name.as_str()].as_str().unwrap())).unwrap();
    }
    writer.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The documents as Parquet, with `number`, a column of integers, and `time`.
pub(crate) fn write_parquet(path: &Path, rows: &[Value], compression: Compression) {
    let texts = |name: &str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row[name].as_str()).collect::<StringArray>())
    };
    let numbers: Int64Array = (0..rows.len() as i64).map(Some).collect();
    let times: TimestampMicrosecondArray =
        (0..rows.len() as i64).map(|row| Some(1_438_300_800_000_000 + row)).collect();
    let batch = RecordBatch::try_from_iter([
        ("id", texts("id")),
        ("title", texts("title")),
        ("text", texts("text")),
        ("number", Arc::new(numbers) as ArrayRef),
        ("time", Arc::new(times) as ArrayRef),
    ])
    .unwrap();
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(10))
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The batches of a Parquet file.
pub(crate) fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    builder.build().unwrap().map(Result::unwrap).collect()
}

pub(crate) fn tasnif(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasnif"));
    command.args(args).env_remove("TASNIF_LOG");
    command
}

/// `tasnif score` on the tiny model.
pub(crate) fn score_command(args: &[&str]) -> Command {
    tasnif(&[&["score", "--quiet", "--model", &MODEL.1], args].concat())
}

pub(crate) fn score(args: &[&str]) -> Output {
    score_command(args).output().unwrap()
}

/// A run that has to succeed; returns what it prints.
pub(crate) fn scored(args: &[&str]) -> String {
    let output = score(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A run that has to fail with `code` and say `says`.
pub(crate) fn fails(args: &[&str], code: i32, says: &str) {
    let output = score(args);
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(says), "{says:?} in {args:?}: {stderr}");
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The answers of results: all columns but those that say where a row was.
pub(crate) fn answers(rows: &[Value]) -> Vec<Value> {
    let one = |row: &Value| {
        let mut row = row.clone();
        let object = row.as_object_mut().unwrap();
        object.remove("file");
        object.remove("row");
        row
    };
    rows.iter().map(one).collect()
}
