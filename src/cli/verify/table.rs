//! What was found, for people and for programs.

use std::io::{Result, Write};

use serde::Serialize;

use super::GateFailure;
use crate::archive::{Agreement, Compared, ENOUGH_DOCUMENTS, MacroF1};
use crate::bundle::{Bundle, Precision};

/// Digits of the weights' digest that are shown.
const DIGEST_DIGITS: usize = 12;

/// The whole as JSON.
#[derive(Serialize)]
pub(super) struct Results<'a> {
    model: &'a str,
    revision: &'a str,
    digest: &'a str,
    threads: usize,
    sets: &'a [Compared],
    failures: &'a [GateFailure],
}

impl<'a> Results<'a> {
    pub(super) fn new(
        bundle: &'a Bundle,
        threads: usize,
        sets: &'a [Compared],
        failures: &'a [GateFailure],
    ) -> Self {
        let Bundle { name, revision, digest, .. } = bundle;
        Self { model: name, revision, digest, threads, sets, failures }
    }
}

pub(super) fn heading(out: &mut impl Write, bundle: &Bundle) -> Result<()> {
    let digest: String = bundle.digest.chars().take(DIGEST_DIGITS).collect();
    writeln!(out, "{} {}, weights {digest}, beside f32 in candle", bundle.name, bundle.revision)
}

/// A line for each precision and task.
pub(super) fn compared(out: &mut impl Write, set: &Compared) -> Result<()> {
    write!(out, "\n{}: {} documents, {} tokens", set.name, set.documents, set.tokens)?;
    if set.left_out > 0 {
        write!(out, "; {} rows cannot be read and are left out", set.left_out)?;
    }
    writeln!(out)?;
    let width = set.precisions.iter().flat_map(|agreement| &agreement.tasks);
    let width = width.map(|task| task.task.chars().count()).max().unwrap_or_default().max(4);
    writeln!(
        out,
        "  {:9}  {:23}  max |Δlogit|  mean |Δlogit|  {:width$}  same label  differ  macro-F1 \
         reference  here    points  classes",
        "precision", "kernels", "task"
    )?;
    set.precisions.iter().try_for_each(|agreement| lines(out, agreement, width))
}

fn lines(out: &mut impl Write, agreement: &Agreement, width: usize) -> Result<()> {
    let Agreement { precision, kernels, max_delta, mean_delta, tasks } = agreement;
    for (index, task) in tasks.iter().enumerate() {
        if index == 0 {
            let name = precision.name();
            write!(out, "  {name:9}  {kernels:23}  {max_delta:12.2e}  {mean_delta:13.2e}")?;
        } else {
            write!(out, "  {:9}  {:23}  {:12}  {:13}", "", "", "", "")?;
        }
        let share = task.agreement * 100.0;
        write!(out, "  {:width$}  {share:8.2} %  {:6}", task.task, task.differing)?;
        if let Some(f1) = &task.macro_f1 {
            let MacroF1 { classes, reference, found, .. } = f1;
            let points = f1.points();
            write!(out, "  {reference:18.4}  {found:.4}  {points:+6.2}  {classes:7}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What is written down, and what passed on too `little` for that.
pub(super) fn recorded(
    out: &mut impl Write,
    precisions: &[Precision],
    little: &[Precision],
) -> Result<()> {
    let names = |precisions: &[Precision]| {
        let names: Vec<&str> = precisions.iter().map(|precision| precision.name()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    writeln!(out, "\nrecorded in tasnif.json: {}", names(precisions))?;
    if !little.is_empty() {
        let little = names(little);
        writeln!(out, "not recorded, since no file has {ENOUGH_DOCUMENTS} documents: {little}")?;
    }
    Ok(())
}
