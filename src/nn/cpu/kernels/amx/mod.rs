//! AMX: products of whole tiles, of up to 16 rows of 64 bytes, in one instruction.
//!
//! A tile of activations is 16 rows and 64 bytes of the depth, one of weights the same depth of 16
//! outputs, as [`Panel`](super::Panel) has them: a row for each group. Two of either make four tiles of
//! sums, with as many loads as products, which take twice as long.
//!
//! See Intel, "64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18.
//! Intrinsics are not stable yet, so instructions are written out; the compiler uses no tiles.
#![allow(unsafe_code, reason = "instructions of AMX, and tiles read without bounds checks")]

mod bf16;
mod int8;

use std::arch::asm;
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

/// Asks Linux for leave to use tiles, whose state is larger than older programs expect. It
/// refuses if it does not keep them.
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

/// The tiles of a thread: 0 to 3 hold sums, 4 and 5 activations, 6 and 7 weights. They are given
/// back with the value.
pub(in super::super) struct Tiles {
    /// Rows that tiles of activations have.
    heights: (usize, usize),
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
    unsafe fn new() -> Self {
        Self { heights: (0, 0), _thread: PhantomData }
    }

    /// Makes room for `first` rows of activations, of which there must be some, and `second` more.
    fn fit(&mut self, first: usize, second: usize) {
        let second = if second == 0 { self.heights.1.max(1) } else { second };
        let heights = (first, second);
        if self.heights == heights {
            return;
        }
        self.heights = heights;
        let (first, second) = (heights.0 as u8, heights.1 as u8);
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let heights = [first, first, second, second, first, second, ROWS as u8, ROWS as u8];
        let tiles = config.rows.iter_mut().zip(&mut config.row_bytes);
        for ((rows, row_bytes), height) in tiles.zip(heights) {
            (*rows, *row_bytes) = (height, ROW_BYTES as u16);
        }
        // SAFETY: the machine has AMX, as `new` was told, and the 64 bytes are a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the machine has AMX, as `new` was told.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Where the tiles of a product are read from.
#[derive(Clone, Copy)]
struct Source {
    /// The first row of activations, and bytes from one to the next.
    activations: *const u8,
    stride: usize,
    /// The first group of weights.
    weights: *const u8,
}

/// Adds the products of the tiles of one step of the depth, two of weights and one or two of
/// activations, to the sums.
macro_rules! multiply_tiles {
    ($name:ident, $instruction:literal) => {
        /// # Safety
        /// `Tiles` are configured, and `source` has the step.
        #[inline(always)]
        unsafe fn $name(source: Source, step: usize, both: bool) {
            // SAFETY: the caller says that tiles may be used, and that these are within the slices.
            unsafe {
                let weights = source.weights.add(step * ROWS * GROUP_BYTES);
                let first = source.activations.add(step * ROW_BYTES);
                if both {
                    asm!(
                        "tileloadd tmm6, [{weights} + {group}]",
                        "tileloadd tmm4, [{first} + {stride}]",
                        "tileloadd tmm7, [{weights} + {group} + 64]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm5, [{second} + {stride}]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        weights = in(reg) weights,
                        group = in(reg) GROUP_BYTES,
                        first = in(reg) first,
                        second = in(reg) first.add(ROWS * source.stride),
                        stride = in(reg) source.stride,
                        options(nostack, readonly)
                    );
                } else {
                    asm!(
                        "tileloadd tmm6, [{weights} + {group}]",
                        "tileloadd tmm4, [{first} + {stride}]",
                        "tileloadd tmm7, [{weights} + {group} + 64]",
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
multiply_tiles!(multiply_bytes, "tdpbusd");
multiply_tiles!(multiply_bf16, "tdpbf16ps");

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
            "tileloadd tmm0, [{row} + {stride}]",
            "tileloadd tmm1, [{row} + {stride} + 64]",
            "tileloadd tmm2, [{row} + {stride}]",
            "tileloadd tmm3, [{row} + {stride} + 64]",
            row = in(reg) row,
            stride = in(reg) 0_usize,
            options(nostack, readonly)
        );
    }
}

/// Stores the sums of the first rows, and of the second if `both`, a row every `stride` bytes.
///
/// # Safety
/// `Tiles` are configured, and `out` has 32 values of 4 bytes in each of the rows.
unsafe fn store(out: *mut u8, stride: usize, both: bool) {
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 64], tmm1",
            out = in(reg) out,
            stride = in(reg) stride,
            options(nostack)
        );
        if both {
            asm!(
                "tilestored [{out} + {stride}], tmm2",
                "tilestored [{out} + {stride} + 64], tmm3",
                out = in(reg) out.add(ROWS * stride),
                stride = in(reg) stride,
                options(nostack)
            );
        }
    }
}

/// Rows that are multiplied together: their first, how many the first tile has, and the second.
/// Blocks are of two full tiles, but for the last.
fn blocks(rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..rows).step_by(2 * ROWS).map(move |row| {
        let rows = (rows - row).min(2 * ROWS);
        (row, rows.min(ROWS), rows.saturating_sub(ROWS))
    })
}
