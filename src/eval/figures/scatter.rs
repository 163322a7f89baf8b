//! Utility against forgetting: every row a dot, gold where it should be.

use super::{API, Axis, COLOURS, Canvas, Figure, colour};
use crate::eval::jobs::summary::Line;

/// Smallest p that is told from others.
const FLOOR: f64 = -20.0;

fn picture(name: &str, lines: &[Line], x: Axis, of: impl Fn(&Line) -> f64) -> String {
    let y = Axis { from: 0.0, to: 1.0, start: 300.0, end: 30.0 };
    let mut canvas = Canvas::new(640.0, 345.0);
    canvas.frame((x, y), (name, "model utility"));
    for line in lines {
        let (value, utility) = (of(line), line.utility.value);
        if value.is_nan() || utility.is_nan() {
            continue;
        }
        let (place, tone) = (x.place(value), colour(line.kind.as_str()));
        canvas.line((place, y.place(line.utility.low)), (place, y.place(line.utility.high)), tone);
        let words = format!("{}: {name} {value:.3}, utility {utility:.3}", line.label);
        canvas.dot((place, y.place(utility)), tone, &words);
        if line.bound.is_some() {
            canvas.text((place + 6.0, y.place(utility) - 6.0), "start", &line.label);
        }
    }
    canvas.legend((560.0, 50.0), &COLOURS);
    canvas.finish(&format!("Model utility against {name}"))
}

/// Both figures: against the leak, and against forget quality.
#[must_use]
pub fn figures(lines: &[Line]) -> Vec<Figure> {
    let span = |from, to| Axis { from, to, start: 55.0, end: 540.0 };
    let leak = picture("leak", lines, span(0.0, 1.0), |it| it.leak.value);
    // `f64::max` would make a number of what was not measured.
    let quality = picture("log10 p", lines, span(FLOOR, 0.0), |it| {
        let log = it.forget_quality_median.log10();
        if log < FLOOR { FLOOR } else { log }
    });
    let passes = "0.05 is at -1.3; smaller p than 1e-20 are drawn there";
    vec![
        Figure {
            title: "Utility against the leak".to_owned(),
            threat_model: API,
            caption: "Each dot is a row of the table, with the interval of its utility. Top left is good: \
                      everything else is known, and nothing of the topic. Dots say their name."
                .to_owned(),
            svg: leak,
        },
        Figure {
            title: "Utility against forget quality".to_owned(),
            threat_model: API,
            caption: format!(
                "Forget quality is the median Kolmogorov-Smirnov p of the truth ratios against gold's ({passes}). \
                 Top right is good."
            ),
            svg: quality,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::jobs::summary::{self, tests::points};

    #[test]
    fn every_row_with_numbers_has_a_dot() {
        let mut lines = summary::lines(&points());
        let dots = |lines: &[Line]| figures(lines)[0].svg.matches("<circle").count();
        assert_eq!(dots(&lines), 3);
        // A leak of 1 is at the right end, at pixel 540.
        assert!(figures(&lines)[0].svg.contains("cx=\"540.0\" cy=\"165.0\""));
        lines[2].leak.value = f64::NAN;
        assert_eq!(dots(&lines), 2);
        assert_eq!(figures(&lines)[1].svg.matches("<circle").count(), 3);
        lines[2].forget_quality_median = f64::NAN;
        assert_eq!(figures(&lines)[1].svg.matches("<circle").count(), 2);
    }
}
