//! Small charts as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 12.0;
const RIGHT: f64 = 16.0;

/// An axis.
pub(super) struct Axis<'a> {
    pub title: &'a str,
    pub low: f64,
    pub high: f64,
    pub is_log: bool,
    pub label: &'a dyn Fn(f64) -> String,
}

impl Axis<'_> {
    /// Where a value is between the axis' ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let map = |value: f64| if self.is_log { value.max(1e-12).ln() } else { value };
        let (low, high) = (map(self.low), map(self.high));
        if high > low { ((map(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let mut ticks = Vec::new();
            let mut decade = 10f64.powf(self.low.max(1e-12).log10().floor());
            while decade <= self.high {
                ticks.extend(
                    [1.0, 2.0, 5.0]
                        .map(|step| step * decade)
                        .into_iter()
                        .filter(|t| *t >= self.low && *t <= self.high),
                );
                decade *= 10.0;
            }
            return ticks;
        }
        let rough = (self.high - self.low) / 5.0;
        if rough <= 0.0 {
            return vec![self.low];
        }
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|step| step * decade)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

/// A chart of lines and dots.
pub(super) struct Chart<'a> {
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    svg: String,
}

impl<'a> Chart<'a> {
    pub(super) fn new(x: Axis<'a>, y: Axis<'a>) -> Self {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by {}\">",
            escape(y.title),
            escape(x.title)
        );
        let bottom = HEIGHT - BOTTOM;
        for tick in y.ticks() {
            let at = bottom - y.place(tick) * (bottom - TOP);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&(y.label)(tick))
            );
        }
        for tick in x.ticks() {
            let at = LEFT + x.place(tick) * (WIDTH - LEFT - RIGHT);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(&(x.label)(tick))
            );
        }
        let _ = write!(
            svg,
            "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (WIDTH + LEFT) / 2.0,
            HEIGHT - 6.0,
            escape(x.title)
        );
        Chart { x, y, svg }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let bottom = HEIGHT - BOTTOM;
        (LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT), bottom - self.y.place(y) * (bottom - TOP))
    }

    /// A line through points; with steps it stays at a value until the next.
    pub(super) fn line(&mut self, class: &str, points: &[(f64, f64)], steps: bool) {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for (x, y) in points {
            let (x, y) = self.at(*x, *y);
            match before {
                None => drop(write!(path, "M{x:.1} {y:.1}")),
                Some(level) if steps => drop(write!(path, "L{x:.1} {level:.1}L{x:.1} {y:.1}")),
                Some(_) => drop(write!(path, "L{x:.1} {y:.1}")),
            }
            before = Some(y);
        }
        let _ = write!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    /// A band between two lines.
    pub(super) fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        let up = points.iter().map(|(x, low, _)| (*x, *low));
        let down = points.iter().rev().map(|(x, _, high)| (*x, *high));
        let corners: Vec<String> =
            up.chain(down).map(|(x, y)| self.at(x, y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.svg, "<polygon class=\"{class}\" points=\"{}\"/>", corners.join(" "));
    }

    /// A dot with a text that shows when it is pointed at.
    pub(super) fn dot(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let (x, y) = self.at(x, y);
        let _ = write!(
            self.svg,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
            escape(text)
        );
    }

    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// A text in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
