//! The formats of the output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float32Builder, Int64Builder, StringBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema as ArrowSchema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::record::{Record, Schema, Value};

/// Bytes of a Parquet row group in memory, at most by about one row.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Rows turned into columns at a time.
const BATCH_ROWS: usize = 256;

/// What the output is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OutputFormat {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl OutputFormat {
    pub(super) const ALL: [Self; 3] = [Self::Jsonl, Self::Csv, Self::Parquet];

    /// The ending of its files' names.
    pub(in crate::archive) fn ending(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// By the ending of a file's name.
    pub(in crate::archive) fn of_name(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| kind.ending() == ending)
    }
}

/// Writes records in one format.
pub(super) enum RecordWriter {
    Jsonl { out: BufWriter<File>, keys: Vec<String> },
    Csv(Box<csv::Writer<File>>),
    Parquet(Box<ParquetWriter>),
}

impl RecordWriter {
    pub(super) fn new(format: OutputFormat, file: File, schema: &Schema) -> io::Result<Self> {
        let names = schema.names();
        Ok(match format {
            OutputFormat::Jsonl => {
                let keys = names.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
                Self::Jsonl { out: BufWriter::new(file), keys }
            }
            OutputFormat::Csv => {
                let mut out = csv::Writer::from_writer(file);
                out.write_record(&names)?;
                Self::Csv(Box::new(out))
            }
            OutputFormat::Parquet => Self::Parquet(Box::new(ParquetWriter::new(file, schema)?)),
        })
    }

    pub(super) fn write(&mut self, schema: &Schema, record: &Record) -> io::Result<()> {
        let values = schema.values(record);
        match self {
            Self::Jsonl { out, keys } => {
                for (place, (key, value)) in keys.iter().zip(&values).enumerate() {
                    write!(out, "{}{key}:", if place == 0 { '{' } else { ',' })?;
                    match *value {
                        Value::Null => out.write_all(b"null")?,
                        Value::Text(text) => serde_json::to_writer(&mut *out, text)?,
                        Value::Json(json) => out.write_all(json.as_bytes())?,
                        Value::Score(score) => serde_json::to_writer(&mut *out, &score)?,
                        Value::Flag(flag) => write!(out, "{flag}")?,
                        Value::Count(count) => write!(out, "{count}")?,
                    }
                }
                out.write_all(b"}\n")
            }
            Self::Csv(out) => {
                let fields = values.iter().map(|value| match *value {
                    Value::Null => String::new(),
                    Value::Text(text) | Value::Json(text) => text.to_owned(),
                    Value::Score(score) => score.to_string(),
                    Value::Flag(flag) => flag.to_string(),
                    Value::Count(count) => count.to_string(),
                });
                Ok(out.write_record(fields.map(String::into_bytes))?)
            }
            Self::Parquet(writer) => writer.write(&values),
        }
    }

    /// Ends the file and hands it to the disk.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Jsonl { out, .. } => out.into_inner().map_err(io::IntoInnerError::into_error)?,
            Self::Csv(out) => out.into_inner().map_err(csv::IntoInnerError::into_error)?,
            Self::Parquet(writer) => writer.finish()?,
        };
        file.sync_all()
    }
}

/// Collects rows into columns.
pub(super) struct ParquetWriter {
    writer: ArrowWriter<File>,
    schema: Arc<ArrowSchema>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

enum Column {
    Text(StringBuilder),
    Score(Float32Builder),
    Flag(BooleanBuilder),
    Count(Int64Builder),
}

impl ParquetWriter {
    fn new(file: File, schema: &Schema) -> io::Result<Self> {
        let empty = Record {
            file: String::new(),
            row: 0,
            id: Default::default(),
            keep: schema.keep.iter().map(|_| Default::default()).collect(),
            answer: Arc::new(schema.blank()),
        };
        let columns: Vec<Column> = schema.values(&empty).iter().map(Column::of).collect();
        let field = |(name, column): (String, &Column)| Field::new(name, column.kind(), true);
        let fields: Vec<Field> = schema.names().into_iter().zip(&columns).map(field).collect();
        let arrow = Arc::new(ArrowSchema::new(fields));
        let writer = ArrowWriter::try_new(file, Arc::clone(&arrow), Some(parquet_properties()))?;
        Ok(Self { writer, schema: arrow, columns, rows: 0, bytes: 0 })
    }

    fn write(&mut self, values: &[Value<'_>]) -> io::Result<()> {
        for (column, value) in self.columns.iter_mut().zip(values) {
            self.bytes += column.push(*value);
        }
        self.rows += 1;
        // By rows and bytes, so that the same rows always give the same groups.
        if self.rows >= BATCH_ROWS || self.bytes >= ROW_GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        self.writer.write(&batch.map_err(io::Error::other)?)?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.writer.into_inner()?)
    }
}

/// How every Parquet file of the output is written.
pub(super) fn parquet_properties() -> WriterProperties {
    WriterProperties::builder().set_compression(Compression::SNAPPY).build()
}

impl Column {
    fn of(value: &Value<'_>) -> Self {
        match value {
            Value::Null | Value::Text(_) | Value::Json(_) => Self::Text(StringBuilder::new()),
            Value::Score(_) => Self::Score(Float32Builder::new()),
            Value::Flag(_) => Self::Flag(BooleanBuilder::new()),
            Value::Count(_) => Self::Count(Int64Builder::new()),
        }
    }

    fn kind(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::Score(_) => DataType::Float32,
            Self::Flag(_) => DataType::Boolean,
            Self::Count(_) => DataType::Int64,
        }
    }

    /// Returns the bytes that it took.
    fn push(&mut self, value: Value<'_>) -> usize {
        match (self, value) {
            (Self::Text(column), Value::Text(text) | Value::Json(text)) => {
                column.append_value(text);
                return text.len();
            }
            (Self::Text(column), _) => column.append_null(),
            (Self::Score(column), Value::Score(score)) => column.append_value(score as f32),
            (Self::Score(column), _) => column.append_null(),
            (Self::Flag(column), Value::Flag(flag)) => column.append_value(flag),
            (Self::Flag(column), _) => column.append_null(),
            (Self::Count(column), Value::Count(count)) => {
                column.append_option(i64::try_from(count).ok());
            }
            (Self::Count(column), _) => column.append_null(),
        }
        size_of::<u64>()
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => ArrayBuilder::finish(column),
            Self::Score(column) => ArrayBuilder::finish(column),
            Self::Flag(column) => ArrayBuilder::finish(column),
            Self::Count(column) => ArrayBuilder::finish(column),
        }
    }
}
