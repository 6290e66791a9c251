//! Apache Parquet, a row group at a time.

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch, temporal_conversions};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
};
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::errors::ParquetError;

use super::parquet_pages::OneRowGroup;
use super::{RowReader, not_utf8, too_large};
use crate::archive::error::FileError;
use crate::archive::row::{Cell, RawRow, Reject};

/// Rows decoded at a time: few, since a text may take megabytes, and one in a dictionary as much in each row.
const BATCH_ROWS: usize = 8;

pub(super) struct ParquetRows {
    file: Arc<File>,
    metadata: ArrowReaderMetadata,
    max_bytes: usize,
    levels: Option<FieldLevels>,
    next_group: usize,
    /// See [`OneRowGroup::new`].
    failure: Arc<OnceLock<i32>>,
    batches: Option<ParquetRecordBatchReader>,
    /// The batch that is being read, with a column for each wanted one.
    columns: Vec<Option<ArrayRef>>,
    row: usize,
    batch_rows: usize,
    wanted: Vec<String>,
    rows: u64,
}

impl ParquetRows {
    pub(super) fn new(file: File, max_bytes: usize) -> Result<Self, FileError> {
        // Without Arrow's own schema the types are few, and the same whoever wrote it.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(broken)?;
        Ok(Self {
            file: Arc::new(file),
            metadata,
            max_bytes,
            levels: None,
            next_group: 0,
            failure: Arc::default(),
            batches: None,
            columns: Vec::new(),
            row: 0,
            batch_rows: 0,
            wanted: Vec::new(),
            rows: 0,
        })
    }

    /// Moves to the next batch that has a row; false at the end.
    fn next_batch(&mut self) -> Result<bool, FileError> {
        loop {
            if let Some(batches) = &mut self.batches
                && let Some(batch) = batches.next()
            {
                let batch = batch.map_err(|error| match self.failure.get() {
                    Some(code) => FileError::Io(io::Error::from_raw_os_error(*code)),
                    None => FileError::Damaged(error.to_string()),
                })?;
                self.take(&batch);
                if self.batch_rows > 0 {
                    return Ok(true);
                }
                continue;
            }
            let (group, Some(levels)) = (self.next_group, &self.levels) else { return Ok(false) };
            if group >= self.metadata.metadata().num_row_groups() {
                return Ok(false);
            }
            self.next_group += 1;
            let group =
                OneRowGroup::new(&self.file, self.metadata.metadata(), group, &self.failure);
            let batches =
                ParquetRecordBatchReader::try_new_with_row_groups(levels, &group, BATCH_ROWS, None);
            self.batches = Some(batches.map_err(broken)?);
        }
    }

    fn take(&mut self, batch: &RecordBatch) {
        self.columns = self.wanted.iter().map(|name| batch.column_by_name(name).cloned()).collect();
        self.row = 0;
        self.batch_rows = batch.num_rows();
    }
}

impl RowReader for ParquetRows {
    fn columns(&mut self) -> Result<Vec<String>, FileError> {
        Ok(self.metadata.schema().fields().iter().map(|field| field.name().clone()).collect())
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), FileError> {
        let schema = self.metadata.schema();
        let mut roots = Vec::new();
        for (place, field) in schema.fields().iter().enumerate() {
            if wanted.contains(field.name()) {
                if !supported(field.data_type()) {
                    return Err(FileError::Setting(format!(
                        "column {:?} holds {}; text, numbers, booleans, dates and timestamps \
                         can be read",
                        field.name(),
                        field.data_type()
                    )));
                }
                roots.push(place);
            }
        }
        let schema = self.metadata.parquet_schema();
        let mask = ProjectionMask::roots(schema, roots);
        self.levels = Some(parquet_to_arrow_field_levels(schema, mask, None).map_err(broken)?);
        self.wanted = wanted.to_vec();
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RawRow>, FileError> {
        if self.row >= self.batch_rows && !self.next_batch()? {
            return Ok(None);
        }
        let (row, max_bytes) = (self.row, self.max_bytes);
        let cell = |column: &Option<ArrayRef>| {
            column.as_ref().map_or(Ok(Cell::Null), |column| cell_of(column, row))
        };
        let cells: Result<Vec<Cell>, Reject> = self.columns.iter().map(cell).collect();
        let cells = cells.and_then(|cells| {
            let bytes: usize = cells.iter().map(Cell::len).sum();
            if bytes > max_bytes { Err(too_large(bytes as u64, max_bytes)) } else { Ok(cells) }
        });
        self.row += 1;
        self.rows += 1;
        Ok(Some(RawRow::new(self.rows, cells)))
    }
}

fn broken(error: ParquetError) -> FileError {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => FileError::Io(*error),
            Err(error) => FileError::Damaged(error.to_string()),
        },
        error => FileError::Damaged(error.to_string()),
    }
}

