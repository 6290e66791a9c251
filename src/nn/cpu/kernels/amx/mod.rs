//! AMX: products of whole tiles, of up to 16 rows of 64 bytes, in one instruction.
//!
//! A tile of activations is 16 rows and 64 bytes of the depth, one of weights the same depth of 16
//! outputs, as [`Panel`](super::Panel) has them: a row for each group. Two of either make four tiles of
//! sums: four loads for four products, each of which takes twice as long as a load.
//!
//! See Intel, "64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18.
//! Intrinsics are not stable yet, so instructions are written out; the compiler uses tiles for these
//! intrinsics alone, so none of its own are lost.
#![allow(unsafe_code, reason = "instructions of AMX, and tiles read without bounds checks")]

mod bf16;
mod int8;

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::LazyLock;

use raw_cpuid::CpuId;

pub(in super::super) use self::bf16::Bf16Amx;
pub(in super::super) use self::int8::Int8Amx;

/// Rows of a tile.
const ROWS: usize = 16;
/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;
/// Bytes from one group of a panel's weights to the next: two tiles side by side.
const GROUP_BYTES: usize = 2 * ROW_BYTES;
/// Outputs of a panel: two tiles of 16 sums of 4 bytes.
const WIDTH: usize = 32;
/// Tiles of sums that the peak is measured with.
const PEAK_TILES: usize = 4;

/// Kinds of products that the processor has, if the system lets this process use tiles.
#[derive(Clone, Copy, Default)]
struct Features {
    int8: bool,
    bf16: bool,
}

/// What this machine has, found once, since the system has to be asked.
fn features() -> Features {
    static FEATURES: LazyLock<Features> = LazyLock::new(|| {
        let processor = CpuId::new().get_extended_feature_info();
        let processor = processor.filter(|has| has.has_amx_tile() && permitted());
        processor.map_or_else(Features::default, |has| Features {
            int8: has.has_amx_int8(),
            bf16: has.has_amx_bf16(),
        })
    });
    *FEATURES
}

/// Asks Linux for leave to use tiles, for all threads that there are and will be. It refuses if it
/// does not keep their state, or a thread's stack for signals is too small for it.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: a call with two integers, which changes nothing but what the process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

thread_local! {
    /// Whether this thread has [`Tiles`].
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// The tiles of a thread: 0 to 3 hold sums, 4 and 5 activations, 6 and 7 weights. They are given
/// back with the value.
pub(in super::super) struct Tiles {
    /// Rows that tiles of activations and sums have; 0 before the first.
    height: usize,
    /// They are of one thread.
    _thread: PhantomData<*const ()>,
}

/// The memory that `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    /// The machine has AMX, and the system lets this process use it.
    ///
    /// # Panics
    /// If this thread has tiles already.
    unsafe fn new() -> Self {
        assert!(!TAKEN.replace(true), "the tiles of this thread are in use");
        Self { height: 0, _thread: PhantomData }
    }

    /// Gives tiles of activations and sums `height` rows, 1 to 16.
    fn fit(&mut self, height: usize) {
        if self.height == height {
            return;
        }
        assert!((1..=ROWS).contains(&height), "a tile of {height} rows");
        self.height = height;
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let full = ROWS;
        let heights = [height, height, height, height, height, height, full, full];
        let tiles = config.rows.iter_mut().zip(&mut config.row_bytes);
        for ((rows, row_bytes), height) in tiles.zip(heights) {
            (*rows, *row_bytes) = (height as u8, ROW_BYTES as u16);
        }
        // SAFETY: the machine has AMX, as `new` was told, and the 64 bytes are a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the machine has AMX, as `new` was told, and no other value has tiles of this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
        TAKEN.set(false);
    }
}

/// Where the tiles of a product are read from.
#[derive(Clone, Copy)]
struct Source {
    /// The first row of the first tile of activations, and of the second if there is one.
    first: *const u8,
    second: Option<*const u8>,
    /// Bytes from one row to the next.
    stride: usize,
    /// The first group of weights.
    weights: *const u8,
}

