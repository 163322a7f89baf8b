//! Line figures of shares against shares, as SVG and as PNG.

use std::io::Write as _;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// Width and height in pixels.
const SIDE: usize = 480;
/// Where the axes cross, from the left and from the top.
const CORNER: (usize, usize) = (60, 420);
/// Length of an axis.
const AXIS: usize = 400;
/// Parts of an axis between two ticks.
const TICKS: usize = 5;
/// Pixels to a dot of the font.
const DOT: usize = 2;

type Colour = [u8; 3];

const WHITE: Colour = [255, 255, 255];
const BLACK: Colour = [0, 0, 0];
const GRID: Colour = [224, 224, 224];
/// Colours of the lines in their order, then again from the first: blue, orange, green, grey.
const LINES: [Colour; 4] = [[31, 119, 180], [255, 127, 14], [44, 160, 44], [127, 127, 127]];

/// A line of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name in the key.
    pub name: String,
    /// Its points in order, both numbers in 0..=1.
    pub points: Vec<(f64, f64)>,
}

/// A square figure whose axes both go from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Above it.
    pub title: String,
    /// Under the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// What is drawn, the first at the bottom.
    pub lines: Vec<Line>,
}

/// A share's place on the canvas, in pixels from the left and from the top.
fn place((x, y): (f64, f64)) -> (f64, f64) {
    let length = AXIS as f64;
    (CORNER.0 as f64 + length * x.clamp(0.0, 1.0), CORNER.1 as f64 - length * y.clamp(0.0, 1.0))
}

/// Every tick: its distance from the corner in pixels, and its number.
fn ticks() -> impl Iterator<Item = (usize, String)> {
    (0..=TICKS).map(|it| (it * AXIS / TICKS, format!("{}", it as f64 / TICKS as f64)))
}

impl Figure {
    /// With title, names of axes and lines, and numbers at the ticks.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{SIDE}\" height=\"{SIDE}\" \
             viewBox=\"0 0 {SIDE} {SIDE}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{SIDE}\" height=\"{SIDE}\" fill=\"white\"/>\n"
        );
        let (left, bottom) = CORNER;
        let (right, top, middle) = (left + AXIS, bottom - AXIS, AXIS / 2);
        let mut line = |from: (usize, usize), to: (usize, usize), colour: Colour| {
            let ((x, y), (to_x, to_y), colour) = (from, to, hex(colour));
            let ends = format!("x1=\"{x}\" y1=\"{y}\" x2=\"{to_x}\" y2=\"{to_y}\"");
            out.push_str(&format!("<line {ends} stroke=\"{colour}\"/>\n"));
        };
        for (at, _) in ticks().skip(1) {
            line((left + at, bottom), (left + at, top), GRID);
            line((left, bottom - at), (right, bottom - at), GRID);
        }
        line((left, bottom), (right, bottom), BLACK);
        line((left, bottom), (left, top), BLACK);
        let mut text = |(x, y): (usize, usize), attributes: &str, text: &str| {
            let text = escaped(text);
            out.push_str(&format!("<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>\n"));
        };
        let centred = "text-anchor=\"middle\"";
        for (at, number) in ticks() {
            text((left + at, bottom + 18), centred, &number);
            text((left - 6, bottom - at + 4), "text-anchor=\"end\"", &number);
        }
        text((left + middle, top - 6), centred, &self.title);
        text((left + middle, bottom + 40), centred, &self.x_label);
        let upright = format!("{centred} transform=\"rotate(-90 18 {})\"", bottom - middle);
        text((18, bottom - middle), &upright, &self.y_label);
        for (at, line) in self.lines.iter().enumerate() {
            let colour = format!("text-anchor=\"end\" fill=\"{}\"", hex(LINES[at % LINES.len()]));
            text((right - 8, bottom - 12 - 16 * at), &colour, &line.name);
        }
        for (at, line) in self.lines.iter().enumerate() {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|it| place(*it))
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let colour = hex(LINES[at % LINES.len()]);
            let points = points.join(" ");
            let shape = "fill=\"none\" stroke-width=\"2\"";
            out.push_str(&format!("<polyline points=\"{points}\" {shape} stroke=\"{colour}\"/>\n"));
        }
        out + "</svg>\n"
    }

    /// The same lines, grid and numbers at the ticks, without other text: 480 by 480 pixels of eight
    /// bits each for red, green and blue.
    #[must_use]
    pub fn to_png(&self) -> Vec<u8> {
        let mut canvas = Canvas { pixels: vec![WHITE; SIDE * SIDE] };
        let (left, bottom) = CORNER;
        for (at, _) in ticks().skip(1) {
            canvas.bar((left + at, bottom - AXIS), (1, AXIS), GRID);
            canvas.bar((left, bottom - at), (AXIS, 1), GRID);
        }
        canvas.bar((left, bottom), (AXIS + 1, 1), BLACK);
        canvas.bar((left, bottom - AXIS), (1, AXIS + 1), BLACK);
        for (at, number) in ticks() {
            let width = 4 * DOT * number.len() - DOT;
            canvas.number((left + at - width / 2, bottom + 8), &number);
            canvas.number((left - 8 - width, bottom - at - 5), &number);
        }
        for (at, line) in self.lines.iter().enumerate() {
            for ends in line.points.windows(2) {
                canvas.line(place(ends[0]), place(ends[1]), LINES[at % LINES.len()]);
            }
        }
        canvas.to_png()
    }
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Canvas {
    /// `[rows, columns]`.
    pixels: Vec<Colour>,
}

