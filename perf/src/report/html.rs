//! A report as one HTML page: no script, no font, no image from elsewhere.

use super::{Report, Table};
use std::{error::Error, fmt::Write};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    table{border-collapse:collapse;margin:.8rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right}\
    td:first-child,th:first-child{text-align:left}code{background:#f4f4f4;padding:.1rem .3rem}figure{margin:1rem 0}\
    svg{max-width:100%;height:auto}";

pub(super) fn page(report: &Report) -> Result<String, Box<dyn Error>> {
    let title = escaped(&format!("{}, {}", report.title, report.taken));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p><code>{}</code></p>\n{}",
        escaped(&report.command),
        table(&report.host.table()),
    );
    for section in &report.sections {
        writeln!(out, "<section>\n<h2>{}</h2>", escaped(&section.title))?;
        if !section.note.is_empty() {
            writeln!(out, "<p>{}</p>", escaped(&section.note))?;
        }
        out += &table(&section.table);
        for plot in &section.plots {
            writeln!(out, "<figure>\n{}\n</figure>", plot.to_svg()?.trim())?;
        }
        out += "</section>\n";
    }
    Ok(out + "</body>\n</html>\n")
}

fn table(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let row = |cells: &mut dyn Iterator<Item = &String>, tag: &str| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut out = "<table>\n".to_owned();
    if table.columns.iter().any(|name| !name.is_empty()) {
        out += &row(&mut table.columns.iter(), "th");
    }
    table.rows.iter().for_each(|cells| out += &row(&mut cells.iter(), "td"));
    out + "</table>\n"
}

/// Text that stands for itself in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}