/// What multiplies by one instruction: `$name` adds the products of the tiles of one step of the
/// depth, two of weights and one or two of activations, to the sums; `$peak` is
/// [`Kernel::peak`](super::Kernel::peak), but counts sums, each of which is of a tile's depth.
macro_rules! multiply_tiles {
    ($name:ident, $peak:ident, $instruction:literal) => {
        /// # Safety
        /// The machine has AMX, and the system lets this process use it.
        unsafe fn $peak(steps: usize) -> usize {
            // SAFETY: as the caller says; the tiles are configured.
            unsafe {
                let mut tiles = Tiles::new();
                tiles.fit(ROWS);
                for _ in 0..steps {
                    asm!(
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        options(nostack, nomem)
                    );
                }
            }
            steps * PEAK_TILES * ROWS * ROWS
        }

        /// # Safety
        /// `Tiles` are configured, and `source` has the step.
        #[inline(always)]
        unsafe fn $name(source: Source, step: usize) {
            // SAFETY: the caller says that tiles may be used, and that these are within the slices.
            unsafe {
                let weights = source.weights.add(step * ROWS * GROUP_BYTES);
                let first = source.first.add(step * ROW_BYTES);
                if let Some(second) = source.second {
                    asm!(
                        "tileloadd tmm6, [{weights} + {group}*1]",
                        "tileloadd tmm4, [{first} + {stride}*1]",
                        "tileloadd tmm7, [{weights} + {group}*1 + 64]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm5, [{second} + {stride}*1]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        weights = in(reg) weights,
                        group = in(reg) GROUP_BYTES,
                        first = in(reg) first,
                        second = in(reg) second.add(step * ROW_BYTES),
                        stride = in(reg) source.stride,
                        options(nostack, readonly)
                    );
                } else {
                    asm!(
                        "tileloadd tmm6, [{weights} + {group}*1]",
                        "tileloadd tmm4, [{first} + {stride}*1]",
                        "tileloadd tmm7, [{weights} + {group}*1 + 64]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        weights = in(reg) weights,
                        group = in(reg) GROUP_BYTES,
                        first = in(reg) first,
                        stride = in(reg) source.stride,
                        options(nostack, readonly)
                    );
                }
            }
        }
    };
}
multiply_tiles!(multiply_bytes, peak_bytes, "tdpbusd");
multiply_tiles!(multiply_bf16, peak_bf16, "tdpbf16ps");

/// Sets the sums to 0.
///
/// # Safety
/// `Tiles` are configured.
unsafe fn clear() {
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        );
    }
}

/// Reads the sums of every row from the same 32 values of 4 bytes.
///
/// # Safety
/// `Tiles` are configured, and `row` has 32 values.
unsafe fn start_from(row: *const u8) {
    // SAFETY: as the caller says; rows are 0 bytes apart.
    unsafe {
        asm!(
            "tileloadd tmm0, [{row} + {stride}*1]",
            "tileloadd tmm1, [{row} + {stride}*1 + 64]",
            "tileloadd tmm2, [{row} + {stride}*1]",
            "tileloadd tmm3, [{row} + {stride}*1 + 64]",
            row = in(reg) row,
            stride = in(reg) 0_usize,
            options(nostack, readonly)
        );
    }
}

/// Stores the sums of the first tile of rows to `first`, and those of the second to `second`, a
/// row every `stride` bytes.
///
/// # Safety
/// `Tiles` are configured, and either has 32 values of 4 bytes in each of its rows.
unsafe fn store(first: *mut u8, second: Option<*mut u8>, stride: usize) {
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "tilestored [{first} + {stride}*1], tmm0",
            "tilestored [{first} + {stride}*1 + 64], tmm1",
            first = in(reg) first,
            stride = in(reg) stride,
            options(nostack)
        );
        if let Some(second) = second {
            asm!(
                "tilestored [{second} + {stride}*1], tmm2",
                "tilestored [{second} + {stride}*1 + 64], tmm3",
                second = in(reg) second,
                stride = in(reg) stride,
                options(nostack)
            );
        }
    }
}

/// Divides rows into tiles of `height`, two and two: the first row of each. The last tile shares rows
/// with the one before, which come out the same, so that all are as high and configured once.
fn pairs(rows: usize, height: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
    let start = move |row: usize| row.min(rows.saturating_sub(height));
    (0..rows).step_by(2 * ROWS).map(move |row| {
        let second = row + ROWS;
        (start(row), (second < rows).then(|| start(second)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_row_and_no_more() {
        for rows in 1..200 {
            let height = rows.min(ROWS);
            let starts = pairs(rows, height).flat_map(|(first, second)| [Some(first), second]);
            let starts: Vec<_> = starts.flatten().collect();
            assert_eq!(starts.len(), rows.div_ceil(ROWS));
            let covered = |row| starts.iter().any(|start| (*start..start + height).contains(&row));
            assert!((0..rows).all(covered) && starts.iter().all(|start| start + height <= rows));
        }
        assert_eq!(pairs(0, 0).count(), 0);
    }
}