impl Canvas {
    fn bar(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), colour: Colour) {
        for row in y..(y + height).min(SIDE) {
            self.pixels[row * SIDE + x..][..width.min(SIDE - x)].fill(colour);
        }
    }

    /// A straight line of two pixels' width.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour) {
        let (across, down) = (to.0 - from.0, to.1 - from.1);
        let steps = across.abs().max(down.abs()).ceil().max(1.0);
        for step in 0..=steps as usize {
            let part = step as f64 / steps;
            let (x, y) = (from.0 + part * across, from.1 + part * down);
            self.bar((x.round() as usize, y.round() as usize), (2, 2), colour);
        }
    }

    /// Digits and points, with the upper left corner here.
    fn number(&mut self, (x, y): (usize, usize), text: &str) {
        for (at, c) in text.chars().enumerate() {
            for (row, dots) in glyph(c).iter().enumerate() {
                for column in (0..3).filter(|it| (dots >> (2 - it)) & 1 == 1) {
                    let corner = (x + DOT * (4 * at + column), y + DOT * row);
                    self.bar(corner, (DOT, DOT), BLACK);
                }
            }
        }
    }

    /// The file (W3C Portable Network Graphics, third edition).
    fn to_png(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity(SIDE * (3 * SIDE + 1));
        for row in self.pixels.chunks(SIDE) {
            // Each row is stored as it is.
            rows.push(0);
            rows.extend(row.iter().flatten());
        }
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&rows).expect("a vector takes every byte");
        let packed = packed.finish().expect("a vector takes every byte");
        let side = (SIDE as u32).to_be_bytes();
        let mut header = [side, side].concat();
        // Eight bits, red, green and blue; the only compression and filter there are; not interlaced.
        header.extend([8, 2, 0, 0, 0]);
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in [(b"IHDR", header), (b"IDAT", packed), (b"IEND", Vec::new())] {
            let mut sum = Crc::new();
            sum.update(kind);
            sum.update(&data);
            out.extend((data.len() as u32).to_be_bytes());
            out.extend(kind);
            out.extend(data);
            out.extend(sum.sum().to_be_bytes());
        }
        out
    }
}

