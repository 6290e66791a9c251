//! A report as a chart: latency over throughput, and throughput over the tokens of a batch.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::{Mode, Point, Report, series};

const WIDTH: u32 = 900;
/// Pixels of one chart's height.
const HEIGHT: u32 = 460;
const FONT: &str = "sans-serif";
const LEGEND_LINE: i32 = 22;
/// p50 is drawn paler than p99.
const PALE: f64 = 0.5;
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

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Step = Result<(), Box<dyn std::error::Error>>;

/// The chart as SVG.
///
/// # Errors
/// What the drawing library says.
pub(super) fn draw(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let batches = by_batch(&report.points);
    let charts = if batches.len() > 1 { 2 } else { 1 };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * charts)).into_drawing_area();
        area.fill(&WHITE)?;
        let (top, bottom) = area.split_vertically(HEIGHT);
        latency(&top, report)?;
        if charts > 1 {
            throughput(&bottom, &batches)?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// The highest throughput for each size of batches, by size.
fn by_batch(points: &[Point]) -> Vec<(f64, f64)> {
    let mut best: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let Some(tokens) = point.batch_tokens.map(|tokens| tokens as f64) else { continue };
        match best.iter_mut().find(|(other, _)| *other == tokens) {
            Some((_, throughput)) => *throughput = throughput.max(point.tokens_per_s),
            None => best.push((tokens, point.tokens_per_s)),
        }
    }
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    best
}

fn latency(area: &Area<'_>, report: &Report) -> Step {
    let answered =
        || report.points.iter().filter_map(|point| Some((point, point.latency_us.as_ref()?)));
    let right = answered().map(|(point, _)| point.documents_per_s).fold(0.0, f64::max);
    let low = answered().map(|(_, latency)| ms(latency.p50)).fold(f64::INFINITY, f64::min);
    let high = answered().map(|(_, latency)| ms(latency.p99)).fold(0.0, f64::max);
    let title = format!(
        "Latency over throughput: {}, {}, {}",
        report.subject, report.model.name, report.precision
    );
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right * 1.12, (low * 0.7..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .x_desc("documents/s")
        .y_desc("milliseconds, from when a document was due")
        .y_label_formatter(&label)
        .draw()?;
    let lines = series(&report.points);
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or(BLACK);
        let spots = |p99: bool| -> Vec<(f64, f64)> {
            let spot = |point: &&Point| {
                let latency = point.latency_us?;
                let us = if p99 { latency.p99 } else { latency.p50 };
                Some((point.documents_per_s, ms(us)))
            };
            line.iter().filter_map(spot).collect()
        };
        for (p99, strength) in [(false, PALE), (true, 1.0)] {
            let style = colour.mix(strength).stroke_width(2);
            let name = format!("{}: {}", name(line), if p99 { "p99" } else { "p50" });
            chart
                .draw_series(std::iter::once(PathElement::new(spots(p99), style)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + LEGEND_LINE, y)], style));
            let dot = |spot| Circle::new(spot, 3, colour.mix(strength).filled());
            chart.draw_series(spots(p99).into_iter().map(dot))?;
        }
        let knees = line.iter().filter(|point| point.knee);
        let knees = knees.filter_map(|point| Some((point, point.latency_us?)));
        for (point, latency) in knees {
            let at = (point.documents_per_s, ms(latency.p99));
            let ring = Circle::new(at, 8, BLACK.stroke_width(2));
            chart.draw_series(std::iter::once(ring))?;
            let text = format!("knee: {}", load(point));
            let text = EmptyElement::at(at) + Text::new(text, (-30, -24), (FONT, 13));
            chart.draw_series(std::iter::once(text))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn throughput(area: &Area<'_>, batches: &[(f64, f64)]) -> Step {
    let right = batches.last().map_or(1.0, |batch| batch.0);
    let left = batches.first().map_or(1.0, |batch| batch.0);
    let high = batches.iter().map(|batch| batch.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Throughput over the tokens of a batch", (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((left * 0.8..right * 1.25).log_scale(), 0.0..high * 1.12)?;
    chart
        .configure_mesh()
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .x_desc("tokens in a batch, at most")
        .y_desc("tokens/s, at the best load")
        .x_label_formatter(&label)
        .draw()?;
    let colour = COLOURS.first().copied().unwrap_or(BLACK);
    let line = PathElement::new(batches.to_vec(), colour.stroke_width(2));
    chart.draw_series(std::iter::once(line))?;
    for &(tokens, throughput) in batches {
        let text = format!("{tokens:.0}: {throughput:.0}");
        let spot = EmptyElement::at((tokens, throughput))
            + Circle::new((0, 0), 4, colour.filled())
            + Text::new(text, (-24, 10), (FONT, 13));
        chart.draw_series(std::iter::once(spot))?;
    }
    Ok(())
}

fn name(line: &[&Point]) -> String {
    let Some(point) = line.first() else { return String::new() };
    let mode = match point.mode {
        Mode::Closed => "closed loop",
        Mode::Open => "open loop",
    };
    point.batch_tokens.map_or(mode.to_owned(), |tokens| format!("{mode}, batches of {tokens}"))
}

fn load(point: &Point) -> String {
    match point.mode {
        Mode::Closed => format!("{} open", point.concurrency.unwrap_or_default()),
        Mode::Open => format!("{}/s", point.rate.unwrap_or_default()),
    }
}

/// Of microseconds; at least one of them, since the axis has no zero.
fn ms(us: u64) -> f64 {
    us.max(1) as f64 / 1_000.0
}

fn label(value: &f64) -> String {
    let digits = if *value < 1.0 { 2 } else { usize::from(*value < 10.0) };
    format!("{value:.digits$}")
}
