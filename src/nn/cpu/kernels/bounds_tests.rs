//! No product reads or writes beyond its slices, of tiles of AMX either, which no sanitizer sees: each
//! slice ends where memory begins that may not be touched.
#![allow(unsafe_code, reason = "memory that the process may not touch")]

use std::ops::{Deref, DerefMut};
use std::{ptr, slice};

use super::*;

const PAGE: usize = 4096;

/// Values at the end of their pages; the next page is forbidden.
struct Guarded<T> {
    pages: *mut u8,
    bytes: usize,
    start: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    fn new(values: &[T]) -> Self {
        let (len, bytes) = (values.len(), size_of_val(values).next_multiple_of(PAGE));
        // SAFETY: new pages, of which the last is forbidden; the values fit into the others, and end
        // where these do, so they are aligned.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let pages = libc::mmap(ptr::null_mut(), bytes + PAGE, access, kind, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            let pages: *mut u8 = pages.cast();
            assert_eq!(libc::mprotect(pages.add(bytes).cast(), PAGE, libc::PROT_NONE), 0);
            let start = pages.add(bytes - size_of_val(values)).cast();
            ptr::copy_nonoverlapping(values.as_ptr(), start, len);
            Self { pages, bytes, start, len }
        }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` has put the values there.
        unsafe { slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the pages of `new`, which nothing refers to any more.
        unsafe { libc::munmap(self.pages.cast(), self.bytes + PAGE) };
    }
}

fn check<K: Kernel>(kernel: K) {
    for rows in 1..70 {
        for steps in [1, 2, 3, 6] {
            check_product(kernel, rows, steps * K::DEPTH, 0);
            check_product(kernel, rows, steps * K::DEPTH, 1);
        }
    }
}

/// A product of weights that are 0, so results are the bias, with `gap` groups after rows.
fn check_product<K: Kernel>(kernel: K, rows: usize, depth: usize, gap: usize) {
    let width = kernel.panel_width();
    let (stride, out_stride) = (depth + gap * K::GROUP, width + gap);
    let row: Vec<f32> = (0..stride).map(|index| (index as f32 * 0.37).sin()).collect();
    let mut converted = vec![K::Activation::default(); stride];
    let known = Guarded::new(&vec![kernel.convert(&row, &mut converted); rows]);
    let activations = converted.repeat(rows);
    let activations = Guarded::new(&activations[..(rows - 1) * stride + depth]);
    let weights = Guarded::new(&vec![K::Weight::default(); depth * width]);
    let (scales, bias) = (Guarded::new(&vec![1.0; width]), Guarded::new(&vec![0.5; width]));
    let sums = Guarded::new(&vec![0; width]);
    let mut out = Guarded::new(&vec![f32::NAN; (rows - 1) * out_stride + width]);
    let panel = Panel {
        activations: &activations,
        stride,
        rows: &known,
        depth,
        weights: &weights,
        next: &weights,
        scales: &scales,
        bias: &bias,
        sums: &sums,
        extras: &Extras::default(),
        out: &mut out,
        out_stride,
        expanded: &mut Vec::new(),
    };
    kernel.multiply(&mut kernel.scope(), panel);
    for row in out.chunks(out_stride) {
        let (row, gap) = row.split_at(width);
        let name = kernel.name();
        assert!(row.iter().all(|value| *value == 0.5), "{name}: {rows} rows of {depth}");
        assert!(gap.iter().all(|value| value.is_nan()), "{name} writes beside rows");
    }
}

#[test]
fn kernels_touch_nothing_beyond_their_slices() {
    check(F32::new());
    check(Bf16::new());
    check(Int8);
    Bf16Avx512::new().into_iter().for_each(check);
    Bf16Amx::new().into_iter().for_each(check);
    Int8Avx2::new().into_iter().for_each(check);
    Int8AvxVnni::new().into_iter().for_each(check);
    Int8Avx512Vnni::new().into_iter().for_each(check);
    Int8Amx::new().into_iter().for_each(check);
}
