//! Relearning curves: how many rows bring back the others.

use super::{Axis, Canvas, Figure, LINES, WEIGHTS};
use crate::eval::jobs::intervals::wilson;
use crate::eval::jobs::summary::{Line, WhiteboxLine};

/// Rows that are shown, of a setting such as `16 rows`. Settings of more steps are no part of the curve.
fn shown(line: &WhiteboxLine) -> Option<f64> {
    line.setting.strip_suffix(" rows")?.parse().ok()
}

/// The points of a curve: rows shown, and the share that came back.
fn curve(line: &Line) -> Vec<(f64, f64)> {
    let of = line.whitebox.iter().filter(|it| it.attack == "relearning");
    of.filter_map(|it| Some((shown(it)?, it.model.share()))).collect()
}

/// The figure; `None` when relearning was not run.
#[must_use]
pub fn figure(lines: &[Line]) -> Option<Figure> {
    let curves: Vec<(&Line, Vec<(f64, f64)>)> =
        lines.iter().map(|it| (it, curve(it))).filter(|it| !it.1.is_empty()).collect();
    let rows = curves.iter().flat_map(|it| &it.1).map(|it| it.0).fold(1.0, f64::max);
    // One row more on a logarithmic scale, so that none has a place.
    let scale = |rows: f64| (1.0 + rows).log2();
    let height = 60.0 + 18.0 * curves.len().max(16) as f64;
    let x = Axis { from: 0.0, to: scale(rows), start: 55.0, end: 400.0 };
    let y = Axis { from: 0.0, to: 1.0, start: 300.0, end: 30.0 };
    let mut canvas = Canvas::new(640.0, height.max(345.0));
    canvas.line((x.start, y.start), (x.end, y.start), "#999999");
    canvas.line((x.start, y.start), (x.start, y.end), "#999999");
    for tick in y.ticks() {
        canvas.text((x.start - 6.0, y.place(tick) + 4.0), "end", &format!("{tick:.2}"));
    }
    let first = curves.first()?;
    for (rows, _) in &first.1 {
        canvas.text((x.place(scale(*rows)), y.start + 15.0), "middle", &format!("{rows:.0}"));
    }
    canvas.text((230.0, y.start + 32.0), "middle", "forget rows shown");
    canvas.text((x.start, y.end - 8.0), "start", "right answers about others");
    let guessing = first.0.whitebox.iter().filter(|it| it.attack == "relearning");
    let gold: Vec<(f64, f64)> = guessing
        .filter_map(|it| Some((x.place(scale(shown(it)?)), y.place(it.gold.share()))))
        .collect();
    canvas.path(&gold, "#bbbbbb");
    for (at, (line, points)) in curves.iter().enumerate() {
        let colour = LINES[at % LINES.len()];
        let placed: Vec<(f64, f64)> =
            points.iter().map(|it| (x.place(scale(it.0)), y.place(it.1))).collect();
        canvas.path(&placed, colour);
        for ((rows, share), place) in points.iter().zip(&placed) {
            canvas.dot(*place, colour, &format!("{}, {rows:.0} rows: {share:.3}", line.label));
        }
        canvas.legend((420.0, 36.0 + 18.0 * at as f64), &[(line.label.as_str(), colour)]);
    }
    Some(Figure {
        title: "Relearning".to_owned(),
        threat_model: WEIGHTS,
        caption: format!(
            "Each model is finetuned on a few forget rows and asked about others; grey is gold after the same, \
             which is guessing. With {} rows to ask about, a share of one half is uncertain by {:.2} either way.",
            asked(first.0),
            half_width(first.0)
        ),
        svg: canvas.finish("Share of right answers after finetuning on some forget rows"),
    })
}

fn asked(line: &Line) -> usize {
    line.whitebox.iter().find(|it| it.attack == "relearning").map_or(0, |it| it.model.of)
}

fn half_width(line: &Line) -> f64 {
    let of = asked(line);
    let interval = wilson(of / 2, of);
    0.5 * (interval.high - interval.low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::jobs::summary::{self, tests::points};

    #[test]
    fn a_curve_per_row_that_was_attacked() {
        let lines = summary::lines(&points());
        let figure = figure(&lines).unwrap();
        assert_eq!(figure.threat_model, WEIGHTS);
        assert_eq!(figure.svg.matches("<polyline").count(), 2, "gold and npo");
        assert!(figure.svg.contains("npo, 4 rows: 1.000"));
        // Four rows are the most, and are at the right end.
        assert!(figure.svg.contains("cx=\"400.0\" cy=\"30.0\""), "{}", figure.svg);
        assert!(super::figure(&lines[..2]).is_none());
    }
}