/// The dots of a digit in five rows of three, the left one the highest bit; other characters are a point.
fn glyph(c: char) -> [u8; 5] {
    match c {
        '0' => [7, 5, 5, 5, 7],
        '1' => [2, 6, 2, 2, 7],
        '2' => [7, 1, 7, 4, 7],
        '3' => [7, 1, 7, 1, 7],
        '4' => [5, 5, 7, 1, 1],
        '5' => [7, 4, 7, 1, 7],
        '6' => [7, 4, 7, 5, 7],
        '7' => [7, 1, 1, 1, 1],
        '8' => [7, 5, 7, 5, 7],
        '9' => [7, 5, 7, 1, 7],
        _ => [0, 0, 0, 0, 2],
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::ZlibDecoder;

    use super::*;

    fn figure() -> Figure {
        let line = |name: &str, points: &[(f64, f64)]| Line {
            name: name.to_owned(),
            points: points.to_vec(),
        };
        Figure {
            title: "a < b".to_owned(),
            x_label: "x".to_owned(),
            y_label: "y".to_owned(),
            lines: vec![
                line("flat", &[(0.0, 0.5), (1.0, 0.5)]),
                line("up", &[(0.5, 0.7), (0.5, 0.9)]),
            ],
        }
    }

    /// The chunks of a PNG by kind, their sums checked.
    fn chunks(mut png: &[u8]) -> Vec<(String, Vec<u8>)> {
        png = png.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
        let mut chunks = Vec::new();
        while !png.is_empty() {
            let length = u32::from_be_bytes(png[..4].try_into().unwrap()) as usize;
            let mut sum = Crc::new();
            sum.update(&png[4..8 + length]);
            assert_eq!(sum.sum().to_be_bytes(), png[8 + length..12 + length]);
            let kind = String::from_utf8(png[4..8].to_vec()).unwrap();
            chunks.push((kind, png[8..8 + length].to_vec()));
            png = &png[12 + length..];
        }
        chunks
    }

    #[test]
    fn pixels_are_where_they_belong() {
        let chunks = chunks(&figure().to_png());
        let kinds: Vec<&str> = chunks.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(kinds, ["IHDR", "IDAT", "IEND"]);
        assert_eq!(chunks[0].1, [0, 0, 1, 224, 0, 0, 1, 224, 8, 2, 0, 0, 0]);
        let mut rows = Vec::new();
        ZlibDecoder::new(chunks[1].1.as_slice()).read_to_end(&mut rows).unwrap();
        assert_eq!(rows.len(), 480 * 1441);
        let pixel = |x: usize, y: usize| rows[y * 1441 + 1 + 3 * x..][..3].to_vec();
        // The line of 0.5 lies at 420 - 200, the one from 0.7 to 0.9 at 60 + 200.
        assert_eq!(pixel(150, 220), LINES[0]);
        assert_eq!(pixel(260, 100), LINES[1]);
        assert_eq!(pixel(260, 150), WHITE);
        assert_eq!(pixel(150, 120), WHITE);
        // 0.6 is a line of the grid; then the axes and the rim.
        assert_eq!(pixel(150, 180), GRID);
        assert_eq!(pixel(300, 300), GRID);
        assert_eq!(pixel(60, 300), BLACK);
        assert_eq!(pixel(150, 420), BLACK);
        assert_eq!(pixel(479, 479), WHITE);
        // The 0 under the corner: a dot of its rim, and its middle.
        assert_eq!(pixel(57, 428), BLACK);
        assert_eq!(pixel(59, 430), WHITE);
    }

    /// The sum of an empty `IEND`, as every PNG ends.
    #[test]
    fn ends_as_every_png_does() {
        assert!(figure().to_png().ends_with(b"IEND\xae\x42\x60\x82"));
    }

    #[test]
    fn svg_has_lines_names_and_ticks() {
        let svg = figure().to_svg();
        assert!(svg.contains("points=\"60.0,220.0 460.0,220.0\""), "{svg}");
        assert!(svg.contains(">a &lt; b</text>") && svg.contains(">flat</text>"), "{svg}");
        assert_eq!(svg.matches(">0.4</text>").count(), 2);
        assert!(svg.contains(">1</text>") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
