//! A heat map of black-box attacks: rows of the report by attacks.

use super::{API, Canvas, Figure};
use crate::eval::jobs::summary::Line;

/// Width and height of a cell.
const CELL: (f64, f64) = (26.0, 16.0);

/// Where the cells begin.
const CORNER: (f64, f64) = (230.0, 110.0);

/// White to dark red, of a share from 0 to 1.
fn heat(share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let channel = |white: f64, red: f64| (white + (red - white) * share).round() as u8;
    format!(
        "#{:02x}{:02x}{:02x}",
        channel(255.0, 165.0),
        channel(255.0, 15.0),
        channel(255.0, 21.0)
    )
}

/// The figure; `None` when there was no attack.
#[must_use]
pub fn figure(lines: &[Line]) -> Option<Figure> {
    let rows: Vec<&Line> = lines.iter().filter(|it| !it.attacks.is_empty()).collect();
    let names: Vec<&str> = rows.first()?.attacks.iter().map(|it| it.name.as_str()).collect();
    let width = CORNER.0 + CELL.0 * names.len() as f64 + 90.0;
    let mut canvas = Canvas::new(width, CORNER.1 + CELL.1 * rows.len() as f64 + 10.0);
    for (at, name) in names.iter().enumerate() {
        let left = CORNER.0 + CELL.0 * at as f64;
        canvas.upright((left + 0.5 * CELL.0, CORNER.1 - 6.0), name);
    }
    for (at, line) in rows.iter().enumerate() {
        let top = CORNER.1 + CELL.1 * at as f64;
        canvas.text((CORNER.0 - 6.0, top + 12.0), "end", &line.label);
        for attack in &line.attacks {
            let Some(column) = names.iter().position(|it| *it == attack.name) else { continue };
            let share = attack.leaked.share();
            let left = CORNER.0 + CELL.0 * column as f64;
            let words = format!(
                "{}, {}: {} of {}; gold {} of {}",
                line.label,
                attack.name,
                attack.leaked.hits,
                attack.leaked.of,
                attack.gold.hits,
                attack.gold.of
            );
            let size = (CELL.0 - 1.0, CELL.1 - 1.0);
            canvas.rectangle((left, top), size, &heat(share), &words);
            canvas.text(
                (left + 0.5 * CELL.0, top + 12.0),
                "middle",
                &format!("{:.0}", 100.0 * share),
            );
        }
    }
    Some(Figure {
        title: "Black-box attacks".to_owned(),
        threat_model: API,
        caption: "Questions of every hundred of which a reply gave the forgotten value away. What gold reaches is \
                  guessing; attacks that offer options have a chance of their own (see the table)."
            .to_owned(),
        svg: canvas.finish("Leak rate of every method under every attack"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::jobs::summary::{self, tests::points};

    #[test]
    fn a_cell_per_attack() {
        assert_eq!([0.0, 1.0, 0.5].map(heat), ["#ffffff", "#a50f15", "#d2878a"]);
        let lines = summary::lines(&points());
        let figure = figure(&lines).unwrap();
        assert_eq!(figure.svg.matches("<rect").count(), 1);
        assert!(figure.svg.contains("npo, mixed-comment: 2 of 8; gold 0 of 0"), "{}", figure.svg);
        assert!(super::figure(&lines[..2]).is_none());
    }
}