fn supported(kind: &DataType) -> bool {
    use DataType::{
        Binary, Boolean, Date32, Date64, Decimal128, Decimal256, Float32, Float64, Int8, Int16,
        Int32, Int64, LargeBinary, LargeUtf8, Null, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8,
    };
    matches!(
        kind,
        Null | Utf8
            | LargeUtf8
            | Binary
            | LargeBinary
            | Boolean
            | Int8
            | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | UInt64
            | Float32
            | Float64
            | Date32
            | Date64
            | Timestamp(..)
            | Decimal128(..)
            | Decimal256(..)
    )
}

/// Row `row` of `column`, of a type that is [`supported`].
fn cell_of(column: &ArrayRef, row: usize) -> Result<Cell, Reject> {
    if column.is_null(row) {
        return Ok(Cell::Null);
    }
    let bytes = |bytes: &[u8]| {
        let text = str::from_utf8(bytes).map_err(|error| not_utf8(&error))?;
        Ok(Cell::Text(text.to_owned()))
    };
    Ok(match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Cell::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Binary => return bytes(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => return bytes(column.as_binary::<i64>().value(row)),
        DataType::Boolean => json(column.as_boolean().value(row)),
        DataType::Int8 => json(number::<Int8Type>(column, row)),
        DataType::Int16 => json(number::<Int16Type>(column, row)),
        DataType::Int32 => json(number::<Int32Type>(column, row)),
        DataType::Int64 => json(number::<Int64Type>(column, row)),
        DataType::UInt8 => json(number::<UInt8Type>(column, row)),
        DataType::UInt16 => json(number::<UInt16Type>(column, row)),
        DataType::UInt32 => json(number::<UInt32Type>(column, row)),
        DataType::UInt64 => json(number::<UInt64Type>(column, row)),
        DataType::Float32 => json(number::<Float32Type>(column, row)),
        DataType::Float64 => json(number::<Float64Type>(column, row)),
        DataType::Decimal128(..) => {
            Cell::Json(column.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        DataType::Decimal256(..) => {
            Cell::Json(column.as_primitive::<Decimal256Type>().value_as_string(row))
        }
        DataType::Date32 => {
            date(temporal_conversions::date32_to_datetime(number::<Date32Type>(column, row)))
        }
        DataType::Date64 => {
            date(temporal_conversions::date64_to_datetime(number::<Date64Type>(column, row)))
        }
        DataType::Timestamp(unit, zone) => time(unit, column, row, zone.is_some()),
        _ => Cell::Null,
    })
}

fn number<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> T::Native {
    column.as_primitive::<T>().value(row)
}

/// NaN and infinity, which JSON does not have, are null.
fn json(value: impl serde::Serialize) -> Cell {
    match serde_json::to_string(&value) {
        Ok(text) if text != "null" => Cell::Json(text),
        _ => Cell::Null,
    }
}

fn date(value: Option<chrono::NaiveDateTime>) -> Cell {
    value.map_or(Cell::Null, |value| Cell::Text(value.date().to_string()))
}

/// As ISO 8601, with Z if the column is in UTC.
fn time(unit: &TimeUnit, column: &ArrayRef, row: usize, utc: bool) -> Cell {
    let value = match unit {
        TimeUnit::Second => temporal_conversions::timestamp_s_to_datetime(number::<
            TimestampSecondType,
        >(column, row)),
        TimeUnit::Millisecond => {
            temporal_conversions::timestamp_ms_to_datetime(number::<TimestampMillisecondType>(
                column, row,
            ))
        }
        TimeUnit::Microsecond => {
            temporal_conversions::timestamp_us_to_datetime(number::<TimestampMicrosecondType>(
                column, row,
            ))
        }
        TimeUnit::Nanosecond => {
            temporal_conversions::timestamp_ns_to_datetime(number::<TimestampNanosecondType>(
                column, row,
            ))
        }
    };
    let zone = if utc { "Z" } else { "" };
    value.map_or(Cell::Null, |value| {
        Cell::Text(format!("{}{zone}", value.format("%Y-%m-%dT%H:%M:%S%.f")))
    })
}
