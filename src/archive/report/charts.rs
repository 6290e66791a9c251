//! The charts of the report, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels of a chart's width.
const WIDTH: u32 = 860;
const ROW: i32 = 26;
const LABEL: i32 = 150;
const NAME: i32 = 210;
const FONT: &str = "sans-serif";
const TEXT: i32 = 14;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// The colour of bars of one kind.
const BAR: RGBColor = RGBColor(0x2f, 0x6d, 0xa8);

/// Colours that can be told apart, also in print (Tableau 10).
const COLOURS: [RGBColor; 10] = [
    RGBColor(0x4e, 0x79, 0xa7),
    RGBColor(0xf2, 0x8e, 0x2b),
    RGBColor(0x59, 0xa1, 0x4f),
    RGBColor(0xe1, 0x57, 0x59),
    RGBColor(0x76, 0xb7, 0xb2),
    RGBColor(0xed, 0xc9, 0x48),
    RGBColor(0xb0, 0x7a, 0xa1),
    RGBColor(0xff, 0x9d, 0xa7),
    RGBColor(0x9c, 0x75, 0x5f),
    RGBColor(0xba, 0xb0, 0xac),
];

type Drawn = Result<String, Box<dyn std::error::Error>>;

/// A row of a chart: an id, an Arabic name, and counts.
pub(super) struct Row<'a> {
    pub(super) label: &'a str,
    pub(super) name_ar: &'a str,
    pub(super) counts: Vec<u64>,
}

