//! The report as a page with charts: one file, no script, light or dark as the reader has it.

use std::fmt::Write;

use super::report::{Better, Report, Row};

/// The colours of the stores, in their order; they repeat.
const COLOURS: [&str; 5] = ["#2f6fde", "#d9822b", "#3c9a5f", "#a05cc7", "#c94f5c"];
const BAR: usize = 22;
const GAP: usize = 8;
const NAME: usize = 110;
const WIDTH: usize = 460;
const VALUE: usize = 210;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#667085;--line:#dfe3ea;--page:#fbfcfe;--card:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2c3442;--page:#12161d;--card:#191f29}}\
*{box-sizing:border-box}\
body{margin:0 auto;max-width:56rem;padding:2rem 1rem 4rem;background:var(--page);color:var(--ink);\
font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.6rem;margin:0}h2{font-size:1rem;margin:0 0 .6rem}\
p{color:var(--soft);margin:.2rem 0 1.5rem}\
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem 1.2rem;margin:0 0 1rem}\
h2 small{color:var(--soft);font-weight:400}\
svg{display:block;width:100%;height:auto}\
text{fill:var(--ink);font:13px system-ui,sans-serif;font-variant-numeric:tabular-nums}\
.soft{fill:var(--soft)}.track{fill:var(--line);opacity:.5}.spread{stroke:var(--ink);stroke-width:1.5;opacity:.7}";

/// The report as one self-contained HTML page.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n");
    page.push_str("<title>larder bench</title>\n<style>");
    page.push_str(STYLE);
    page.push_str("</style>\n<h1>larder bench</h1>\n");
    add(
        &mut page,
        format_args!("<p>{}. ", escape(&report.conditions())),
    );
    page.push_str("Lines in the bars reach from the worst run to the best.</p>\n");
    for row in &report.rows {
        chart(&mut page, report, row);
    }
    page.push_str("</html>\n");
    page
}

fn chart(page: &mut String, report: &Report, row: &Row) {
    let better = match row.better {
        Better::More => "more is better",
        Better::Less => "less is better",
    };
    let most = row
        .cells
        .iter()
        .flat_map(|cell| &cell.samples)
        .fold(0.0_f64, |most, value| most.max(*value));
    let height = row.cells.len() * (BAR + GAP);
    add(
        page,
        format_args!(
            "<section><h2>{} <small>{better}</small></h2>\n\
             <svg viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"{}\">\n",
            escape(row.title),
            NAME + WIDTH + VALUE,
            escape(row.title),
        ),
    );
    for (column, cell) in row.cells.iter().enumerate() {
        let y = column * (BAR + GAP);
        let middle = y + BAR / 2 + 5;
        let (name, durability) = &report.stores[column];
        add(
            page,
            format_args!(
                "<text x=\"0\" y=\"{middle}\">{}<title>{durability}</title></text>\n\
                 <rect class=\"track\" x=\"{NAME}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{BAR}\" rx=\"4\"/>\n",
                escape(name)
            ),
        );
        let after = NAME + WIDTH + 10;
        let Some(median) = cell.median() else {
            add(
                page,
                format_args!(
                    "<text class=\"soft\" x=\"{after}\" y=\"{middle}\">not measured</text>\n"
                ),
            );
            continue;
        };
        let x = |value: f64| {
            let part = if most > 0.0 { value / most } else { 0.0 };
            part * WIDTH as f64
        };
        let colour = COLOURS[column % COLOURS.len()];
        let least = cell.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = cell.samples.iter().copied().fold(0.0, f64::max);
        let ratio = report
            .baseline
            .filter(|baseline| *baseline != column)
            .and_then(|baseline| row.ratio(column, baseline))
            .map_or_else(String::new, |ratio| format!("  ·  {ratio:.2} ×"));
        add(
            page,
            format_args!(
                "<rect fill=\"{colour}\" x=\"{NAME}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"4\"/>\n\
                 <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{}\" y2=\"{}\"/>\n\
                 <text x=\"{after}\" y=\"{middle}\">{}{ratio}</text>\n",
                x(median).max(2.0),
                NAME as f64 + x(least),
                NAME as f64 + x(greatest),
                y + BAR / 2,
                y + BAR / 2,
                escape(&row.show(median)),
            ),
        );
    }
    page.push_str("</svg></section>\n");
}

fn add(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("memory takes all text");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::example, *};

    #[test]
    fn the_page_stands_alone_and_shows_every_load() {
        let page = html(&example());
        assert!(page.starts_with("<!doctype html>"));
        for part in [
            "add 1 KiB blobs",
            "20,000 /s  ·  1.60 ×",
            "12,500 /s",
            "not measured",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        for outside in ["http:", "https:", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} would load something");
        }
        assert!(page.contains("prefers-color-scheme:dark"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn bars_are_in_proportion() {
        let page = html(&example());
        // Of 25,000, the best run: 20,000 and 12,500.
        for width in ["width=\"368.0\"", "width=\"230.0\""] {
            assert!(page.contains(width), "{width} is missing");
        }
    }

    #[test]
    fn what_has_a_meaning_in_html_is_escaped() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
