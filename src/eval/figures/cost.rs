//! What methods cost: once, in training, and with every request.

use super::{Axis, Canvas, Figure, OPERATOR, colour};
use crate::eval::jobs::summary::Line;

/// Height of a bar with its gap.
const BAR: f64 = 17.0;

fn bars(title: &str, lines: &[(&Line, f64)], unit: &str) -> String {
    let most = lines.iter().map(|it| it.1).fold(0.0, f64::max).max(1e-9);
    let x = Axis { from: 0.0, to: most, start: 230.0, end: 560.0 };
    let mut canvas = Canvas::new(660.0, 30.0 + BAR * lines.len() as f64);
    canvas.text((230.0, 14.0), "start", title);
    for (at, (line, value)) in lines.iter().enumerate() {
        let top = 22.0 + BAR * at as f64;
        canvas.text((224.0, top + 11.0), "end", &line.label);
        let words = format!("{}: {value:.3} {unit}", line.label);
        let size = (x.place(*value) - x.start, BAR - 4.0);
        canvas.rectangle((x.start, top), size, colour(line.kind.as_str()), &words);
        canvas.text((x.place(*value) + 5.0, top + 11.0), "start", &format!("{value:.2} {unit}"));
    }
    canvas.finish(title)
}

/// Figures of training and of requests; none where nothing was measured.
#[must_use]
pub fn figures(lines: &[Line]) -> Vec<Figure> {
    let of = |value: fn(&Line) -> f64| -> Vec<(&Line, f64)> {
        let all = lines.iter().map(|it| (it, value(it)));
        all.filter(|it| it.1.is_finite() && it.0.bound.is_none()).collect()
    };
    let training = of(|it| it.cost.train_seconds);
    let requests = of(|it| 1e3 * it.cost.forget_overhead);
    let mut figures = Vec::new();
    if !training.is_empty() {
        figures.push(Figure {
            title: "Cost of training".to_owned(),
            threat_model: OPERATOR,
            caption: "Seconds for one deletion request, mean over seeds. A guard trains nothing."
                .to_owned(),
            svg: bars("seconds of training or editing", &training, "s"),
        });
    }
    if !requests.is_empty() {
        figures.push(Figure {
            title: "Cost of a request".to_owned(),
            threat_model: OPERATOR,
            caption: "Milliseconds that a request about the topic takes beyond the untouched model's, one at a \
                      time; below 0 (drawn as none) it is faster, as a shorter reply is. What the guard does is in it."
                .to_owned(),
            svg: bars("milliseconds per request about the topic, beyond untouched", &requests, "ms"),
        });
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::jobs::summary::{self, tests::points};

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let mut lines = summary::lines(&points());
        let drawn = figures(&lines);
        assert_eq!(drawn.len(), 1, "nothing was trained");
        assert!(drawn[0].svg.contains("npo: 50.000 ms"), "{}", drawn[0].svg);
        assert!(drawn[0].svg.contains("width=\"330.0\""), "the longest bar fills the figure");
        lines[2].cost.train_seconds = 3.0;
        assert_eq!(figures(&lines).len(), 2);
        assert!(figures(&lines[..2]).is_empty());
    }
}
