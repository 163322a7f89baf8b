//! One HTML page that holds everything: no script, no style sheet, picture or font from elsewhere.

use super::{Figure, escaped};

const STYLE: &str = "body{font-family:sans-serif;max-width:78em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;font-size:85%;margin:1em 0}td,th{border:1px solid #ccc;padding:3px 6px;text-align:right}\
td:first-child,th:first-child{text-align:left}figure{margin:2em 0}figcaption{max-width:60em}\
pre{background:#f4f4f4;padding:1em;overflow-x:auto}.wide{overflow-x:auto}";

/// A page in the making.
#[derive(Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// A page with a headline.
    #[must_use]
    pub fn new(title: &str) -> Self {
        let title = escaped(title);
        Self { body: format!("<h1>{title}</h1>\n"), title }
    }

    /// A headline of a part.
    pub fn heading(&mut self, words: &str) {
        self.body.push_str(&format!("<h2>{}</h2>\n", escaped(words)));
    }

    /// A paragraph.
    pub fn paragraph(&mut self, words: &str) {
        self.body.push_str(&format!("<p>{}</p>\n", escaped(words)));
    }

    /// Points of a list.
    pub fn list(&mut self, points: &[String]) {
        let points: Vec<String> =
            points.iter().map(|it| format!("<li>{}</li>\n", escaped(it))).collect();
        self.body.push_str(&format!("<ul>\n{}</ul>\n", points.concat()));
    }

    /// A table; the first row is its head.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.body.push_str("<div class=\"wide\"><table>\n");
        for (at, row) in rows.iter().enumerate() {
            let tag = if at == 0 { "th" } else { "td" };
            let cells: Vec<String> =
                row.iter().map(|it| format!("<{tag}>{}</{tag}>", escaped(it))).collect();
            self.body.push_str(&format!("<tr>{}</tr>\n", cells.concat()));
        }
        self.body.push_str("</table></div>\n");
    }

    /// Text as it stands.
    pub fn verbatim(&mut self, text: &str) {
        self.body.push_str(&format!("<pre>{}</pre>\n", escaped(text)));
    }

    /// A figure with its threat model and caption.
    pub fn figure(&mut self, figure: &Figure) {
        self.body.push_str(&format!(
            "<figure>\n<h3>{}</h3>\n{}<figcaption>{} <strong>Threat model: {}.</strong></figcaption>\n</figure>\n",
            escaped(&figure.title),
            figure.svg,
            escaped(&figure.caption),
            escaped(figure.threat_model)
        ));
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            self.title, self.body
        )
    }
}

/// What a page would fetch or run: tags and attributes that name something outside of it. Empty for
/// every page that is made here.
#[must_use]
pub fn outside(html: &str) -> Vec<&'static str> {
    let lower = html.to_lowercase();
    let tags = ["<script", "<link", "<img", "<iframe", "<object", "<embed", "<base", "<form"];
    let attributes = [" src=", " href=", " action=", " onload=", "url(", "@import", "xlink:"];
    tags.into_iter().chain(attributes).filter(|it| lower.contains(it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::figures::API;

    #[test]
    fn words_stay_words() {
        let hostile = "<img src=x onload=steal()>";
        let mut page = Page::new(hostile);
        page.heading(hostile);
        page.paragraph(hostile);
        page.list(&[hostile.to_owned()]);
        page.table(&[vec![hostile.to_owned()], vec![hostile.to_owned()]]);
        page.verbatim(hostile);
        page.figure(&Figure {
            title: hostile.to_owned(),
            threat_model: API,
            caption: hostile.to_owned(),
            svg: "<svg></svg>\n".to_owned(),
        });
        let html = page.finish();
        assert!(!html.contains("<img"), "{html}");
        assert_eq!(html.matches("&lt;img").count(), 10);
        assert!(html.contains("Threat model: access to the API only"));
    }

    #[test]
    fn what_is_outside_is_found() {
        assert_eq!(outside("<p>a script, a link</p>"), Vec::<&str>::new());
        assert_eq!(outside("<SCRIPT src='x'>"), ["<script", " src="]);
        assert_eq!(outside("<a href='x'><p style='background:url(x)'>"), [" href=", "url("]);
    }
}
