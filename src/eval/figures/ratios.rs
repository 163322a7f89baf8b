//! Distributions of truth ratios, and how far each is from gold's.

use super::{API, Axis, Canvas, Figure, LINES};
use crate::eval::jobs::grid::Bound;
use crate::eval::jobs::summary::Line;

/// Rows that are drawn beside gold: more hide each other.
const MOST: usize = 6;

/// The place of the largest distance between two sorted samples' distribution functions, and both
/// functions there.
fn farthest(one: &[f64], other: &[f64]) -> (f64, f64, f64) {
    let below = |sample: &[f64], value: f64| {
        sample.partition_point(|it| *it <= value) as f64 / sample.len() as f64
    };
    let gap = |it: &(f64, f64, f64)| (it.1 - it.2).abs();
    let all = one.iter().chain(other).map(|it| (*it, below(one, *it), below(other, *it)));
    all.max_by(|a, b| gap(a).total_cmp(&gap(b))).unwrap_or((0.0, 0.0, 0.0))
}

/// A distribution function as steps: (value, share at or below it).
fn steps(sample: &[f64], x: Axis, y: Axis) -> Vec<(f64, f64)> {
    let mut points = vec![(x.start, y.place(0.0))];
    let mut share = 0.0;
    for (at, value) in sample.iter().enumerate() {
        points.push((x.place(*value), y.place(share)));
        share = (at + 1) as f64 / sample.len() as f64;
        points.push((x.place(*value), y.place(share)));
    }
    points.push((x.end, y.place(share)));
    points
}

/// Untouched, and the rows nearest to gold by forget quality, best first.
fn chosen(lines: &[Line]) -> Vec<&Line> {
    let drawn = |it: &&Line| !it.log_ratios.is_empty() && it.bound != Some(Bound::Gold);
    let mut rows: Vec<&Line> = lines.iter().filter(drawn).collect();
    let first = |it: &Line| it.bound == Some(Bound::Untouched);
    rows.sort_by(|a, b| {
        let quality = b.forget_quality_median.total_cmp(&a.forget_quality_median);
        first(b).cmp(&first(a)).then(quality)
    });
    rows.truncate(MOST);
    rows
}

/// The figure; `None` without gold's ratios.
#[must_use]
pub fn figure(lines: &[Line]) -> Option<Figure> {
    let gold = lines.iter().find(|it| it.bound == Some(Bound::Gold))?;
    if gold.log_ratios.is_empty() {
        return None;
    }
    let rows = chosen(lines);
    let all = || rows.iter().copied().chain([gold]).flat_map(|it| &it.log_ratios);
    let low = all().copied().fold(f64::INFINITY, f64::min);
    let high = all().copied().fold(f64::NEG_INFINITY, f64::max).max(low + 1.0);
    let x = Axis { from: low, to: high, start: 55.0, end: 420.0 };
    let y = Axis { from: 0.0, to: 1.0, start: 300.0, end: 30.0 };
    let mut canvas = Canvas::new(720.0, 345.0);
    canvas.frame((x, y), ("log truth ratio", "share of forget rows at or below"));
    canvas.path(&steps(&gold.log_ratios, x, y), "#bbbbbb");
    canvas.legend((435.0, 40.0), &[("gold", "#bbbbbb")]);
    for (at, line) in rows.iter().enumerate() {
        let colour = LINES[at % LINES.len()];
        canvas.path(&steps(&line.log_ratios, x, y), colour);
        let (place, own, theirs) = farthest(&line.log_ratios, &gold.log_ratios);
        let place = x.place(place);
        canvas.line((place, y.place(own)), (place, y.place(theirs)), colour);
        let distance = (own - theirs).abs();
        let words =
            format!("{} (D {distance:.2}, p {:.1e})", line.label, line.forget_quality_median);
        canvas.legend((435.0, 62.0 + 18.0 * at as f64), &[(words.as_str(), colour)]);
    }
    Some(Figure {
        title: "Truth ratios".to_owned(),
        threat_model: API,
        caption: "Distribution functions of the forget rows' truth ratios (first seed), of the untouched model and \
                  the rows nearest to gold. The upright line of each colour is the Kolmogorov-Smirnov distance D \
                  from gold, on which forget quality rests."
            .to_owned(),
        svg: canvas.finish("Distribution functions of truth ratios beside gold's"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::jobs::summary::{self, tests::points};
    use crate::stats::ks_two_sample;

    #[test]
    fn the_upright_line_is_the_ks_distance() {
        let (one, other) = ([1.0, 2.0, 3.0, 9.0], [2.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let (_, own, theirs) = farthest(&one, &other);
        let distance = ks_two_sample(&one, &other).statistic;
        assert!(((own - theirs).abs() - distance).abs() < 1e-12 && distance > 0.5);
    }

    #[test]
    fn a_distribution_climbs_in_equal_steps() {
        let x = Axis { from: 0.0, to: 10.0, start: 0.0, end: 10.0 };
        let y = Axis { from: 0.0, to: 1.0, start: 0.0, end: 1.0 };
        let want = [(0.0, 0.0), (2.0, 0.0), (2.0, 0.5), (4.0, 0.5), (4.0, 1.0), (10.0, 1.0)];
        assert_eq!(steps(&[2.0, 4.0], x, y), want);
    }

    #[test]
    fn gold_and_the_nearest_are_drawn() {
        let lines = summary::lines(&points());
        let figure = figure(&lines).unwrap();
        assert_eq!(figure.svg.matches("<polyline").count(), 3);
        assert!(figure.svg.contains("untouched (D 1.00"), "{}", figure.svg);
        assert!(super::figure(&lines[2..]).is_none());
    }
}
