//! A curve as an SVG picture: readable on light and dark pages, and the same bytes for the same points.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Lines across the picture.
const STEPS: u32 = 4;

/// What stands beside the curve.
pub(super) struct Labels<'a> {
    pub(super) title: &'a str,
    /// What grows, along a scale of powers of ten.
    pub(super) x: &'a str,
    /// What it costs, from 0.
    pub(super) y: &'a str,
}

/// Draws points in the order of their `x`, which is positive. No points, no picture.
pub(super) fn svg(labels: &Labels<'_>, points: &[(f64, f64)]) -> Option<String> {
    let (first, last) = (points.first()?.0.log10(), points.last()?.0.log10());
    let top = round_up(points.iter().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| {
        let share = if last > first { (value.log10() - first) / (last - first) } else { 0.5 };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    };
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    // Writing into a string does not fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#777">"##
    );
    let _ = writeln!(svg, "<title>{0}</title>\n{1}", labels.title, text(LEFT, 20.0, "start", labels.title));
    for step in 0..=STEPS {
        let value = top * f64::from(step) / f64::from(STEPS);
        let at = y(value);
        let right = WIDTH - RIGHT;
        let _ = writeln!(
            svg,
            r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#999" stroke-opacity="0.4"/>{}"##,
            text(LEFT - 8.0, at + 4.0, "end", &short(value))
        );
    }
    let line: Vec<String> =
        points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
    let _ = writeln!(
        svg,
        r##"<polyline points="{}" fill="none" stroke="#3b82f6" stroke-width="2"/>"##,
        line.join(" ")
    );
    for point in points {
        let (across, down) = (x(point.0), y(point.1));
        let _ = writeln!(
            svg,
            r##"<circle cx="{across:.1}" cy="{down:.1}" r="3.5" fill="#3b82f6"/>{}{}"##,
            text(across, down - 8.0, "middle", &short(point.1)),
            text(across, HEIGHT - BOTTOM + 18.0, "middle", &short(point.0))
        );
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let _ = writeln!(svg, "{}", text(middle, HEIGHT - 10.0, "middle", labels.x));
    let _ = writeln!(svg, "{}\n</svg>", text(WIDTH - RIGHT, 20.0, "end", labels.y));
    Some(svg)
}

/// The labels are ours, and hold nothing that would have to be escaped.
fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#)
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|rounded| *rounded >= value).unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_drawn_within_the_picture() {
        let labels = Labels { title: "Cost", x: "members", y: "µs" };
        let points = [(10.0, 3.0), (1_000.0, 1.5), (10_000.0, 1.25)];
        let svg = svg(&labels, &points).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("points=\"70.0,") && svg.contains("610.0,"), "{svg}");
        assert!(svg.contains(">1.25</text>") && svg.contains(">10000</text>"));
        assert!(super::svg(&labels, &[]).is_none());
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.0, 0.7, 1.0, 1.1, 23.0, 6_000.0].map(round_up), [1.0, 1.0, 1.0, 2.0, 50.0, 10_000.0]);
        assert_eq!([0.0, 1.5, 12.345, 2_266.0].map(short), ["0", "1.5", "12.35", "2266"]);
    }
}
