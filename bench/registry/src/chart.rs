//! A line chart as SVG, by hand: axes with round numbers, one line for each series, its name at its end.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 140.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Told apart without colour vision too (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// A named line.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// What stands at an axis.
pub struct Axis<'a> {
    pub name: &'a str,
    /// A level to compare with.
    pub limit: Option<f64>,
}

pub fn chart(title: &str, across: &str, up: &Axis<'_>, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|series| &series.points);
    let most = |pick: fn(&(f64, f64)) -> f64| all().map(pick).fold(0.0, f64::max);
    let (far, high) = (most(|point| point.0), most(|point| point.1).max(up.limit.unwrap_or(0.0)));
    let (x_step, y_step) = (step(far), step(high));
    let (far, high) = ((far / x_step).ceil() * x_step, (high / y_step).ceil() * y_step);
    let x = |value: f64| LEFT + value / far * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / high * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    let mut line = |text: String| writeln!(svg, "{text}").expect("writing to a string cannot fail");
    line(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img" aria-label="{title}">"##
    ));
    line(format!(r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##));
    line(format!(r##"<text x="{LEFT}" y="20" font-size="14" fill="#222222">{title}</text>"##));
    for number in 0..=(high / y_step).round() as usize {
        let value = number as f64 * y_step;
        let (right, at) = (WIDTH - RIGHT, y(value));
        line(format!(r##"<line x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}" stroke="#dddddd"/>"##));
        let (edge, below) = (LEFT - 6.0, at + 4.0);
        line(format!(r##"<text x="{edge}" y="{below:.1}" text-anchor="end" fill="#555555">{}</text>"##, short(value)));
    }
    for number in 0..=(far / x_step).round() as usize {
        let value = number as f64 * x_step;
        let (at, below) = (x(value), HEIGHT - BOTTOM + 16.0);
        line(format!(r##"<text x="{at:.1}" y="{below}" text-anchor="middle" fill="#555555">{}</text>"##, short(value)));
    }
    let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0);
    line(format!(r##"<text x="{middle}" y="{bottom}" text-anchor="middle" fill="#555555">{across}</text>"##));
    let centre = (TOP + HEIGHT - BOTTOM) / 2.0;
    line(format!(
        r##"<text x="14" y="{centre}" text-anchor="middle" fill="#555555" transform="rotate(-90 14 {centre})">{}</text>"##,
        up.name
    ));
    if let Some(limit) = up.limit {
        let (right, at) = (WIDTH - RIGHT, y(limit));
        line(format!(
            r##"<line x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}" stroke="#999999" stroke-dasharray="6 4"/>"##
        ));
        line(format!(r##"<text x="{}" y="{:.1}" fill="#777777">goal {}</text>"##, right + 6.0, at + 4.0, short(limit)));
    }
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> =
            series.points.iter().map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up))).collect();
        line(format!(
            r##"<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{}"/>"##,
            points.join(" ")
        ));
        if let Some((across, up)) = series.points.last() {
            let (at, beside) = (x(*across) + 6.0, y(*up) + 4.0);
            line(format!(r##"<text x="{at:.1}" y="{beside:.1}" fill="{colour}">{}</text>"##, series.name));
        }
    }
    line("</svg>".to_owned());
    svg
}

/// 1, 2 or 5 of some power of ten, so that there are four to eight steps.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

fn short(value: f64) -> String {
    if value >= 10_000.0 {
        return format!("{}k", value / 1000.0);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