/// The colour of series `index` as CSS.
pub(super) fn css_colour(index: usize, labels: &[&str]) -> String {
    let RGBColor(red, green, blue) = colour(index, labels);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Sentiments have the colours that people expect.
fn colour(index: usize, labels: &[&str]) -> RGBColor {
    match labels.get(index).copied() {
        Some("negative") => RGBColor(0xc8, 0x4b, 0x4b),
        Some("neutral") => RGBColor(0xb8, 0xb8, 0xb8),
        Some("positive") => RGBColor(0x4a, 0x9d, 0x5b),
        _ => COLOURS.get(index % COLOURS.len()).copied().unwrap_or(BAR),
    }
}

/// A bar for each row's one count, with its share of `total`.
pub(super) fn bars(rows: &[Row<'_>], total: u64) -> Drawn {
    let count = |row: &Row<'_>| row.counts.first().copied().unwrap_or_default();
    let largest = rows.iter().map(count).max().unwrap_or_default().max(1);
    svg(ROW * rows.len() as i32 + 10, |area| {
        let room = WIDTH as i32 - LABEL - NAME - 110;
        for (place, row) in rows.iter().enumerate() {
            let y = ROW * place as i32 + 5;
            names(area, row, y)?;
            let end = LABEL + 10 + (f64::from(room) * count(row) as f64 / largest as f64) as i32;
            rectangle(area, (LABEL + 10, y + 3), (end, y + ROW - 5), BAR)?;
            let share = count(row) as f64 * 100.0 / total.max(1) as f64;
            let text = format!("{}  ({share:.1} %)", count(row));
            write(area, &text, (end + 6, y + ROW / 2 - 1), HPos::Left)?;
        }
        Ok(())
    })
}

/// A bar of full length for each row, divided by its counts, with their sum.
pub(super) fn shares(rows: &[Row<'_>], labels: &[&str]) -> Drawn {
    svg(ROW * rows.len() as i32 + 10, |area| {
        let room = f64::from(WIDTH as i32 - LABEL - NAME - 70);
        for (place, row) in rows.iter().enumerate() {
            let y = ROW * place as i32 + 5;
            names(area, row, y)?;
            let total: u64 = row.counts.iter().sum();
            let mut before = 0;
            for (series, &count) in row.counts.iter().enumerate() {
                let at = |count: u64| {
                    LABEL + 10 + (room * count as f64 / total.max(1) as f64).round() as i32
                };
                let (start, end) = (at(before), at(before + count));
                before += count;
                if count == 0 {
                    continue;
                }
                rectangle(area, (start, y + 3), (end, y + ROW - 5), colour(series, labels))?;
                if end - start > 40 {
                    let text = format!("{:.0} %", count as f64 * 100.0 / total as f64);
                    write(area, &text, ((start + end) / 2, y + ROW / 2 - 1), HPos::Center)?;
                }
            }
            let end = LABEL + 16 + room as i32;
            write(area, &total.to_string(), (end, y + ROW / 2 - 1), HPos::Left)?;
        }
        Ok(())
    })
}

/// A column for each row, of which the counts are stacked as shares, over a line of
/// how many there are.
pub(super) fn over_time(rows: &[Row<'_>], labels: &[&str]) -> Drawn {
    const HEIGHT: i32 = 300;
    const TOP: i32 = 60;
    const BOTTOM: i32 = 40;
    let totals: Vec<u64> = rows.iter().map(|row| row.counts.iter().sum()).collect();
    let largest = totals.iter().copied().max().unwrap_or_default().max(1);
    svg(HEIGHT, |area| {
        let left = 50;
        let step = f64::from(WIDTH as i32 - left - 10) / rows.len().max(1) as f64;
        let x = |place: usize| left + (step * place as f64).round() as i32;
        let (floor, room) = (HEIGHT - BOTTOM, f64::from(HEIGHT - TOP - BOTTOM));
        for percent in [0, 50, 100] {
            let y = floor - (room * f64::from(percent) / 100.0) as i32;
            write(area, &format!("{percent} %"), (left - 6, y), HPos::Right)?;
        }
        write(area, &format!("{largest}"), (left - 6, 8), HPos::Right)?;
        let gap = i32::from(step > 6.0);
        for (place, (row, &total)) in rows.iter().zip(&totals).enumerate() {
            let (start, end) = (x(place), (x(place + 1) - gap).max(x(place) + 1));
            let height = (f64::from(TOP - 20) * total as f64 / largest as f64).round() as i32;
            rectangle(area, (start, TOP - 12 - height), (end, TOP - 12), FAINT)?;
            let mut before = 0;
            for (series, &count) in row.counts.iter().enumerate() {
                let y =
                    |count: u64| floor - (room * count as f64 / total.max(1) as f64).round() as i32;
                let (low, high) = (y(before), y(before + count));
                before += count;
                if count > 0 {
                    rectangle(area, (start, high), (end, low), colour(series, labels))?;
                }
            }
        }
        // As many labels as there is room for.
        let every = (70.0 / step).ceil().max(1.0) as usize;
        for (place, row) in rows.iter().enumerate().step_by(every) {
            write(area, row.label, (x(place), floor + 14), HPos::Left)?;
        }
        Ok(())
    })
}

/// A column for each count, named below; `mark` is where a line stands, from 0 to 1.
pub(super) fn histogram(columns: &[(String, u64)], mark: Option<f64>) -> Drawn {
    const HEIGHT: i32 = 190;
    const BOTTOM: i32 = 30;
    let largest = columns.iter().map(|(_, count)| *count).max().unwrap_or_default().max(1);
    svg(HEIGHT, |area| {
        let step = f64::from(WIDTH as i32 - 60) / columns.len().max(1) as f64;
        let x = |place: usize| 50 + (step * place as f64).round() as i32;
        let (floor, room) = (HEIGHT - BOTTOM, f64::from(HEIGHT - BOTTOM - 20));
        for (place, (name, count)) in columns.iter().enumerate() {
            let height = (room * *count as f64 / largest as f64).round() as i32;
            rectangle(area, (x(place), floor - height), (x(place + 1) - 2, floor), BAR)?;
            write(area, name, (x(place), floor + 14), HPos::Left)?;
            if *count > 0 {
                let text = count.to_string();
                let middle = (x(place) + x(place + 1)) / 2;
                write(area, &text, (middle, floor - height - 9), HPos::Center)?;
            }
        }
        if let Some(mark) = mark.filter(|mark| *mark > 0.0) {
            let at = 50 + (f64::from(WIDTH as i32 - 60) * mark) as i32;
            let line = vec![(at, 4), (at, floor)];
            area.draw(&PathElement::new(line, RGBColor(0xc8, 0x4b, 0x4b).stroke_width(2)))?;
        }
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Step = Result<(), Box<dyn std::error::Error>>;

fn svg(height: i32, draw: impl FnOnce(&Area<'_>) -> Step) -> Drawn {
    let mut svg = String::new();
    {
        let size = (WIDTH, height.unsigned_abs().max(1));
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// The id before the bar and the Arabic name at the right edge.
fn names(area: &Area<'_>, row: &Row<'_>, y: i32) -> Step {
    let middle = y + ROW / 2 - 1;
    write(area, row.label, (LABEL, middle), HPos::Right)?;
    write(area, row.name_ar, (WIDTH as i32 - 4, middle), HPos::Right)
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), align: HPos) -> Step {
    let style = (FONT, TEXT).into_font().color(&INK).pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(|error| error.to_string())?;
    Ok(())
}

fn rectangle(area: &Area<'_>, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Step {
    area.draw(&Rectangle::new([from, to], colour.filled())).map_err(|error| error.to_string())?;
    Ok(())
}
