//! Figures of a comparison as SVG text: nothing is fetched, nothing is run, and every word from
//! outside is escaped.

pub mod cost;
pub mod heat;
pub mod page;
pub mod ratios;
pub mod relearning;
pub mod scatter;

/// Colours of kinds of methods, dark enough on white: bound, guard, unlearn, edit.
const COLOURS: [(&str, &str); 4] =
    [("bound", "#444444"), ("guard", "#0b6e4f"), ("unlearn", "#b5371f"), ("edit", "#5b3f9e")];

/// Colours of lines in one figure, told apart by those who do not see all colours (Okabe and Ito).
const LINES: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Text as it may stand in HTML and SVG, in attributes too.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters have no place in XML.
            other if other.is_control() && other != '\n' && other != '\t' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// The colour of a kind of method; grey for an unknown one.
#[must_use]
pub fn colour(kind: &str) -> &'static str {
    COLOURS.iter().find(|it| it.0 == kind).map_or("#888888", |it| it.1)
}

/// A figure with the words that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Headline.
    pub title: String,
    /// What an attacker has whom the figure is about.
    pub threat_model: &'static str,
    /// How to read it.
    pub caption: String,
    /// The picture.
    pub svg: String,
}

/// The threat model of everything that is asked through the served path.
pub const API: &str = "access to the API only; whoever has the weights has the facts";

/// The threat model of everything that is done to weights.
pub const WEIGHTS: &str = "access to the weights";

/// Of figures about cost.
pub const OPERATOR: &str = "no attacker; this is what the operator pays";

/// A range of numbers, drawn onto a range of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// Number at the beginning.
    pub from: f64,
    /// Number at the end.
    pub to: f64,
    /// Pixel at the beginning.
    pub start: f64,
    /// Pixel at the end.
    pub end: f64,
}

impl Axis {
    /// The pixel of a number; numbers beyond the ends are drawn at them.
    #[must_use]
    pub fn place(self, value: f64) -> f64 {
        let share = (value - self.from) / (self.to - self.from);
        self.start + (self.end - self.start) * share.clamp(0.0, 1.0)
    }

    /// Numbers to write along it: both ends and three between.
    #[must_use]
    pub fn ticks(self) -> [f64; 5] {
        [0.0, 0.25, 0.5, 0.75, 1.0].map(|it| self.from + (self.to - self.from) * it)
    }
}

/// A canvas with a frame of two axes.
#[derive(Debug)]
pub struct Canvas {
    body: String,
    width: f64,
    height: f64,
}

impl Canvas {
    /// An empty one.
    #[must_use]
    pub fn new(width: f64, height: f64) -> Self {
        Self { body: String::new(), width, height }
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.body.push_str(&format!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n",
            from.0, from.1, to.0, to.1
        ));
    }

    /// A line through points.
    pub fn path(&mut self, points: &[(f64, f64)], colour: &str) {
        let points: Vec<String> =
            points.iter().map(|it| format!("{:.1},{:.1}", it.0, it.1)).collect();
        self.body.push_str(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n",
            points.join(" ")
        ));
    }

    /// A dot that says its name when it is pointed at.
    pub fn dot(&mut self, at: (f64, f64), colour: &str, name: &str) {
        self.body.push_str(&format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"><title>{}</title></circle>\n",
            at.0,
            at.1,
            escaped(name)
        ));
    }

    /// A filled rectangle that says its name when it is pointed at: corner, size.
    pub fn rectangle(&mut self, corner: (f64, f64), size: (f64, f64), colour: &str, name: &str) {
        self.body.push_str(&format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>\n",
            corner.0,
            corner.1,
            size.0.max(0.0),
            size.1,
            escaped(name)
        ));
    }

    /// Words; `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, at: (f64, f64), anchor: &str, words: &str) {
        self.body.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
            at.0,
            at.1,
            escaped(words)
        ));
    }

    /// Words that run upwards, ending at a place.
    pub fn upright(&mut self, at: (f64, f64), words: &str) {
        self.body.push_str(&format!(
            "<text transform=\"translate({:.1} {:.1}) rotate(-60)\">{}</text>\n",
            at.0,
            at.1,
            escaped(words)
        ));
    }

    /// Both axes with their numbers and names; the y axis stands at the beginning of the x axis.
    pub fn frame(&mut self, (x, y): (Axis, Axis), (x_name, y_name): (&str, &str)) {
        let grey = "#999999";
        self.line((x.start, y.start), (x.end, y.start), grey);
        self.line((x.start, y.start), (x.start, y.end), grey);
        for tick in x.ticks() {
            self.text((x.place(tick), y.start + 15.0), "middle", &number(tick));
        }
        for tick in y.ticks() {
            self.text((x.start - 6.0, y.place(tick) + 4.0), "end", &number(tick));
        }
        self.text((0.5 * (x.start + x.end), y.start + 32.0), "middle", x_name);
        self.text((x.start, y.end - 8.0), "start", y_name);
    }

    /// Names beside their colours, one below the other.
    pub fn legend(&mut self, corner: (f64, f64), entries: &[(&str, &str)]) {
        for (at, (name, colour)) in entries.iter().enumerate() {
            let top = corner.1 + 16.0 * at as f64;
            self.rectangle((corner.0, top - 9.0), (10.0, 10.0), colour, name);
            self.text((corner.0 + 15.0, top), "start", name);
        }
    }

    /// The whole picture; `about` is read out to those who do not see it.
    #[must_use]
    pub fn finish(self, about: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" width=\"{:.0}\" height=\"{:.0}\" role=\"img\" \
             font-family=\"sans-serif\" font-size=\"11\">\n<title>{}</title>\n{}</svg>\n",
            self.width,
            self.height,
            self.width,
            self.height,
            escaped(about),
            self.body
        )
    }
}

/// A number as it is written along an axis.
fn number(value: f64) -> String {
    let size = value.abs();
    if size > 0.0 && !(1e-2..1e4).contains(&size) {
        format!("{value:.0e}")
    } else if size >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        let hostile = "<script>alert('\"&\u{0}')</script>";
        let out = escaped(hostile);
        assert_eq!(out, "&lt;script&gt;alert(&#39;&quot;&amp; &#39;)&lt;/script&gt;");
        let mut canvas = Canvas::new(10.0, 10.0);
        canvas.text((1.0, 1.0), "start", hostile);
        canvas.dot((1.0, 1.0), "#000000", hostile);
        canvas.rectangle((1.0, 1.0), (1.0, 1.0), "#000000", hostile);
        canvas.upright((1.0, 1.0), hostile);
        assert!(!canvas.finish(hostile).contains("<script"));
    }

    #[test]
    fn numbers_have_their_pixels() {
        let axis = Axis { from: 1.0, to: 3.0, start: 100.0, end: 200.0 };
        assert!((axis.place(1.5) - 125.0).abs() < 1e-12);
        assert!((axis.place(9.0) - 200.0).abs() < 1e-12);
        assert_eq!(axis.ticks(), [1.0, 1.5, 2.0, 2.5, 3.0]);
        // SVG counts from the top.
        let upwards = Axis { from: 0.0, to: 1.0, start: 300.0, end: 20.0 };
        assert!((upwards.place(0.25) - 230.0).abs() < 1e-12);
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.0, 0.5, 12.25, 250.4, 1e-5, 4e13].map(number);
        assert_eq!(written, ["0", "0.50", "12.25", "250", "1e-5", "4e13"]);
        assert_eq!((colour("guard"), colour("other")), ("#0b6e4f", "#888888"));
    }
}
